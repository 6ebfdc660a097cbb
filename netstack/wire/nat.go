package wire

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// SetSrc writes the source address of the datagram b, whose family is the address's.
// The IPv4 header checksum is left as it was.
func SetSrc(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b[12:], v[:])
		return
	}
	v := a.As16()
	copy(b[8:], v[:])
}

// SetDst writes the destination address, as SetSrc does.
func SetDst(b []byte, a netip.Addr) {
	if a.Is4() {
		v := a.As4()
		copy(b[16:], v[:])
		return
	}
	v := a.As16()
	copy(b[24:], v[:])
}

// l4Checksum returns the upper-layer packet of a datagram and the offset of its
// checksum, where the checksum covers the pseudo header. whole says that it also covers
// all of the packet.
func l4Checksum(datagram []byte, in *Info) (u []byte, at int, whole, ok bool) {
	if in.IsFragment || in.TotalLen > len(datagram) {
		return nil, 0, false, false
	}
	u = datagram[in.HeaderLen:in.TotalLen]
	switch in.Proto {
	case ProtoTCP:
		return u, tcpChecksumAt, true, in.L4HeaderLen != 0
	case ProtoUDP:
		if in.L4HeaderLen == 0 {
			return nil, 0, false, false
		}
		n := int(binary.BigEndian.Uint16(u[4:]))
		if n < udpLen || n > len(u) {
			return nil, 0, false, false
		}
		return u[:n], udpChecksumAt, true, true
	case ProtoUDPLite:
		return u, udpChecksumAt, false, in.L4HeaderLen != 0
	case ProtoDCCP:
		return u, 6, false, len(u) >= 12
	case ProtoICMPv6:
		return u, icmpChecksumAt, true, in.Version == 6 && len(u) >= 4
	}
	return nil, 0, false, false
}

// MoveL4Checksum makes the checksum of the TCP, UDP, UDP-Lite, DCCP or ICMPv6 packet in
// a datagram, which was made for the addresses oldSrc and oldDst, one for the addresses
// that the datagram has now; a wrong one stays wrong (RFC 3948 §3.1.2, RFC 3022 §4.2).
// in is Parse's result for the datagram. Nothing happens for a UDP datagram without
// checksum, and for other protocols, whose checksums know no addresses.
func MoveL4Checksum(datagram []byte, in *Info, oldSrc, oldDst netip.Addr) {
	u, at, _, ok := l4Checksum(datagram, in)
	if !ok {
		return
	}
	sum := binary.BigEndian.Uint16(u[at:])
	if in.Proto == ProtoUDP && sum == 0 {
		return
	}
	s := ^sum
	s = subtract(s, checksum.Combine(addrSum(oldSrc), addrSum(oldDst)))
	s = checksum.Combine(s, checksum.Combine(addrSum(in.Src), addrSum(FinalDst(datagram, in))))
	putChecksum(u[at:], ^s)
}

// RenewL4Checksum makes the checksum of the TCP, UDP or ICMPv6 packet in a datagram
// right for the addresses that the datagram has; that of UDP over IPv4 it takes away
// (RFC 3948 §3.1.2). in is Parse's result for the datagram. Nothing happens for other
// protocols, and for a UDP datagram without checksum.
func RenewL4Checksum(datagram []byte, in *Info) {
	u, at, whole, ok := l4Checksum(datagram, in)
	if !ok || !whole {
		return
	}
	if in.Proto == ProtoUDP {
		if binary.BigEndian.Uint16(u[at:]) == 0 {
			return
		}
		if in.Version == 4 {
			u[at], u[at+1] = 0, 0
			return
		}
	}
	u[at], u[at+1] = 0, 0
	putChecksum(u[at:], ^checksum.Checksum(u, PseudoChecksum(in.Src, FinalDst(datagram, in), in.Proto, len(u))))
}

// FillUDPChecksum fills the checksum of the UDP datagram u, which runs from its header
// to the end of its payload, for an IP header with these addresses.
func FillUDPChecksum(u []byte, src, dst netip.Addr) {
	u[udpChecksumAt], u[udpChecksumAt+1] = 0, 0
	putChecksum(u[udpChecksumAt:], ^checksum.Checksum(u, PseudoChecksum(src, dst, ProtoUDP, len(u))))
}

// LeaveUDPChecksum leaves the checksum of the UDP datagram in b, whose header starts at
// octets into it and which ends where b does, to the device, and says so in off. The
// Ethernet header before b has 14 octets, and the IP header no other destination than
// its own.
func LeaveUDPChecksum(b []byte, at int, off VirtioNet) {
	leaveUDPChecksum(b, at, len(b)-at)
	off.SetFlags(VirtioNetNeedsCsum)
	off.SetCsumStart(uint16(ethernetLen + at))
	off.SetCsumOffset(udpChecksumAt)
}

// leaveUDPChecksum writes what a device begins with: the sum of the pseudo header, for n
// octets of UDP header and payload.
func leaveUDPChecksum(b []byte, at, n int) {
	addresses := b[12:ipv4MinLen]
	if b[0]>>4 == 6 {
		addresses = b[8:ipv6Len]
	}
	s := combineLen(checksum.Combine(checksum.Checksum(addresses, 0), ProtoUDP), n)
	binary.BigEndian.PutUint16(b[at+udpChecksumAt:], s)
}
