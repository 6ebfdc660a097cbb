package ipsec

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	// minPathMTU is the least that a message from the wire may lower the path MTU to:
	// the datagram that every IPv4 host takes (RFC 791 §3.1); a lower one would let a
	// forger make us send crumbs.
	minPathMTU = 576
	// ipv6MinMTU is the least that an IPv6 link has (RFC 8200 §5).
	ipv6MinMTU = 1280
)

// pathLimit returns the largest datagram in octets that may leave towards the
// next hop under this bundle.
func (e *Engine) pathLimit(b *bundle, hop route, now int64) int {
	limit := e.MTU()
	if hop.mtu != 0 {
		limit = min(limit, hop.mtu)
	}
	for i := range b.steps[:b.n] {
		if learned := b.steps[i].sa.PMTU(now); learned != 0 {
			limit = min(limit, learned)
		}
	}
	return limit
}

// sizing is what fit found.
type sizing struct {
	// piece is the largest datagram that w.cut was readied for.
	piece int
	// tooBig, if not 0, is the MTU that the host has to be told.
	tooBig int
	reason wire.DropReason
}

// fit readies w.cut for w.d, so that each piece has at most maxInner octets if
// that can be; what may not be cut so small is either answered with an ICMP
// error, or sealed as it is and fragmented afterwards.
func (e *Engine) fit(w *work, maxInner int) sizing {
	d := &w.d
	fw := e.forwarders.For(d.Info.Proto)
	if maxInner <= d.Info.HeaderLen {
		return sizing{reason: wire.DropTooBig}
	}
	size := len(d.Bytes)
	train := d.Net != nil && d.Net.GSOKind() != wire.GSONone
	if train {
		reason := fw.Cut(&w.cut, d, maxInner)
		if reason != wire.DropTooBig {
			return sizing{piece: min(maxInner, size), reason: reason}
		}
		size = d.Info.HeaderLen + d.Info.L4HeaderLen + int(d.Net.GSOSize())
	}
	if size > maxInner {
		told := maxInner
		if d.Info.Version == 6 {
			told = max(told, ipv6MinMTU)
		}
		if d.Info.DF && size > told {
			return sizing{tooBig: told}
		}
	}
	return sizing{piece: size, reason: fw.Cut(&w.cut, d, size)}
}

// tooBig tells the host that w.d must have at most mtu octets (RFC 4301 §8.2),
// and counts it.
func (e *Engine) tooBig(w *work, p *sa.Policy, mtu int) {
	if w.trail != nil {
		w.trail.Add(trace.Step{Station: trace.PathMTU, Verdict: "told to the host", Octets: mtu, Left: true})
	}
	e.dropped(w, hook.Left, wire.DropTooBig, p, nil)
	if b, ok := wire.AppendTooBig(w.icmp[:0], w.d.Bytes, &w.d.Info, mtu); ok {
		e.icmpToHost(w, b)
	}
}

// unreachable tells the host that w.d has no way to its destination, and counts
// why.
func (e *Engine) unreachable(w *work, p *sa.Policy, reason wire.DropReason) {
	e.dropped(w, hook.Left, reason, p, nil)
	e.hostUnreachable(w)
}

// hostUnreachable sends the ICMP error that a router would send about w.d.
func (e *Engine) hostUnreachable(w *work) {
	if b, ok := wire.AppendUnreachable(w.icmp[:0], w.d.Bytes, &w.d.Info, wire.UnreachableHost(w.d.Info.Version)); ok {
		e.icmpToHost(w, b)
	}
}

// icmpToHost sends an error of ours to the left. It came from nobody on the
// wire, so its Ethernet source is the box.
func (e *Engine) icmpToHost(w *work, b []byte) {
	w.icmp = b
	if !e.icmpLimit.allow(w.now) {
		return
	}
	w.out.Reset()
	e.toHost(w, b, boxMAC)
	e.sides[hook.Left].errors.Add(1)
	e.toLeft(w, w.d.Info.Src)
}

// boxMAC is the Ethernet source of frames that bitw itself makes for the host: a
// locally administered address, since the box has none.
const boxMAC = tcpip.LinkAddress("\x02bitw\x01")

// learnPathMTU takes an ICMP error from the wire that speaks of a packet of ours
// (RFC 4301 §8.2.1). It returns false if the error is about something else; if
// true, it is dealt with.
//
// The only proof that such a message can carry is what it encloses: the SPI of
// an SA of ours and a sequence number that went out not long ago. What it may
// do is bounded below, and ages.
func (e *Engine) learnPathMTU(w *work) bool {
	d := &w.d
	if d.Info.Proto != wire.ProtoICMP && d.Info.Proto != wire.ProtoICMPv6 || !wire.IsICMPError(&d.Info) {
		return false
	}
	quoted, reason := wire.Enclosed(d.Bytes, &d.Info, &w.inner)
	if reason != wire.DropNone {
		return false
	}
	s, seq := e.quotedSA(quoted, &w.inner)
	if s == nil {
		return false
	}
	mtu, floor, tooBig := 0, minPathMTU, false
	icmp := d.Bytes[d.Info.HeaderLen:]
	switch {
	case len(icmp) < 8:
	case d.Info.Version == 4 && d.Info.ICMPType == 3 && d.Info.ICMPCode == 4:
		mtu, tooBig = int(binary.BigEndian.Uint16(icmp[6:])), true
	case d.Info.Version == 6 && d.Info.ICMPType == 2:
		mtu, floor, tooBig = int(min(binary.BigEndian.Uint32(icmp[4:]), maxDatagram)), ipv6MinMTU, true
	}
	if !tooBig || !s.Sent(seq) {
		e.drop(w, hook.Right, wire.DropICMPPolicy, nil, s)
		return true
	}
	if s.SetPMTU(max(mtu, floor), w.now) {
		e.sides[hook.Right].learned.Add(1)
		if w.trail != nil {
			w.trail.Add(trace.Step{Station: trace.PathMTU, Verdict: "learned", Name: s.Name, SPI: s.Key.SPI, Octets: max(mtu, floor)})
		}
	}
	return true
}

// quotedSA returns the SA by which a packet left that an ICMP error quotes, and the
// packet's sequence number (host order); nil if it is none of ours.
func (e *Engine) quotedSA(quoted []byte, in *wire.Info) (s *sa.SA, seq uint32) {
	if in.Proto == wire.ProtoUDP {
		return e.quotedEncap(quoted, in)
	}
	if in.Proto != wire.ProtoESP && in.Proto != wire.ProtoAH {
		return nil, 0
	}
	spi, seq, ok := spiAndSeq(quoted, in)
	if !ok {
		return nil, 0
	}
	s = e.sad.LookupOutbound(spi, in.Dst, in.Proto)
	if s != nil && s.Encap != nil {
		return nil, 0
	}
	return s, seq
}

// spiAndSeq reads SPI and sequence number (host order) of the ESP or AH header
// of a datagram, which may be cut short.
func spiAndSeq(b []byte, in *wire.Info) (spi, seq uint32, ok bool) {
	if in.Proto == wire.ProtoAH {
		if len(b) < in.HeaderLen+wire.AHMinLen {
			return 0, 0, false
		}
		h := b[in.HeaderLen:]
		return binary.BigEndian.Uint32(h[4:]), binary.BigEndian.Uint32(h[8:]), true
	}
	h, ok := wire.NewESP(b[min(in.HeaderLen, len(b)):])
	if !ok {
		return 0, 0, false
	}
	return h.SPI(), h.Seq(), true
}
