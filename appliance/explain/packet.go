package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"bitw/netstack/wire"
	"bitw/sa"
)

// Directions of a packet, seen from the protected host.
const (
	Out = "out"
	In  = "in"
)

// A Packet is one that somebody asks about, as Parse reads it. Ports are in host order,
// lengths in octets.
type Packet struct {
	// Frame names what is not a datagram between two stations: "arp", "lldp", "eapol",
	// "stp", "vlan", "ethertype" or "broadcast"; empty for IP. EtherType is for "ethertype".
	Frame     string
	EtherType uint16

	Proto            uint8
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16
	HasPorts         bool // for ESP they say that it comes in UDP
	Len              int  // of the datagram, IP header included; 0 for the usual one
	DF, SYN          bool
	TOS, TTL         uint8
	// ICMPType and ICMPCode are for ICMP, and MTU for the errors that tell one.
	ICMPType, ICMPCode uint8
	MTU                int
	// Fragment says that it is one of several fragments, the first or that at Offset.
	Fragment bool
	Offset   int
	// SPI and Seq are for ESP and AH.
	SPI, Seq uint32
	// Inner is what ESP or AH carries, or what an ICMP error is about; nil if not said.
	Inner *Packet
	// Direction is Out, In or empty.
	Direction string
}

const (
	defaultTTL = 64
	defaultLen = 84 // of IPv4, as that of a ping; 20 more for IPv6
)

// six says whether p is IPv6.
func (p *Packet) six() bool { return p.Src.Is6() }

func (p *Packet) isICMP() bool {
	return p.Frame == "" && (p.Proto == wire.ProtoICMP || p.Proto == wire.ProtoICMPv6)
}

// usualType is that of an echo request, or where p is about another packet that of
// destination unreachable.
func (p *Packet) usualType() uint8 {
	switch {
	case p.Inner == nil && p.six():
		return 128
	case p.Inner == nil:
		return 8
	case p.six():
		return 1
	}
	return 3
}

// isError says whether p is an ICMP error.
func (p *Packet) isError() bool {
	return wire.IsICMPError(&wire.Info{Proto: p.Proto, ICMPType: p.ICMPType, HasPorts: true})
}

// protected says whether p has an ESP or AH header.
func (p *Packet) protected() bool {
	return p.Frame == "" && (p.Proto == wire.ProtoESP || p.Proto == wire.ProtoAH)
}

// String returns p as Parse takes it.
func (p *Packet) String() string {
	var b strings.Builder
	p.write(&b)
	if p.Direction != "" {
		b.WriteString(" " + p.Direction)
	}
	return b.String()
}

func (p *Packet) write(b *strings.Builder) {
	switch p.Frame {
	case "":
	case wordEtherType:
		fmt.Fprintf(b, "ethertype 0x%04x", p.EtherType)
		return
	default:
		b.WriteString(p.Frame)
		return
	}
	b.WriteString(sa.ProtoName(p.Proto) + " " + p.end(p.Src, p.SrcPort) + " > " + p.end(p.Dst, p.DstPort))
	say := func(is bool, format string, args ...any) {
		if is {
			fmt.Fprintf(b, " "+format, args...)
		}
	}
	say(p.isICMP(), "type %d code %d", p.ICMPType, p.ICMPCode)
	say(p.MTU != 0, "mtu %d", p.MTU)
	say(p.protected(), "spi 0x%x seq %d", p.SPI, p.Seq)
	say(p.Len != 0, "len %d", p.Len)
	say(p.DF, "df")
	say(p.SYN, "syn")
	say(p.TOS != 0, "tos 0x%02x", p.TOS)
	say(p.TTL != 0, "ttl %d", p.TTL)
	say(p.Fragment && p.Offset == 0, "frag")
	say(p.Fragment && p.Offset != 0, "frag %d", p.Offset)
	if p.Inner != nil {
		word := " carrying ("
		if p.isICMP() {
			word = " about ("
		}
		b.WriteString(word)
		p.Inner.write(b)
		b.WriteString(")")
	}
}

func (p *Packet) end(a netip.Addr, port uint16) string {
	if p.HasPorts {
		return netip.AddrPortFrom(a, port).String()
	}
	return a.String()
}
