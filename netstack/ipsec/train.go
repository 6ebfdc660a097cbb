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
	var head [frameHead]byte
	if hop.named {
		e.lookAhead(hop)
		copy(head[wire.VirtioNetLen:], w.station[:])
	} else {
		mac, known := e.neighbors.Lookup(hop.nextHop)
		if !known {
			return false
		}
		copy(head[wire.VirtioNetLen:], mac)
	}
	putEthernet(head[:], []byte(e.wireMAC()), b.version(&w.d.Info))
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
		*(*[frameHead]byte)(buf[start-frameHead:]) = head
		if !simple {
			b.leaveChecksum(buf[start:end], buf[start-frameHead:][:wire.VirtioNetLen])
		}
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

// runLen is how many packets of a lane are opened, at most, before they are accepted
// together: few enough that what was opened is near when it is joined.
const runLen = 8

// A run is packets of a lane that were opened, in ascending order of their numbers: each of
// them is new or not, whether those before it are accepted yet or not.
type run struct {
	n       int
	fulls   [runLen]uint64
	reasons [runLen]wire.DropReason
	opened  [runLen]opened
}

// opened is what of a packet was opened in its frame.
type opened struct {
	frame []byte // from its virtio-net header on
	// Where the datagram has its ESP header and its payload, and where that ends.
	hdr, pay, end int
	head          int // length of the IP header
	nextHeader    uint8
	newest        bool
}

// inboundTrain takes the frames behind the one that has just been taken, as far as they
// have to go the same way.
func (e *Engine) inboundTrain(w *work, t *wire.Train) {
	w.like.Of(w.head[:])
	wire.Prefetch(first(t.Frames))
	for w.lane.to != nil {
		n := e.inboundRun(w, t.Frames[t.Taken:])
		if n == 0 {
			break
		}
		t.Taken += n
	}
	clear(w.run.opened[:])
	e.endLane(w)
}

// first returns the first of the frames, or nil.
func first(frames [][]byte) []byte {
	if len(frames) == 0 {
		return nil
	}
	return frames[0]
}

// inboundRun takes some of the frames by the lane, and returns how many. The next one has
// to go the way of every packet if there are none.
func (e *Engine) inboundRun(w *work, frames [][]byte) int {
	s, r := w.lane.sa, &w.run
	if e.spd.Load() != w.lane.spd || s.Usable(w.now) != wire.DropNone {
		return 0
	}
	r.n = 0
	failed, more := wire.DropNone, true
	for more && r.n < min(runLen, len(frames)) {
		// The next one is on its way from memory while this one is opened.
		wire.Prefetch(first(frames[r.n+1:]))
		failed, more = w.openBehind(s, frames[r.n])
	}
	n := r.n
	s.AcceptRun(r.fulls[:n], r.reasons[:n])
	for i := range n {
		o := &r.opened[i]
		if reason := r.reasons[i]; reason != wire.DropNone {
			e.dropBehind(w, s, o.frame, reason)
		} else if w.lane.to == nil || !e.joinLane(w, o) {
			e.leaveLane(w, s, o, r.fulls[i])
		} else if s.Encap != nil {
			w.open.encap.seen[0] = sighting{w.lane.from, r.fulls[i], o.newest}
			e.follow(w, w.lane.policy)
		}
	}
	if failed != wire.DropNone {
		e.dropBehind(w, s, frames[n], failed)
		n++
	}
	return n
}

// openBehind adds f to the run if it is a packet of the lane, whose SA is s, and authentic;
// that is to be accepted yet. Else more is false: f is to be dropped for a reason, or has to
// go another way.
func (w *work) openBehind(s *sa.SA, f []byte) (reason wire.DropReason, more bool) {
	if !w.like.Fits(f) {
		return wire.DropNone, false
	}
	b, head := f[frameHead:], 40
	if b[0]>>4 == 4 {
		if head = 20; !wire.CorrectIPv4(b) {
			return wire.DropNone, false
		}
		b = b[:binary.BigEndian.Uint16(b[2:])]
	} else if n := 40 + int(binary.BigEndian.Uint16(b[4:])); n <= len(b) {
		b = b[:n]
	} else {
		return wire.DropNone, false
	}
	esp, ok := w.lane.espAt(b, head)
	if !ok {
		return wire.DropNone, false
	}
	h, ok := wire.NewESP(b[min(esp, len(b)):])
	if !ok || h.SPI() != s.Key.SPI {
		return wire.DropNone, false
	}
	r := &w.run
	full, reason := s.CheckReplay(h.Seq())
	if reason != wire.DropNone || r.n > 0 && full <= r.fulls[r.n-1] {
		return wire.DropNone, false
	}
	p := &w.open.pkt
	p.Buf, p.Net, p.Hdr, p.End = b, 0, esp, len(b)
	if reason = s.Transform.Open(p, transform.Sequence{SPI: s.Key.SPI, Number: full, ESN: s.ESN}); reason != wire.DropNone {
		return reason, false
	}
	o := &r.opened[r.n]
	o.frame, o.hdr, o.pay, o.end, o.head = f, esp, p.Pay, p.End, head
	o.nextHeader, o.newest = p.NextHeader, s.Newest(full)
	r.fulls[r.n] = full
	r.n++
	return wire.DropNone, true
}

// dropBehind drops f, a packet of s behind others, and ends the lane.
func (e *Engine) dropBehind(w *work, s *sa.SA, f []byte, reason wire.DropReason) {
	e.endLane(w)
	w.reset()
	w.d.Bytes = f[frameHead:]
	if wire.Parse(w.d.Bytes, &w.d.Info) != wire.DropNone {
		e.drop(w, hook.Right, reason, nil, s)
		return
	}
	if w.d.Bytes = w.d.Bytes[:w.d.Info.TotalLen]; !e.stripUDP(w) {
		e.dropped(w, hook.Right, reason, nil, s)
	}
}

// joinLane adds the payload of a packet to the superframe, or sends that and begins another,
// and returns false, and has done nothing, if it cannot be joined to anything.
func (e *Engine) joinLane(w *work, o *opened) bool {
	l := &w.lane
	b, proto := o.frame[frameHead:], o.nextHeader
	outer, payload := b[:o.head], b[o.pay:o.end]
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

// leaveLane takes a packet, whose ESP of s was opened and accepted, on as every packet.
// full is its number.
func (e *Engine) leaveLane(w *work, s *sa.SA, o *opened, full uint64) {
	p, queue := w.open.pkt, w.queue
	e.endLane(w)
	w.reset()
	pkt := hook.PacketFrom(o.frame)
	defer pkt.DecRef()
	pkt.Hash = queue
	if reason := w.read(pkt, hook.Right); reason != wire.DropNone {
		e.drop(w, hook.Right, reason, nil, s)
		return
	}
	before := len(w.d.Bytes)
	e.stripUDP(w)
	off := before - len(w.d.Bytes)
	p.Buf, p.Hdr, p.Pay, p.End, p.NextHeader = w.d.Bytes, o.hdr-off, o.pay-off, o.end-off, o.nextHeader
	w.open.pkt = p
	src := tcpip.LinkAddress(pkt.LinkHeader().Slice()[6:12])
	e.inboundUnwrapped(w, e.leave(w, s, full, o.newest), s, src, pkt, nil)
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
