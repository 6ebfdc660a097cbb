package sa

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// A Direction is that of a datagram, seen from the protected side.
type Direction uint8

const (
	Outbound Direction = iota // from the protected side to the wire
	Inbound                   // from the wire to the protected side
)

// String returns "out" or "in".
func (d Direction) String() string {
	switch d {
	case Outbound:
		return "out"
	case Inbound:
		return "in"
	}
	return fmt.Sprintf("Direction(%d)", uint8(d))
}

// IP protocol numbers that selectors treat specially.
const (
	// AnyProto in a Selector stands for every protocol. It is the number of the IPv6
	// hop-by-hop header, which is never the protocol of a datagram's payload.
	AnyProto = 0

	protoICMP   = 1
	protoICMPv6 = 58
	protoMH     = 135 // mobility header (RFC 6275 §6.1)
)

// hasPorts lists the protocols whose first four octets are two ports.
func hasPorts(proto uint8) bool {
	switch proto {
	case 6, 17, 33, 132, 136: // TCP, UDP, DCCP, SCTP, UDP-Lite
		return true
	}
	return false
}

func isICMP(proto uint8) bool { return proto == protoICMP || proto == protoICMPv6 }

// A Flow is what selectors look at, from the protected side's view: Local is the
// source of an outbound datagram and the destination of an inbound one.
type Flow struct {
	Local, Remote netip.Addr
	// Proto is the protocol of the payload, behind any IPv6 extension headers.
	Proto                 uint8
	LocalPort, RemotePort uint16 // host order
	ICMPType, ICMPCode    uint8
	MHType                uint8 // of a mobility header (RFC 6275 §6.1.1)
	// HasPorts says that the ports, or for ICMP the type and code, or for a mobility
	// header the type, are known. They are
	// not in a fragment that is not the first; RFC 4301 §4.4.1.1 calls that OPAQUE.
	HasPorts bool
}

// String returns for example "10.0.0.1:80 10.0.0.2:4711 tcp".
func (f *Flow) String() string {
	proto := protoWord(f.Proto)
	switch {
	case !f.HasPorts:
		return fmt.Sprintf("%v %v %s", f.Local, f.Remote, proto)
	case f.Proto == protoMH:
		return fmt.Sprintf("%v %v %s type %d", f.Local, f.Remote, proto, f.MHType)
	case isICMP(f.Proto):
		return fmt.Sprintf("%v %v %s type %d code %d", f.Local, f.Remote, proto, f.ICMPType, f.ICMPCode)
	}
	return fmt.Sprintf("%v %v %s",
		netip.AddrPortFrom(f.Local, f.LocalPort), netip.AddrPortFrom(f.Remote, f.RemotePort), proto)
}

// An AddrRange is all addresses from From to To, both included and of one family.
type AddrRange struct {
	From, To netip.Addr
}

// AddrRangeFromPrefix returns the addresses of p; bits behind the prefix are ignored.
func AddrRangeFromPrefix(p netip.Prefix) AddrRange {
	p = p.Masked()
	from := p.Addr()
	if !from.IsValid() {
		return AddrRange{}
	}
	b := from.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	to, _ := netip.AddrFromSlice(b)
	return AddrRange{from, to}
}

// AddrRangeFrom returns the range that holds a alone.
func AddrRangeFrom(a netip.Addr) AddrRange { return AddrRange{a, a} }

// unmap returns r as an IPv4 range if all of it is IPv4-mapped. A range that
// reaches beyond those addresses, like ::/80, stays IPv6 and holds no IPv4 address.
func (r AddrRange) unmap() AddrRange {
	if r.From.Is4In6() && r.To.Is4In6() {
		return AddrRange{r.From.Unmap(), r.To.Unmap()}
	}
	return r
}

// Contains says whether a lies in r.
func (r AddrRange) Contains(a netip.Addr) bool {
	r, a = r.unmap(), a.Unmap()
	return a.BitLen() == r.From.BitLen() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0
}

// Prefix returns the prefix that holds exactly the addresses of r, if there is one.
func (r AddrRange) Prefix() (netip.Prefix, bool) {
	for bits := 0; bits <= r.From.BitLen(); bits++ {
		p := netip.PrefixFrom(r.From, bits)
		if p.Masked().Addr() == r.From && AddrRangeFromPrefix(p).To == r.To {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// String returns an address, a prefix, or "from-to".
func (r AddrRange) String() string {
	if r.From == r.To {
		return r.From.String()
	}
	if p, ok := r.Prefix(); ok {
		return p.String()
	}
	return r.From.String() + "-" + r.To.String()
}

// check returns why r cannot be part of a selector.
func (r AddrRange) check() error {
	switch {
	case !r.From.IsValid() || !r.To.IsValid():
		return fmt.Errorf("address range without addresses")
	case r.From.BitLen() != r.To.BitLen():
		return fmt.Errorf("address range %v-%v mixes IPv4 and IPv6", r.From, r.To)
	case r.From.Zone() != "" || r.To.Zone() != "":
		return fmt.Errorf("address range %v-%v has a zone, which a selector cannot match", r.From, r.To)
	case r.To.Less(r.From):
		return fmt.Errorf("address range %v-%v ends before it starts", r.From, r.To)
	}
	return nil
}

// A PortRange is all ports from From to To, both included.
type PortRange struct {
	From, To uint16
}

// String returns "80" or "80-90".
func (r PortRange) String() string {
	if r.From == r.To {
		return fmt.Sprint(r.From)
	}
	return fmt.Sprintf("%d-%d", r.From, r.To)
}

// A ByteRange is all ICMP types, or codes, from From to To, both included.
type ByteRange struct {
	From, To uint8
}

// String returns "8" or "0-3".
func (r ByteRange) String() string { return PortRange{uint16(r.From), uint16(r.To)}.String() }

// A Selector is the set of flows that a policy applies to (RFC 4301 §4.4.1.1). An
// empty list is ANY, so that the zero Selector matches every flow.
type Selector struct {
	Local, Remote []AddrRange
	// Proto is the payload's protocol, or AnyProto.
	Proto uint8
	// LocalPorts and RemotePorts are for protocols that have ports. A list that is not
	// empty never matches a flow whose ports are not known; an empty one does.
	LocalPorts, RemotePorts []PortRange
	// ICMPTypes and ICMPCodes are for ICMP and ICMPv6, and treat flows whose type is
	// not known as ports do.
	ICMPTypes, ICMPCodes []ByteRange
	// MHTypes are the types of mobility headers, protocol 135, and treat flows whose
	// type is not known as ports do.
	MHTypes []ByteRange
	// Opaque matches only flows whose ports, or type and code, are not known.
	Opaque bool
}

// String returns the selector in words; "any" stands for an empty list.
func (s *Selector) String() string {
	var b strings.Builder
	b.WriteString("local " + join(s.Local) + " remote " + join(s.Remote))
	if s.Proto != AnyProto {
		b.WriteString(" " + protoWord(s.Proto))
	}
	for _, part := range []struct{ word, list string }{
		{" local port ", join(s.LocalPorts)}, {" remote port ", join(s.RemotePorts)},
		{" type ", join(s.ICMPTypes)}, {" code ", join(s.ICMPCodes)}, {" mh-type ", join(s.MHTypes)},
	} {
		if part.list != "any" {
			b.WriteString(part.word + part.list)
		}
	}
	if s.Opaque {
		b.WriteString(" opaque")
	}
	return b.String()
}

func join[T fmt.Stringer](list []T) string {
	if len(list) == 0 {
		return "any"
	}
	words := make([]string, len(list))
	for i, v := range list {
		words[i] = v.String()
	}
	return strings.Join(words, ",")
}

// wantsUpper says that s looks at ports, types or codes, so that it never matches a
// flow in which they are not known.
func (s *Selector) wantsUpper() bool {
	return len(s.LocalPorts)+len(s.RemotePorts)+len(s.ICMPTypes)+len(s.ICMPCodes)+len(s.MHTypes) > 0
}

// check returns why no flow could ever match s, or why s is not well formed.
func (s *Selector) check() error {
	v4, v6 := true, true
	for _, list := range [][]AddrRange{s.Local, s.Remote} {
		has4, has6 := len(list) == 0, len(list) == 0
		for _, r := range list {
			if err := r.check(); err != nil {
				return err
			}
			if r.unmap().From.Is4() {
				has4 = true
			} else {
				has6 = true
			}
		}
		v4, v6 = v4 && has4, v6 && has6
	}
	switch {
	case !v4 && !v6:
		return fmt.Errorf("local %s and remote %s have no address family in common", join(s.Local), join(s.Remote))
	case s.Proto == protoICMP && !v4:
		return fmt.Errorf("protocol 1 is ICMP for IPv4, but the addresses are IPv6 (want 58)")
	case s.Proto == protoICMPv6 && !v6:
		return fmt.Errorf("protocol 58 is ICMPv6, but the addresses are IPv4 (want 1)")
	}
	ports := len(s.LocalPorts)+len(s.RemotePorts) > 0
	icmp := len(s.ICMPTypes)+len(s.ICMPCodes) > 0
	switch {
	case ports && !hasPorts(s.Proto):
		return fmt.Errorf("ports need a protocol that has them (TCP, UDP, DCCP, SCTP, UDP-Lite), found protocol %d", s.Proto)
	case icmp && !isICMP(s.Proto):
		return fmt.Errorf("ICMP types and codes need protocol 1 or 58, found protocol %d", s.Proto)
	case len(s.MHTypes) > 0 && s.Proto != protoMH:
		return fmt.Errorf("MH types need protocol 135, found protocol %d", s.Proto)
	case s.Opaque && s.wantsUpper():
		return fmt.Errorf("opaque excludes ports, types and codes")
	}
	for _, r := range slices.Concat(s.LocalPorts, s.RemotePorts) {
		if r.To < r.From {
			return fmt.Errorf("port range %v ends before it starts", r)
		}
	}
	for _, r := range slices.Concat(s.ICMPTypes, s.ICMPCodes, s.MHTypes) {
		if r.To < r.From {
			return fmt.Errorf("range of types or codes %v ends before it starts", r)
		}
	}
	return nil
}
