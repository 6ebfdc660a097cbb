package link

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
)

// sameESP returns how many frames from the first on are ESP packets that every hook and the
// engine must treat alike until they open them: the Ethernet headers, addresses and SPIs
// are the same, the station is one, and nothing is left to a device. It is at least 1; the
// first may be anything.
func sameESP(frames [][]byte) int {
	first := frames[0]
	n := 1
	if at := espAt(first); at != 0 {
		for n < len(frames) && espAt(frames[n]) == at && alike(first, frames[n], at) {
			n++
		}
	}
	return n
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
	const eth = HeaderLen - wire.VirtioNetLen
	addresses := 8
	if at == HeaderLen+header.IPv6MinimumSize {
		addresses = 32
	}
	return string(a[wire.VirtioNetLen:][:eth]) == string(b[wire.VirtioNetLen:][:eth]) &&
		string(a[at-addresses:at+4]) == string(b[at-addresses:at+4])
}
