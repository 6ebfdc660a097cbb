package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (p *program) recoverVerb() *cobra.Command {
	var release bool
	cmd := &cobra.Command{
		Use:               "recover IFACE [--release]",
		ValidArgsFunction: completeInterface,
		Short:             "Give back an interface that bitw left shut",
		Long: `recover removes what a bitw that has ended left on an interface: eBPF programs, their
pins, the taps and the nftables table that keeps an interface shut which is created
anew, or that 'bitw guard' has made. IFACE may be the name that the interface had when it
was cut, also when it has another now, or is gone. After that the interface carries its
traffic without protection.
To protect it again use 'bitw up' instead, which takes over what was left without a
moment in the clear.

Of two interfaces (inside: and outside: in the configuration) name the outside one. The
two then pass their frames to each other without protection, and the box's own kernel
still has no part in it. With --release both are the box's own again, and nothing passes
between them.

It refuses an interface on which bitw runs, and does nothing where nothing was left.
It needs root.`,
		Example: `  bitw recover eth0`,
		Args:    exactly("IFACE"),
		RunE: func(_ *cobra.Command, args []string) error {
			joined := false
			var err error
			if release {
				err = p.giveUp(args[0])
			} else {
				joined, err = p.recover(args[0])
			}
			if err != nil {
				return takenBy(err, args[0], "bitw down "+args[0]+" ends it first")
			}
			if joined {
				fmt.Fprintf(p.out, "%s: it and the inside interface pass their frames to each other without protection; bitw recover %s --release ends that\n", args[0], args[0])
				return nil
			}
			fmt.Fprintf(p.out, "%s: nothing of bitw is left, it carries its traffic without protection\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVar(&release, "release", false, "of two interfaces, give both back to this box's own kernel")
	return cmd
}
