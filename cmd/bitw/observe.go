package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bitw/appliance/observe"
)

type observeFlags struct {
	config, file, output string
	limit                time.Duration
	flows                int
}

func (p *program) observe() *cobra.Command {
	var f observeFlags
	cmd := &cobra.Command{
		Use:               "observe IFACE [-c FILE]",
		ValidArgsFunction: completeInterface,
		Short:             "Watch an interface and tell what a configuration would do",
		Long: `observe watches the traffic of a live interface undisturbed: all passes by itself, and
bitw looks at copies. It shows the flows, both directions together, with packets and
bytes, until Ctrl-C or for a time. On a terminal the table is drawn anew each second.

With -c it tells for each flow what 'bitw up' with that configuration would do: protect
by which security associations, bypass or discard, and by which policy; how many bytes
protection would add; and for packets that would then be too big for the interface and
must not be fragmented, how big their sender would be told to make them.

If that configuration is for a box between two interfaces, IFACE is the outside. As
long as they are watched they pass their frames to each other, in the clear and past the
box's own kernel.

-w records all frames as pcapng, with the interfaces "inside" for what this host sends
and "outside" for what arrives; each frame's comment says what would become of it.

It needs what 'bitw up' needs, and an interface that no bitw holds or has left shut.
It uses no sequence numbers: a bitw can be started with the same keys afterwards.`,
		Example: `  bitw observe eth0
  bitw observe eth0 -c /etc/bitw/eth0.yaml --for 1m
  bitw observe eth0 -c eth0.yaml --for 1h -o json -w eth0.pcapng > eth0.json`,
		Args: exactly("IFACE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.limit < 0:
				return usagef("--for is a time such as 30s, not %v", f.limit)
			case f.flows < 1:
				return usagef("--flows is 1 or more, not %d", f.flows)
			}
			if err := oneOf("output", f.output, "text", "json"); err != nil {
				return err
			}
			return p.runObserve(cmd.Context(), args[0], f)
		},
	}
	configFlag(cmd, &f.config, "judge by this configuration `FILE`")
	cmd.Flags().StringVarP(&f.file, "write", "w", "", "record to this pcapng `FILE`")
	cmd.Flags().DurationVar(&f.limit, "for", 0, "end after that `TIME`")
	cmd.Flags().IntVar(&f.flows, "flows", observe.DefaultMaxFlows, "keep at most `N` flows; the longest silent go first")
	outputFlag(cmd, &f.output)
	return cmd
}

func (p *program) runObserve(ctx context.Context, iface string, f observeFlags) (err error) {
	o := observe.Options{Interface: iface, MaxFlows: f.flows}
	if f.config != "" {
		cfg, warnings, err := p.load(f.config)
		if err != nil {
			return p.report(f.config, warnings, err)
		}
		fmt.Fprint(p.err, warnings.Text())
		if cfg.Interface != iface {
			fmt.Fprintf(p.err, "%s is for %s; %s is watched as if it were for that\n", f.config, cfg.Interface, iface)
		}
		o.Config, o.Inside = cfg, cfg.Inside
	}
	if f.file != "" {
		if err := placeFor(f.file); err != nil {
			return err
		}
		w := &lateFile{path: f.file}
		defer func() { err = errors.Join(err, w.Close()) }()
		o.Record = w
	}
	screen, live := p.out.(*os.File)
	live = live && f.output == "text" && term.IsTerminal(int(screen.Fd()))
	o.Watching = func() {
		if !live {
			what := iface + ", undisturbed"
			if o.Inside != "" {
				what = o.Inside + " and " + iface + ", which pass their frames to each other meanwhile"
			}
			fmt.Fprintf(p.err, "watching %s; Ctrl-C ends it\n", what)
		}
	}
	if live {
		o.Tick = func(r *observe.Report) {
			width, height, err := term.GetSize(int(screen.Fd()))
			if err != nil || width <= 0 || height <= 0 {
				width, height = 80, 24
			}
			fmt.Fprint(p.out, "\x1b[H\x1b[2J", cutText(observeText(r, max(1, height-8)), width, height-1))
		}
	}
	ctx, stop := p.untilEnd(ctx, f.limit)
	defer stop()
	r, err := observe.Run(ctx, o)
	if r == nil {
		return observeRefused(iface, err)
	}
	if f.output == "json" {
		return errors.Join(err, writeJSON(p.out, r))
	}
	if live {
		fmt.Fprint(p.out, "\x1b[H\x1b[2J")
	}
	_, printErr := fmt.Fprint(p.out, observeText(r, len(r.Flows)))
	return errors.Join(err, printErr)
}

// A lateFile is made with the first octets, so that what stands there already is kept
// when nothing comes.
type lateFile struct {
	path string
	f    *os.File
}

func (l *lateFile) Write(p []byte) (int, error) {
	if l.f == nil {
		f, err := createPrivate(l.path) // it holds traffic in the clear
		if err != nil {
			return 0, err
		}
		l.f = f
	}
	return l.f.Write(p)
}

func (l *lateFile) Close() error {
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// observeRefused adds what to do to the error of an interface that cannot be watched.
func observeRefused(iface string, err error) error {
	if errors.Is(err, observe.ErrShut) {
		return fmt.Errorf("%w by a bitw that has ended, and watching would open it; bitw recover %s gives it back first", err, iface)
	}
	return takenBy(err, iface, "bitw explain tells what it would do with a packet")
}
