package explain

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
)

// ipLen is the length of the IP header; in IPv6 a fragment has one more.
func (p *Packet) ipLen() int {
	switch {
	case !p.six():
		return header.IPv4MinimumSize
	case p.Fragment:
		return header.IPv6MinimumSize + header.IPv6FragmentHeaderSize
	}
	return header.IPv6MinimumSize
}

// headers is the least that p can be long.
func (p *Packet) headers() int {
	n := p.ipLen()
	switch {
	case p.Offset > 0:
		return n + 8
	case p.Proto == wire.ProtoTCP:
		n += header.TCPMinimumSize
		if p.SYN {
			n += mssOptionLen
		}
	case p.Proto == wire.ProtoESP && p.HasPorts:
		n += wire.UDPLen + wire.ESPMinLen
	case p.Proto == wire.ProtoESP:
		n += wire.ESPMinLen
	case p.Proto == wire.ProtoAH:
		n += wire.AHMinLen
	default:
		n += 8
	}
	if p.Fragment {
		n = p.ipLen() + (n-p.ipLen()+7)&^7
	}
	return n
}

// length is how long p is.
func (p *Packet) length() int {
	n := p.Len
	if n == 0 {
		n = defaultLen
		if p.six() {
			n += header.IPv6MinimumSize - header.IPv4MinimumSize
		}
		n = max(n, p.headers())
	}
	if p.Fragment { // all but the last carry a multiple of 8
		n -= (n - p.ipLen()) % 8
	}
	return n
}

const (
	mssOptionLen = 4
	usualMSS     = 1460
)

// build makes the datagram of p, which has at least room octets.
func (p *Packet) build(room int) []byte {
	n := max(p.length(), room)
	var quote []byte
	if p.isICMP() && p.Inner != nil {
		quote = p.Inner.build(0)
		quote = quote[:min(len(quote), 548)] // RFC 1812 §4.3.2.3
		n = max(n, p.ipLen()+8+len(quote))
	}
	b := make([]byte, n)
	proto := p.Proto
	if p.Proto == wire.ProtoESP && p.HasPorts {
		proto = wire.ProtoUDP
	}
	p.putIP(b, proto)
	u := b[p.ipLen():]
	if p.Offset == 0 {
		p.putUpper(u, proto, quote)
	}
	return b
}

func (p *Packet) putIP(b []byte, proto uint8) {
	ttl := p.TTL
	if ttl == 0 {
		ttl = defaultTTL
	}
	src, dst := tcpip.AddrFromSlice(p.Src.AsSlice()), tcpip.AddrFromSlice(p.Dst.AsSlice())
	if !p.six() {
		f := header.IPv4Fields{TOS: p.TOS, TotalLength: uint16(len(b)), ID: 1, TTL: ttl, Protocol: proto, SrcAddr: src, DstAddr: dst}
		if p.DF {
			f.Flags = header.IPv4FlagDontFragment
		}
		if p.Fragment {
			f.Flags, f.FragmentOffset = header.IPv4FlagMoreFragments, uint16(p.Offset)
		}
		header.IPv4(b).Encode(&f)
		wire.UpdateIPv4Checksum(b)
		return
	}
	next := proto
	if p.Fragment {
		next = wire.ProtoFragment
		f := b[header.IPv6MinimumSize:]
		f[0] = proto
		binary.BigEndian.PutUint16(f[2:], uint16(p.Offset)|1)
		binary.BigEndian.PutUint32(f[4:], 1)
	}
	header.IPv6(b).Encode(&header.IPv6Fields{
		TrafficClass: p.TOS, PayloadLength: uint16(len(b) - header.IPv6MinimumSize), HopLimit: ttl,
		TransportProtocol: tcpip.TransportProtocolNumber(next), SrcAddr: src, DstAddr: dst,
	})
}

// putUpper writes the header behind the IP header, and its checksum unless p is a
// fragment.
func (p *Packet) putUpper(u []byte, proto uint8, quote []byte) {
	sumAt := -1
	switch proto {
	case wire.ProtoTCP:
		f := header.TCPFields{SrcPort: p.SrcPort, DstPort: p.DstPort, SeqNum: 1, DataOffset: header.TCPMinimumSize, Flags: header.TCPFlagAck, WindowSize: 65535}
		if p.SYN {
			f.DataOffset, f.Flags = header.TCPMinimumSize+mssOptionLen, header.TCPFlagSyn
			copy(u[header.TCPMinimumSize:], []byte{header.TCPOptionMSS, mssOptionLen, usualMSS >> 8, usualMSS & 0xff})
		}
		header.TCP(u).Encode(&f)
		sumAt = header.TCPChecksumOffset
	case wire.ProtoUDP:
		header.UDP(u).Encode(&header.UDPFields{SrcPort: p.SrcPort, DstPort: p.DstPort, Length: uint16(len(u))})
		if p.Proto == wire.ProtoESP {
			p.putIDs(u[wire.UDPLen:])
			return // with a checksum of 0, as RFC 3948 §2.1 wants it
		}
		sumAt = 6
	case wire.ProtoDCCP, wire.ProtoSCTP, wire.ProtoUDPLite:
		binary.BigEndian.PutUint16(u, p.SrcPort)
		binary.BigEndian.PutUint16(u[2:], p.DstPort)
	case wire.ProtoICMP, wire.ProtoICMPv6:
		u[0], u[1] = p.ICMPType, p.ICMPCode
		binary.BigEndian.PutUint16(u[6:], uint16(p.MTU))
		copy(u[8:], quote)
		sumAt = 2
	case wire.ProtoESP:
		p.putIDs(u)
	case wire.ProtoAH:
		u[1] = uint8(min(len(u), wire.AHMinLen+12)/4 - 2)
		p.putIDs(u[4:])
	}
	if sumAt < 0 || p.Fragment {
		return
	}
	sum := uint16(0)
	if proto != wire.ProtoICMP {
		sum = wire.PseudoChecksum(p.Src, p.Dst, proto, len(u))
	}
	binary.BigEndian.PutUint16(u[sumAt:], ^checksum.Checksum(u, sum))
}

func (p *Packet) putIDs(b []byte) {
	binary.BigEndian.PutUint32(b, p.SPI)
	binary.BigEndian.PutUint32(b[4:], p.Seq)
}

// SomeMAC is the Ethernet address of a station that is taken for known.
const SomeMAC = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x01")

// Addresses of frames that nobody sent.
const (
	broadcastMAC = header.EthernetBroadcastAddress
	lldpMAC      = tcpip.LinkAddress("\x01\x80\xc2\x00\x00\x0e")
	stpMAC       = tcpip.LinkAddress("\x01\x80\xc2\x00\x00\x00")
	eapolMAC     = tcpip.LinkAddress("\x01\x80\xc2\x00\x00\x03")
)

// frame makes the Ethernet frame of p where that is not IP between two stations, from
// the station with the address src.
func (p *Packet) frame(src tcpip.LinkAddress) []byte {
	ether := func(dst tcpip.LinkAddress, kind uint16, data []byte) []byte {
		b := make([]byte, wire.EthernetLen+max(46, len(data)))
		copy(b, dst)
		copy(b[6:], src)
		binary.BigEndian.PutUint16(b[12:], kind)
		copy(b[wire.EthernetLen:], data)
		return b
	}
	switch p.Frame {
	case "arp":
		return ether(broadcastMAC, wire.EtherTypeARP, []byte{0, 1, 8, 0, 6, 4, 0, 1})
	case "lldp":
		return ether(lldpMAC, 0x88cc, nil)
	case "eapol":
		return ether(eapolMAC, 0x888e, nil)
	case "stp":
		return ether(stpMAC, 38, []byte{0x42, 0x42, 3})
	case "vlan":
		return ether(broadcastMAC, wire.EtherTypeVLAN, []byte{0, 1, 8, 0})
	case wordBroadcast:
		all := [4]byte{255, 255, 255, 255}
		b := make([]byte, 28)
		header.IPv4(b).Encode(&header.IPv4Fields{
			TotalLength: 28, TTL: 1, Protocol: wire.ProtoUDP, SrcAddr: tcpip.AddrFrom4([4]byte{}), DstAddr: tcpip.AddrFrom4(all),
		})
		wire.UpdateIPv4Checksum(b)
		header.UDP(b[20:]).Encode(&header.UDPFields{SrcPort: 1024, DstPort: 1024, Length: 8})
		return ether(broadcastMAC, wire.EtherTypeIPv4, b)
	}
	return ether(broadcastMAC, p.EtherType, nil)
}
