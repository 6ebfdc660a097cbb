package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) recoverVerb() *cobra.Command {
	return &cobra.Command{
		Use:   "recover IFACE",
		Short: "Give back an interface that bitw left shut",
		Long: `recover removes what a bitw that has ended left on an interface: eBPF programs, their
pins, the taps and the nftables table that keeps an interface shut which is created
anew. IFACE may be the name that the interface had when it was cut, also when it has
another now, or is gone. After that the interface carries its traffic without protection.
To protect it again use 'bitw up' instead, which takes over what was left without a
moment in the clear.

It refuses an interface on which bitw runs, and does nothing where nothing was left.
It needs root.`,
		Example: `  bitw recover eth0`,
		Args:    exactly("IFACE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := p.recover(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.out, "%s: nothing of bitw is left, it carries its traffic without protection\n", args[0])
			return nil
		},
	}
}
