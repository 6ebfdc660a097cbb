package main

import (
	"io"

	"github.com/spf13/cobra"

	"bitw/config/graphcomp"
)

func (p *program) graph() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "graph FILE",
		Short: "Show what a graph of the x-kernel composes",
		Long: `graph reads a graph in the language of the x-kernel's graph.comp, with the file rom and
the table that prottbl= names beside it, tells everything that is wrong with line and
column, and shows what it composes: each node with the part of bitw that does its
work, its lower protocols in order, its options and its trace level. It touches no
interface and reads no key. 'go doc bitw/config/graphcomp' has the language.

As a picture: --format svg, or dot for Graphviz. 'bitw up --graph FILE' starts it.`,
		Example: `  bitw graph graph.comp
  bitw graph graph.comp --format svg > graph.svg
  bitw graph graph.comp --format json | jq '.nodes[].name'`,
		Args: exactly("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := oneOf("format", format, graphFormats()...); err != nil {
				return err
			}
			g, err := graphcomp.Load(args[0], nil)
			if err != nil {
				return p.report(args[0], nil, err)
			}
			return writeGraph(p.out, g, format)
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "`FORMAT` of the output: text, dot, svg or json")
	complete(cmd, "format", graphFormats()...)
	return cmd
}

func graphFormats() []string { return []string{"text", "dot", "svg", "json"} }

func writeGraph(w io.Writer, g *graphcomp.Graph, format string) error {
	text := ""
	switch format {
	case "dot":
		text = g.DOT()
	case "svg":
		text = g.SVG()
	case "json":
		b, err := g.JSON()
		if err != nil {
			return err
		}
		text = string(b)
	default:
		text = g.Text()
	}
	_, err := io.WriteString(w, text)
	return err
}
