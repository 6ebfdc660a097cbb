package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"bitw/appliance"
	"bitw/netstack/trace"
)

func (p *program) traceLevel() *cobra.Command {
	var (
		where  address
		output string
	)
	cmd := &cobra.Command{
		Use:   "trace-level [NODE LEVEL] [-c FILE | --interface IFACE | --socket PATH]",
		Short: "How much each part tells the log of what it does",
		Long: `trace-level shows or sets how much the parts of a running bitw tell its log. The parts
are named after the nodes of the x-kernel whose work they do; where a graph composes
bitw, its own nodes are among them. The change lasts until bitw ends; trace: in the
configuration and trace= in a graph set what it begins with.

The levels, from the one that tells everything:
  ` + strings.Join(trace.LevelNames(), "\n  ") + `
A node tells what has its level or a later one. ` + trace.DefaultLevel.String() + `, the level of a node that was
given none, tells nothing of single packets. At most 200 lines a second are written
about packets; what is missing is counted in the next line (lines_missing).`,
		Example: `  bitw trace-level
  bitw trace-level spiint TR_FUNCTIONAL_TRACE
  bitw trace-level spiint TR_ERRORS`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 0 && len(args) != 2 {
				return usagef("trace-level takes a node and a level, or neither")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			known := [][]string{trace.NodeNames(), trace.LevelNames(), nil}
			return known[min(len(args), 2)], cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := oneOf("output", output, "text", "json"); err != nil {
				return err
			}
			if len(args) == 2 && !slices.Contains(trace.LevelNames(), args[1]) {
				return usagef("%q is no level; expected one of %s", args[1], strings.Join(trace.LevelNames(), ", "))
			}
			c, err := p.meant(where)
			if err != nil {
				return err
			}
			if len(args) == 2 {
				if err := c.SetTraceLevel(cmd.Context(), args[0], args[1]); err != nil {
					return err
				}
				_, err = fmt.Fprintf(p.out, "%s is at %s now\n", args[0], args[1])
				return err
			}
			list, err := c.TraceLevels(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(p.out, appliance.TraceLevelList{Nodes: list})
			}
			_, err = io.WriteString(p.out, traceLevelText(list))
			return err
		},
	}
	keyAddress(cmd, &where)
	outputFlag(cmd, &output)
	return cmd
}

func traceLevelText(list []appliance.TraceLevel) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, x := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\n", x.Node, x.Level, x.Tells)
	}
	w.Flush()
	return b.String()
}
