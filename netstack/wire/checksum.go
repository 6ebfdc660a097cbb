package wire

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Offsets of the checksum field in the upper-layer header.
const (
	tcpChecksumAt  = header.TCPChecksumOffset
	udpChecksumAt  = 6
	icmpChecksumAt = 2
)

// PseudoChecksum returns the ones' complement sum of the pseudo header (RFC 9293
// §3.1 for IPv4, RFC 8200 §8.1 for IPv6), not inverted. n is the length of the
// upper-layer header and payload in octets.
func PseudoChecksum(src, dst netip.Addr, proto uint8, n int) uint16 {
	s := checksum.Combine(addrSum(src), addrSum(dst))
	s = checksum.Combine(s, uint16(proto))
	return combineLen(s, n)
}

// combineLen adds a length to a ones' complement sum. It may exceed 16 bits in the
// pseudo header of IPv6.
func combineLen(s uint16, n int) uint16 {
	return checksum.Combine(checksum.Combine(s, uint16(n>>16)), uint16(n))
}

func addrSum(a netip.Addr) uint16 {
	if a.Is4() {
		b := a.As4()
		return checksum.Checksum(b[:], 0)
	}
	b := a.As16()
	return checksum.Checksum(b[:], 0)
}

// FinalDst returns the destination that the pseudo header of a datagram counts: the
// last one of its routing header where segments are left in it (RFC 8200 §8.1), the
// one in the IP header otherwise. in is Parse's result for the datagram.
func FinalDst(datagram []byte, in *Info) netip.Addr {
	if in.Version != 6 || in.HeaderLen == ipv6Len {
		return in.Dst
	}
	for at, proto := ipv6Len, datagram[ipv6ProtoAt]; at < in.HeaderLen; {
		h := datagram[at:in.HeaderLen]
		if proto == ProtoRouting && h[3] != 0 {
			return routingDst(h, in.Dst)
		}
		proto, at = h[0], at+extensionLen(proto, h)
	}
	return in.Dst
}

// extensionLen returns the length of an IPv6 extension header in octets. Parse has
// found the header to be inside the datagram.
func extensionLen(proto uint8, h []byte) int {
	if proto == ProtoFragment {
		return fragHdrLen
	}
	return 8 + 8*int(h[1])
}

// routingDst returns the last address of the routing header h, which has segments
// left: the first in the
// list of segment routing (type 4, RFC 8754 §2), the only one of mobility (type 2,
// RFC 6275 §6.4), the last of type 0 (RFC 2460 §4.4). Types without full addresses
// give dst.
func routingDst(h []byte, dst netip.Addr) netip.Addr {
	at, size := 8, extensionLen(ProtoRouting, h)
	switch h[2] {
	case 0:
		at = size - 16
	case 2, 4:
	default:
		return dst
	}
	if at < 8 || at+16 > size {
		return dst
	}
	return netip.AddrFrom16([16]byte(h[at : at+16]))
}

// FinishChecksum completes in place a checksum that was left to the device, and
// clears the flag in off. Nothing happens if off is nil or has no such flag. in is
// Parse's result for the datagram, and l2Len the length in octets of the Ethernet
// header before it, from whose start off counts.
//
// It returns DropBadOffload, and changes nothing, if off places the checksum in the
// IP header, behind the datagram, or in a fragment, which never has a checksum of
// its own.
//
// A superframe gets the checksum of the one large datagram that it then is.
func FinishChecksum(datagram []byte, in *Info, off VirtioNet, l2Len int) DropReason {
	if off == nil {
		return DropNone
	}
	if len(off) < VirtioNetLen {
		return DropBadOffload
	}
	if !off.NeedsCsum() {
		return DropNone
	}
	start, field, r := checksumPlace(in, off, l2Len)
	if r != DropNone || in.TotalLen > len(datagram) {
		return DropBadOffload
	}
	finishChecksum(datagram[start:in.TotalLen], field-start)
	off.SetFlags(off.Flags() &^ VirtioNetNeedsCsum)
	return DropNone
}

// checksumPlace returns where in the datagram the checksummed part starts and where
// the checksum field is.
func checksumPlace(in *Info, off VirtioNet, l2Len int) (start, field int, r DropReason) {
	start = int(off.CsumStart()) - l2Len
	field = start + int(off.CsumOffset())
	if start < in.HeaderLen || field+2 > in.TotalLen || in.IsFragment {
		return 0, 0, DropBadOffload
	}
	return start, field, DropNone
}

// finishChecksum sums b, whose checksum field holds the sum of the pseudo header.
func finishChecksum(b []byte, field int) {
	putChecksum(b[field:], ^sumUp(b, 0))
}

// putChecksum writes a checksum of TCP or UDP. A zero is sent as all ones: UDP
// takes zero for no checksum (RFC 768), and to a receiver that sums, both are one.
func putChecksum(b []byte, s uint16) {
	if s == 0 {
		s = 0xffff
	}
	binary.BigEndian.PutUint16(b, s)
}

// VerifyL4 reports whether the checksum of the TCP, UDP, ICMP or ICMPv6 packet in a
// datagram is right. in is Parse's result for the datagram. It is true for UDP over
// IPv4 without a checksum (RFC 768), and false where it cannot be told: for a
// fragment, for a header that is cut short, and for other protocols.
func VerifyL4(datagram []byte, in *Info) bool {
	if in.IsFragment || in.TotalLen > len(datagram) {
		return false
	}
	u := datagram[in.HeaderLen:in.TotalLen]
	switch in.Proto {
	case ProtoTCP:
		if in.L4HeaderLen == 0 {
			return false
		}
	case ProtoUDP:
		if in.L4HeaderLen == 0 {
			return false
		}
		n := int(header.UDP(u).Length())
		if n < udpLen || n > len(u) {
			return false
		}
		if header.UDP(u).Checksum() == 0 {
			return in.Version == 4
		}
		u = u[:n]
	case ProtoICMP:
		return in.Version == 4 && len(u) >= 4 && sumUp(u, 0) == 0xffff
	case ProtoICMPv6:
		if in.Version != 6 || len(u) < 4 {
			return false
		}
	default:
		return false
	}
	return sumUp(u, PseudoChecksum(in.Src, FinalDst(datagram, in), in.Proto, len(u))) == 0xffff
}
