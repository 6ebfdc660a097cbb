package appliance

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/sirupsen/logrus"

	"bitw/config/graphcomp"
	"bitw/netstack/trace"
)

// A TraceLevel is how much one node tells the log of what it does.
type TraceLevel struct {
	Node string `json:"node"`
	// Level is one of trace.LevelNames.
	Level string `json:"level"`
	// Tells is what there is to be told.
	Tells string `json:"tells,omitempty"`
}

// A TraceLevelList is the answer to who asks for trace levels.
type TraceLevelList struct {
	Nodes []TraceLevel `json:"nodes"`
}

// ErrTraceLevel is matched by the errors about a node or a level that there is not.
var ErrTraceLevel = errors.New("no such trace level")

// tells is what the parts tell, by the level from which on they do.
var tells = [trace.NumIDs]string{
	trace.Init:         "each state of the appliance (TR_MAJOR_EVENTS)",
	trace.Watchdog:     "each look at the sides (TR_FULL_TRACE)",
	trace.EthKern:      "each frame from and to the host (TR_FULL_TRACE)",
	trace.EthDev:       "each frame from and to the wire (TR_FULL_TRACE)",
	trace.Eth0:         "frames of the host that no policy decides (TR_DETAILED)",
	trace.Eth1:         "frames of the wire that no policy decides (TR_DETAILED)",
	trace.ARP0:         "neighbours on the host's side (TR_DETAILED)",
	trace.ARP1:         "where each packet goes on the wire (TR_DETAILED), and who is asked for (TR_MORE_EVENTS)",
	trace.VNet:         "drops of what is for others (TR_SOFT_ERRORS)",
	trace.IP:           "fragments and path MTUs (TR_MORE_EVENTS), drops (TR_SOFT_ERRORS)",
	trace.RFC1825:      "what each SA makes of a packet (TR_DETAILED), drops (TR_SOFT_ERRORS)",
	trace.SPIInt:       "which policy decides each packet (TR_FUNCTIONAL_TRACE), drops (TR_SOFT_ERRORS)",
	trace.SAIDMgr:      "which SA is found for each packet (TR_DETAILED), drops (TR_SOFT_ERRORS)",
	trace.KM:           "keys and SAs that change (TR_EVENTS)",
	trace.Sink:         "what policies discard (TR_SOFT_ERRORS)",
	trace.ForwardTCP:   "each TCP packet that is turned round (TR_FULL_TRACE)",
	trace.ForwardUDP:   "each UDP packet that is turned round (TR_FULL_TRACE)",
	trace.ForwardICMP:  "each ICMP packet that is turned round (TR_FULL_TRACE)",
	trace.ForwardOther: "each other packet that is turned round (TR_FULL_TRACE)",
}

// traceNode is a part by one of its names.
type traceNode struct {
	name  string
	node  *trace.Node
	tells string
	// algorithms are those of a graph's transform; others have none.
	algorithms map[string]bool
}

// traceLevels are the nodes of one appliance.
type traceLevels struct {
	nodes *trace.Nodes
	list  []traceNode
	log   *traceLog
}

// newTraceLevels makes the nodes of a configuration and, if there is one, of its graph.
func newTraceLevels(cfg *Config, g *graph, log logrus.FieldLogger) (*traceLevels, error) {
	t := &traceLevels{nodes: trace.NewNodes()}
	for i := range t.nodes {
		t.list = append(t.list, traceNode{name: trace.ID(i).String(), node: &t.nodes[i], tells: tells[i]})
	}
	if g != nil {
		for _, n := range g.Nodes {
			t.addGraphNode(n)
		}
	}
	t.log = newTraceLog(t, log)
	for _, x := range cfg.Trace {
		if err := t.set(x.Node, x.Level); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// addGraphNode adds a node that only the graph has, and takes its level.
func (t *traceLevels) addGraphNode(n *graphcomp.Node) {
	x := t.find(n.Name)
	if x == nil {
		t.list = append(t.list, traceNode{name: n.Name})
		x = &t.list[len(t.list)-1]
		under := func(left, right trace.ID) trace.ID {
			if n.On("ethkern") {
				return left
			}
			return right
		}
		part := trace.Init
		switch n.Protocol {
		case "eth":
			part = under(trace.Eth0, trace.Eth1)
		case "arp":
			part = under(trace.ARP0, trace.ARP1)
		case "km":
			part = trace.KM
		case "prottest":
		default:
			if list, err := suites(n.Protocol, transformOptions(n)); err == nil {
				x.algorithms = make(map[string]bool)
				for _, s := range list {
					x.algorithms[s.Algorithm] = true
				}
				x.node, x.tells = new(trace.Node), "what SAs by it make of a packet (TR_DETAILED)"
				x.node.Set(trace.LevelUnset)
			}
		}
		if x.node == nil {
			x.node, x.tells = &t.nodes[part], "the same as "+part.String()
		}
	}
	if n.Trace != trace.LevelUnset {
		x.node.Set(n.Trace)
	}
}

func transformOptions(n *graphcomp.Node) []string {
	var list []string
	for _, o := range n.Options {
		list = append(list, o.Name)
	}
	return list
}

func (t *traceLevels) find(name string) *traceNode {
	for i := range t.list {
		if t.list[i].name == name {
			return &t.list[i]
		}
	}
	return nil
}

// set sets a node's level.
func (t *traceLevels) set(name string, l trace.Level) error {
	x := t.find(name)
	if x == nil {
		var known []string
		for i := range t.list {
			known = append(known, t.list[i].name)
		}
		return fmt.Errorf("%w: no node is called %q; known are %s", ErrTraceLevel, name, strings.Join(known, ", "))
	}
	x.node.Set(l)
	return nil
}

// apply sets the levels of the nodes whose level differs between two configurations; the
// others stay as they were set by hand.
func (t *traceLevels) apply(old, next *Config) {
	levels := make(map[string]trace.Level)
	for _, x := range old.Trace {
		levels[x.Node] = trace.LevelUnset
	}
	for _, x := range next.Trace {
		levels[x.Node] = x.Level
	}
	for _, x := range old.Trace {
		if levels[x.Node] == x.Level {
			delete(levels, x.Node)
		}
	}
	for name, l := range levels {
		if x := t.find(name); x != nil {
			x.node.Set(l)
		}
	}
}

// on says whether a node tells something of that level; a transform of a graph has a level
// of its own beside that of rfc1825.
func (t *traceLevels) on(id trace.ID, l trace.Level, algorithm string) (name string, on bool) {
	if t.nodes[id].On(l) {
		return id.String(), true
	}
	if id == trace.RFC1825 && algorithm != "" {
		for i := trace.NumIDs; int(i) < len(t.list); i++ {
			if x := &t.list[i]; x.algorithms[algorithm] && x.node.On(l) {
				return x.name, true
			}
		}
	}
	return "", false
}

// ofEvent names the node that tells more of events of a kind, if it is to.
func (t *traceLevels) ofEvent(kind EventKind) (node string, on bool) {
	id, level := trace.NumIDs, trace.Events
	switch kind {
	case StateChanged:
		id, level = trace.Init, trace.MajorEvents
	case SAAdded, SAReplaced, SASwitched, SARetired, SARevived, SADeleted, ExpireSoft, ExpireHard, SequenceLow, Acquire, PeerDead, KeyChanged:
		id = trace.KM
	}
	return id.String(), id < trace.NumIDs && t.nodes[id].On(level)
}

// ofPackets says whether any node may tell something of a packet.
func (t *traceLevels) ofPackets() bool {
	for i := range t.list {
		x := &t.list[i]
		if x.node == &t.nodes[trace.Init] || x.node == &t.nodes[trace.Watchdog] || x.node == &t.nodes[trace.KM] {
			continue
		}
		if x.node.On(trace.SoftErrors) {
			return true
		}
	}
	return false
}

// TraceLevels tells the level of each node.
func (a *Appliance) TraceLevels() []TraceLevel {
	list := make([]TraceLevel, 0, len(a.trace.list))
	for i := range a.trace.list {
		x := &a.trace.list[i]
		list = append(list, TraceLevel{Node: x.name, Level: x.node.Level().String(), Tells: x.tells})
	}
	return list
}

// SetTraceLevel sets how much a node tells the log, from the next packet on; the level is
// one of trace.LevelNames. The error matches ErrTraceLevel.
func (a *Appliance) SetTraceLevel(node, level string) error { return a.setTraceLevel("", node, level) }

// setTraceLevel is SetTraceLevel for who asks.
func (a *Appliance) setTraceLevel(by, node, level string) error {
	l, ok := trace.ParseLevel(level)
	if !ok {
		return fmt.Errorf("%w: expected one of %s, found %q", ErrTraceLevel, strings.Join(trace.LevelNames(), ", "), level)
	}
	if err := a.trace.set(node, l); err != nil {
		return err
	}
	a.tell(Event{Kind: TraceLevelSet, Level: "info", Text: "the trace level of " + node + " was set to " + level + " by hand", By: by})
	if b := a.bump.Load(); b != nil {
		a.trace.log.watch(b.watch)
	}
	return nil
}

// serveTraceLevels answers GET /v1/trace-levels.
func (a *Appliance) serveTraceLevels(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, TraceLevelList{a.TraceLevels()})
}

// serveTraceLevel answers POST /v1/trace-levels.
func (a *Appliance) serveTraceLevel(w http.ResponseWriter, r *http.Request) error {
	req, err := requested[TraceLevel](r)
	if err != nil {
		return err
	}
	if err := a.setTraceLevel(who(r.Context()), req.Node, req.Level); err != nil {
		return badRequest("%v", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
