package ipsec

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// An Arrival is a datagram for Engine.Rehearse, with the Ethernet addresses by which it
// comes. It is not changed.
type Arrival struct {
	Datagram []byte
	Src, Dst tcpip.LinkAddress
	// Authentic says that nobody sealed the datagram, but the first ESP or AH header of it
	// is to be taken as if its SA's peer had. Inner is what stands behind that header
	// then: the whole datagram that was protected, or nil if that is not known.
	Authentic bool
	Inner     []byte
	// Again says that the datagram was here before, and that its sequence number is to be
	// taken for new nevertheless.
	Again bool
}

// A Written is a frame that would be written to a link.
type Written struct {
	Src, Dst tcpip.LinkAddress // Dst is empty while Waits
	Datagram []byte            // what is encrypted in it is not; ICVs and IVs are zeros
	// Waits says that the frame waits until the Ethernet address of its next hop, Hop, is
	// known.
	Waits bool
	Hop   netip.Addr
}

// A Rehearsal is what an engine would do with a datagram.
type Rehearsal struct {
	// Written are the frames that would be written, by the side that they go to. What
	// goes to where the datagram came from is an ICMP error about it.
	Written [2][]Written
	// Drops are the reasons that would be counted, DropNone excluded; mostly none or one.
	Drops []wire.DropReason
	// Policy is the one that decides, and Index its place in the SPD from 0; nil and -1
	// for none. For an entry of a policy that populates selectors Policy is the entry.
	Policy *sa.Policy
	Index  int
	// Flow is what the SPD was asked about last, and Direction which way; Asked is false
	// if it was not asked at all.
	Flow      sa.Flow
	Direction sa.Direction
	Asked     bool
	// Blamed is the SA that the drop counts for, and Removed those that were taken off
	// an inbound datagram, the outermost first. Both are the SAs themselves.
	Blamed  *sa.SA
	Removed []*sa.SA
	// Tried is the SA that the outermost ESP or AH header of an inbound datagram names.
	Tried *sa.SA
	// Opened says that an Arrival that is Authentic came as far as its ICV, although it
	// is not known what is inside.
	Opened bool
	// Held says that the datagram waits for an SA, and Acquired that a key manager would
	// be asked for one.
	Held, Acquired bool
	// Incomplete says that it waits for other fragments of its datagram.
	Incomplete bool
	// LearnedPMTU says that it lowers the path MTU of an SA.
	LearnedPMTU bool
	// Answer is the ICMP error about a datagram from the right, as a datagram before policy
	// decides about it; nil for none. What becomes of it shows in Written alone.
	Answer []byte
}

// Rehearse finds out what would become of a datagram from one side, by sending it on its
// way through the packet path, between links that only listen, with copies of all
// policies and SAs that it meets. The engine, the databases and their counters stay as
// they are, no neighbour is asked, and nothing is encrypted, so that no nonce is used.
// It may be called at any time from any goroutine.
func (e *Engine) Rehearse(a Arrival, from hook.Side) *Rehearsal {
	r := &Rehearsal{Index: -1}
	spd, now := e.SPD(), e.clock()
	shadow := sa.NewShadow(spd, e.sad, func(s *sa.SA) transform.Transform {
		switch {
		case s.Direction == sa.Outbound:
			return withoutKey(s)
		case a.Authentic:
			return assumed{Transform: s.Transform, sa: s, inner: a.Inner, opened: &r.Opened}
		}
		return s.Transform
	})
	shadow.Again = a.Again
	var links [2]*listener
	x := New(Config{
		SAD: shadow.SAD(), SPD: shadow.SPD(), Routes: e.Routes(), HostMAC: e.hostMAC(), WireMAC: e.wireMAC(),
		HostResolves: e.named.Load(), MTU: e.MTU(), LinkMTU: [2]int{e.LinkMTU(hook.Left), e.LinkMTU(hook.Right)}, IsLocal: e.isLocal, Clock: func() int64 { return now },
		ICMPErrors: ICMPErrorRule(e.icmpRule.Load()), Hold: e.holds.limits,
	})
	defer x.Close()
	for side := range links {
		links[side] = &listener{written: &r.Written[side]}
	}
	if e.hosts != nil {
		x.hosts = listeningNeighbors{e.hosts, links[hook.Left]}
	}
	x.Bind(links[hook.Left], links[hook.Right], listeningNeighbors{e.neighbors, links[hook.Right]})
	x.answering = func(datagram []byte) {
		r.Answer = slices.Clone(datagram)
		r.from(shadow, spd)
	}
	x.icmpLimit.next.Store(e.icmpLimit.next.Load())
	e.encap.copyTo(&x.encap, shadow)
	e.copyHolds(x, shadow)

	v, buf := newFrame(len(a.Datagram))
	copy(buf[frameHead:], a.Datagram)
	pkt := packetOf(v, frameHead, frameHead+len(a.Datagram), a.Src)
	setDestination(pkt, a.Dst)
	held := x.Held()
	if from == hook.Left {
		x.outbound(pkt)
	} else {
		x.inbound(pkt)
	}
	pkt.DecRef()

	r.Held = x.Held() > held && r.Answer == nil
	r.Incomplete = x.sides[from].fragments.incomplete() > 0
	r.LearnedPMTU = x.sides[hook.Right].learned.Load() > 0
	for reason := wire.DropNone + 1; reason < wire.NumDropReasons; reason++ {
		for range x.sides[from].drops.Load(reason) {
			r.Drops = append(r.Drops, reason)
		}
	}
	if r.Answer == nil {
		r.from(shadow, spd)
	}
	return r
}

// from reads in a shadow what happened.
func (r *Rehearsal) from(shadow *sa.Shadow, spd *sa.SPD) {
	if n := len(shadow.Lookups); n > 0 {
		last := shadow.Lookups[n-1]
		r.Flow, r.Direction, r.Asked = last.Flow, last.Direction, true
		if last.Index >= 0 {
			r.Index, r.Policy = last.Index, spd.Lookup(last.Direction, &last.Flow)
		}
	}
	for _, s := range shadow.SAs() {
		if len(s.Drops.Snapshot()) > 0 {
			r.Blamed = shadow.Original(s)
		}
	}
	for _, s := range shadow.Found {
		o := shadow.Original(s)
		if s.Direction != sa.Inbound {
			continue
		}
		if r.Tried == nil {
			r.Tried = o
		}
		if s.Packets.Load() != o.Packets.Load() {
			r.Removed = append(r.Removed, o)
		}
	}
	for _, ev := range shadow.Events {
		r.Acquired = r.Acquired || ev.Kind == sa.Acquire
	}
}

// A listener is a link that notes what is written to it.
type listener struct {
	stack.LinkEndpoint
	written *[]Written
}

// WritePackets implements stack.LinkWriter.
func (l *listener) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for _, pkt := range list.AsSlice() {
		*l.written = append(*l.written, writtenOf(pkt))
	}
	return list.Len(), nil
}

func writtenOf(pkt *stack.PacketBuffer) Written {
	h := pkt.LinkHeader().Slice()
	return Written{
		Dst: tcpip.LinkAddress(h[:6]), Src: tcpip.LinkAddress(h[6:12]), Datagram: pkt.Data().AsRange().ToSlice(),
	}
}

// listeningNeighbors know what others know, and ask nobody.
type listeningNeighbors struct {
	Neighbors
	link *listener
}

func (n listeningNeighbors) Lookup(a netip.Addr) (tcpip.LinkAddress, bool) { return n.Peek(a) }

func (listeningNeighbors) Want(netip.Addr) {}

func (n listeningNeighbors) Enqueue(a netip.Addr, pkt *stack.PacketBuffer) {
	w := writtenOf(pkt)
	w.Dst, w.Waits, w.Hop = "", true, a
	*n.link.written = append(*n.link.written, w)
}

// copyTo tells x where the peers are that moved.
func (x *encapsulation) copyTo(c *encapsulation, shadow *sa.Shadow) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for l, a := range x.at {
		c.note(shadow.Lineage(l), a)
	}
}

// copyHolds gives x queues as full as those of e, without what is in them.
func (e *Engine) copyHolds(x *Engine, shadow *sa.Shadow) {
	h := &e.holds
	if h.count.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	x.holds.queues = make(map[*sa.Lineage]*holdQueue)
	for l, q := range h.queues {
		if l.Outbound() != nil {
			continue // what waits is about to leave
		}
		c := &holdQueue{
			lineage: shadow.Lineage(l), policy: shadow.Policy(q.policy), flow: q.flow, since: q.since, state: q.state,
			list: make([]held, len(q.list)), octets: q.octets, told: q.told,
		}
		x.holds.queues[c.lineage] = c
		x.holds.memory += q.octets
		x.holds.count.Add(1)
		x.await(c)
	}
}

// unsealed is the transform of an outbound SA without its key: header, sizes, pad length
// and next header are right, the payload is in the clear, the rest is zeros.
type unsealed struct {
	transform.Transform
	alg transform.Algorithm
}

// withoutKey returns a transform that uses no nonce. That of AH without one is the SA's
// own, since there it depends on the datagram whether it has an ICV at all.
func withoutKey(s *sa.SA) transform.Transform {
	if s.Key.Proto == wire.ProtoAH && !s.Algorithm.CounterMode {
		return s.Transform
	}
	return unsealed{s.Transform, s.Algorithm}
}

// Seal implements transform.Transform.
func (u unsealed) Seal(p *transform.Packet, s transform.Sequence) wire.DropReason {
	end := p.End + u.TrailerLen(p.End-p.Pay)
	if p.Hdr < 0 || p.Pay-p.Hdr != u.HeaderLen() || end > len(p.Buf) {
		return wire.DropBadLength
	}
	h := p.Buf[p.Hdr:p.Pay]
	clear(h)
	clear(p.Buf[p.End:end])
	at := 0
	if u.Protocol() == wire.ProtoAH {
		h[0], h[1], at = p.NextHeader, uint8(len(h)/4-2), 4
	} else {
		tail := p.Buf[p.End : end-u.alg.ICVLen]
		tail[len(tail)-2], tail[len(tail)-1] = uint8(len(tail)-espTrailer), p.NextHeader
	}
	binary.BigEndian.PutUint32(h[at:], s.SPI)
	if !u.alg.NoSequence {
		binary.BigEndian.PutUint32(h[at+4:], uint32(s.Number))
	}
	p.End = end
	return wire.DropNone
}

// assumed is the transform of an inbound SA whose peer is taken to have sealed inner.
type assumed struct {
	transform.Transform
	sa     *sa.SA
	inner  []byte
	opened *bool
}

// Open implements transform.Transform. What is inside is written over what is there, and
// has room if the Arrival was made by Sealed.
func (t assumed) Open(p *transform.Packet, _ transform.Sequence) wire.DropReason {
	if t.inner == nil {
		*t.opened = true
		return wire.DropICV // nobody looks at the reason
	}
	payload := t.inner
	p.NextHeader = wire.ProtoIPv4
	if payload[0]>>4 == 6 {
		p.NextHeader = wire.ProtoIPv6
	}
	if t.sa.Mode != sa.Tunnel {
		var in wire.Info
		if reason := wire.Parse(payload, &in); reason != wire.DropNone {
			return reason
		}
		payload, p.NextHeader = payload[in.InsertAt:], in.InsertProto
	}
	p.Pay = p.Hdr + t.HeaderLen()
	if p.Pay+len(payload) > len(p.Buf) {
		return wire.DropBadLength
	}
	p.End = p.Pay + copy(p.Buf[p.Pay:], payload)
	return wire.DropNone
}

// Sealed returns how long the datagram is that brings an inner one of n octets, whose IP
// header has head octets, by the inbound SA s; outer is the length of all before the ESP
// or AH header.
func Sealed(s *sa.SA, outer, n, head int) int {
	if s.Mode != sa.Tunnel {
		n -= head
	}
	return outer + s.Transform.HeaderLen() + n + s.Transform.TrailerLen(n)
}

// Limits are the octets that a datagram towards a next hop may have, each with what says
// so; the least counts. They are those of the packet path.
type Limits []Limit

// A Limit is one of them.
type Limit struct {
	Octets int    `json:"octets"`
	By     string `json:"by"`
}

// least returns the one that counts.
func (l Limits) least() Limit {
	return slices.MinFunc(l, func(a, b Limit) int { return a.Octets - b.Octets })
}

// Next says where a datagram to dst would go on the right: by which route, to which next
// hop, and at which Ethernet address that is, empty if it is not known. No neighbour is
// asked. ok is false where there is no route.
func (e *Engine) Next(dst netip.Addr) (r Route, hop netip.Addr, mac tcpip.LinkAddress, ok bool) {
	if r, ok = e.routes.Load().Lookup(dst); !ok {
		return r, hop, "", false
	}
	hop = dst
	if r.Via.IsValid() {
		hop = r.Via
	}
	mac, _ = e.neighbors.Peek(hop)
	return r, hop, mac, true
}
