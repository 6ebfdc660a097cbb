package hook

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
)

// Neighbour discovery as of RFC 4861: §4.3 and §4.4 are the formats, §7.1.1 and
// §7.1.2 what makes a message valid.

const (
	icmpNS = uint8(header.ICMPv6NeighborSolicit)
	icmpNA = uint8(header.ICMPv6NeighborAdvert)

	ndHopLimit = 255
	ndBodyLen  = header.ICMPv6HeaderSize + header.NDPNSMinimumSize // up to the options
	ndLen      = header.IPv6MinimumSize + ndBodyLen + header.NDPLinkLayerAddressSize

	optSourceLinkAddress = 1
	optTargetLinkAddress = 2

	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20
)

// ndMessage is a neighbour solicitation or advertisement.
type ndMessage struct {
	typ      uint8 // icmpNS or icmpNA
	flags    uint8 // of an advertisement
	src, dst netip.Addr
	target   netip.Addr
	// link is the source (NS) or target (NA) link-layer address, empty if absent.
	link tcpip.LinkAddress
}

// isND reports, at the price of two octets, whether an IPv6 datagram is a neighbour
// solicitation or advertisement. Nodes send them without extension headers.
func isND(b []byte) bool {
	return len(b) > header.IPv6MinimumSize && b[0]>>4 == 6 && b[6] == wire.ProtoICMPv6 &&
		(b[40] == icmpNS || b[40] == icmpNA)
}

// parseND reads the message in b, for which isND holds, and reports whether it is
// valid. It does not look at the checksum if the sender left it to the device.
func parseND(b []byte, noChecksum bool, m *ndMessage) bool {
	ip := header.IPv6(b)
	n := int(ip.PayloadLength())
	if n < ndBodyLen || header.IPv6MinimumSize+n > len(b) || ip.HopLimit() != ndHopLimit {
		return false
	}
	body := header.ICMPv6(b[header.IPv6MinimumSize : header.IPv6MinimumSize+n])
	if body.Code() != 0 {
		return false
	}
	*m = ndMessage{
		typ:    uint8(body.Type()),
		src:    netip.AddrFrom16([16]byte(b[8:24])),
		dst:    netip.AddrFrom16([16]byte(b[24:40])),
		target: netip.AddrFrom16([16]byte(body[8:24])),
	}
	if m.target.IsMulticast() || m.target.IsUnspecified() || m.src.IsMulticast() {
		return false
	}
	if !noChecksum {
		sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(n))
		if checksum.Checksum(body, sum) != 0xffff {
			return false
		}
	}
	if !m.readOptions(body[ndBodyLen:]) {
		return false
	}
	if m.typ == icmpNA {
		m.flags = body[4]
		return !m.dst.IsMulticast() || m.flags&naSolicited == 0
	}
	// A solicitation from nowhere is duplicate address detection (RFC 4862 §5.4.2).
	return !m.src.IsUnspecified() || m.dst == solicitedNode(m.target) && m.link == ""
}

// readOptions finds the link-layer address, and reports false for an option of
// length zero or beyond the message (RFC 4861 §4.6), or an address that is none.
func (m *ndMessage) readOptions(o []byte) bool {
	want := byte(optSourceLinkAddress)
	if m.typ == icmpNA {
		want = optTargetLinkAddress
	}
	for len(o) > 0 {
		if len(o) < 2 || o[1] == 0 || int(o[1])*8 > len(o) {
			return false
		}
		if o[0] == want {
			link := o[2:8]
			if !isStation(link) {
				return false
			}
			m.link = tcpip.LinkAddress(link)
		}
		o = o[int(o[1])*8:]
	}
	return true
}

// isStation reports whether an Ethernet address can be that of one station.
func isStation(mac []byte) bool {
	return mac[0]&1 == 0 && string(mac) != string(header.UnspecifiedEthernetAddress)
}

// encode writes m with m.link as option to b, ndLen octets, and returns how many
// octets it wrote; without m.link there is no option.
func (m *ndMessage) encode(b []byte) int {
	n := ndBodyLen
	if m.link != "" {
		n += header.NDPLinkLayerAddressSize
	}
	src, dst, target := m.src.As16(), m.dst.As16(), m.target.As16()
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength:     uint16(n),
		TransportProtocol: header.ICMPv6ProtocolNumber,
		HopLimit:          ndHopLimit,
		SrcAddr:           tcpip.AddrFrom16(src),
		DstAddr:           tcpip.AddrFrom16(dst),
	})
	body := header.ICMPv6(b[header.IPv6MinimumSize:][:n])
	clear(body)
	body.SetType(header.ICMPv6Type(m.typ))
	if m.typ == icmpNA {
		body[4] = m.flags
	}
	copy(body[8:], target[:])
	if m.link != "" {
		body[ndBodyLen] = optSourceLinkAddress
		if m.typ == icmpNA {
			body[ndBodyLen] = optTargetLinkAddress
		}
		body[ndBodyLen+1] = 1
		copy(body[ndBodyLen+2:], m.link)
	}
	sum := header.PseudoHeaderChecksum(header.ICMPv6ProtocolNumber, tcpip.AddrFrom16(src), tcpip.AddrFrom16(dst), uint16(n))
	body.SetChecksum(^checksum.Checksum(body, sum))
	return header.IPv6MinimumSize + n
}

// answer returns the advertisement that answers the solicitation m with the link
// address mac, and the station that it goes to: the solicitor, or all nodes if that
// has no address yet (RFC 4861 §7.2.4). from is m's Ethernet source.
func (m *ndMessage) answer(mac, from tcpip.LinkAddress, flags uint8) (ndMessage, tcpip.LinkAddress) {
	a := ndMessage{typ: icmpNA, flags: flags | naOverride, src: m.target, dst: m.src, target: m.target, link: mac}
	if m.src.IsUnspecified() {
		a.dst = netip.IPv6LinkLocalAllNodes()
		return a, multicastMAC(a.dst)
	}
	a.flags |= naSolicited
	if m.link != "" {
		from = m.link
	}
	return a, from
}

// solicitedNode returns the solicited-node multicast address of a (RFC 4291 §2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// multicastMAC returns the Ethernet address of an IP multicast group
// (RFC 1112 §6.4, RFC 2464 §7).
func multicastMAC(a netip.Addr) tcpip.LinkAddress {
	if a.Is4() {
		b := a.As4()
		return tcpip.LinkAddress([]byte{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]})
	}
	b := a.As16()
	return tcpip.LinkAddress([]byte{0x33, 0x33, b[12], b[13], b[14], b[15]})
}
