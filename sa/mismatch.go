package sa

import (
	"fmt"
	"net/netip"
)

// A Mismatch is a selector of a policy that a flow does not fit, in words.
type Mismatch struct {
	// Selector is "direction", "local", "remote", "protocol", "local port", "remote port",
	// "ports or type",
	// "icmp type", "icmp code", "mh type" or "opaque".
	Selector string `json:"selector"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

// String returns for example "remote port 443, expected 80".
func (m Mismatch) String() string {
	return fmt.Sprintf("%s %s, expected %s", m.Selector, m.Found, m.Expected)
}

// Mismatches returns why p does not match f in direction d: nothing if it does. It is
// for people, and says the same as SPD.Lookup, but slowly.
func (p *Policy) Mismatches(d Direction, f *Flow) []Mismatch {
	var list []Mismatch
	add := func(fits bool, selector, expected, found string) {
		if !fits {
			list = append(list, Mismatch{selector, expected, found})
		}
	}
	s := &p.Selector
	local, remote := f.Local.Unmap(), f.Remote.Unmap()
	add(p.Directions.Has(d), "direction", p.Directions.String(), d.String())
	add(holdsAddr(s.Local, local), "local", join(s.Local), local.String())
	add(holdsAddr(s.Remote, remote), "remote", join(s.Remote), remote.String())
	if s.Proto != AnyProto && s.Proto != f.Proto {
		add(false, "protocol", ProtoName(s.Proto), ProtoName(f.Proto))
		return list // ports and types are those of the protocol
	}
	switch {
	case s.Opaque:
		add(!f.HasPorts, "opaque", "a packet without ports or type", "one with them")
		return list
	case !f.HasPorts && s.wantsUpper():
		add(false, "ports or type", s.upper(), "none that can be known")
		return list
	case !f.HasPorts:
		return list
	}
	switch {
	case isICMP(f.Proto):
		add(holds(s.ICMPTypes, f.ICMPType), "icmp type", join(s.ICMPTypes), fmt.Sprint(f.ICMPType))
		add(holds(s.ICMPCodes, f.ICMPCode), "icmp code", join(s.ICMPCodes), fmt.Sprint(f.ICMPCode))
	case f.Proto == protoMH:
		add(holds(s.MHTypes, f.MHType), "mh type", join(s.MHTypes), fmt.Sprint(f.MHType))
	default:
		add(holdsPort(s.LocalPorts, f.LocalPort), "local port", join(s.LocalPorts), fmt.Sprint(f.LocalPort))
		add(holdsPort(s.RemotePorts, f.RemotePort), "remote port", join(s.RemotePorts), fmt.Sprint(f.RemotePort))
	}
	return list
}

// upper says in words which ports, types and codes s wants.
func (s *Selector) upper() string {
	only := Selector{LocalPorts: s.LocalPorts, RemotePorts: s.RemotePorts, ICMPTypes: s.ICMPTypes, ICMPCodes: s.ICMPCodes, MHTypes: s.MHTypes}
	const before = "local any remote any "
	return only.String()[len(before):]
}

func holdsAddr(list []AddrRange, a netip.Addr) bool {
	for _, r := range list {
		if r.Contains(a) {
			return true
		}
	}
	return len(list) == 0
}

func holds(list []ByteRange, v uint8) bool {
	for _, r := range list {
		if r.From <= v && v <= r.To {
			return true
		}
	}
	return len(list) == 0
}

func holdsPort(list []PortRange, v uint16) bool {
	for _, r := range list {
		if r.From <= v && v <= r.To {
			return true
		}
	}
	return len(list) == 0
}

// ProtoName returns the name of an IP protocol as a configuration has it, or its number.
func ProtoName(proto uint8) string {
	switch proto {
	case protoICMP:
		return "icmp"
	case 4:
		return "ipip"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 33:
		return "dccp"
	case 41:
		return "ipv6"
	case 47:
		return "gre"
	case 50:
		return "esp"
	case 51:
		return "ah"
	case protoICMPv6:
		return "icmpv6"
	case 132:
		return "sctp"
	case protoMH:
		return "mh"
	case 136:
		return "udplite"
	}
	return fmt.Sprint(proto)
}

// protoWord is the name, or where there is none "proto" and the number.
func protoWord(proto uint8) string {
	name := ProtoName(proto)
	if name[0] <= '9' {
		return "proto " + name
	}
	return name
}
