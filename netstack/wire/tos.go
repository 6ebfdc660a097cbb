package wire

import "encoding/binary"

// The ECN codepoints: the two low bits of TOS and traffic class (RFC 3168 §5).
const (
	ECNNotECT = 0
	ECNECT1   = 1
	ECNECT0   = 2
	ECNCE     = 3
	ECNMask   = 3
)

// EncapECN returns the ECN codepoint of the outer header for a packet that enters a
// tunnel in normal mode: that of the inner header (RFC 6040 §4.1). Bits above the
// codepoint are ignored, so that a whole TOS octet may be given.
func EncapECN(inner uint8) (outer uint8) { return inner & ECNMask }

// DecapECN returns the ECN codepoint for a packet that leaves a tunnel, given that of
// the outer and the inner header, or says that the packet must be dropped: the
// network marked congestion, and the inner transport would not know (RFC 6040 §4.2,
// figure 4). Bits above the codepoints are ignored.
func DecapECN(outer, inner uint8) (ecn uint8, drop bool) {
	outer, inner = outer&ECNMask, inner&ECNMask
	switch {
	case inner == ECNNotECT:
		return ECNNotECT, outer == ECNCE
	case outer == ECNCE:
		return ECNCE, false
	case inner == ECNECT0 && outer == ECNECT1:
		return ECNECT1, false
	}
	return inner, false
}

// TOS returns the TOS octet of an IPv4 datagram, or the traffic class of an IPv6 one. At
// least two octets must be in b.
func TOS(b []byte) uint8 {
	if b[0]>>4 == 4 {
		return b[1]
	}
	return b[0]<<4 | b[1]>>4
}

// SetTOS sets the TOS octet of an IPv4 datagram, and makes the header checksum right,
// or the traffic class of an IPv6 one. The whole IP header must be in b.
func SetTOS(b []byte, tos uint8) {
	if b[0]>>4 == 4 {
		b[1] = tos
		UpdateIPv4Checksum(b)
		return
	}
	b[0] = b[0]&0xf0 | tos>>4
	b[1] = b[1]&0x0f | tos<<4
}

// FlowLabel returns the flow label of an IPv6 datagram (RFC 8200 §3), 0 for an IPv4
// one. At least four octets must be in b.
func FlowLabel(b []byte) uint32 {
	if b[0]>>4 != 6 {
		return 0
	}
	return binary.BigEndian.Uint32(b) & 0xfffff
}
