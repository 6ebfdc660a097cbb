package ipsec

import (
	"encoding/binary"

	"bitw/netstack/wire"
	"bitw/sa"
)

// outermost is what the next outer header has to know of the header that is the
// outermost so far.
type outermost struct {
	tos  uint8
	df   bool
	flow uint32
	// ttl and id are those of a header that BEET mode has taken away; a ttl of 0 is none.
	ttl uint8
	id  uint16
	// cutAfter says that what is sealed has to be fragmented, so that DF cannot be set.
	cutAfter bool
}

// enclose writes the outer IP header of s for a datagram of total octets into b, as
// the tables of RFC 4301 §5.1.2.1 and §5.1.2.2 say, and makes it the outermost.
// Options and extension headers are never copied.
func (o *outermost) enclose(b []byte, s *sa.SA, total int, id func() uint32) {
	h := &s.Headers
	o.tos = h.OuterTOS(o.tos)
	ttl, ident := h.OuterTTL(), o.id
	if o.ttl != 0 {
		ttl, o.ttl = o.ttl, 0
	} else {
		if !h.CopyFlowLabel || o.flow == 0 {
			o.flow = h.FlowLabel
		}
		if len(b) == 20 {
			ident = uint16(id())
		}
	}
	if len(b) == 40 {
		binary.BigEndian.PutUint32(b, 6<<28|uint32(o.tos)<<20|o.flow)
		binary.BigEndian.PutUint16(b[4:], uint16(total-40))
		b[6], b[7] = s.Key.Proto, ttl
		src, dst := s.Src.As16(), s.Key.Dst.As16()
		copy(b[8:], src[:])
		copy(b[24:], dst[:])
		return
	}
	o.df, o.flow = h.OuterDF(o.df) && !o.cutAfter, 0
	b[0], b[1] = 0x45, o.tos
	binary.BigEndian.PutUint16(b[4:], ident)
	b[6], b[7] = 0, 0
	if o.df {
		b[6] = 0x40
	}
	b[8], b[9] = ttl, s.Key.Proto
	src, dst := s.Src.As4(), s.Key.Dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	wire.SetIPv4TotalLen(b, total)
}

// leaveTunnel takes the outer header away, but for what the SA wants of its TOS field
// (RFC 4301 §5.1.2, RFC 6040 §4.2). The inner TTL stays as it is: the datagram ends at
// the host behind, or another router counts it down.
func (w *work) leaveTunnel(s *sa.SA) wire.DropReason {
	d, o := &w.d, &w.open
	outerTOS := d.Info.TOS
	b := d.Bytes[o.pkt.Pay:o.pkt.End]
	if o.pkt.NextHeader != wire.ProtoIPv4 && o.pkt.NextHeader != wire.ProtoIPv6 {
		return wire.DropBadNextHeader // even where what is inside could be a datagram
	}
	if reason := wire.Parse(b, &d.Info); reason != wire.DropNone {
		return reason
	}
	if (o.pkt.NextHeader == wire.ProtoIPv4) != (d.Info.Version == 4) {
		return wire.DropBadNextHeader
	}
	// Behind the datagram there may be padding for traffic flow confidentiality (RFC
	// 4303 §2.7).
	d.Bytes = b[:d.Info.TotalLen]
	tos, congested := s.Headers.InnerTOS(outerTOS, d.Info.TOS)
	if congested {
		return wire.DropECN
	}
	if tos != d.Info.TOS {
		d.Info.TOS = tos
		wire.SetTOS(d.Bytes, tos)
	}
	return wire.DropNone
}
