package graphcomp

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"bitw/config"
	"bitw/netstack/trace"
)

// A Graph is what a graph file composes. It has passed every check that needs no key
// file and no machine.
type Graph struct {
	// File is the name of the file that it came from.
	File string `json:"file"`
	// Nodes are in the order of the file; the parts of the program that only the third
	// section names come last.
	Nodes []*Node `json:"nodes"`
	// Numbers is the protocol number table: IP protocol numbers of forwarders and
	// transforms, EtherTypes of ip and arp, by kind.
	Numbers map[string]uint32 `json:"prottbl"`

	mode    fs.FileMode // of File, 0 if it is not known
	prottbl config.Position
	table   string // the file that prottbl= names, as written
}

// A Node is one name=.
type Node struct {
	// Name is Protocol, or Protocol/Instance.
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Instance string `json:"instance,omitempty"`
	// Lower are the nodes that it stands on, in the order of protocols=. One node may
	// stand there several times.
	Lower []*Node `json:"-"`
	// Dir and Files are the sources that it had in the original; nothing here comes of them.
	Dir   string   `json:"dir,omitempty"`
	Files []string `json:"files,omitempty"`
	// Options are in the order of the files.
	Options []Option `json:"options,omitempty"`
	// Trace is the level that the graph sets.
	Trace trace.Level     `json:"trace,omitempty"`
	Pos   config.Position `json:"-"`

	kind  kind
	lower []word // of Lower
}

// Does says which Go part does the work of the node.
func (n *Node) Does() string { return doesOf(n) }

// On says whether the node stands on one of that protocol, directly or not.
func (n *Node) On(protocol string) bool {
	return slices.ContainsFunc(n.Lower, func(l *Node) bool { return l.Protocol == protocol || l.On(protocol) })
}

// Option returns the first option of that name.
func (n *Node) Option(name string) (Option, bool) {
	for _, o := range n.Options {
		if o.Name == name {
			return o, true
		}
	}
	return Option{}, false
}

// Has says whether the node has an option.
func (n *Node) Has(option string) bool {
	_, ok := n.Option(option)
	return ok
}

// Node returns the node of that name, or nil.
func (g *Graph) Node(name string) *Node {
	for _, n := range g.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// only returns the node of a kind of which there is at most one, or nil.
func (g *Graph) only(kind string) *Node {
	for _, n := range g.Nodes {
		if n.Protocol == kind {
			return n
		}
	}
	return nil
}

// A compiler makes a graph of statements.
type compiler struct {
	*source
	graph *Graph
	nodes map[string]*Node
}

// parse reads the graph but for what other files say; the nodes are not composed yet.
func parse(name string, data []byte) *compiler {
	c := &compiler{source: newSource(name, data), graph: &Graph{File: name, Numbers: numbers()}, nodes: make(map[string]*Node)}
	list := c.statements()
	if len(c.errs) > 0 {
		return c // what follows would only be echoes of these
	}
	dividers := 0
	for i := range list {
		if st := &list[i]; st.divider {
			if dividers++; dividers > 2 {
				c.fail(st.at, "remove it", "a third @; where a graph has three sections")
			}
		} else if !st.isRomopt && st.section < 2 {
			c.node(st)
		}
	}
	if dividers < 2 && len(c.errs) == 0 {
		c.failAt(max(1, len(c.lines)), 1, "divide drivers, protocols and settings by @;", "a graph has three sections, found %d", dividers+1)
	}
	if len(c.errs) > 0 {
		return c
	}
	c.link()
	for i := range list {
		if st := &list[i]; !st.divider {
			c.setting(st)
		}
	}
	return c
}

// single is the one word of an assignment.
func (c *compiler) single(a assignment) word {
	if len(a.values) > 1 {
		c.fail(a.values[1], "", "%s= takes one word", a.key.text)
	}
	return a.values[0]
}

// keys refuses assignments other than these.
func (c *compiler) keys(st *statement, known ...string) {
	for _, a := range st.assignments {
		if !slices.Contains(known, a.key.text) {
			c.fail(a.key, meant(a.key.text, known, "here stand "+strings.Join(known, "=, ")+"="), "unknown key %s", quote(a.key.text))
		}
	}
}

// node makes a node of a statement of the first or second section.
func (c *compiler) node(st *statement) {
	c.keys(st, "name", "protocols", "dir", "files", "trace")
	name, ok := st.value("name")
	if !ok {
		c.fail(st.at, "begin with name=", "a node without a name")
		return
	}
	at := c.single(name)
	n, ok := c.named(at)
	if !ok {
		return
	}
	if a, ok := st.value("protocols"); ok {
		n.lower = a.values
		if st.section == 0 {
			c.fail(a.key, "move it behind the first @;", "a driver stands on no other node, and %s is in the section of drivers", n.Name)
		}
	}
	if a, ok := st.value("dir"); ok {
		n.Dir = c.single(a).text
	}
	if a, ok := st.value("files"); ok {
		for _, w := range a.values {
			n.Files = append(n.Files, w.text)
		}
	}
	if n.kind.program {
		c.fail(at, "move it behind the second @;", "%s is a part of the program and no node between others", n.Name)
		return
	}
	if a, ok := st.value("trace"); ok {
		n.Trace = c.level(a)
	}
	c.add(n, at)
}

// named makes a node of a name.
func (c *compiler) named(at word) (*Node, bool) {
	protocol, instance, has := strings.Cut(at.text, "/")
	k, known := kindOf(protocol)
	switch {
	case !known:
		c.fail(at, meant(protocol, kindNames(), "known are "+strings.Join(kindNames(), ", ")), "unknown node %s", quote(at.text))
		return nil, false
	case has && !k.instances:
		c.fail(at, "write name="+protocol, "there is one %s, and %s names an instance of it", protocol, quote(at.text))
		return nil, false
	case has && !isInstance(instance):
		c.fail(at, "an instance has 1 to 15 letters, digits, - and _", "%s is not PROTOCOL/INSTANCE", quote(at.text))
		return nil, false
	case !has && protocol == "km":
		c.fail(at, "write name=km/NAME", "a key manager has a name of its own")
		return nil, false
	}
	return &Node{Name: at.text, Protocol: protocol, Instance: instance, Pos: c.position(at), kind: k}, true
}

func isInstance(s string) bool {
	return len(s) > 0 && len(s) <= 15 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

func (c *compiler) add(n *Node, at word) {
	if before := c.nodes[n.Name]; before != nil {
		c.fail(at, "give it another instance, or remove one of them", "%s is there already, in line %d", n.Name, before.Pos.Line)
		return
	}
	c.nodes[n.Name] = n
	c.graph.Nodes = append(c.graph.Nodes, n)
}

func (c *compiler) level(a assignment) trace.Level {
	w := c.single(a)
	l, ok := trace.ParseLevel(w.text)
	if !ok {
		c.fail(w, meant(w.text, trace.LevelNames(), "known are "+strings.Join(trace.LevelNames(), ", ")), "unknown trace level %s", quote(w.text))
	}
	return l
}

// link finds the lower nodes.
func (c *compiler) link() {
	var names []string
	for _, n := range c.graph.Nodes {
		names = append(names, n.Name)
	}
	for _, n := range c.graph.Nodes {
		for _, w := range n.lower {
			below := c.nodes[w.text]
			if below == nil {
				c.fail(w, meant(w.text, names, fmt.Sprintf("define it by name=%s", w.text)), "%s stands on %s, which the graph does not define", n.Name, quote(w.text))
			}
			n.Lower = append(n.Lower, below)
		}
	}
}

// setting takes a statement of the third section, or what belongs there.
func (c *compiler) setting(st *statement) {
	if st.isRomopt {
		if st.section < 2 {
			c.fail(st.at, "move it behind the second @;", "romopt stands in the third section")
			return
		}
		c.romopt(st)
		return
	}
	if st.section != 2 {
		return
	}
	if a, ok := st.value("prottbl"); ok {
		c.keys(st, "prottbl")
		if c.graph.table != "" {
			c.fail(a.key, "keep one of them", "prottbl= is there already, in line %d", c.graph.prottbl.Line)
		}
		w := c.single(a)
		c.graph.table, c.graph.prottbl = w.text, c.position(w)
		return
	}
	c.keys(st, "name", "trace", "prottbl")
	name, ok := st.value("name")
	if !ok {
		c.fail(st.at, "write name=NODE trace=LEVEL, prottbl=FILE or romopt NODE OPTION", "expected a setting")
		return
	}
	at := c.single(name)
	nodes := c.traced(at)
	if len(nodes) == 0 {
		return
	}
	a, ok := st.value("trace")
	if !ok && !nodes[0].kind.program {
		c.fail(at, "add trace=, or move it before the second @;", "the third section only sets the trace level of %s", at.text)
		return
	}
	if ok {
		l := c.level(a)
		for _, n := range nodes {
			n.Trace = l
		}
	}
}

// traced are the nodes whose trace level a name of the third section sets: a node's,
// the name of a part of the program, which begins to exist by that, or that of a trace
// variable as the original has it, PROTOCOLp, which is for all instances.
func (c *compiler) traced(at word) []*Node {
	if n := c.nodes[at.text]; n != nil {
		if n.kind.program {
			c.fail(at, "keep one of them", "%s is there already, in line %d", n.Name, n.Pos.Line)
			return nil
		}
		return []*Node{n}
	}
	if k, ok := kindOf(at.text); ok && k.program {
		if n, ok := c.named(at); ok {
			c.add(n, at)
			return []*Node{n}
		}
		return nil
	}
	var nodes []*Node
	if protocol, ok := strings.CutSuffix(at.text, "p"); ok {
		for _, n := range c.graph.Nodes {
			if n.Protocol == protocol {
				nodes = append(nodes, n)
			}
		}
	}
	if len(nodes) == 0 {
		c.unknown(at)
	}
	return nodes
}

// unknown is about a name in the third section that the graph does not have.
func (c *compiler) unknown(at word) {
	names := []string{"init", "prottest"}
	for _, n := range c.graph.Nodes {
		names = append(names, n.Name)
	}
	c.fail(at, meant(at.text, names, "define it before the second @;"), "unknown node %s", quote(at.text))
}

func (c *compiler) romopt(st *statement) {
	at := st.romopt[0]
	n := c.nodes[at.text]
	if n == nil {
		c.unknown(at)
		return
	}
	c.option(n, st.romopt[1:])
}
