package ipsec

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// A bundle is the SAs that one outbound datagram gets, in the order of their
// application, with the arithmetic of their overhead. It is the same for all
// datagrams cut from one superframe.
type bundle struct {
	n     int
	steps [maxBundle]step
	// front is how many octets all SAs together put in front.
	front int
	// slack is how far behind frameHead what is sealed starts, for BEET mode may put less
	// in front than it takes away.
	slack int
	// src and dst are the addresses on the wire.
	src, dst netip.Addr
	// cutAfter says that what is sealed has to be fragmented.
	cutAfter bool
	// offload says that the right link finishes UDP checksums.
	offload bool
	// dummy says that the innermost SA carries a dummy packet (RFC 4303 §2.6).
	dummy bool
	// pkt is the transform's argument; a field so that it needs no allocation.
	pkt transform.Packet
}

// step is one SA of a bundle.
type step struct {
	sa *sa.SA
	// insertAt is where the ESP or AH header goes in transport mode, and protoAt the
	// octet that names what follows there; from the start of the datagram.
	insertAt, protoAt int
	// outer is the length of the outer IP header in tunnel and BEET mode, 0 in transport
	// mode. strip is how much of the inner one BEET mode takes away, and options how much
	// of that goes on behind ESP (see beet.go).
	outer, strip, options int
	// udp is the length of the UDP header of ESP in UDP, 0 without encapsulation, and
	// remote where the packet goes then.
	udp    int
	remote netip.AddrPort
	// padTo is the least length of the payload (RFC 4303 §2.7), set by maxInner.
	padTo int
	// seq is the first of the run of sequence numbers taken for the batch.
	seq uint64
}

func (b *bundle) reset() {
	for i := range b.steps[:b.n] {
		b.steps[i].sa = nil
	}
	b.n, b.front, b.slack, b.dummy, b.cutAfter = 0, 0, 0, false, false
	b.pkt.Buf = nil
}

// init looks up the SAs that p demands now for the datagram in. The SA at fault
// is returned with the reason.
func (b *bundle) init(p *sa.Policy, in *wire.Info, now int64) (wire.DropReason, *sa.SA) {
	b.reset()
	b.src, b.dst = in.Src, in.Dst
	insertAt, protoAt := in.InsertAt, in.InsertProtoAt
	header, moved := in.HeaderLen, 0 // of IPv4, options included
	if len(p.Out) == 0 || len(p.Out) > maxBundle {
		return wire.DropNoSA, nil
	}
	for i, lineage := range p.Out {
		s := lineage.Outbound()
		if s == nil {
			return wire.DropNoSA, nil
		}
		b.n = i + 1
		st := &b.steps[i]
		*st = step{sa: s}
		if reason := s.Usable(now); reason != wire.DropNone {
			return reason, s
		}
		if s.Mode == sa.BEET {
			if b.src != s.InnerSrc || b.dst != s.InnerDst {
				return wire.DropSelectorMismatch, s
			}
			st.beet(b.dst, header)
		}
		if s.Mode != sa.Transport {
			st.outer, protoAt = 20, 9
			if s.Key.Dst.Is6() {
				st.outer, protoAt = 40, 6
			}
			insertAt, header = st.outer, st.outer
			b.src, b.dst = s.Src, s.Key.Dst
		} else if s.Key.Dst != b.dst {
			// A transport mode SA ends where the datagram does.
			return wire.DropSelectorMismatch, s
		}
		st.insertAt, st.protoAt = insertAt, protoAt
		if s.Encap != nil {
			st.udp, st.remote = wire.UDPLen, s.Remote()
			b.dst = st.remote.Addr()
		}
		st.padTo = tfcPadding(s, i, in)
		moved += st.outer + st.udp + s.Transform.HeaderLen() + st.options - st.strip
		b.front = max(b.front, moved)
	}
	b.slack = b.front - moved
	return wire.DropNone, nil
}

// sealedLen returns the length of a datagram of n octets after all SAs.
func (b *bundle) sealedLen(n int) int {
	for i := range b.steps[:b.n] {
		st := &b.steps[i]
		_, padded := st.payload(n)
		n = st.kept() + st.udp + st.sa.Transform.HeaderLen() + padded + st.sa.Transform.TrailerLen(padded)
	}
	return n
}

// payload returns the length of what st encloses of a datagram of n octets, before and
// after it is padded to hide how long it is.
func (st *step) payload(n int) (plain, padded int) {
	plain = n - st.insertAt
	if st.outer != 0 {
		plain = n + st.options - st.strip
	}
	return plain, max(plain, st.padTo)
}

// kept is the length of the IP header that goes in front: a new one, or the datagram's own.
func (st *step) kept() int {
	if st.outer != 0 {
		return st.outer
	}
	return st.insertAt
}

// room returns the octets that sealing a datagram of n octets needs, behind frameHead.
func (b *bundle) room(n int) int { return b.slack + max(b.sealedLen(n), n) }

// maxInner returns the largest datagram in octets whose sealed form has at most
// limit, or a negative number if there is none. From then on no datagram is padded
// beyond limit for the sake of its length.
func (b *bundle) maxInner(limit int) int {
	for i := b.n - 1; i >= 0; i-- {
		st := &b.steps[i]
		room := st.sa.Transform.MaxPayload(limit - st.insertAt - st.udp)
		if room < 0 {
			return -1
		}
		st.padTo = min(st.padTo, room)
		if limit = room + st.strip - st.options; st.outer == 0 {
			limit += st.insertAt
		}
	}
	return limit
}

// version is the IP version of what becomes of the datagram in.
func (b *bundle) version(in *wire.Info) uint8 {
	for i := b.n - 1; i >= 0; i-- {
		switch b.steps[i].outer {
		case header.IPv4MinimumSize:
			return 4
		case header.IPv6MinimumSize:
			return 6
		}
	}
	return in.Version
}

// superseded says whether the lineage of s sends by another SA by now.
func (*bundle) superseded(s *sa.SA) bool {
	if s == nil || s.Lineage == nil {
		return false
	}
	next := s.Lineage.Outbound()
	return next != nil && next != s
}

// takeSeq takes n sequence numbers from each SA.
func (b *bundle) takeSeq(n int) (wire.DropReason, *sa.SA) {
	for i := range b.steps[:b.n] {
		st := &b.steps[i]
		var reason wire.DropReason
		if st.seq, reason = st.sa.TakeSeq(n); reason != wire.DropNone {
			return reason, st.sa
		}
	}
	return wire.DropNone, nil
}

// seal applies all SAs to the datagram at [start, end) of buf, whose parsed
// header is in, with the index-th sequence number of the run. It returns the
// new bounds; start moves left by front-slack octets. id makes identifications.
func (b *bundle) seal(buf []byte, start, end, index int, in *wire.Info, id func() uint32) (int, int, wire.DropReason, *sa.SA) {
	o := outermost{tos: in.TOS, df: in.DF, flow: wire.FlowLabel(buf[start:]), cutAfter: b.cutAfter}
	for i := range b.steps[:b.n] {
		st := &b.steps[i]
		s, t := st.sa, st.sa.Transform
		p := &b.pkt
		p.Buf, p.Net, p.Hdr, p.Pay, p.End, p.NextHeader = buf, 0, 0, start, end, 0
		headerLen := t.HeaderLen()
		if st.outer != 0 {
			p.NextHeader = wire.ProtoIPv4
			if buf[start]>>4 == 6 {
				p.NextHeader = wire.ProtoIPv6
			}
			if st.strip != 0 {
				o.leave(p, buf[start:end], st)
			}
			if b.dummy && i == 0 {
				p.NextHeader = wire.ProtoNone
			}
			st.pad(p, p.NextHeader)
			p.Hdr = p.Pay - headerLen
			start = p.Hdr - st.udp - st.outer
			total := st.outer + st.udp + headerLen + (p.End - p.Pay) + t.TrailerLen(p.End-p.Pay)
			o.enclose(buf[start:start+st.outer], s, total, id)
		} else {
			p.Pay = start + st.insertAt
			st.pad(p, buf[start+st.protoAt])
			p.Hdr = p.Pay - headerLen
			copy(buf[start-headerLen-st.udp:], buf[start:p.Pay])
			start -= headerLen + st.udp
			p.NextHeader = buf[start+st.protoAt]
			buf[start+st.protoAt] = s.Key.Proto
			wire.SetLength(buf[start:], int(buf[start]>>4), p.End-start+t.TrailerLen(p.End-p.Pay))
		}
		p.Net = start
		reason := t.Seal(p, transform.Sequence{SPI: s.Key.SPI, Number: st.seq + uint64(index), ESN: s.ESN})
		if reason != wire.DropNone {
			return 0, 0, reason, s
		}
		end = p.End
		if st.udp != 0 {
			st.encapsulate(buf[start:end], p.Hdr-start, b.fillsChecksum(i))
		}
	}
	return start, end, wire.DropNone, nil
}
