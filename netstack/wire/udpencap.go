package wire

import "encoding/binary"

// UDPLen is the length of a UDP header in octets.
const UDPLen = udpLen

// An EncapKind is what a UDP datagram on a port of ESP in UDP holds (RFC 3948 §2).
type EncapKind uint8

const (
	// EncapOther is too short for ESP with its sequence number, and nothing else.
	EncapOther EncapKind = iota
	// EncapESP begins with an SPI, which is never zero (§2.1).
	EncapESP
	// EncapIKE begins with four zero octets, the non-ESP marker (§2.2).
	EncapIKE
	// EncapKeepalive is the one octet 0xff (§2.3).
	EncapKeepalive
)

// KeepalivePayload is the payload of a NAT keepalive (RFC 3948 §2.3).
const KeepalivePayload = 0xff

// EncapPayload returns the UDP payload of a datagram, which ends where the UDP length
// says, and what it holds. in is Parse's result for the datagram. A fragment, another
// protocol than UDP and a length that contradicts the datagram's give EncapOther and
// nil.
func EncapPayload(datagram []byte, in *Info) ([]byte, EncapKind) {
	if in.Proto != ProtoUDP || in.IsFragment || in.L4HeaderLen != udpLen || in.TotalLen > len(datagram) {
		return nil, EncapOther
	}
	u := datagram[in.HeaderLen:in.TotalLen]
	n := int(binary.BigEndian.Uint16(u[4:]))
	if n < udpLen || n > len(u) {
		return nil, EncapOther
	}
	b := u[udpLen:n]
	switch {
	case len(b) == 1 && b[0] == KeepalivePayload:
		return b, EncapKeepalive
	case len(b) >= 4 && binary.BigEndian.Uint32(b) == 0:
		return b, EncapIKE
	case len(b) >= ESPMinLen:
		return b, EncapESP
	}
	return b, EncapOther
}

// PutUDPHeader writes a UDP header in front of the payload that begins UDPLen octets
// into b and ends where b ends: ports in host order, checksum 0.
func PutUDPHeader(b []byte, srcPort, dstPort uint16) {
	binary.BigEndian.PutUint16(b, srcPort)
	binary.BigEndian.PutUint16(b[2:], dstPort)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], 0)
}
