package ipsec

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// Traffic flow confidentiality: padding that hides how long packets are (RFC 4303
// §2.7), and dummy packets that hide how many there are (§2.6).

// tfcPadding is to how many octets s, the i-th SA of a bundle, pads its payload, before
// it is known what fits. In transport mode only payloads that tell their own length can
// be padded, with nothing behind them yet.
func tfcPadding(s *sa.SA, i int, in *wire.Info) int {
	if s.TFCPadding == 0 || s.Key.Proto != wire.ProtoESP {
		return 0
	}
	if s.Mode != sa.Tunnel && (i > 0 || !tellsLength(in.InsertProto)) || s.Mode == sa.BEET && !plain(in) {
		return 0
	}
	if s.TFCPadding == sa.PadToMTU {
		return maxDatagram
	}
	return s.TFCPadding
}

// tellsLength says whether a payload of that protocol says itself where it ends. A dummy
// packet need not.
func tellsLength(proto uint8) bool {
	switch proto {
	case wire.ProtoUDP, wire.ProtoIPv4, wire.ProtoIPv6, wire.ProtoNone:
		return true
	}
	return false
}

// ends says whether the payload b of that protocol ends where it says itself. UDP
// options (RFC 9868) stand behind the end that UDP tells, and padding would be taken
// for some.
func ends(proto uint8, b []byte) bool {
	switch {
	case proto == wire.ProtoUDP:
		return len(b) >= wire.UDPLen && int(binary.BigEndian.Uint16(b[4:])) == len(b)
	case proto == wire.ProtoNone:
		return true
	}
	var in wire.Info
	return wire.Parse(b, &in) == wire.DropNone && in.TotalLen == len(b)
}

// pad makes the payload of p, whose protocol is proto in transport mode, as long as st
// wants it.
func (st *step) pad(p *transform.Packet, proto uint8) {
	if end := p.Pay + st.padTo; end > p.End && (st.outer != 0 && st.strip == 0 || ends(proto, p.Buf[p.Pay:p.End])) {
		clear(p.Buf[p.End:end])
		p.End = end
	}
}

// dummies is what the engine keeps of SAs that send dummy packets.
type dummies struct {
	// policies are those of spd that protect, one for each innermost SA.
	spd      *sa.SPD
	policies []*sa.Policy
	// next is when the next packet of a lineage is due.
	next map[*sa.Lineage]int64
}

// maxDummyBurst is how many dummy packets of one SA are sent at once when calls of
// SendDummies come late; what is due beyond is left out.
const maxDummyBurst = 32

// SendDummies sends the dummy packets that are due (RFC 4303 §2.6). Where any SA has a
// rate, the owner calls it as often as packets are to be sent, from one goroutine.
func (e *Engine) SendDummies() {
	now, x := e.clock(), &e.dummies
	if spd := e.spd.Load(); spd != x.spd {
		x.spd, x.policies = spd, nil
		seen := make(map[*sa.Lineage]bool)
		for _, p := range spd.Policies() {
			if p.Action == sa.Protect && len(p.Out) > 0 && !seen[p.Out[0]] {
				seen[p.Out[0]] = true
				x.policies = append(x.policies, p)
			}
		}
		x.next = make(map[*sa.Lineage]int64)
	}
	for _, p := range x.policies {
		l := p.Out[0]
		s := l.Outbound()
		if s == nil || s.Dummies == 0 {
			continue
		}
		gap := int64(1e9) / int64(s.Dummies)
		next, ok := x.next[l]
		if !ok {
			next = now + gap
		}
		for n := 0; next <= now; n++ {
			if n == maxDummyBurst {
				next = now + gap
				break
			}
			e.sendDummy(p, s)
			next += gap
		}
		x.next[l] = next
	}
}

// sendDummy sends a packet with next header 59 by the SAs of p, the innermost of which
// is s. Like the padding, its contents are zeros before they are encrypted; its length
// is any that fits, or that to which s pads.
func (e *Engine) sendDummy(p *sa.Policy, s *sa.SA) {
	w := e.work()
	defer e.done(w)
	b := &w.plan
	w.icmp = append(w.icmp[:0], make([]byte, ipHeaderLen(s.Key.Dst))...)
	putIPHeader(w.icmp, s.Src, s.Key.Dst, wire.ProtoNone, e.nextID)
	if reason := wire.Parse(w.icmp, &w.d.Info); reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	if reason, s := b.init(p, &w.d.Info, w.now); reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	b.dummy = true
	hop, reason := e.nextHop(w, b.dst)
	if reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	least, most := len(w.icmp), b.maxInner(e.pathLimit(b, hop, w.now))
	if padTo := b.steps[0].padTo; padTo > least {
		most = min(most, padTo)
	}
	if most < least {
		e.drop(w, hook.Left, wire.DropTooBig, p, s)
		return
	}
	n := least + rand.IntN(most-least+1)
	if reason, s := b.takeSeq(1); reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	v, buf := newFrame(b.room(n))
	start := frameHead + b.front
	putIPHeader(buf[start:start+n], s.Src, s.Key.Dst, wire.ProtoNone, e.nextID)
	start, end, reason, s := b.seal(buf, start, start+n, 0, &w.d.Info, e.nextID)
	if reason != wire.DropNone {
		v.Release()
		e.drop(w, hook.Left, reason, p, s)
		return
	}
	w.push(b.packet(v, start, end, e.wireMAC()))
	for i := range b.steps[:b.n] {
		b.steps[i].sa.Used(1, n, w.now)
	}
	b.steps[0].sa.DummiesSent.Add(1)
	e.toWire(w, hop)
}

// ipHeaderLen is the length of an IP header of a's family without options.
func ipHeaderLen(a netip.Addr) int {
	if a.Is4() {
		return 20
	}
	return 40
}

// putIPHeader writes the IP header of a datagram of ours, which is b and cleared.
func putIPHeader(b []byte, src, dst netip.Addr, proto uint8, id func() uint32) {
	if dst.Is6() {
		b[0], b[6], b[7] = 6<<4, proto, sa.DefaultTTL
	} else {
		b[0], b[8], b[9] = 4<<4|5, sa.DefaultTTL, proto
		binary.BigEndian.PutUint16(b[4:], uint16(id()))
	}
	wire.SetSrc(b, src)
	wire.SetDst(b, dst)
	wire.SetLength(b, int(b[0]>>4), len(b))
}
