package wire

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// UpdateIPv4Checksum writes the header checksum of the IPv4 datagram b anew. The
// whole header, as long as its IHL says, must be in b.
func UpdateIPv4Checksum(b []byte) {
	h := header.IPv4(b)
	h.SetChecksum(0)
	if b[0] == 0x45 {
		h.SetChecksum(^sumIPv4(b))
		return
	}
	h.SetChecksum(^checksum.Checksum(b[:h.HeaderLength()], 0))
}

// SetIPv4TotalLen sets the total length, header included, of the IPv4 datagram b in
// octets, at most 65,535, and makes the header checksum right.
func SetIPv4TotalLen(b []byte, total int) {
	header.IPv4(b).SetTotalLength(uint16(total))
	UpdateIPv4Checksum(b)
}

// SetIPv6PayloadLen sets the payload length of the IPv6 datagram b in octets, at
// most 65,535. Extension headers count, the IPv6 header itself does not.
func SetIPv6PayloadLen(b []byte, n int) {
	binary.BigEndian.PutUint16(b[4:], uint16(n))
}

// SetLength sets the length of the datagram b, header included, to total octets,
// whatever its version (4 or 6), and makes the IPv4 header checksum right.
func SetLength(b []byte, version int, total int) {
	if version == 4 {
		SetIPv4TotalLen(b, total)
		return
	}
	SetIPv6PayloadLen(b, total-ipv6Len)
}
