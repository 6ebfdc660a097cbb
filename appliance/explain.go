package appliance

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/appliance/explain"
	"bitw/config"
	"bitw/netstack/ipsec"
)

// A Question is about a packet; POST /v1/explain takes it as JSON and answers with an
// explain.Result.
type Question struct {
	// Packet is one in words, as explain.Parse reads it.
	Packet string `json:"packet,omitempty"`
	// Frame is an Ethernet frame that was recorded, instead; base64 in JSON.
	Frame []byte `json:"frame,omitempty"`
	// Direction is "out", "in" or empty, for Frame.
	Direction string `json:"direction,omitempty"`
}

// maxQuestion is the longest in octets, JSON and base64 included.
const maxQuestion = 1 << 19

// ErrNotRunning says that the appliance has not begun, or is at its end.
var ErrNotRunning = errors.New("the appliance does not run")

// Explain says what would become of a packet that came now. Nothing is sent, no counter,
// sequence number, replay window or path MTU changes, and no neighbour is asked. The
// error is an *explain.ParseError, ErrNotRunning, or says what is wrong with the question.
func (a *Appliance) Explain(q Question) (*explain.Result, error) {
	b := a.bump.Load()
	if b == nil {
		return nil, ErrNotRunning
	}
	return q.answer(b.environment(*a.state.Load()))
}

// answer asks one environment.
func (q *Question) answer(env *explain.Environment) (*explain.Result, error) {
	switch {
	case (q.Packet == "") == (len(q.Frame) == 0):
		return nil, errors.New("expected a packet in words or a frame, and one of them")
	case q.Direction != "" && q.Direction != explain.Out && q.Direction != explain.In:
		return nil, fmt.Errorf("direction is %q, expected out or in", q.Direction)
	case q.Packet == "":
		return env.ExplainFrame(q.Frame, q.Direction), nil
	}
	p, err := explain.Parse(q.Packet)
	if err != nil {
		return nil, err
	}
	if p.Direction == "" {
		p.Direction = q.Direction
	}
	return env.Explain(p), nil
}

// environment is what a packet would meet now.
func (b *bump) environment(state string) *explain.Environment {
	host := b.host.Load()
	env := environmentOf(b.live.Load())
	env.Engine, env.SAD, env.Clock = b.engine, b.sad, b.clock
	env.HostMAC, env.WireMAC, env.IsLocal, env.Protects = host.leftMAC(), host.mac, b.own, b.protects
	switch state {
	case flowActive:
	case flowClear:
		env.Warnings = append(env.Warnings, "the taps are not active: all passes in the clear, and nothing of this applies until bitw tap "+b.cfg.Interface+" active")
	case flowSevered:
		env.Warnings = append(env.Warnings, "one tap is active and the other is not: nothing passes, and nothing of this applies until bitw tap "+b.cfg.Interface+" active")
	default:
		env.Warnings = append(env.Warnings, "bitw is in the state "+state+": nothing passes now")
	}
	return env
}

// environmentOf is what the configuration alone tells of one.
func environmentOf(cfg *Config) *explain.Environment {
	env := &explain.Environment{
		Interface: cfg.Interface, Relay: cfg.Neighbors == config.Relay, TwoNIC: cfg.Inside != "",
		Neighbors: crossing(cfg.Neighbors == config.Relay), Classes: classRules(cfg),
	}
	return env
}

// Offline answers questions by a configuration alone, without anything of the machine.
type Offline struct {
	env *explain.Environment
	db  *Databases
}

// NewOffline makes what cfg would be: its SAs have their keys and no sequence number used,
// the neighbours are known, and without routes in it there is one for every destination.
// mtu is that of the wire in octets; 0 stands for what cfg says, or 1500. The errors are
// those of New. The caller closes it.
func NewOffline(cfg Config, mtu int) (*Offline, error) {
	db, err := NewDatabases(cfg)
	if err != nil {
		return nil, err
	}
	complete(&cfg)
	env := environmentOf(&cfg)
	if mtu == 0 {
		if mtu = cfg.MTU; mtu == 0 {
			mtu = defaultMTU
			env.Notes = append(env.Notes, fmt.Sprintf("the MTU of the wire is taken for %d: --mtu N says another", mtu))
		}
	}
	routes := configuredRoutes(&cfg)
	if len(routes) == 0 {
		routes = []ipsec.Route{{Destination: netip.MustParsePrefix("0.0.0.0/0")}, {Destination: netip.MustParsePrefix("::/0")}}
		env.Notes = append(env.Notes, "every destination is taken for one on the link, as the configuration has no routes")
	}
	clock := defaultOptions().clock
	ec := ipsec.Config{
		SAD: db.SAD, SPD: db.SPD, Routes: ipsec.NewRoutes(routes), HostMAC: explain.SomeMAC, WireMAC: explain.SomeMAC, MTU: mtu,
		IsLocal: func(netip.Addr) bool { return false }, Clock: clock,
		ICMPErrors: icmpErrors(cfg.ICMPErrors), HostResolves: env.Relay,
	}
	if env.TwoNIC {
		ec.Hosts, ec.IsLocal, env.IsLocal = assumedNeighbors{}, cfg.IsProtected, cfg.IsProtected
		ec.LinkMTU = [2]int{defaultMTU, mtu}
		env.Notes = append(env.Notes, fmt.Sprintf("the MTU of the inside is taken for %d", defaultMTU))
	}
	env.Engine, env.SAD, env.Clock, env.Offline = ipsec.New(ec), db.SAD, clock, true
	env.HostMAC, env.WireMAC, env.Protects = explain.SomeMAC, explain.SomeMAC, env.Engine.Protects
	env.Engine.Bind(nil, nil, assumedNeighbors{})
	return &Offline{env, db}, nil
}

// Explain is Appliance.Explain by the configuration.
func (o *Offline) Explain(q Question) (*explain.Result, error) { return q.answer(o.env) }

// Close ends the SAs and clears their keys.
func (o *Offline) Close() error {
	o.env.Engine.Close()
	return o.db.Close()
}

// assumedNeighbors have all one address.
type assumedNeighbors struct{}

func (assumedNeighbors) Peek(netip.Addr) (tcpip.LinkAddress, bool)   { return explain.SomeMAC, true }
func (assumedNeighbors) Lookup(netip.Addr) (tcpip.LinkAddress, bool) { return explain.SomeMAC, true }
func (assumedNeighbors) Enqueue(netip.Addr, *stack.PacketBuffer)     {}
func (assumedNeighbors) Want(netip.Addr)                             {}

// serveExplain answers POST /v1/explain.
func (a *Appliance) serveExplain(w http.ResponseWriter, r *http.Request) error {
	q, err := requested[Question](r)
	if err != nil {
		return err
	}
	res, err := a.Explain(q)
	switch {
	case errors.Is(err, ErrNotRunning):
		return err
	case err != nil:
		return badRequest("%v", err)
	}
	return answer(w, res)
}
