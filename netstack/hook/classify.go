package hook

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const (
	// minEtherType is the smallest EtherType; below it the field is the length of
	// an LLC frame (IEEE 802.3 §3.2.6).
	minEtherType = 0x0600

	etherTypeARP   = uint16(header.ARPProtocolNumber)
	etherTypeVLAN  = 0x8100 // IEEE 802.1Q
	etherTypeQinQ  = 0x88a8 // IEEE 802.1ad
	etherTypeEAPOL = 0x888e // IEEE 802.1X
	etherTypeLLDP  = 0x88cc // IEEE 802.1AB

	icmpMLDQuery   = 130
	icmpMLDReport  = 131
	icmpMLDDone    = 132
	icmpRS         = 133
	icmpRA         = 134
	icmpRedirect   = 137
	icmpMLDv2      = 143 // RFC 3810 §5.2
	protoIGMP      = 2
	portMDNS       = 5353
	portBootServer = 67
	portBootClient = 68
	portDHCPv6C    = 546
	portDHCPv6S    = 547
)

func etherType(eth []byte) uint16 { return binary.BigEndian.Uint16(eth[12:]) }

// classify returns the class of a frame, given as Ethernet header and data.
// unicastDHCP says whether unicast datagrams are looked at for DHCP.
//
// A frame that is IP by its EtherType but not by its octets is left to the policies,
// where it is dropped as malformed.
func classify(eth, b []byte, unicastDHCP bool) class {
	switch etherType(eth) {
	case wire.EtherTypeIPv4:
		return classifyIPv4(eth, b, unicastDHCP)
	case wire.EtherTypeIPv6:
		return classifyIPv6(eth, b, unicastDHCP)
	case etherTypeARP:
		return classARP
	case etherTypeLLDP:
		return classLLDP
	case etherTypeEAPOL:
		return classEAPOL
	case etherTypeVLAN, etherTypeQinQ:
		return classVLAN
	}
	if isSTP(eth, b) {
		return classSTP
	}
	return classOther
}

// isSTP recognizes spanning tree: of IEEE 802.1D, by LLC 42 42 03 to a reserved address,
// and Cisco's per VLAN, by SNAP to 01:00:0c:cc:cc:cd.
func isSTP(eth, b []byte) bool {
	if etherType(eth) >= minEtherType || len(b) < 3 || b[2] != 3 {
		return false
	}
	switch {
	case string(eth[:5]) == "\x01\x80\xc2\x00\x00" && eth[5] <= 0x0f:
		return b[0] == 0x42 && b[1] == 0x42
	case string(eth[:6]) == "\x01\x00\x0c\xcc\xcc\xcd":
		return b[0] == 0xaa && b[1] == 0xaa
	}
	return false
}

// decided is the class k of the datagram b, or classNone if a policy protects it, which
// protects says of those for one station.
func decided(k class, b []byte, protects func([]byte) bool) class {
	if k != classMulticast && k != classBroadcast || protects == nil {
		return k
	}
	if _, dst, ok := addresses(b); !ok || dst.IsMulticast() || dst == limitedBroadcast || !protects(b) {
		return k
	}
	return classNone
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func classifyIPv4(eth, b []byte, unicastDHCP bool) class {
	if len(b) < header.IPv4MinimumSize || b[0]>>4 != 4 {
		return classNone
	}
	dst := header.IPv4(b).DestinationAddressSlice()
	multicast := dst[0]&0xf0 == 0xe0
	broadcast := string(dst) == "\xff\xff\xff\xff" || string(eth[:6]) == string(header.EthernetBroadcastAddress)
	if !multicast && !broadcast && eth[0]&1 == 0 {
		if unicastDHCP && b[9] == wire.ProtoUDP && isDHCP(b) {
			return classDHCP
		}
		return classNone
	}
	switch {
	case b[9] == wire.ProtoUDP && isDHCP(b):
		return classDHCP
	case b[9] == wire.ProtoUDP && string(dst) == "\xe0\x00\x00\xfb" && hasPort(b, portMDNS):
		return classMDNS
	case b[9] == protoIGMP && multicast:
		return classIGMP
	case multicast || !broadcast:
		return classMulticast
	}
	return classBroadcast
}

func classifyIPv6(eth, b []byte, unicastDHCP bool) class {
	if len(b) < header.IPv6MinimumSize || b[0]>>4 != 6 {
		return classNone
	}
	next := b[6]
	if b[24] != 0xff && eth[0]&1 == 0 {
		switch {
		case next == wire.ProtoICMPv6 && len(b) > header.IPv6MinimumSize:
			if k := icmpClass(b[40]); k == classNDP || k == classNDPRouter {
				return k
			}
		case unicastDHCP && next == wire.ProtoUDP && isDHCP(b):
			return classDHCP
		}
		return classNone
	}
	// Multicast listener reports have a router alert before them (RFC 3810 §5), so the
	// chain of headers counts here.
	var in wire.Info
	if wire.Parse(b, &in) != wire.DropNone {
		return classMulticast
	}
	if in.HasPorts {
		switch {
		case in.Proto == wire.ProtoICMPv6:
			if k := icmpClass(in.ICMPType); k != classNone {
				return k
			}
		case in.Proto == wire.ProtoUDP && dhcpPorts(6, in.SrcPort, in.DstPort):
			return classDHCP
		case in.Proto == wire.ProtoUDP && in.DstPort == portMDNS && string(b[24:40]) == mdnsIPv6:
			return classMDNS
		}
	}
	return classMulticast
}

const mdnsIPv6 = "\xff\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xfb"

func icmpClass(typ uint8) class {
	switch typ {
	case icmpNS, icmpNA:
		return classNDP
	case icmpRS, icmpRA, icmpRedirect:
		return classNDPRouter
	case icmpMLDQuery, icmpMLDReport, icmpMLDDone, icmpMLDv2:
		return classIGMP
	}
	return classNone
}

// isDHCP looks at the ports of a UDP datagram, which may be cut short or a fragment.
func isDHCP(b []byte) bool {
	var in wire.Info
	return wire.Parse(b, &in) == wire.DropNone && in.HasPorts && in.Proto == wire.ProtoUDP &&
		dhcpPorts(in.Version, in.SrcPort, in.DstPort)
}

// dhcpPorts reports whether both ports are those of DHCP (RFC 2131 §4.1,
// RFC 8415 §7.2). One alone would let anything through that picks it.
func dhcpPorts(version uint8, src, dst uint16) bool {
	lo, hi := uint16(portBootServer), uint16(portBootClient)
	if version == 6 {
		lo, hi = portDHCPv6C, portDHCPv6S
	}
	return (src == lo || src == hi) && (dst == lo || dst == hi)
}

func hasPort(b []byte, port uint16) bool {
	var in wire.Info
	return wire.Parse(b, &in) == wire.DropNone && in.HasPorts && in.DstPort == port
}

// tellsAddress reports whether an ARP packet answers a request or announces.
func tellsAddress(pkt *stack.PacketBuffer) bool {
	a, ok := parseARP(pkt)
	return ok && (a.reply || a.isAnnouncement())
}

func isAdvertisement(pkt *stack.PacketBuffer) bool {
	b := datagram(pkt)
	return isND(b) && b[header.IPv6MinimumSize] == icmpNA
}
