package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/netstack/wire"
	"bitw/sa"
)

// An Environment is what a packet would meet: an appliance that runs, or what a
// configuration would make.
type Environment struct {
	Engine *ipsec.Engine
	SAD    *sa.SAD
	// Classes are the rules for frames that no policy decides, and Neighbors how ARP and
	// neighbour discovery are dealt with, by side.
	Classes   []hook.ClassRule
	Neighbors [2]hook.Neighbors
	// HostMAC is the Ethernet address of the host, or of the inside NIC; WireMAC that of
	// the outside.
	HostMAC, WireMAC tcpip.LinkAddress
	// IsLocal says whether an address is protected; nil if that is not known.
	IsLocal func(netip.Addr) bool
	// Protects says whether a policy protects a datagram from one side, whatever its frame is
	// addressed to (see hook.ClassOptions).
	Protects func(from hook.Side, datagram []byte) bool
	Clock    func() int64

	Interface string
	Offline   bool
	// Relay says that the host finds its next hops itself, TwoNIC that there may be
	// several hosts behind.
	Relay, TwoNIC bool
	// Notes and Warnings begin those of each result.
	Notes, Warnings []string
}

// Explain says what would become of the packet p in the environment, which it does not
// change: see ipsec.Engine.Rehearse. It never fails: a packet that cannot be is dropped.
func (env *Environment) Explain(p *Packet) *Result {
	dir := env.direction(p)
	q := *p
	q.Direction = ""
	r := env.result(q.String(), dir)
	src, dst := env.stations(dir, p.Src, p.Dst)
	if p.Frame != "" {
		env.frame(r, p.frame(src))
		return r
	}
	a := ipsec.Arrival{Src: src, Dst: dst, Authentic: p.protected() && dir == In}
	room := 0
	if a.Authentic {
		if s := env.SAD.Lookup(p.SPI, p.Dst, p.Proto); s != nil && s.Transform != nil && p.Inner != nil {
			a.Inner = p.Inner.build(0)
			outer := p.ipLen()
			if p.HasPorts {
				outer += wire.UDPLen
			}
			room = ipsec.Sealed(s, outer, len(a.Inner), p.Inner.ipLen())
			if s.Mode == sa.Transport && (p.Inner.Src != p.Src || p.Inner.Dst != p.Dst) {
				r.Notes = append(r.Notes, fmt.Sprintf("SA %s is in transport mode: what it carries has the addresses of the packet, whatever is said of it", s.Name))
			}
		}
		r.Notes = append(r.Notes, "the ICV is taken for right; only the packet itself can tell, as in a capture: --pcap FILE")
	}
	a.Datagram = p.build(room)
	env.datagram(r, a)
	return r
}

// ExplainFrame says it of an Ethernet frame that was recorded: that its sequence number was
// here before is noted, and not held against it. direction is Out, In, or
// empty where the addresses tell.
func (env *Environment) ExplainFrame(frame []byte, direction string) *Result {
	var in wire.Info
	if len(frame) < wire.EthernetLen {
		frame = append(frame[:len(frame):len(frame)], make([]byte, wire.EthernetLen-len(frame))...)
	}
	datagram := frame[wire.EthernetLen:]
	kind := uint16(frame[12])<<8 | uint16(frame[13])
	isIP := kind == wire.EtherTypeIPv4 || kind == wire.EtherTypeIPv6
	readable := isIP && wire.Parse(datagram, &in) == wire.DropNone
	dir := direction
	if dir == "" {
		dir = Out
		if readable {
			dir = env.direction(&Packet{Proto: in.Proto, Src: in.Src, Dst: in.Dst, SPI: spiOf(datagram, &in)})
		} else if string(frame[6:12]) != string(env.HostMAC) && string(frame[:6]) == string(env.WireMAC) {
			dir = In
		}
	}
	r := env.result(describe(frame, &in, readable), dir)
	if !isIP {
		env.frame(r, frame)
		return r
	}
	a := ipsec.Arrival{Datagram: datagram, Dst: tcpip.LinkAddress(frame[:6]), Src: tcpip.LinkAddress(frame[6:12])}
	if env.Offline || strings.Trim(string(a.Dst), "\x00") == "" {
		// The machine at which it was recorded may have been another.
		a.Src, a.Dst = env.stations(dir, in.Src, in.Dst)
	}
	a.Again = r.Direction == In && env.hadBefore(a)
	env.datagram(r, a)
	if a.Again && r.Reason != wire.DropReplayOld.String() {
		r.Notes = append(r.Notes, "its SA has had this sequence number, as it has of what was recorded when it passed here; the answer is that for the first time")
	}
	return r
}

// hadBefore says whether an SA has had the sequence number of a datagram from the wire.
func (env *Environment) hadBefore(a ipsec.Arrival) bool {
	drops := env.Engine.Rehearse(a, hook.Right).Drops
	return slices.Contains(drops, wire.DropReplay) || slices.Contains(drops, wire.DropReplayOld)
}

func (env *Environment) result(packet, dir string) *Result {
	return &Result{
		Packet: packet, Direction: dir, Interface: env.Interface, Offline: env.Offline,
		Notes: append([]string(nil), env.Notes...), Warnings: append([]string(nil), env.Warnings...),
	}
}

// direction finds out which way p goes.
func (env *Environment) direction(p *Packet) string {
	switch {
	case p.Direction != "":
		return p.Direction
	case p.Frame != "":
		return Out
	case p.protected() && env.SAD.Lookup(p.SPI, p.Dst, p.Proto) != nil:
		return In
	case env.IsLocal == nil && p.protected():
		return In
	case env.IsLocal == nil, env.IsLocal(p.Src), !env.IsLocal(p.Dst):
		return Out
	}
	return In
}

// stations are the Ethernet addresses with which a packet comes.
func (env *Environment) stations(dir string, src, dst netip.Addr) (from, to tcpip.LinkAddress) {
	switch {
	case dir == In:
		from, to = SomeMAC, env.WireMAC
		if _, _, mac, ok := env.Engine.Next(src); ok && mac != "" {
			from = mac
		}
	case env.Relay:
		from, to = env.HostMAC, SomeMAC
		if _, _, mac, ok := env.Engine.Next(dst); ok && mac != "" {
			to = mac
		}
	default:
		from, to = env.HostMAC, env.HostMAC
		if env.TwoNIC {
			from = SomeMAC
		}
	}
	switch {
	case dst.Is4() && dst.IsMulticast():
		a := dst.As4()
		to = tcpip.LinkAddress([]byte{1, 0, 0x5e, a[1] & 0x7f, a[2], a[3]})
	case dst.IsMulticast():
		a := dst.As16()
		to = tcpip.LinkAddress([]byte{0x33, 0x33, a[12], a[13], a[14], a[15]})
	case dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		to = broadcastMAC
	}
	return from, to
}

// frame explains a frame that no policy decides, and says whether it is one.
func (env *Environment) frame(r *Result, frame []byte) bool {
	side := hook.Left
	if r.Direction == In {
		side = hook.Right
	}
	name, bypass, handled := hook.ClassOf(frame, env.Classes, env.Neighbors[side], func(b []byte) bool { return env.Protects(side, b) })
	if name == hook.Policy {
		return false
	}
	r.Class = &Class{Name: name, Action: Discard}
	r.Length = len(frame) - wire.EthernetLen
	switch {
	case handled:
		r.Class.Action, r.Verdict, r.Outcome = "answered", Undecided, Taken
		r.Summary = fmt.Sprintf("frames of the class %s are answered by bitw itself (neighbors: proxy) and do not cross", name)
	case bypass:
		r.Class.Action, r.Verdict, r.Outcome = Bypass, Bypass, Sent
		r.Summary = fmt.Sprintf("frames of the class %s cross as they are, no policy is asked", name)
		r.Frames = []Frame{{Side: other(r.Direction), Length: r.Length, Layers: []string{"as it came"}}}
	default:
		r.Verdict, r.Outcome, r.Reason = Discard, Dropped, wire.DropClassDiscard.String()
		r.Summary = fmt.Sprintf("frames of the class %s are discarded, no policy is asked; to let them cross, write under classes: %s: bypass", name, name)
		if name == "vlan" {
			r.Summary += " (tagged frames are no IP to bitw)"
		}
	}
	return true
}

func other(dir string) string {
	if dir == In {
		return "inside"
	}
	return "outside"
}

// datagram explains an IP datagram.
func (env *Environment) datagram(r *Result, a ipsec.Arrival) {
	r.Length = len(a.Datagram)
	frame := make([]byte, wire.EthernetLen, wire.EthernetLen+len(a.Datagram))
	copy(frame, a.Dst)
	copy(frame[6:], a.Src)
	frame[12], frame[13] = 0x08, 0x00
	if len(a.Datagram) > 0 && a.Datagram[0]>>4 == 6 {
		frame[12], frame[13] = 0x86, 0xdd
	}
	if env.frame(r, append(frame, a.Datagram...)) {
		return
	}
	side := hook.Left
	if r.Direction == In {
		side = hook.Right
	}
	x := env.Engine.Rehearse(a, side)
	var in wire.Info
	if wire.Parse(a.Datagram, &in) == wire.DropNone {
		r.Length = in.TotalLen
	}
	e := &explanation{env: env, r: r, a: &a, in: &in, side: side, x: x}
	e.rules()
	e.outcome()
	e.sas()
	e.sizes()
	e.wire()
	e.summary()
	e.advice()
}
