package peertest_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const protoUDP = 17

// udpPacket is an IP packet with UDP in it, complete with its checksums.
func udpPacket(src, dst netip.AddrPort, payload []byte) []byte {
	udpLen := header.UDPMinimumSize + len(payload)
	s, d := tcpip.AddrFromSlice(src.Addr().AsSlice()), tcpip.AddrFromSlice(dst.Addr().AsSlice())
	var packet []byte
	if src.Addr().Is4() {
		packet = make([]byte, header.IPv4MinimumSize+udpLen)
		ip := header.IPv4(packet)
		ip.Encode(&header.IPv4Fields{TotalLength: uint16(len(packet)), TTL: 64, Protocol: protoUDP, SrcAddr: s, DstAddr: d})
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		packet = make([]byte, header.IPv6MinimumSize+udpLen)
		header.IPv6(packet).Encode(&header.IPv6Fields{
			PayloadLength: uint16(udpLen), TransportProtocol: protoUDP, HopLimit: 64, SrcAddr: s, DstAddr: d,
		})
	}
	udp := header.UDP(packet[len(packet)-udpLen:])
	udp.Encode(&header.UDPFields{SrcPort: src.Port(), DstPort: dst.Port(), Length: uint16(udpLen)})
	copy(udp.Payload(), payload)
	sum := header.PseudoHeaderChecksum(protoUDP, s, d, uint16(udpLen))
	udp.SetChecksum(^checksum.Checksum(udp, sum))
	return packet
}

// readUDP takes a packet like udpPacket's apart, and checks everything in it.
func readUDP(packet []byte) (src, dst netip.AddrPort, payload []byte, err error) {
	var s, d tcpip.Address
	var udp header.UDP
	switch {
	case len(packet) >= header.IPv4MinimumSize && packet[0] == 0x45:
		ip := header.IPv4(packet)
		if int(ip.TotalLength()) != len(packet) || ip.CalculateChecksum() != 0xffff || ip.Protocol() != protoUDP {
			return src, dst, nil, fmt.Errorf("IPv4 header % x of %d octets", packet[:20], len(packet))
		}
		s, d, udp = ip.SourceAddress(), ip.DestinationAddress(), packet[20:]
	case len(packet) >= header.IPv6MinimumSize && packet[0]>>4 == 6:
		ip := header.IPv6(packet)
		if int(ip.PayloadLength()) != len(packet)-40 || ip.NextHeader() != protoUDP {
			return src, dst, nil, fmt.Errorf("IPv6 header % x of %d octets", packet[:40], len(packet))
		}
		s, d, udp = ip.SourceAddress(), ip.DestinationAddress(), packet[40:]
	default:
		return src, dst, nil, errors.New("no IP header without options")
	}
	if len(udp) < header.UDPMinimumSize || int(udp.Length()) != len(udp) {
		return src, dst, nil, fmt.Errorf("%d octets of UDP: % x", len(udp), []byte(udp))
	}
	if binary.BigEndian.Uint16(udp[6:]) == 0 ||
		checksum.Checksum(udp, header.PseudoHeaderChecksum(protoUDP, s, d, uint16(len(udp)))) != 0xffff {
		return src, dst, nil, errors.New("the UDP checksum is wrong")
	}
	from, _ := netip.AddrFromSlice(s.AsSlice())
	to, _ := netip.AddrFromSlice(d.AsSlice())
	return netip.AddrPortFrom(from, udp.SourcePort()), netip.AddrPortFrom(to, udp.DestinationPort()), udp.Payload(), nil
}
