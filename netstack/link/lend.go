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

// espAt returns where the SPI is in a frame that may go with others, or 0.
func espAt(f []byte) int {
	const ip4, ip6 = HeaderLen + header.IPv4MinimumSize, HeaderLen + header.IPv6MinimumSize
	if len(f) < ip4+wire.ESPMinLen || len(f) > MaxFrameLen ||
		f[0]&wire.VirtioNetNeedsCsum != 0 || f[1] != wire.GSONone || f[wire.VirtioNetLen]&1 != 0 {
		return 0
	}
	b := f[HeaderLen:]
	switch binary.BigEndian.Uint16(f[HeaderLen-2:]) {
	case uint16(header.IPv4ProtocolNumber):
		if b[0] == 0x45 && b[9] == wire.ProtoESP && binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && b[16] < 224 {
			return ip4
		}
	case uint16(header.IPv6ProtocolNumber):
		if b[0]>>4 == 6 && b[6] == wire.ProtoESP && len(f) >= ip6+wire.ESPMinLen && b[24] != 0xff {
			return ip6
		}
	}
	return 0
}

// alike compares Ethernet headers, addresses and SPIs of two ESP packets.
func alike(a, b []byte, at int) bool {
	le := binary.LittleEndian
	if le.Uint64(a[wire.VirtioNetLen:]) != le.Uint64(b[wire.VirtioNetLen:]) || le.Uint64(a[HeaderLen-8:]) != le.Uint64(b[HeaderLen-8:]) ||
		le.Uint32(a[at:]) != le.Uint32(b[at:]) {
		return false
	}
	if at == HeaderLen+header.IPv6MinimumSize {
		return string(a[at-32:at]) == string(b[at-32:at])
	}
	return le.Uint64(a[at-8:]) == le.Uint64(b[at-8:])
}
