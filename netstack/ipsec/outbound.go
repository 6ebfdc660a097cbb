package ipsec

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// outbound takes a datagram from the left (RFC 4301 §5.1). pkt is borrowed for
// the call.
func (e *Engine) outbound(pkt *stack.PacketBuffer) {
	w := e.work()
	defer e.done(w)
	if train := wire.TrainOf(pkt.Owner); train != nil {
		w.whole = train.Whole
	}
	w.takeTrail(pkt)
	w.batch = e.batchOf(pkt)
	e.outboundPacket(w, pkt)
}

// outboundPacket is outbound for a datagram that comes now or has waited for an SA.
func (e *Engine) outboundPacket(w *work, pkt *stack.PacketBuffer) {
	if reason := w.read(pkt, hook.Left); reason != wire.DropNone {
		e.drop(w, hook.Left, reason, nil, nil)
		return
	}
	w.station = e.stationOf(pkt.LinkHeader().Slice())
	if !w.d.Info.IsFragment {
		e.outboundWhole(w, pkt, nil)
		return
	}
	// RFC 4301 §7: ports are known once the datagram is whole.
	set, reason := e.sides[hook.Left].fragments.add(w.now, &w.d, pkt, nil)
	if reason != wire.DropNone || set == nil {
		w.notePart(reason)
		return // the reassembler counts
	}
	defer set.release()
	if w.d.Info.Version == 6 {
		w.fragmentID = w.d.Info.ID
	}
	if w.d.Bytes, reason = set.join(&w.d.Info); reason != wire.DropNone {
		e.drop(w, hook.Left, reason, nil, nil)
		return
	}
	if w.trail != nil {
		w.noteFragment("reassembled", len(w.d.Bytes))
	}
	w.d.Net = nil
	// Whoever sends fragments has them sent again after ESP; an error would only ask
	// for smaller ones, and those make the same datagram.
	w.d.Info.DF = false
	e.outboundWhole(w, nil, set)
}

// outboundWhole decides about w.d. It came as pkt, or as the fragments in set.
func (e *Engine) outboundWhole(w *work, pkt *stack.PacketBuffer, set *fragmentSet) {
	p := e.outboundPolicy(w)
	if w.trail != nil {
		w.noteRule(p)
	}
	switch {
	case p == nil:
		e.dropped(w, hook.Left, wire.DropNoPolicy, nil, nil)
	case set != nil && p.DiscardFragments && p.Action != sa.Discard:
		e.dropped(w, hook.Left, wire.DropFragPolicy, p, nil)
	case p.Action == sa.Bypass && w.quotes:
		e.dropped(w, hook.Left, wire.DropICMPPolicy, p, nil)
	case p.Action == sa.Bypass:
		e.bypassOut(w, p, pkt, set)
	case p.Action == sa.Protect:
		if !e.holdBehind(w, p, pkt, set) {
			e.protect(w, p, pkt, set)
		}
	default:
		e.dropped(w, hook.Left, wire.DropPolicyDiscard, p, nil)
		if p.Reject {
			e.prohibited(w)
		}
	}
}

// outboundPolicy looks w.d up in the SPD. An ICMP error that no policy names goes by the
// one for the datagram that it encloses (RFC 4301 §6.1). So does one that would pass in the
// clear although it quotes what has to come protected; where nothing goes back protected it
// is not to leave. The last question to the SPD is the one whose answer counts.
func (e *Engine) outboundPolicy(w *work) *sa.Policy {
	spd := e.spd.Load()
	p := spd.Lookup(sa.Outbound, flowOf(&w.flow, sa.Outbound, &w.d.Info))
	if p != nil && p.Action != sa.Bypass || !e.forwarders.For(w.d.Info.Proto).Enclosed(&w.d, &w.inner) {
		return p
	}
	came := spd.Lookup(sa.Inbound, flowOf(&w.flow, sa.Inbound, &w.inner))
	w.quotes = w.quotes || came != nil && came.Action == sa.Protect
	if w.inner.Src == w.d.Info.Dst && (p == nil || w.quotes) {
		back := spd.Lookup(sa.Outbound, flowOf(&w.flow, sa.Inbound, &w.inner))
		if p == nil || back != nil && back.Action == sa.Protect {
			return back
		}
	}
	return spd.Lookup(sa.Outbound, flowOf(&w.flow, sa.Outbound, &w.d.Info))
}

// bypassOut sends what came from the left to the right as it is.
func (e *Engine) bypassOut(w *work, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) {
	hop, reason := e.nextHop(w, w.d.Info.Dst)
	if reason != wire.DropNone {
		e.unreachable(w, p, reason)
		return
	}
	switch tooBig, reason := e.cross(w, pkt, set, hook.Right); {
	case tooBig != 0:
		e.tooBig(w, p, tooBig)
		return
	case reason != wire.DropNone:
		e.dropped(w, hook.Left, reason, p, nil)
		return
	}
	for _, pkt := range w.out.AsSlice() {
		pkt.NetworkPacketInfo.IsForwardedPacket = true // for Revoked
	}
	octets := len(w.d.Bytes)
	hop.kept = hop.named && e.hosts != nil
	e.turned(w, hook.Right, octets)
	e.toWire(w, hop)
	p.Counters[sa.Outbound].Add(1, octets, w.now)
}

// protect applies the policy's SAs to w.d and sends the result to the right. A
// rollover may come in between, so an SA that fails is tried anew if the lineage has
// another one by now.
func (e *Engine) protect(w *work, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) {
	if p.Populate != 0 {
		entry, reason := p.Demand(&w.flow, w.now)
		if reason != wire.DropNone {
			e.drop(w, hook.Left, reason, p, nil)
			return
		}
		p = entry
	}
	d, b := &w.d, &w.plan
	reason, s := b.init(p, &d.Info, w.now)
	for reason != wire.DropNone && (reason == wire.DropNoSA && e.acquire(w, p, pkt, set) || b.superseded(s)) {
		reason, s = b.init(p, &d.Info, w.now)
	}
	if reason == wire.DropNoSA {
		return // acquire has it
	}
	if reason != wire.DropNone {
		e.dropped(w, hook.Left, reason, p, s)
		return
	}
	hop, reason := e.nextHop(w, b.dst)
	if reason != wire.DropNone {
		e.unreachable(w, p, reason)
		return
	}
	limit := e.pathLimit(b, hop, w.now)
	maxInner := b.maxInner(limit)
	size := e.fit(w, maxInner)
	if size.tooBig != 0 {
		e.tooBig(w, p, size.tooBig)
		return
	}
	if size.reason != wire.DropNone {
		e.dropped(w, hook.Left, size.reason, p, nil)
		return
	}
	b.cutAfter = size.piece > maxInner
	whole := b.sealedLen(size.piece) <= maxDatagram
	if b.cutAfter && b.mayCutBefore(&d.Info, whole) {
		if e.protectFragments(w, p, hop, maxInner) {
			e.protect(w, p, pkt, set)
		}
		return
	}
	if !whole {
		// No host could be sent this; the next one it may send in one piece.
		e.tooBig(w, p, b.maxInner(maxDatagram))
		return
	}
	n := w.cut.Segments()
	if reason, s := b.takeSeq(n); reason != wire.DropNone {
		if b.superseded(s) {
			e.protect(w, p, pkt, set)
			return
		}
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	if n > 1 && e.protectTrain(w, p, hop, size.piece, n) {
		return
	}
	octets := 0
	room := b.room(size.piece)
	for i := range n {
		v, buf := newFrame(room)
		start := frameHead + b.front
		end := start + w.cut.Next(buf[start:start+size.piece])
		if p.MSSClamp != 0 {
			e.clampMSS(p, buf[start:end], &d.Info, maxInner)
		}
		octets += end - start
		start, end, reason, s := b.seal(buf, start, end, i, &d.Info, e.nextID)
		if reason != wire.DropNone {
			v.Release()
			e.drop(w, hook.Left, reason, p, s)
			continue
		}
		if end-start > limit {
			e.fragment(w, p, buf[start:end], limit)
			v.Release()
			continue
		}
		w.push(b.packet(v, start, end, e.wireMAC()))
	}
	e.protected(w, p, hop, n, octets)
}

// protected sends the batch of n sealed datagrams, of octets before protection, and
// counts them.
func (e *Engine) protected(w *work, p *sa.Policy, hop route, n, octets int) {
	e.countProtected(w, p, n, octets)
	if w.trail != nil {
		w.noteSealed(octets)
	}
	e.turned(w, hook.Right, len(w.d.Bytes))
	e.toWire(w, hop)
}

func (e *Engine) countProtected(w *work, p *sa.Policy, n, octets int) {
	for i := range w.plan.steps[:w.plan.n] {
		w.plan.steps[i].sa.Used(n, octets, w.now)
	}
	p.Counters[sa.Outbound].Add(n, octets, w.now)
}

// toWire sends the batch to the station that the host has named or to the next hop,
// or leaves it with the neighbours until the hop's Ethernet address is known.
func (e *Engine) toWire(w *work, hop route) {
	if hop.named {
		e.lookAhead(hop)
		for _, pkt := range w.out.AsSlice() {
			h := pkt.LinkHeader().Slice()
			copy(h, w.station[:])
			if !hop.kept {
				copy(h[6:12], e.wireMAC())
			}
		}
		if w.trail != nil {
			w.noteNeighbor("named by the host", hop.nextHop, string(w.station[:]), false)
		}
		e.flush(w, hook.Right)
		return
	}
	mac, known := e.neighbors.Lookup(hop.nextHop)
	if w.trail != nil {
		w.noteNeighbor(knownWord(known), hop.nextHop, string(mac), false)
	}
	if !known {
		w.keepTrail()
	}
	for _, pkt := range w.out.AsSlice() {
		h := pkt.LinkHeader().Slice()
		copy(h[6:12], e.wireMAC())
		if known {
			copy(h, mac)
		} else {
			e.neighbors.Enqueue(hop.nextHop, pkt)
		}
	}
	if !known {
		if len(w.d.Bytes) > 0 { // else the host did not send it
			e.waiting.remember(w, hop.nextHop)
		}
		w.out.Reset()
		return
	}
	e.flush(w, hook.Right)
}

// lookAhead has a next hop asked for that the host has found itself.
func (e *Engine) lookAhead(hop route) {
	if e.ahead.Load() {
		e.neighbors.Want(hop.nextHop)
	}
}

func (e *Engine) nextID() uint32 { return e.ids.Add(1) }
