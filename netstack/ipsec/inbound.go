package ipsec

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// opening is the state of taking the SAs off one inbound datagram.
type opening struct {
	n       int
	removed [maxBundle]*sa.SA // the outermost first
	pkt     transform.Packet
	encap   encapState
}

func (o *opening) reset() {
	clear(o.removed[:o.n])
	o.n = 0
	o.pkt.Buf = nil
	o.encap = encapState{}
}

// hostAt tells whether a host on the left has an Ethernet address, as far as known: at
// the start nothing is.
func (e *Engine) hostAt(a netip.Addr, mac []byte) bool {
	known, ok := e.hosts.Lookup(a)
	return !ok || string(known) == string(mac)
}

// inbound takes a datagram from the right (RFC 4301 §5.2). pkt is borrowed for
// the call, and what is encrypted in it is opened in place.
func (e *Engine) inbound(pkt *stack.PacketBuffer) {
	w := e.work()
	defer e.done(w)
	train := wire.TrainOf(pkt.Owner)
	w.takeTrail(pkt)
	if train == nil {
		e.inboundPacket(w, pkt)
		return
	}
	w.whole = train.Whole
	copy(w.head[:], train.Whole) // which is about to be opened in place
	e.inboundPacket(w, pkt)
	if w.lane.to != nil {
		e.inboundTrain(w, train)
	}
}

// inboundPacket is inbound for one packet.
func (e *Engine) inboundPacket(w *work, pkt *stack.PacketBuffer) {
	link := pkt.LinkHeader().Slice()
	// Where ARP crosses to several hosts, each is addressed by its own, and where it does
	// not by those who know that from before.
	foreign := len(link) < ethernetLen || string(link[:6]) != string(e.wireMAC())
	if foreign && (e.hosts == nil || len(link) < ethernetLen) {
		// A NIC in promiscuous mode hands over what is for others. The frame to the
		// kernel will carry its address, so it would believe it.
		e.drop(w, hook.Right, wire.DropForeignMAC, nil, nil)
		return
	}
	if reason := w.read(pkt, hook.Right); reason != wire.DropNone {
		e.drop(w, hook.Right, reason, nil, nil)
		return
	}
	if foreign && !(e.isLocal(w.d.Info.Dst) && (e.named.Load() || e.hostAt(w.d.Info.Dst, link[:6]))) {
		e.drop(w, hook.Right, wire.DropForeignMAC, nil, nil)
		return
	}
	if e.isLocal(w.d.Info.Src) {
		e.dropped(w, hook.Right, wire.DropOwnAddressSpoof, nil, nil)
		return
	}
	var set *fragmentSet
	if w.d.Info.IsFragment {
		var reason wire.DropReason
		if set, reason = e.sides[hook.Right].fragments.add(w.now, &w.d, pkt, nil); reason != wire.DropNone || set == nil {
			w.notePart(reason)
			return // the reassembler counts
		}
		defer set.release()
		if w.d.Bytes, reason = set.join(&w.d.Info); reason != wire.DropNone {
			e.drop(w, hook.Right, reason, nil, nil)
			return
		}
		if w.trail != nil {
			w.noteFragment("reassembled", len(w.d.Bytes))
		}
		w.d.Net = nil
	}
	src := tcpip.LinkAddress(link[6:12])
	if e.stripUDP(w) {
		return
	}
	if proto := w.d.Info.Proto; proto == wire.ProtoESP || proto == wire.ProtoAH {
		e.inboundProtected(w, src, pkt, set)
		return
	}
	if reason := e.unprotectedError(w); reason != wire.DropNone {
		e.dropped(w, hook.Right, reason, nil, nil)
		return
	}
	if e.learnPathMTU(w) {
		return
	}
	if p, reason := e.inboundPolicy(w); reason != wire.DropNone {
		e.dropped(w, hook.Right, reason, p, nil)
	} else {
		e.bypassIn(w, p, pkt, set)
	}
}

// inboundPolicy says whether w.d may pass, given the SAs that it came by. An
// ICMP error may pass as well where the datagram that it encloses, which went
// the other way, would belong to the same SAs, or to none (RFC 4301 §6).
func (e *Engine) inboundPolicy(w *work) (*sa.Policy, wire.DropReason) {
	spd := e.spd.Load()
	removed := w.open.removed[:w.open.n]
	p := spd.Lookup(sa.Inbound, flowOf(&w.flow, sa.Inbound, &w.d.Info))
	if w.trail != nil {
		w.noteRule(p)
	}
	reason := p.CheckInbound(removed)
	if reason == wire.DropNone || reason == wire.DropPolicyDiscard ||
		!e.forwarders.For(w.d.Info.Proto).Enclosed(&w.d, &w.inner) {
		return p, reason
	}
	if w.inner.Src == w.d.Info.Dst {
		q := spd.Lookup(sa.Inbound, flowOf(&w.flow, sa.Outbound, &w.inner))
		if q.CheckInbound(removed) == wire.DropNone {
			return q, wire.DropNone
		}
	}
	if len(removed) == 0 {
		reason = wire.DropICMPPolicy
	}
	return p, reason
}

// bypassIn sends what came from the right in the clear to the left as it is, or joined to
// others as a kernel's generic receive offload does.
func (e *Engine) bypassIn(w *work, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) {
	if !e.isBehind(w.d.Info.Dst) {
		e.dropped(w, hook.Right, wire.DropNoRoute, p, nil)
		return
	}
	if set != nil && p.DiscardFragments {
		e.dropped(w, hook.Right, wire.DropFragPolicy, p, nil)
		return
	}
	octets := len(w.d.Bytes)
	if e.coalesce(w, pkt, set != nil) == nil {
		if tooBig, reason := e.cross(w, pkt, set, hook.Left); reason != wire.DropNone {
			e.dropped(w, hook.Right, reason, p, nil)
			if tooBig != 0 {
				e.tellRemote(w, tooBig, tcpip.LinkAddress(pkt.LinkHeader().Slice()[6:12]))
			}
			return
		}
		e.turned(w, hook.Left, octets)
		e.toLeft(w, w.d.Info.Dst)
	}
	p.Counters[sa.Inbound].Add(1, octets, w.now)
}

// inboundProtected takes the SAs off w.d, one after the other, and sends what is
// left to the host. The Ethernet source is the one that the frame came with.
func (e *Engine) inboundProtected(w *work, src tcpip.LinkAddress, pkt *stack.PacketBuffer, set *fragmentSet) {
	reason, s := e.unwrap(w)
	if reason == wire.DropUnknownSPI && w.open.encap.port == 0 {
		if p := e.bypassesIPsec(w); p != nil {
			e.bypassIn(w, p, pkt, set)
			return
		}
	}
	e.inboundUnwrapped(w, reason, s, src, pkt, set)
}

// inboundUnwrapped is inboundProtected from when s was taken off w.d, or could not be for
// a reason.
func (e *Engine) inboundUnwrapped(w *work, reason wire.DropReason, s *sa.SA, src tcpip.LinkAddress, pkt *stack.PacketBuffer, set *fragmentSet) {
	d := &w.d
	for {
		if reason != wire.DropNone {
			e.dropped(w, hook.Right, reason, nil, s)
			return
		}
		if d.Info.IsFragment {
			break
		}
		if e.stripUDP(w) {
			return
		}
		if d.Info.Proto != wire.ProtoESP && d.Info.Proto != wire.ProtoAH {
			break
		}
		reason, s = e.unwrap(w)
	}
	d.Net = nil // it spoke of the outer datagram
	last := w.open.removed[w.open.n-1]
	fragmented := d.Info.IsFragment
	if fragmented {
		// The peer fragmented before it encapsulated. All fragments must have come by the
		// same SAs, so these are part of what tells one datagram's fragments.
		pkt = w.own(pkt)
		inner, reason := e.sides[hook.Right].fragments.add(w.now, d, pkt, w.open.removed[:w.open.n])
		if reason != wire.DropNone || inner == nil {
			w.notePart(reason)
			return
		}
		defer inner.release()
		if d.Bytes, reason = inner.join(&d.Info); reason != wire.DropNone {
			e.dropped(w, hook.Right, reason, nil, last)
			return
		}
		if w.trail != nil {
			w.noteFragment("reassembled", len(d.Bytes))
			w.trail.Opened(&d.Info, d.Bytes)
		}
	}
	if e.isLocal(d.Info.Src) {
		e.dropped(w, hook.Right, wire.DropOwnAddressSpoof, nil, last)
		return
	}
	if reason := wire.Forbidden(d.Bytes, &d.Info); reason != wire.DropNone {
		e.dropped(w, hook.Right, reason, nil, last)
		return
	}
	spd := e.spd.Load()
	p, reason := e.inboundPolicy(w)
	if reason == wire.DropNone && fragmented && p.DiscardFragments {
		reason = wire.DropFragPolicy
	}
	if reason != wire.DropNone {
		e.dropped(w, hook.Right, reason, p, last)
		return
	}
	e.follow(w, p)
	e.clampInbound(w, p)
	if !e.isBehind(d.Info.Dst) {
		e.dropped(w, hook.Right, wire.DropNoRoute, p, last)
		return
	}
	if !e.fitBehind(w, p, last, src, set != nil || fragmented) {
		return
	}
	if f := e.coalesce(w, pkt, false); f != nil {
		if !fragmented {
			w.lane.begin(w, spd, p, f)
		}
	} else {
		if reason := e.behind(w, src); reason != wire.DropNone {
			e.dropped(w, hook.Right, reason, p, last)
			return
		}
		e.turned(w, hook.Left, len(d.Bytes))
		e.toLeft(w, d.Info.Dst)
	}
	p.Counters[sa.Inbound].Add(1, len(d.Bytes), w.now)
}

// bypassesIPsec returns the policy that lets the host's own ESP or AH through,
// if the operator wrote one that names the protocol and bypasses it. A policy
// for any protocol does not count: ESP without an SA is dropped (RFC 4301 §5.2
// step 3a).
func (e *Engine) bypassesIPsec(w *work) *sa.Policy {
	p := e.spd.Load().Lookup(sa.Inbound, flowOf(&w.flow, sa.Inbound, &w.d.Info))
	if p == nil || p.Action != sa.Bypass || p.Selector.Proto != w.d.Info.Proto {
		return nil
	}
	return p
}

// unwrap takes one SA off w.d: look-up, replay check, ICV, replay update, in
// this order (RFC 4303 §3.4, RFC 4302 §3.4). After DropNone, w.d is the
// datagram beneath, and the SA is the last of w.open.removed.
func (e *Engine) unwrap(w *work) (wire.DropReason, *sa.SA) {
	d, o := &w.d, &w.open
	spi, seq, ok := spiAndSeq(d.Bytes, &d.Info)
	if !ok {
		return wire.DropBadLength, nil
	}
	s := e.sad.Lookup(spi, d.Info.Dst, d.Info.Proto)
	if w.trail != nil {
		w.noteFound(s, spi)
	}
	if s == nil {
		return wire.DropUnknownSPI, nil
	}
	if o.n == maxBundle {
		return wire.DropWrongTransform, s
	}
	if reason := s.Usable(w.now); reason != wire.DropNone {
		return reason, s
	}
	if reason := s.EncapMatches(o.encap.port); reason != wire.DropNone {
		return reason, s
	}
	full, reason := s.CheckReplay(seq)
	if reason != wire.DropNone {
		return reason, s
	}
	p := &o.pkt
	p.Buf, p.Net, p.Hdr, p.Pay, p.End, p.NextHeader = d.Bytes, 0, d.Info.HeaderLen, 0, len(d.Bytes), 0
	if reason = s.Transform.Open(p, transform.Sequence{SPI: spi, Number: full, ESN: s.ESN}); reason != wire.DropNone {
		return reason, s
	}
	newest := s.Newest(full)
	if reason = s.Accept(full); reason != wire.DropNone {
		return reason, s
	}
	return e.leave(w, s, full, newest), s
}

// leave makes w.d, whose ESP or AH of s was opened, the datagram beneath. full is the
// packet's sequence number, and newest says that none of the SA's was higher.
func (e *Engine) leave(w *work, s *sa.SA, full uint64, newest bool) (reason wire.DropReason) {
	d, o := &w.d, &w.open
	octets := o.pkt.End - o.pkt.Pay // outbound, too, it is the datagram that counts
	switch s.Mode {
	case sa.Transport:
		octets += d.Info.HeaderLen
	case sa.BEET:
		octets += ipHeaderLen(s.InnerDst)
	}
	s.Used(1, octets, w.now)
	o.removed[o.n] = s
	o.encap.opened(o.n, full, newest)
	o.n++
	if o.pkt.NextHeader == wire.ProtoNone {
		return wire.DropDummy
	}
	outer := len(d.Bytes)
	switch s.Mode {
	case sa.Tunnel:
		reason = w.leaveTunnel(s)
	case sa.BEET:
		reason = w.leaveBEET(s)
	default:
		reason = w.leaveTransport(s)
	}
	if w.trail != nil && reason == wire.DropNone {
		w.noteOpened(s, outer)
	}
	return reason
}

// leaveTransport puts the IP header in front of the opened payload.
func (w *work) leaveTransport(s *sa.SA) wire.DropReason {
	d, o := &w.d, &w.open
	start := o.pkt.Pay - d.Info.HeaderLen
	b := d.Bytes[start:o.pkt.End]
	copy(b, d.Bytes[:d.Info.HeaderLen])
	b[d.Info.ProtoAt] = o.pkt.NextHeader
	if s.Encap != nil {
		wire.SetSrc(b, s.Src) // what the host and the policies know the peer by
	}
	wire.SetLength(b, int(d.Info.Version), len(b))
	d.Bytes = b
	if reason := wire.Parse(b, &d.Info); reason != wire.DropNone {
		return reason
	}
	if s.Encap != nil {
		repairChecksum(b, &d.Info, s)
	}
	return wire.DropNone
}
