package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"bitw/config"
)

func (p *program) guard() *cobra.Command {
	var (
		file string
		list bool
	)
	cmd := &cobra.Command{
		Use:               "guard IFACE [-c FILE] | guard --list",
		ValidArgsFunction: completeInterface,
		Short:             "Keep an interface shut until it is cut",
		Long: `guard has an nftables table keep an interface shut on which no bitw runs, also one that
is not there yet: nothing passes until 'bitw up' has cut it, without a moment in the
clear, or 'bitw recover' has given it back. The cut that 'bitw up' makes does not outlive
a reboot; bitw-guard@.service does this at each boot, so that an interface whose bitw
cannot start is shut.

With -c the interface is the one that FILE names (with inside: both), or IFACE where it
names none; and where FILE says on_failure: open, in a line of its own, nothing is done.
FILE need not be a good configuration, and one that cannot be read wants shut.

What the table sees is told by 'bitw help interface'. Reloading a firewall with flush
ruleset removes it.

--list names the interfaces that such a table keeps shut now, and does nothing else.

It refuses an interface on which bitw runs. It needs root.`,
		Example: `  bitw guard eth0
  bitw guard eth0 -c /etc/bitw/eth0.yaml
  bitw guard --list`,
		Args: func(cmd *cobra.Command, args []string) error {
			if list {
				return exactly()(cmd, args)
			}
			return exactly("IFACE")(cmd, args)
		},
		RunE: func(_ *cobra.Command, args []string) error {
			switch {
			case list && file != "":
				return usagef("--list is of all interfaces: give it without -c")
			case list:
				return p.listGuards()
			}
			g := config.Glance{OnFailure: config.Shut}
			if file != "" {
				var err error
				if g, err = config.GlanceAt(file); err != nil {
					fmt.Fprintln(p.err, err)
				}
			}
			iface := cmp.Or(g.Interface, args[0])
			if g.OnFailure == config.Open {
				fmt.Fprintf(p.out, "%s says on_failure: open, %s stays as it is\n", file, iface)
				return nil
			}
			whole, err := p.keepShut(iface, g.Inside)
			if err != nil {
				return takenBy(err, iface, "and it is guarded while that runs")
			}
			if !whole {
				fmt.Fprintln(p.err, "this kernel has no egress hook by name (Linux 6.16): IPv4 and IPv6 are dropped, ARP and other frames are not")
			}
			if _, err := p.findInterface(iface); err != nil {
				fmt.Fprintf(p.err, "%s is not there now; it will be shut from its creation on\n", iface)
			}
			fmt.Fprintln(p.out, leftIn(iface, false))
			return nil
		},
	}
	configFlag(cmd, &file, "ask this configuration `FILE`, which need not be a good one, for interface and on_failure")
	cmd.Flags().BoolVar(&list, "list", false, "name the interfaces that are kept shut")
	return cmd
}

func (p *program) listGuards() error {
	names, err := p.keptShut()
	for _, name := range names {
		fmt.Fprintln(p.out, name)
	}
	return err
}

// whetherShut says that an interface without a bitw is shut, and what to do; "" if it is
// not, or if this user may not know.
func (p *program) whetherShut(iface string) string {
	if iface == "" {
		return ""
	}
	if shut, err := p.isShut(iface); err != nil || !shut {
		return ""
	}
	return leftIn(iface, false)
}
