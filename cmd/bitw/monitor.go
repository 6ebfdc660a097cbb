package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/client"
)

func (p *program) monitor() *cobra.Command {
	var (
		where  address
		q      appliance.EventsRequest
		output string
	)
	cmd := &cobra.Command{
		Use:   "monitor [-c FILE | IFACE | --socket PATH]",
		Short: "What happens to a running bitw, as it happens",
		Long: `monitor tells the events of a running bitw, a line each, until Ctrl-C or until bitw ends:
security associations that are added, replaced, switched to, near their end, expired and
deleted; peers that move and path MTUs that are learned; keys that change; the states of
the taps and of bitw itself, and what the watchdog does; what becomes of the interface;
configurations that are applied or refused; insecure algorithms in use; traces and
captures with who began them. The log tells the same under the same names.

bitw keeps the last 1024 events; --last N and --since TIME begin with those. Of each kind
at most 256 a second are told, of those which somebody on the wire can cause 16; how many
were omitted is an event itself. A reader that is too slow is told how many it missed.

With -o json each line is an object; its fields are in 'go doc bitw/appliance.Event'.

` + addressing,
		Example: `  bitw monitor
  bitw monitor eth0 --since 1h --once
  bitw monitor -o json | jq 'select(.event == "expire-hard")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			switch last := cmd.Flags().Changed("last"); {
			case q.Last < 0:
				return usagef("--last is 0 or more, not %d", q.Last)
			case q.Since < 0:
				return usagef("--since is a time such as 10m, not %v", q.Since)
			case !last && (q.Since > 0 || q.Once):
				q.Last = appliance.KeptEvents
			}
			c, err := p.meant(where)
			if err != nil {
				return err
			}
			return p.runMonitor(cmd.Context(), c, q, output)
		},
	}
	where.flags(cmd, p)
	cmd.Flags().IntVar(&q.Last, "last", 0, "begin with the last `N` events before now")
	cmd.Flags().DurationVar(&q.Since, "since", 0, "begin with the events of the last `TIME`, such as 10m")
	cmd.Flags().BoolVar(&q.Once, "once", false, "end after those, of which there are all without --last and --since")
	outputFlag(cmd, &output)
	return cmd
}

func (p *program) runMonitor(ctx context.Context, c *client.Client, q appliance.EventsRequest, output string) error {
	return follow(ctx, p, func(ctx context.Context) (*client.Lines[appliance.Event], error) { return c.Events(ctx, q) },
		func(ev *appliance.Event) error {
			if output == "json" {
				return json.NewEncoder(p.out).Encode(ev)
			}
			return p.writeEvent(ev)
		})
}

// writeEvent prints an event in a line.
func (p *program) writeEvent(ev *appliance.Event) error {
	if ev.Missed > 0 {
		if _, err := fmt.Fprintf(p.out, "… %s missed, this is read too slowly\n", count(ev.Missed, "event")); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(p.out, "%s %-7s %s\n", ev.Time.In(p.now().Location()).Format(time.DateTime), ev.Level, ev)
	return err
}

// follow reads lines and writes them, until their end or a signal; what comes after the
// signal is still written.
func follow[T any](ctx context.Context, p *program, begin func(context.Context) (*client.Lines[T], error), write func(*T) error) error {
	// A second signal does not wait for the end.
	cut, cancel := context.WithCancel(ctx)
	defer cancel()
	lines, err := begin(cut)
	if err != nil {
		return err
	}
	defer lines.Close()
	_, stop := p.untilSignal(ctx, func(os.Signal) { _ = lines.End() }, func(os.Signal) { cancel() })
	defer stop()
	for {
		x, err := lines.Next()
		switch {
		case errors.Is(err, io.EOF), cut.Err() != nil:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errors.New("bitw has ended without being told to, or has cut this off; bitw status tells which")
		case err != nil:
			return err
		}
		if err := write(&x); err != nil {
			return err
		}
	}
}
