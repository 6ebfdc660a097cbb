package ipsec

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// Out, the segments of a superframe go as a wire.Train: sealed side by side in memory that
// stays the engine's, and written at once. In, an ESP packet takes the way of every packet;
// if it ends as part of a superframe for the host, those of the same SA that the link has
// behind it only have to be authentic and to continue what it began: no question of policy
// has another answer for them.

const (
	// trainRoom bounds the memory of a train in octets.
	trainRoom = 96 << 10
	// trainAlign is what frames in it are aligned to.
	trainAlign = 64
)

// protectTrain does what is left of protect for the n segments of a superframe, none
// longer than piece, whose sequence numbers are taken. It returns false, and has done
// nothing, where each needs a packet of its own: while somebody looks, while the next
// hop's Ethernet address is not known, and for fragments.
func (e *Engine) protectTrain(w *work, p *sa.Policy, hop route, piece, n int) bool {
	b := &w.plan
	if w.trail != nil || b.cutAfter {
		return false
	}
	var eth [ethernetLen]byte
	if hop.named {
		copy(eth[:], w.station[:])
	} else {
		mac, known := e.neighbors.Lookup(hop.nextHop)
		if !known {
			return false
		}
		copy(eth[:], mac)
	}
	copy(eth[6:], e.wireMAC())
	stride := (frameHead + b.room(piece) + trainAlign - 1) &^ (trainAlign - 1)
	if stride > trainRoom {
		return false
	}
	if w.room == nil {
		w.room = make([]byte, trainRoom)
	}
	octets, room, simple := 0, w.room, b.simple(&w.d.Info)
	w.train.Frames = w.train.Frames[:0]
	for i := range n {
		if len(room) < stride {
			e.sendTrain(w, hook.Right)
			w.train.Frames, room = w.train.Frames[:0], w.room
		}
		buf := room[:stride:stride]
		room = room[stride:]
		start := frameHead + b.front
		var end, plain int
		var reason wire.DropReason
		var s *sa.SA
		if simple {
			start, end, plain, reason = b.sealNext(buf, i, &w.cut)
			s = b.steps[0].sa
		} else {
			end = start + w.cut.Next(buf[start:start+piece])
			plain = end - start
			start, end, reason, s = b.seal(buf, start, end, i, &w.d.Info, e.nextID)
		}
		octets += plain
		if reason != wire.DropNone {
			e.drop(w, hook.Left, reason, p, s)
			continue
		}
		head := buf[start-frameHead : start]
		clear(head[:wire.VirtioNetLen])
		copy(head[wire.VirtioNetLen:], eth[:12])
		putEthernet(head, eth[6:], buf[start]>>4)
		b.leaveChecksum(buf[start:end], head[:wire.VirtioNetLen])
		w.train.Frames = append(w.train.Frames, buf[start-frameHead:end])
	}
	e.countProtected(w, p, n, octets)
	e.turned(w, hook.Right, len(w.d.Bytes))
	e.sendTrain(w, hook.Right)
	return true
}

// simple says whether all that happens to segments of in is one SA with ESP in transport
// mode directly behind the IP header, and nothing beside.
func (b *bundle) simple(in *wire.Info) bool {
	st := &b.steps[0]
	return b.n == 1 && st.outer == 0 && st.udp == 0 && st.padTo == 0 &&
		st.sa.Key.Proto == wire.ProtoESP && st.insertAt == in.HeaderLen
}

// sealNext cuts and seals the next segment where the bundle is simple, with the index-th
// sequence number of the run: what Next and seal do, without moving a header. It returns
// where the datagram is in buf, and how long it was before.
func (b *bundle) sealNext(buf []byte, index int, c *wire.Cutter) (start, end, plain int, reason wire.DropReason) {
	st, p := &b.steps[0], &b.pkt
	t := st.sa.Transform
	start = frameHead
	p.Buf, p.Net, p.Hdr = buf, start, start+st.insertAt
	p.Pay = p.Hdr + t.HeaderLen()
	n := c.NextUpper(buf[p.Pay:])
	p.End = p.Pay + n
	p.NextHeader = c.Proto()
	c.Header(buf[start:], st.protoAt, wire.ProtoESP, p.End-start+t.TrailerLen(n))
	reason = t.Seal(p, transform.Sequence{SPI: st.sa.Key.SPI, Number: st.seq + uint64(index), ESN: st.sa.ESN})
	return start, p.End, st.insertAt + n, reason
}

// A lane is the way that a packet took which became part of a superframe, for those behind
// it. Its SA is in transport or tunnel mode, and the only one of the way.
type lane struct {
	to     *coalesced // nil for none
	sa     *sa.SA
	policy *sa.Policy
	spd    *sa.SPD
	from   netip.AddrPort // where the SA's ESP in UDP comes from
	// What the packets of the lane came to that are not counted yet: how many there are,
	// their octets as the SA counts them, and those of the datagrams.
	n, carried, octets int
}

// begin makes the way of w.d one for others, if it is so simple.
func (l *lane) begin(w *work, spd *sa.SPD, p *sa.Policy, to *coalesced) {
	s := w.open.removed[0]
	if w.trail != nil || w.open.n != 1 || s.Key.Proto != wire.ProtoESP || s.Mode == sa.BEET || s.Metered() {
		return
	}
	from := w.open.encap.seen[0].from
	if s.Encap != nil && s.Mode == sa.Transport && (from.Addr() != s.Src || s.Encap.OriginalLocal.IsValid() || s.Encap.OriginalRemote.IsValid()) {
		return // a NAT's doing has to be undone in each
	}
	*l = lane{to: to, sa: s, policy: p, spd: spd, from: from}
}

// espAt returns where ESP begins in the datagram b, whose IP header has head octets, or
// false if it does not come as the lane's.
func (l *lane) espAt(b []byte, head int) (int, bool) {
	if l.sa.Encap == nil {
		return head, true
	}
	proto, n := b[9], head+wire.UDPLen
	if head == 40 {
		proto = b[6]
	}
	if len(b) < n || proto != wire.ProtoUDP || sourceOf(b) != l.from.Addr() {
		return 0, false
	}
	u := b[head:]
	return n, binary.BigEndian.Uint16(u) == l.from.Port() && binary.BigEndian.Uint16(u[2:]) == l.sa.Encap.LocalPort &&
		int(binary.BigEndian.Uint16(u[4:])) == len(u)
}

// inboundTrain takes the frames behind the one that has just been taken, as far as they
// have to go the same way.
func (e *Engine) inboundTrain(w *work, t *wire.Train) {
	at := wire.UpperAt(w.head[:])
	wire.Prefetch(first(t.Frames))
	for i, f := range t.Frames {
		// The next one is on its way from memory while this one is opened.
		wire.Prefetch(first(t.Frames[i+1:]))
		if w.lane.to == nil || at == 0 || !wire.SameFlow(w.head[:], f, at) || !e.inboundBehind(w, f) {
			break
		}
		t.Taken++
	}
	e.endLane(w)
}

// first returns the first of the frames, or nil.
func first(frames [][]byte) []byte {
	if len(frames) == 0 {
		return nil
	}
	return frames[0]
}

// inboundBehind takes a frame by the lane. It returns false, and has done nothing, if the
// frame has to go the way of every packet.
func (e *Engine) inboundBehind(w *work, f []byte) bool {
	l, b := &w.lane, f[frameHead:]
	head := 40
	if b[0]>>4 == 4 {
		if head = 20; !wire.CorrectIPv4(b) {
			return false
		}
		b = b[:binary.BigEndian.Uint16(b[2:])]
	} else if n := 40 + int(binary.BigEndian.Uint16(b[4:])); n <= len(b) {
		b = b[:n]
	} else {
		return false
	}
	esp, ok := l.espAt(b, head)
	if !ok {
		return false
	}
	h, ok := wire.NewESP(b[min(esp, len(b)):])
	s := l.sa
	if !ok || h.SPI() != s.Key.SPI || e.spd.Load() != l.spd || s.Usable(w.now) != wire.DropNone {
		return false
	}
	full, reason := s.CheckReplay(h.Seq())
	if reason != wire.DropNone {
		return false
	}
	o := &w.open
	o.pkt.Buf, o.pkt.Net, o.pkt.Hdr, o.pkt.End = b, 0, esp, len(b)
	reason = s.Transform.Open(&o.pkt, transform.Sequence{SPI: s.Key.SPI, Number: full, ESN: s.ESN})
	if reason == wire.DropNone {
		newest := s.Newest(full)
		if reason = s.Accept(full); reason == wire.DropNone {
			if !e.joinLane(w, b[:head], b[o.pkt.Pay:o.pkt.End], o.pkt.NextHeader) {
				e.leaveLane(w, f, full, newest)
			} else if s.Encap != nil {
				o.encap.seen[0] = sighting{l.from, full, newest}
				e.follow(w, l.policy)
			}
			return true
		}
	}
	e.endLane(w)
	w.reset()
	w.d.Bytes = b
	if wire.Parse(b, &w.d.Info) != wire.DropNone {
		e.drop(w, hook.Right, reason, nil, s)
	} else if !e.stripUDP(w) {
		e.dropped(w, hook.Right, reason, nil, s)
	}
	return true
}

// joinLane adds a payload that came behind the IP header outer to the superframe, or
// sends that and begins another, and returns false, and has done nothing, if it cannot be
// joined to anything.
func (e *Engine) joinLane(w *work, outer, payload []byte, proto uint8) bool {
	l := &w.lane
	flow := l.to.merger.Proto()
	ip, l4, carried := outer, payload, len(payload)
	if l.sa.Mode == sa.Transport {
		if proto != flow {
			return false
		}
		carried += len(ip)
	} else {
		head, n := 20, 0
		switch {
		case proto == wire.ProtoIPv4 && wire.CorrectIPv4(payload) && payload[9] == flow:
			n = int(binary.BigEndian.Uint16(payload[2:]))
		case proto == wire.ProtoIPv6 && len(payload) >= 40 && payload[0]>>4 == 6 && payload[6] == flow:
			head, n = 40, 40+int(binary.BigEndian.Uint16(payload[4:]))
		}
		if n < head || n > len(payload) {
			return false
		}
		ip, l4 = payload[:head], payload[head:n]
		tos := wire.TOS(ip)
		if now, congested := l.sa.Headers.InnerTOS(wire.TOS(outer), tos); congested || now != tos {
			return false
		}
	}
	if len(ip)+len(l4) > e.LinkMTU(hook.Left) {
		return false
	}
	if m := &l.to.merger; m.Segments() == coalesceSegments || !m.Join(ip, l4) {
		if l.sa.Encap != nil && l.sa.Mode == sa.Transport || !m.Follows(ip, l4) {
			return false // behind a NAT a checksum may first have to be repaired
		}
		e.release(w, l.to)
		m.Again(ip, l4)
	}
	l.n++
	l.carried += carried
	l.octets += len(ip) + len(l4)
	return true
}

// leaveLane takes f, whose ESP is opened and accepted, on as every packet.
func (e *Engine) leaveLane(w *work, f []byte, full uint64, newest bool) {
	s, opened, queue := w.lane.sa, w.open.pkt, w.queue
	e.endLane(w)
	w.reset()
	pkt := hook.PacketFrom(f)
	defer pkt.DecRef()
	pkt.Hash = queue
	if reason := w.read(pkt, hook.Right); reason != wire.DropNone {
		e.drop(w, hook.Right, reason, nil, s)
		return
	}
	before := len(w.d.Bytes)
	e.stripUDP(w)
	off := before - len(w.d.Bytes)
	opened.Buf, opened.Hdr, opened.Pay, opened.End = w.d.Bytes, opened.Hdr-off, opened.Pay-off, opened.End-off
	w.open.pkt = opened
	src := tcpip.LinkAddress(pkt.LinkHeader().Slice()[6:12])
	e.inboundUnwrapped(w, e.leave(w, s, full, newest), s, src, pkt, nil)
}

// endLane counts what went by the lane, and closes it.
func (e *Engine) endLane(w *work) {
	l := &w.lane
	if l.n > 0 {
		l.sa.Used(l.n, l.carried, w.now)
		l.policy.Counters[sa.Inbound].Add(l.n, l.octets, w.now)
		e.forwarders.Count(l.to.merger.Proto(), hook.Left, l.n, l.octets)
	}
	*l = lane{}
}
