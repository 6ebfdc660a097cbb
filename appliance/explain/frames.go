package explain

import (
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/netstack/wire"
	"bitw/sa"
)

// sizes does the arithmetic of the overhead, and finds route and neighbour.
func (e *explanation) sizes() {
	x := e.x
	if e.side != hook.Left {
		return
	}
	dst := e.in.Dst
	if x.Policy != nil && x.Policy.Action == sa.Protect {
		b := e.env.Engine.Budget(x.Policy, e.a.Datagram)
		if b.Reason == wire.DropNone {
			e.r.Budget = b
			dst = b.Dst
		}
	}
	if x.Policy == nil || x.Policy.Action == sa.Discard || !dst.IsValid() {
		return
	}
	r, hop, mac, ok := e.env.Engine.Next(dst)
	switch {
	case e.env.Relay && dst == e.in.Dst:
		e.r.Route = &Route{NextHop: "the station that the host has found itself (neighbors: relay)", MAC: known(e.a.Dst)}
	case !ok:
		e.r.Route = &Route{Route: "none to " + dst.String()}
	default:
		e.r.Route = &Route{Route: r.String(), NextHop: hop.String(), MAC: known(mac)}
	}
}

// wire describes the frames that are written.
func (e *explanation) wire() {
	onward := e.x.Written[e.side.Other()]
	for i := range onward {
		e.r.Frames = append(e.r.Frames, e.frame(&onward[i]))
	}
	back := e.x.Written[e.side]
	switch {
	case e.x.Answer != nil:
		e.answer(e.x.Answer)
		e.r.Answer.Refused = len(back) == 0
	case len(back) > 0:
		e.answer(back[0].Datagram)
	}
	if len(onward) == 0 || e.side != hook.Left {
		return
	}
	var outer wire.Info
	if wire.Parse(onward[0].Datagram, &outer) == wire.DropNone {
		e.r.Headers = &Headers{Inner: headerOf(e.in), Outer: headerOf(&outer)}
	}
}

func headerOf(in *wire.Info) Header {
	return Header{DSCP: in.TOS >> 2, ECN: in.TOS & wire.ECNMask, TTL: in.TTL, DF: in.DF && in.Version == 4}
}

// answer reads the ICMP error that goes back.
func (e *explanation) answer(b []byte) {
	var in wire.Info
	if wire.Parse(b, &in) != wire.DropNone || len(b) < in.HeaderLen+8 {
		return
	}
	name, mtu := "ICMP", 0
	what := "destination unreachable"
	switch {
	case in.Version == 6:
		name = "ICMPv6"
		if in.ICMPType == 2 {
			what, mtu = "packet too big", int(b[in.HeaderLen+6])<<8|int(b[in.HeaderLen+7])
		}
	case in.ICMPType == 3 && in.ICMPCode == 4:
		what, mtu = "fragmentation needed", int(b[in.HeaderLen+6])<<8|int(b[in.HeaderLen+7])
	}
	if in.ICMPCode == wire.ICMPv4AdminProhibited && in.Version == 4 || in.ICMPType == 1 && in.ICMPCode == wire.ICMPv6AdminProhibited && in.Version == 6 {
		what = "administratively prohibited"
	}
	e.r.Answer = &Answer{Text: fmt.Sprintf("%s type %d code %d, %s", name, in.ICMPType, in.ICMPCode, what), MTU: mtu}
}

func (e *explanation) frame(w *ipsec.Written) Frame {
	f := Frame{Side: other(e.r.Direction), Length: len(w.Datagram), Layers: e.layers(w.Datagram)}
	if !w.Waits {
		f.MAC = known(w.Dst)
	}
	return f
}

// known is an Ethernet address in words, empty for one that is not known, or only taken
// for known.
func known(mac tcpip.LinkAddress) string {
	if mac == "" || mac == SomeMAC {
		return ""
	}
	return mac.String()
}

// layers has a line for each header of a datagram that leaves. What is encrypted is not,
// in a rehearsal.
func (e *explanation) layers(b []byte) (lines []string) {
	var tail string
	for len(b) > 0 {
		var in wire.Info
		if wire.Parse(b, &in) != wire.DropNone {
			lines = append(lines, "what cannot be read")
			break
		}
		lines = append(lines, ipLine(&in))
		if in.IsFragment {
			lines = append(lines, fragmentLine(&in))
			break
		}
		u, proto := b[in.HeaderLen:in.TotalLen], in.Proto
		if proto == wire.ProtoUDP && len(u) >= wire.UDPLen+wire.ESPMinLen {
			if s := e.sealedBy(u[wire.UDPLen:], wire.ProtoESP); s != nil && s.Encap != nil && s.Encap.LocalPort == in.SrcPort {
				lines = append(lines, fmt.Sprintf("udp %d > %d (ESP in UDP)", in.SrcPort, in.DstPort))
				u, proto = u[wire.UDPLen:], wire.ProtoESP
			}
		}
		if proto != wire.ProtoESP && proto != wire.ProtoAH {
			lines = append(lines, upperLine(&in, len(u)))
			break
		}
		s := e.sealedBy(u, proto)
		if s == nil {
			lines = append(lines, fmt.Sprintf("%s, %d octets", sa.ProtoName(proto), len(u)))
			break
		}
		line, behind, next, more := e.open(s, u)
		lines = append(lines, line)
		if more != "" {
			tail = more + strings.TrimSuffix("; "+tail, "; ")
		}
		if next != wire.ProtoIPv4 && next != wire.ProtoIPv6 || s.Mode != sa.Tunnel {
			if next == wire.ProtoESP { // AH behind which ESP comes
				if inner := e.sealedBy(behind, next); inner != nil {
					line, behind, next, more = e.open(inner, behind)
					lines = append(lines, line)
					tail = strings.Trim(tail+"; "+more, "; ")
				}
			}
			lines = append(lines, fmt.Sprintf("%s, %d octets", protected(next, behind), len(behind)))
			break
		}
		b = behind
	}
	if tail != "" {
		lines = append(lines, tail)
	}
	return lines
}

// sealedBy finds the outbound SA of the rule whose ESP or AH header starts u.
func (e *explanation) sealedBy(u []byte, proto uint8) *sa.SA {
	at := 0
	if proto == wire.ProtoAH {
		at = 4
	}
	if e.side != hook.Left || e.x.Policy == nil || len(u) < at+4 {
		return nil
	}
	spi := uint32(u[at])<<24 | uint32(u[at+1])<<16 | uint32(u[at+2])<<8 | uint32(u[at+3])
	for _, l := range e.x.Policy.Out {
		if s := l.Outbound(); s != nil && s.Key.SPI == spi && s.Key.Proto == proto && s.Transform != nil {
			return s
		}
	}
	return nil
}

// open reads what s has sealed in a rehearsal: its header in words, what is behind, the
// protocol of that, and the trailer in words.
func (e *explanation) open(s *sa.SA, u []byte) (line string, behind []byte, next uint8, trailer string) {
	head, icv := s.Transform.HeaderLen(), s.Algorithm.ICVLen
	line = fmt.Sprintf("%s spi 0x%08x", sa.ProtoName(s.Key.Proto), s.Key.SPI)
	if !s.Algorithm.NoSequence {
		at := 4
		if s.Key.Proto == wire.ProtoAH {
			at = 8
		}
		line += fmt.Sprintf(" seq %d", uint32(u[at])<<24|uint32(u[at+1])<<16|uint32(u[at+2])<<8|uint32(u[at+3]))
	}
	line += fmt.Sprintf(", %s, header %d", s.Algorithm.Name, head)
	if s.Key.Proto == wire.ProtoAH {
		return line + " with ICV", u[head:], u[0], ""
	}
	end := len(u) - icv - espTail
	pad := int(u[end])
	return line, u[head : end-pad], u[end+1], fmt.Sprintf("ESP padding %d, trailer %d, ICV %d", pad, espTail, icv)
}

// espTail is pad length and next header.
const espTail = 2

func ipLine(in *wire.Info) string {
	line := fmt.Sprintf("ipv%d %v > %v, %d octets, ttl %d", in.Version, in.Src, in.Dst, in.TotalLen, in.TTL)
	if in.TOS != 0 {
		line += fmt.Sprintf(", tos 0x%02x", in.TOS)
	}
	if in.DF && in.Version == 4 {
		line += ", df"
	}
	return line
}

func fragmentLine(in *wire.Info) string {
	line := fmt.Sprintf("fragment of %s at %d", sa.ProtoName(in.Proto), in.FragOffset)
	if in.MoreFragments {
		return line + ", more follow"
	}
	return line + ", the last"
}

func upperLine(in *wire.Info, n int) string {
	name := sa.ProtoName(in.Proto)
	switch {
	case !in.HasPorts:
	case in.Proto == wire.ProtoICMP || in.Proto == wire.ProtoICMPv6:
		name += fmt.Sprintf(" type %d code %d", in.ICMPType, in.ICMPCode)
	default:
		name += fmt.Sprintf(" %d > %d", in.SrcPort, in.DstPort)
	}
	return fmt.Sprintf("%s, %d octets", name, n)
}

// protected names what a transport mode SA carries.
func protected(proto uint8, b []byte) string {
	name := sa.ProtoName(proto)
	if hasPorts(proto) && len(b) >= 4 {
		name += fmt.Sprintf(" %d > %d", int(b[0])<<8|int(b[1]), int(b[2])<<8|int(b[3]))
	}
	return name
}

// describe says in the words of the grammar what a recorded frame is.
func describe(frame []byte, in *wire.Info, readable bool) string {
	kind := uint16(frame[12])<<8 | uint16(frame[13])
	switch {
	case kind == wire.EtherTypeARP:
		return "arp"
	case !readable:
		return fmt.Sprintf("frame to %v, ethertype 0x%04x, %d octets", tcpip.LinkAddress(frame[:6]), kind, len(frame))
	}
	b := frame[wire.EthernetLen:]
	p := Packet{
		Proto: in.Proto, Src: in.Src, Dst: in.Dst, SrcPort: in.SrcPort, DstPort: in.DstPort,
		HasPorts: in.HasPorts && hasPorts(in.Proto), Len: in.TotalLen, DF: in.DF && in.Version == 4, TOS: in.TOS, TTL: in.TTL,
		ICMPType: in.ICMPType, ICMPCode: in.ICMPCode, Fragment: in.IsFragment, Offset: in.FragOffset,
	}
	if p.protected() {
		p.SPI = spiOf(b, in)
		at := in.HeaderLen + 4
		if p.Proto == wire.ProtoAH {
			at += 4
		}
		if len(b) >= at+4 {
			p.Seq = uint32(b[at])<<24 | uint32(b[at+1])<<16 | uint32(b[at+2])<<8 | uint32(b[at+3])
		}
	}
	return p.String()
}

// spiOf reads the SPI (host order) of an ESP or AH header, 0 if there is none.
func spiOf(b []byte, in *wire.Info) uint32 {
	at := in.HeaderLen
	switch in.Proto {
	case wire.ProtoESP:
	case wire.ProtoAH:
		at += 4
	default:
		return 0
	}
	if in.IsFragment && in.FragOffset > 0 || len(b) < at+4 {
		return 0
	}
	return uint32(b[at])<<24 | uint32(b[at+1])<<16 | uint32(b[at+2])<<8 | uint32(b[at+3])
}
