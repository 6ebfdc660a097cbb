package wire

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	src4 = netip.MustParseAddr("192.0.2.1")
	dst4 = netip.MustParseAddr("198.51.100.2")
	src6 = netip.MustParseAddr("2001:db8::1")
	dst6 = netip.MustParseAddr("2001:db8:1::2")
)

// sum is the ones' complement sum of RFC 1071, written as the RFC words it: 16 bits
// at a time, the carries folded in at the end.
func sum(parts ...[]byte) uint16 {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	if len(all)%2 != 0 {
		all = append(all, 0)
	}
	var s uint64
	for i := 0; i < len(all); i += 2 {
		s += uint64(all[i])<<8 | uint64(all[i+1])
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo is the pseudo header of RFC 9293 §3.1 and RFC 8200 §8.1 in octets.
func pseudo(src, dst netip.Addr, proto uint8, n int) []byte {
	b := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return append(b, 0, proto, byte(n>>8), byte(n))
	}
	return append(b, 0, 0, byte(n>>8), byte(n), 0, 0, 0, proto)
}

// build4 makes an IPv4 datagram; options must be a multiple of four octets.
func build4(options []byte, proto uint8, payload []byte) []byte {
	hl := 20 + len(options)
	b := make([]byte, hl, hl+len(payload))
	b[0] = 0x40 | byte(hl/4)
	binary.BigEndian.PutUint16(b[2:], uint16(hl+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0x1234)
	b[8], b[9] = 64, proto
	copy(b[12:], src4.AsSlice())
	copy(b[16:], dst4.AsSlice())
	copy(b[20:], options)
	fix4(b)
	return append(b, payload...)
}

// fix4 makes the header checksum right with the sum of this file.
func fix4(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^sum(b[:int(b[0]&15)*4]))
}

// setFrag4 sets the flags (4 reserved, 2 DF, 1 MF) and the offset in octets.
func setFrag4(b []byte, flags uint16, offset int) {
	binary.BigEndian.PutUint16(b[6:], flags<<13|uint16(offset/8))
	fix4(b)
}

// An ext is an extension header: its protocol and its octets, the first of which
// build6 sets.
type ext struct {
	proto uint8
	b     []byte
}

func hopByHop() ext { return ext{ProtoHopByHop, []byte{0, 0, 1, 4, 0, 0, 0, 0}} }
func destOpts() ext { return ext{ProtoDestOpts, []byte{0, 1, 1, 12, 0, 0, 0, 0, 15: 0}} }

// routing is a segment routing header (RFC 8754 §2) with one segment, via.
func routing(left uint8, via netip.Addr) ext {
	return ext{ProtoRouting, append([]byte{0, 2, 4, left, 0, 0, 0, 0}, via.AsSlice()...)}
}

func fragHdr(offset int, more bool, id uint32) ext {
	b := make([]byte, 8)
	v := uint16(offset)
	if more {
		v |= 1
	}
	binary.BigEndian.PutUint16(b[2:], v)
	binary.BigEndian.PutUint32(b[4:], id)
	return ext{ProtoFragment, b}
}

// build6 makes an IPv6 datagram.
func build6(chain []ext, proto uint8, payload []byte) []byte {
	b := make([]byte, 40)
	b[0] = 0x60
	b[7] = 64
	copy(b[8:], src6.AsSlice())
	copy(b[24:], dst6.AsSlice())
	at := 6
	for _, e := range chain {
		b[at] = e.proto
		at = len(b)
		b = append(b, e.b...)
	}
	b[at] = proto
	b = append(b, payload...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
	return b
}

// tcpSegment makes a TCP header with options and payload, checksum 0.
func tcpSegment(seq uint32, flags uint8, options, payload []byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 443)
	binary.BigEndian.PutUint32(b[4:], seq)
	binary.BigEndian.PutUint32(b[8:], 0xcafe)
	b[12] = byte((20 + len(options)) / 4 << 4)
	b[13] = flags
	binary.BigEndian.PutUint16(b[14:], 0x7210)
	return append(append(b, options...), payload...)
}

// udpDatagram makes a UDP header and payload, checksum 0.
func udpDatagram(payload []byte) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 53)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(payload)))
	return append(b, payload...)
}

// count makes n octets of which any two that are close differ.
func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	return b
}

func mustParse(t testing.TB, b []byte) Info {
	t.Helper()
	var in Info
	if r := Parse(b, &in); r != DropNone {
		t.Fatalf("Parse(% x): %v", b[:min(len(b), 80)], r)
	}
	return in
}
