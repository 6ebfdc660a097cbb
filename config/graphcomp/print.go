package graphcomp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"bitw/netstack/trace"
)

// tops are the nodes on which no other stands, in the order of the file.
func (g *Graph) tops() []*Node {
	below := make(map[*Node]bool)
	for _, n := range g.Nodes {
		for _, l := range n.Lower {
			below[l] = true
		}
	}
	var tops []*Node
	for _, n := range g.Nodes {
		if !below[n] {
			tops = append(tops, n)
		}
	}
	// Where packets turn round is what a reader looks for first.
	slices.SortStableFunc(tops, func(a, b *Node) int { return len(b.Lower) - len(a.Lower) })
	return tops
}

// options are the options of a node in one line.
func (n *Node) options() string {
	var words []string
	for _, o := range n.Options {
		words = append(words, o.String())
	}
	return strings.Join(words, "; ")
}

// lowerNames are the names of the lower nodes in order.
func (n *Node) lowerNames() []string {
	var names []string
	for _, l := range n.Lower {
		names = append(names, l.Name)
	}
	return names
}

// summary says in one line what the graph comes to.
func (g *Graph) summary() string {
	what := "an IP forwarder without protection"
	if g.Protects() {
		what = "an IP forwarder with IPsec"
	}
	return fmt.Sprintf("%s: %d nodes, %s", g.File, len(g.Nodes), what)
}

// Text is the graph as a tree, each node on those that it stands on, and a table that says
// which Go part does the work of each, with its lower protocols in order, its options and
// its trace level.
func (g *Graph) Text() string {
	var b strings.Builder
	b.WriteString(g.summary() + "\n\n")
	seen := make(map[*Node]bool)
	var walk func(n *Node, first, rest string)
	walk = func(n *Node, first, rest string) {
		b.WriteString(first + n.Name)
		if seen[n] && len(n.Lower) > 0 {
			b.WriteString(" (see above)\n")
			return
		}
		seen[n] = true
		b.WriteString("\n")
		for i, l := range n.Lower {
			if i == len(n.Lower)-1 {
				walk(l, rest+"└─ ", rest+"   ")
			} else {
				walk(l, rest+"├─ ", rest+"│  ")
			}
		}
	}
	for _, n := range g.tops() {
		walk(n, "", "")
	}
	b.WriteString("\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tDONE BY\tLOWER\tOPTIONS\tTRACE")
	for _, n := range g.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, n.Does(), dash(strings.Join(n.lowerNames(), ",")), dash(n.options()), dash(n.Trace.String()))
	}
	w.Flush()
	fmt.Fprintf(&b, "\nprottbl: %s\n", g.numberWords())
	return b.String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (g *Graph) numberWords() string {
	var words []string
	for _, k := range kinds() {
		if n, ok := g.Numbers[k.name]; ok {
			text := fmt.Sprint(n)
			if n > 255 {
				text = fmt.Sprintf("0x%04x", n)
			}
			words = append(words, k.name+" "+text)
		}
	}
	return strings.Join(words, ", ")
}

// JSON is the graph for programs.
func (g *Graph) JSON() ([]byte, error) {
	type node struct {
		*Node
		Does  string   `json:"does"`
		Lower []string `json:"lower"`
	}
	out := struct {
		File     string            `json:"file"`
		Protects bool              `json:"protects"`
		Nodes    []node            `json:"nodes"`
		Numbers  map[string]uint32 `json:"prottbl"`
	}{File: g.File, Protects: g.Protects(), Numbers: g.Numbers}
	for _, n := range g.Nodes {
		out.Nodes = append(out.Nodes, node{n, n.Does(), append([]string{}, n.lowerNames()...)})
	}
	b, err := json.MarshalIndent(out, "", "  ")
	return append(b, '\n'), err
}

// DOT is the graph in the language of Graphviz, higher nodes on top.
func (g *Graph) DOT() string {
	var b strings.Builder
	b.WriteString("digraph bitw {\n\trankdir=TB;\n\tnode [shape=box, fontname=\"sans-serif\"];\n")
	for _, n := range g.Nodes {
		label := append([]string{n.Name}, n.notes()...)
		for i, l := range label {
			label[i] = dotQuote(l)
		}
		fmt.Fprintf(&b, "\t\"%s\" [label=\"%s\", tooltip=\"%s\"];\n", dotQuote(n.Name), strings.Join(label, "\\n"), dotQuote(n.Does()))
	}
	for _, n := range g.Nodes {
		for i, l := range n.Lower {
			fmt.Fprintf(&b, "\t\"%s\" -> \"%s\" [taillabel=\"%d\"];\n", dotQuote(n.Name), dotQuote(l.Name), i)
		}
	}
	b.WriteString("}\n")
	return b.String()
}

func dotQuote(s string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) }

// notes are the lines that a picture has under the name of a node.
func (n *Node) notes() []string {
	var lines []string
	part, _, _ := strings.Cut(n.Does(), ":")
	lines = append(lines, part)
	for _, o := range n.Options {
		lines = append(lines, o.String())
	}
	if n.Trace != trace.LevelUnset {
		lines = append(lines, n.Trace.String())
	}
	for i, l := range lines {
		if utf8.RuneCountInString(l) > 40 {
			lines[i] = string([]rune(l)[:39]) + "…"
		}
	}
	return lines
}
