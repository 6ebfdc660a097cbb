package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"bitw/appliance"
)

func (p *program) tap() *cobra.Command {
	var (
		where                    address
		onlyKernel, onlyWire, ok bool
		output                   string
	)
	cmd := &cobra.Command{
		Use:   "tap IFACE closed|passive|active [--kernel | --wire] [--clear]",
		Short: "Set the states of the taps of a running bitw by hand",
		Long: `tap changes what a running 'bitw up' does with the frames of its interface. There are
two taps, the kernel's for what this host sends and the wire's for what arrives, each
with a state:

  active   frames go through bitw: the policies hold
  passive  frames pass by bitw, which is handed copies
  closed   frames pass by bitw

Both are set, or with --kernel or --wire only one. While only one of them is active
nothing passes: what the other does not take cannot go on. While neither is active all
traffic passes without protection, as if there were no bitw, until 'bitw tap IFACE
active'. Where a policy says protect, that has to be said: --clear.

Going from active to passive or closed loses no frame that was accepted. When bitw
ends, its interface is shut as always; while it is clear, being killed leaves it clear.`,
		Example: `  bitw tap eth0 closed --clear     is it bitw? let everything pass in the clear
  bitw tap eth0 active             and protect it again
  bitw tap eth0 closed --wire      let nothing pass`,
		Args: exactly("IFACE", "STATE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			return p.runTap(cmd, args[0], args[1], onlyKernel, onlyWire, ok, output, where)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(args) {
			case 0:
				var names []string
				for _, path := range p.socketPaths() {
					names = append(names, ifaceOf(path))
				}
				return names, cobra.ShellCompDirectiveNoFileComp
			case 1:
				return tapStates(), cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().BoolVar(&onlyKernel, "kernel", false, "only the kernel's tap")
	cmd.Flags().BoolVar(&onlyWire, "wire", false, "only the wire's tap")
	cmd.Flags().BoolVar(&ok, "clear", false, "yes, let protected traffic pass in the clear")
	cmd.Flags().StringVar(&where.socket, "socket", "", "its control socket (`PATH`), if not where it is by default")
	outputFlag(cmd, &output)
	return cmd
}

func tapStates() []string { return []string{"closed", "passive", "active"} }

func (p *program) runTap(cmd *cobra.Command, iface, state string, onlyKernel, onlyWire, clear bool, output string, where address) error {
	known := false
	for _, s := range tapStates() {
		known = known || s == state
	}
	switch {
	case !known:
		return usagef("the state of a tap is closed, passive or active, not %q", state)
	case onlyKernel && onlyWire:
		return usagef("--kernel and --wire each name one tap; for both give neither")
	}
	if where.socket == "" {
		where.iface = iface
	}
	path, err := p.path(where)
	if err != nil {
		return err
	}
	client, err := p.client(path)
	if err != nil {
		return fmt.Errorf("taps have states while a bitw holds them: %w; to only watch: bitw observe %s", err, iface)
	}
	req := appliance.TapRequest{Interface: iface, Clear: clear}
	if !onlyWire {
		req.Kernel = state
	}
	if !onlyKernel {
		req.Wire = state
	}
	t, err := client.SetTaps(cmd.Context(), req)
	switch {
	case errors.Is(err, appliance.ErrClear):
		return fmt.Errorf("nothing was changed: %w; if that is wanted, say --clear", err)
	case err != nil:
		return err
	case output == "json":
		return writeJSON(p.out, t)
	}
	_, err = fmt.Fprintf(p.out, "%s: kernel tap %s, wire tap %s: %s\n", t.Interface, t.Kernel, t.Wire, flowWords(t.Flow))
	return err
}

// flowWords says what the states of the taps come to.
func flowWords(flow string) string {
	switch flow {
	case "active":
		return "all goes by the policies"
	case "clear":
		return "all passes in the clear"
	}
	return "nothing passes"
}
