package config

import (
	"fmt"
	"strings"

	"bitw/netstack/trace"
)

// A TraceLevel is how much one part tells of what it does.
type TraceLevel struct {
	// Node is a name of trace.NodeNames.
	Node  string
	Level trace.Level
	Pos   Position
}

// trace reads the trace levels of nodes.
func (d *decoder) trace(n *node) {
	if n.kind == null {
		return
	}
	if n.kind != mapping {
		d.fail(n.place, "write for example {spiint: TR_FUNCTIONAL_TRACE}", "expected a mapping of nodes, found %s", n.found())
		return
	}
	nodes, levels := trace.NodeNames(), trace.LevelNames()
	by := make(map[string]*node)
	for _, e := range n.entries {
		if !contains(nodes, e.key) {
			d.fail(e.place, d.suggest(e.key, nodes, "known are "+strings.Join(nodes, ", ")), "no node is called %s", quote(e.key))
			continue
		}
		if !d.once(by, e, "trace") {
			continue
		}
		by[e.key] = e.value
		t, ok := d.text(e.value, "a trace level")
		if !ok {
			continue
		}
		l, ok := trace.ParseLevel(t)
		if !ok {
			d.fail(e.value.place, d.suggest(t, levels, "known are "+strings.Join(levels, ", ")), "unknown trace level %s", quote(t))
			continue
		}
		d.config.Trace = append(d.config.Trace, TraceLevel{e.key, l, d.position(e.place)})
	}
}

// traceText is how a configuration says it, "" for no levels.
func traceText(list []TraceLevel) string {
	var parts []string
	for _, x := range list {
		parts = append(parts, fmt.Sprintf("%s: %s", x.Node, x.Level))
	}
	return strings.Join(parts, ", ")
}
