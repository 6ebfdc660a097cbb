package ipsec

import (
	"encoding/binary"
	"net/netip"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// BEET mode (draft-nikander-esp-beet-mode-09) looks like transport mode on the wire, but
// for the addresses: the inner ones are not sent, for the SA knows them. All that the
// inner header says else goes in the outer one. Options of IPv4 go behind the ESP header
// as a pseudo header (§5.4); extension headers of IPv6 go there as they are.

// beetFixed is the length of the pseudo header's fixed part: next header, length in units
// of eight octets but for the first, length of the padding, reserved.
const beetFixed = 4

// beetOptions returns the length of the pseudo header for IPv4 options of n octets, a
// multiple of four, with the padding in it that makes it one of eight.
func beetOptions(n int) (length, padding int) {
	if n == 0 {
		return 0, 0
	}
	padding = 4 - n&4
	return beetFixed + padding + n, padding
}

// plain says whether neither options nor extension headers are in in.
func plain(in *wire.Info) bool {
	return in.Version == 4 && in.HeaderLen == 20 || in.Version == 6 && in.HeaderLen == 40
}

// beet tells st how much of the inner header goes: dst is its destination, and header
// its length where that is IPv4.
func (st *step) beet(dst netip.Addr, header int) {
	st.strip = 40
	if dst.Is4() {
		st.strip = header
		st.options, _ = beetOptions(header - 20)
	}
}

// BEETTakes returns how much shorter the payload of an SA in BEET mode is than the
// datagram, in octets: header is the length of the IPv4 header, options included, where
// dst, the inner destination, is IPv4.
func BEETTakes(dst netip.Addr, header int) int {
	var st step
	st.beet(dst, header)
	return st.strip - st.options
}

// leave takes the inner header of BEET mode off the datagram b, which starts at p.Pay:
// what it says goes into o, what has to be protected stays in p. The options end where
// the payload starts, so that only the pseudo header has to be written before them.
func (o *outermost) leave(p *transform.Packet, b []byte, st *step) {
	p.Pay += st.strip - st.options
	if b[0]>>4 == 6 {
		p.NextHeader = b[6]
		o.ttl, o.id, o.flow = b[7], 0, wire.FlowLabel(b)
		return
	}
	p.NextHeader = b[9]
	o.ttl, o.id = b[8], binary.BigEndian.Uint16(b[4:])
	if st.options == 0 {
		return
	}
	h := b[st.strip-st.options:]
	options := st.strip - 20
	_, padding := beetOptions(options)
	proto := p.NextHeader
	h[0], h[1], h[2], h[3] = proto, uint8(options/8), uint8(padding), 0
	for i := range padding {
		h[beetFixed+i] = 1 // no operation (RFC 791 §3.1)
	}
	p.NextHeader = wire.ProtoBEETPH
}

// leaveBEET makes the inner header of s again from the outer one.
func (w *work) leaveBEET(s *sa.SA) wire.DropReason {
	d, o := &w.d, &w.open
	outer := d.Info
	id, flow := uint16(0), wire.FlowLabel(d.Bytes)
	if outer.Version == 4 {
		id = binary.BigEndian.Uint16(d.Bytes[4:])
	}
	next, at, options := o.pkt.NextHeader, o.pkt.Pay, 0
	inner := ipHeaderLen(s.InnerDst)
	if next == wire.ProtoBEETPH {
		h := d.Bytes[at:o.pkt.End]
		if inner != 20 || len(h) < beetFixed {
			return wire.DropBadNextHeader
		}
		size := 8 + 8*int(h[1])
		options = size - beetFixed - int(h[2])
		if size > len(h) || options < 0 || options > 40 || options%4 != 0 {
			return wire.DropMalformed
		}
		next = h[0]
		at += size
	}
	header := inner + options
	if at < header {
		// ESP without IV over IPv4 leaves less room than an IPv6 header takes, but behind it
		// there is what the trailer had.
		moved := header - at
		if o.pkt.End+moved > len(d.Bytes) {
			d.Bytes = append(d.Bytes, make([]byte, moved)...)
		}
		copy(d.Bytes[header:], d.Bytes[at:o.pkt.End])
		at, o.pkt.End = header, o.pkt.End+moved
	}
	b := d.Bytes[at-header : o.pkt.End]
	clear(b[:inner])
	if inner == 40 {
		binary.BigEndian.PutUint32(b, 6<<28|uint32(outer.TOS)<<20|flow)
		b[6], b[7] = next, outer.TTL
	} else {
		b[0], b[1] = 4<<4|uint8(header/4), outer.TOS
		binary.BigEndian.PutUint16(b[4:], id)
		if outer.DF {
			b[6] = 0x40
		}
		b[8], b[9] = outer.TTL, next
	}
	if len(b) > maxDatagram {
		return wire.DropBadLength
	}
	wire.SetSrc(b, s.InnerSrc)
	wire.SetDst(b, s.InnerDst)
	wire.SetLength(b, int(b[0]>>4), len(b))
	d.Bytes = b
	return wire.Parse(b, &d.Info)
}
