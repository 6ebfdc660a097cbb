package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bitw/appliance/netcheck"
)

func (p *program) netcheckVerb() *cobra.Command {
	var (
		file, output string
		noProbe      bool
		timeout      time.Duration
	)
	cmd := &cobra.Command{
		Use:               "netcheck (IFACE | -c FILE)",
		ValidArgsFunction: completeInterface,
		Short:             "Look whether machine, interface and paths are fit for bitw",
		Long: `netcheck looks at privileges, kernel features, the interface and its offloads, who else
has a hand in it (XDP, tcx, tc, nftables, IPsec of the kernel, an IKE daemon), and the
clock. For a configuration with inside and outside it looks at both.
With a configuration it also tells what fits each policy that protects, and measures the
path to at most 8 peers by pings that must not be fragmented, up to 16 each.

Each line is good, warning or bad, and says what to do. It changes nothing. The exit
status is 0 if all is good, 1 for a warning, 2 if something is bad. While bitw runs, its
policies decide about the pings too, and what they add is taken into account.`,
		Example: `  bitw netcheck eth0
  bitw netcheck -c /etc/bitw/eth0.yaml
  bitw netcheck -c /etc/bitw/eth0.yaml --no-probe -o json | jq '.lines[] | select(.level != "good")'`,
		Args: func(cmd *cobra.Command, args []string) error {
			if (file == "") == (len(args) == 0) || len(args) > 1 {
				return usagef("netcheck takes either an interface or -c FILE")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			if timeout <= 0 {
				return usagef("--timeout is more than 0, not %v", timeout)
			}
			o := netcheck.Options{Probe: !noProbe, Timeout: timeout}
			if file != "" {
				cfg, warnings, err := p.load(file)
				if err != nil {
					return p.report(file, warnings, err)
				}
				o.Interface, o.Inside, o.Config = cfg.Interface, cfg.Inside, cfg
			} else {
				o.Interface = args[0]
			}
			return p.showNetcheck(cmd.Context(), o, output)
		},
	}
	configFlag(cmd, &file, "take interface and peers from this configuration `FILE`")
	cmd.Flags().BoolVar(&noProbe, "no-probe", false, "send nothing to the peers")
	cmd.Flags().DurationVar(&timeout, "timeout", 500*time.Millisecond, "wait so long for the answer to a ping (`TIME`)")
	outputFlag(cmd, &output)
	return cmd
}

func (p *program) showNetcheck(ctx context.Context, o netcheck.Options, output string) error {
	r := p.netcheck(ctx, o)
	var err error
	if output == "json" {
		err = writeJSON(p.out, r)
	} else {
		_, err = fmt.Fprint(p.out, netcheckText(r))
	}
	if err != nil {
		return err
	}
	switch r.Worst() {
	case netcheck.Bad:
		return exitError(2)
	case netcheck.Warning:
		return exitError(1)
	}
	return nil
}

// netcheckText has a block for each area.
func netcheckText(r *netcheck.Report) string {
	var t strings.Builder
	area := ""
	for _, l := range r.Lines {
		if l.Area != area {
			area = l.Area
			t.WriteString(area + ":\n")
		}
		fmt.Fprintf(&t, "  %-7s  %s\n", l.Level, l.Found)
		if l.Remedy != "" {
			fmt.Fprintf(&t, "           -> %s\n", l.Remedy)
		}
	}
	return t.String()
}
