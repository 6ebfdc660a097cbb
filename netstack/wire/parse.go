package wire

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// IP protocol numbers that the packet path tells apart.
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIPv4     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoDCCP     = 33
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNone     = 59
	ProtoDestOpts = 60
	ProtoBEETPH   = 94
	ProtoSCTP     = 132
	ProtoMobility = 135
	ProtoUDPLite  = 136
)

const (
	ipv4MinLen  = header.IPv4MinimumSize
	ipv4ProtoAt = 9
	ipv6Len     = header.IPv6MinimumSize
	ipv6ProtoAt = 6
	fragHdrLen  = header.IPv6FragmentHeaderSize
	tcpMinLen   = header.TCPMinimumSize
	udpLen      = header.UDPMinimumSize

	// maxDatagram is the largest IPv4 datagram, and the largest IPv6 payload, in octets.
	maxDatagram = 0xffff
)

// maxExtensionHeaders bounds the work that one IPv6 datagram can ask for. The
// order that RFC 8200 §4.1 recommends has five; RFC 8504 §5.3 allows a limit.
const maxExtensionHeaders = 8

// Info is what Parse found in an IP datagram. All offsets and lengths are in
// octets and count from the start of the IP header; all numbers are in host
// order. It refers to no buffer and may be copied and kept.
type Info struct {
	Src, Dst netip.Addr
	Version  uint8 // 4 or 6
	TOS, TTL uint8 // traffic class and hop limit in IPv6
	DF       bool  // IPv4; always true for IPv6, whose routers never fragment

	IsFragment    bool // FragOffset != 0 || MoreFragments
	MoreFragments bool
	ID            uint32 // identification; 0 for IPv6 without a fragment header
	FragOffset    int
	FragHeaderAt  int // IPv6: offset of the fragment header, 0 if there is none

	TotalLen  int   // of the datagram; link padding behind it is not part of it
	HeaderLen int   // up to the upper-layer header, IPv4 options and IPv6 extension headers included
	Proto     uint8 // upper-layer protocol, ESP and AH among them: the chain stops there
	ProtoAt   int   // offset of the octet that holds Proto

	// Where transport mode puts ESP or AH (RFC 4303 §3.1.1, RFC 4302 §3.1.1): behind
	// the IPv4 header; in IPv6 behind hop-by-hop options, routing and fragment headers,
	// and behind the destination options before a routing header.
	InsertAt      int
	InsertProto   uint8 // the protocol that starts at InsertAt
	InsertProtoAt int   // offset of the octet that names it

	SrcPort, DstPort   uint16 // TCP, UDP, UDP-Lite, SCTP, DCCP
	ICMPType, ICMPCode uint8
	MHType             uint8 // of a mobility header (RFC 6275 §6.1.1)
	// HasPorts says that the fields of the block above that belong to Proto are
	// there. It is false for a fragment that is not the first, for an upper-layer
	// header that is cut short, and for a protocol that has none of them.
	HasPorts    bool
	L4HeaderLen int // the data offset of TCP, 8 for UDP and UDP-Lite, 0 where unknown or out of bounds
}

// Parse reads the IPv4 or IPv6 datagram at the start of b. It writes every field
// of in, allocates nothing and keeps nothing of b.
//
// DropMalformed says that the datagram is cut short, that its lengths contradict
// each other, that it is a fragment that can be part of no datagram, or that the
// IPv4 header checksum is wrong. DropExtensionHeader says that the IPv6 chain has
// more than eight headers, two fragment headers, or hop-by-hop options that do not
// come first (RFC 8200 §4.1). After another result than DropNone, in is undefined.
//
// After DropNone, HeaderLen <= TotalLen <= len(b), ProtoAt < HeaderLen, and InsertAt <= HeaderLen.
//
// In a fragment other than the first, the IPv6 chain ends behind the fragment
// header, and Proto is what its next header field says: the first header of the
// fragmentable part, which need not be an upper-layer protocol. IPv4 options and
// the options inside extension headers are not looked at.
func Parse(b []byte, in *Info) DropReason {
	return parse(b, in, false)
}

// parse does the work of Parse. If quoted is set, b is the packet in an ICMP error:
// it may be cut short, so TotalLen may exceed len(b), and its checksum is not that
// of the header any more where routers changed it.
func parse(b []byte, in *Info, quoted bool) DropReason {
	*in = Info{}
	if len(b) == 0 {
		return DropMalformed
	}
	var r DropReason
	switch b[0] >> 4 {
	case 4:
		r = parseIPv4(b, in, quoted)
	case 6:
		r = parseIPv6(b, in, quoted)
	default:
		r = DropMalformed
	}
	if r != DropNone {
		return r
	}
	if in.IsFragment && !quoted {
		if r := checkFragment(in); r != DropNone {
			return r
		}
	}
	if in.FragOffset == 0 {
		parseUpper(b[:min(in.TotalLen, len(b))], in)
	}
	return DropNone
}

func parseIPv4(b []byte, in *Info, quoted bool) DropReason {
	if len(b) < ipv4MinLen {
		return DropMalformed
	}
	h := header.IPv4(b)
	hl, total := int(h.HeaderLength()), int(h.TotalLength())
	if quoted && total < hl {
		total = len(b) // some hosts quote the length in the wrong byte order, or less the header
	}
	if hl < ipv4MinLen || hl > total || hl > len(b) {
		return DropMalformed
	}
	if !quoted && (total > len(b) || hl == ipv4MinLen && sumIPv4(b) != 0xffff || hl != ipv4MinLen && checksum.Checksum(b[:hl], 0) != 0xffff) {
		return DropMalformed
	}
	flags := h.Flags()
	in.Version = 4
	in.Src = netip.AddrFrom4([4]byte(b[12:16]))
	in.Dst = netip.AddrFrom4([4]byte(b[16:20]))
	in.TOS, in.TTL = b[1], b[8]
	in.DF = flags&header.IPv4FlagDontFragment != 0
	in.MoreFragments = flags&header.IPv4FlagMoreFragments != 0
	in.FragOffset = int(h.FragmentOffset())
	in.IsFragment = in.MoreFragments || in.FragOffset != 0
	in.ID = uint32(h.ID())
	in.TotalLen, in.HeaderLen = total, hl
	in.Proto, in.ProtoAt = b[ipv4ProtoAt], ipv4ProtoAt
	in.InsertAt, in.InsertProto, in.InsertProtoAt = hl, in.Proto, ipv4ProtoAt
	return DropNone
}

func parseIPv6(b []byte, in *Info, quoted bool) DropReason {
	if len(b) < ipv6Len {
		return DropMalformed
	}
	total := ipv6Len + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) && !quoted {
		return DropMalformed
	}
	in.Version = 6
	in.Src = netip.AddrFrom16([16]byte(b[8:24]))
	in.Dst = netip.AddrFrom16([16]byte(b[24:40]))
	in.TOS, in.TTL = b[0]<<4|b[1]>>4, b[7]
	in.DF = true
	in.TotalLen = total
	return parseChain(b[:min(total, len(b))], in)
}

// parseChain walks the extension headers of an IPv6 datagram (RFC 8200 §4).
func parseChain(b []byte, in *Info) DropReason {
	at, protoAt := ipv6Len, ipv6ProtoAt
	in.InsertAt, in.InsertProto, in.InsertProtoAt = at, b[protoAt], protoAt
	for n := 0; ; n++ {
		proto := b[protoAt]
		in.Proto, in.ProtoAt, in.HeaderLen = proto, protoAt, at
		switch proto {
		case ProtoHopByHop:
			if protoAt != ipv6ProtoAt {
				return DropExtensionHeader
			}
		case ProtoFragment:
			if in.FragHeaderAt != 0 {
				return DropExtensionHeader
			}
		case ProtoRouting, ProtoDestOpts:
		default:
			return DropNone
		}
		if n == maxExtensionHeaders {
			return DropExtensionHeader
		}
		if at+8 > len(b) {
			return DropMalformed
		}
		size := fragHdrLen
		if proto != ProtoFragment {
			size = 8 + 8*int(b[at+1])
		}
		if at+size > len(b) {
			return DropMalformed
		}
		if proto == ProtoFragment {
			f := header.IPv6Fragment(b[at:])
			in.FragHeaderAt = at
			in.FragOffset = 8 * int(f.FragmentOffset())
			in.MoreFragments = f.More()
			in.IsFragment = in.MoreFragments || in.FragOffset != 0
			in.ID = f.ID()
		}
		protoAt, at = at, at+size
		if proto != ProtoDestOpts {
			in.InsertAt, in.InsertProto, in.InsertProtoAt = at, b[protoAt], protoAt
		}
		if in.FragOffset != 0 {
			in.Proto, in.ProtoAt, in.HeaderLen = b[protoAt], protoAt, at
			return DropNone
		}
	}
}

// checkFragment refuses fragments that no datagram can be made of: those but the
// last must carry a multiple of eight octets, at least eight, and none may reach
// behind the largest datagram (RFC 791 §3.2, RFC 8200 §4.5).
func checkFragment(in *Info) DropReason {
	start, limit := in.HeaderLen, maxDatagram-in.HeaderLen
	if in.Version == 6 {
		// What counts is the fragmentable part, and the datagram it makes has no
		// fragment header but all that comes before it.
		start = in.FragHeaderAt + fragHdrLen
		limit = maxDatagram - (in.FragHeaderAt - ipv6Len)
	}
	n := in.TotalLen - start
	if in.MoreFragments && (n == 0 || n%8 != 0) {
		return DropMalformed
	}
	if n == 0 || in.FragOffset+n > limit {
		return DropMalformed
	}
	return DropNone
}

// parseUpper reads what selectors can ask for (RFC 4301 §4.4.1.1) from the
// upper-layer header. b ends where the datagram ends.
func parseUpper(b []byte, in *Info) {
	if in.HeaderLen > len(b) {
		return
	}
	u := b[in.HeaderLen:]
	switch in.Proto {
	case ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoSCTP, ProtoDCCP:
		if len(u) < 4 {
			return
		}
		in.SrcPort = binary.BigEndian.Uint16(u)
		in.DstPort = binary.BigEndian.Uint16(u[2:])
		in.HasPorts = true
	case ProtoICMP, ProtoICMPv6:
		if (in.Proto == ProtoICMP) != (in.Version == 4) || len(u) < 2 {
			return
		}
		in.ICMPType, in.ICMPCode = u[0], u[1]
		in.HasPorts = true
		return
	case ProtoMobility:
		if len(u) < 3 {
			return
		}
		in.MHType = u[2]
		in.HasPorts = true
		return
	default:
		return
	}
	switch in.Proto {
	case ProtoTCP:
		if len(u) < tcpMinLen {
			return
		}
		if n := int(header.TCP(u).DataOffset()); n >= tcpMinLen && n <= len(u) {
			in.L4HeaderLen = n
		}
	case ProtoUDP, ProtoUDPLite:
		if len(u) >= udpLen {
			in.L4HeaderLen = udpLen
		}
	}
}
