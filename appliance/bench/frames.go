package bench

import (
	"encoding/binary"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/link"
	"bitw/netstack/wire"
)

const (
	// Segment is how many octets of payload each TCP segment has, in memory.
	Segment = 1400
	// segmentsEach is how many segments a superframe has.
	segmentsEach = 42
	// tcpHeader has the timestamps that every connection of today has.
	tcpHeader = header.TCPMinimumSize + 12
	// payloadEach is how many octets of payload a superframe has.
	payloadEach = segmentsEach * Segment
)

// superframe is a frame as a kernel hands it to a TAP: checksum and cutting left to
// the device.
func superframe(src, dst net.HardwareAddr, from, to netip.Addr) []byte {
	const l3, l4 = header.IPv4MinimumSize, tcpHeader
	b := make([]byte, link.HeaderLen+l3+l4+payloadEach)
	v := wire.VirtioNet(b)
	v.SetFlags(wire.VirtioNetNeedsCsum)
	v.SetGSOType(wire.GSOTCPv4)
	v.SetGSOSize(Segment)
	v.SetHdrLen(header.EthernetMinimumSize + l3 + l4)
	v.SetCsumStart(header.EthernetMinimumSize + l3)
	v.SetCsumOffset(header.TCPChecksumOffset)
	eth := b[wire.VirtioNetLen:]
	copy(eth, dst)
	copy(eth[6:], src)
	binary.BigEndian.PutUint16(eth[12:], uint16(header.IPv4ProtocolNumber))
	source, destination := tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice())
	ip := header.IPv4(b[link.HeaderLen:])
	ip.Encode(&header.IPv4Fields{
		TotalLength: uint16(l3 + l4 + payloadEach), TTL: 64, Protocol: wire.ProtoTCP, Flags: header.IPv4FlagDontFragment,
		SrcAddr: source, DstAddr: destination,
	})
	ip.SetChecksum(^ip.CalculateChecksum())
	tcp := header.TCP(b[link.HeaderLen+l3:])
	tcp.Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, DataOffset: l4, Flags: header.TCPFlagAck, WindowSize: 1000})
	copy(tcp[header.TCPMinimumSize:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, source, destination, uint16(l4+payloadEach)))
	payload := tcp[l4:]
	for i := range payload {
		payload[i] = byte(i * 31)
	}
	return b
}

// datagram returns the IPv4 datagram of a frame with its virtio-net header, or nil.
func datagram(frame []byte) header.IPv4 {
	if len(frame) < link.HeaderLen+header.IPv4MinimumSize ||
		binary.BigEndian.Uint16(frame[link.HeaderLen-2:]) != uint16(header.IPv4ProtocolNumber) {
		return nil
	}
	return frame[link.HeaderLen:]
}

// espPackets counts a frame that holds ESP as 1.
func espPackets(frame []byte) int {
	if ip := datagram(frame); ip != nil && ip.Protocol() == wire.ProtoESP {
		return 1
	}
	return 0
}

// tcpPayload is how many octets of TCP payload a frame holds.
func tcpPayload(frame []byte) int {
	ip := datagram(frame)
	if ip == nil || ip.Protocol() != wire.ProtoTCP {
		return 0
	}
	return max(0, int(ip.TotalLength())-header.IPv4MinimumSize-tcpHeader)
}
