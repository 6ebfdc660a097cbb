package link

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
)

// maxHeaders is how many octets of a superframe a packet holds that stands for it: enough
// for an IPv4 header with all its options, and what selectors ask for behind it.
const maxHeaders = HeaderLen + header.IPv4MaximumHeaderSize + header.TCPHeaderMaximumSize

// isSuperframe tells whether a frame is a TCP superframe to one station, of whose datagram
// hooks need nothing but the headers.
func isSuperframe(f []byte) bool {
	if len(f) <= maxHeaders || f[wire.VirtioNetLen]&1 != 0 {
		return false
	}
	b := f[HeaderLen:]
	switch wire.VirtioNet(f).GSOKind() {
	case wire.GSOTCPv4:
		return binary.BigEndian.Uint16(f[HeaderLen-2:]) == uint16(header.IPv4ProtocolNumber) &&
			b[0]>>4 == 4 && b[9] == wire.ProtoTCP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && b[16] < 224
	case wire.GSOTCPv6:
		return binary.BigEndian.Uint16(f[HeaderLen-2:]) == uint16(header.IPv6ProtocolNumber) &&
			b[0]>>4 == 6 && b[6] == wire.ProtoTCP && b[24] != 0xff
	}
	return false
}
