package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/appliance/client"
)

func (p *program) apply() *cobra.Command {
	var (
		socket, output string
		dry            bool
	)
	cmd := &cobra.Command{
		Use:   "apply FILE [--dry-run]",
		Short: "Put a changed configuration in force without a restart",
		Long: `apply reads a configuration and the key files that it names, compares it with what the
running bitw does, and has it do what the file says: all of it or nothing. It shows what
changed; --dry-run only shows what would.

What did not change keeps its SAs, sequence numbers, replay windows and counters. No
packet is lost and none that a policy protects leaves in the clear in between: new SAs are
there before the policies that name them, the policies change in one step, and SAs that
are no longer configured take packets that are on their way for another minute.

An SA that gets another spi and key rolls over under its name. One that keeps its key and
gets another name, spi or other parameters goes on with its sequence numbers. A key that
is used in one direction is refused in the other.

What can change: policies, security_associations, classes, static_neighbors, routes, mtu,
icmp_errors, allow_insecure, watchdog, log_level and neighbors. Anything else needs a
restart, and is refused with its name: 'bitw up --takeover' does that without loss.

SIGHUP has 'bitw up -c FILE' do the same with its own file, which also is what a restart
reads: keep what you apply in that file. Which bitw is meant is said by the control
socket in FILE.

Exit status 0: it is in force, or with --dry-run could be. 1: nothing was changed.`,
		Example: `  bitw apply /etc/bitw/eth0.yaml --dry-run
  bitw apply /etc/bitw/eth0.yaml
  bitw apply eth0.yaml -o json | jq .changes
  kill -HUP $(pidof bitw)`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			return p.runApply(cmd.Context(), args[0], socket, output, dry)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	cmd.Flags().StringVar(&socket, "socket", "", "the control socket (`PATH`) of the bitw that is meant, if not the one in FILE")
	outputFlag(cmd, &output)
	return cmd
}

func (p *program) runApply(ctx context.Context, file, socket, output string, dry bool) error {
	req, warnings, err := client.NewApplyRequest(file)
	if err != nil {
		return p.report(file, warnings, err)
	}
	req.DryRun = dry
	if socket == "" {
		if socket, err = p.path(address{config: file}); err != nil {
			return err
		}
	}
	c, err := p.client(socket)
	if err != nil {
		return err
	}
	res, err := c.Apply(ctx, req)
	if res == nil {
		return err
	}
	if output == "json" {
		if err := writeJSON(p.out, res); err != nil {
			return err
		}
	}
	if err != nil {
		return p.report(file, warnings, err)
	}
	if output == "json" {
		return nil
	}
	if _, err := io.WriteString(p.err, warnings.Text()); err != nil {
		return err
	}
	_, err = io.WriteString(p.out, appliedText(file, res))
	return err
}

// appliedText says what a configuration changed.
func appliedText(file string, res *appliance.ApplyResult) string {
	var b strings.Builder
	switch n := uint64(len(res.Changes)); {
	case n == 0:
		fmt.Fprintf(&b, "%s says what is in force already\n", file)
	case res.DryRun:
		fmt.Fprintf(&b, "%s would make %s:\n", file, count(n, "change"))
	default:
		fmt.Fprintf(&b, "%s is in force, with %s:\n", file, count(n, "change"))
	}
	for _, c := range res.Changes {
		fmt.Fprintf(&b, "  %s\n", c)
	}
	return b.String()
}

// reload reads the configuration that bitw up was given anew, and applies it. What comes
// of it is in the log and an event.
func (p *program) reload(a runner, file string, log *logrus.Logger) {
	cfg, warnings, err := p.load(file)
	noteWarnings(log, warnings)
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			log.Error(line)
		}
		a.Refused(err)
		return
	}
	_, _ = a.Apply(*cfg, false) // it tells itself
}
