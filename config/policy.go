package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// protocols are the names of IP protocols (IANA's protocol numbers).
var protocols = []struct {
	name   string
	number uint8
	ports  bool
}{
	{"icmp", 1, false}, {"igmp", 2, false}, {"ipip", 4, false}, {"tcp", 6, true}, {"udp", 17, true}, {"dccp", 33, true},
	{"ipv6", 41, false}, {"gre", 47, false}, {"esp", 50, false}, {"ah", 51, false}, {"icmpv6", 58, false}, {"ipv6-icmp", 58, false},
	{"ospf", 89, false}, {"pim", 103, false}, {"vrrp", 112, false}, {"l2tp", 115, false}, {"sctp", 132, true}, {"mh", 135, false}, {"udplite", 136, true},
}

const (
	protoICMP   = 1
	protoICMPv6 = 58
	protoMH     = 135
)

// A policyNode is a policy with the places of its addresses.
type policyNode struct {
	Policy
	what                      string
	place                     place
	localPlaces, remotePlaces []place
	// vague says that some of its addresses could not be read.
	vague bool
}

func (d *decoder) policies(n *node) {
	names := make(map[string]place)
	var all *policyNode
	for _, item := range d.list(n, "policies") {
		f := d.fields(item, "a policy", policyKeyNames...)
		if f == nil {
			continue
		}
		p := policyNode{Policy: Policy{Direction: Both, Pos: d.position(item.place)}, what: "a policy", place: item.place}
		if x := d.required(f, "name", p.what); x != nil {
			if p.Name = d.name(x); p.Name != "" {
				p.what = fmt.Sprintf("policy %q", p.Name)
				if before, twice := names[p.Name]; twice {
					d.fail(x.place, "give each a name of its own", "%s is already in line %d", p.what, before.line)
				} else {
					names[p.Name] = x.place
				}
			}
		}
		if x := f.by["direction"]; x != nil {
			p.Direction = enum(d.source, x, Both, Out, In)
		}
		if x := d.required(f, "action", p.what); x != nil {
			p.Action = enum(d.source, x, Protect, Bypass, Discard)
		}
		if x := f.by["reject"]; x != nil {
			if p.Reject = d.boolean(x); p.Reject && p.Action != "" && p.Action != Discard {
				d.fail(x.place, "remove it, or set action: discard", "reject is for what is discarded, and action is %s", p.Action)
			}
		}
		if x := f.by["fragments"]; x != nil {
			p.DiscardFragments = enum(d.source, x, "reassemble", string(Discard)) == string(Discard)
		}
		d.selectors(f, &p)
		d.populate(f, &p)
		d.mssClamp(f, &p)
		d.chains(f, &p)
		d.sameEncap(f, &p)
		if all != nil && (all.Direction == Both || all.Direction == p.Direction) {
			d.warn(item.place, fmt.Sprintf("move it before %s", all.what), "%s is never reached, because %s in line %d matches everything", p.what, all.what, all.place.line)
		}
		if all == nil && p.matchesAll(f) && (p.Direction == Both || p.Direction == Out || p.Direction == In) {
			all = &p
		}
		d.config.Policies = append(d.config.Policies, p.Policy)
	}
}

// matchesAll tells whether no selector narrows the policy.
func (p *policyNode) matchesAll(f *fields) bool {
	for _, key := range []string{"local", "remote", "protocol", "local_ports", "remote_ports", "icmp", "mh_type"} {
		if f.by[key] != nil {
			return false
		}
	}
	return true
}

// selectors reads what the policy matches.
func (d *decoder) selectors(f *fields, p *policyNode) {
	before := len(d.errs)
	p.Local, p.localPlaces = d.addresses(f.by["local"])
	p.Remote, p.remotePlaces = d.addresses(f.by["remote"])
	p.vague = len(d.errs) > before || f.meant["local"] || f.meant["remote"]
	d.sameFamily("local", p.Local, p.localPlaces, "remote", p.Remote)
	d.sameFamily("remote", p.Remote, p.remotePlaces, "local", p.Local)
	protocolOK := true
	if n := f.by["protocol"]; n != nil {
		p.Protocol = d.ipProtocol(n)
		protocolOK = p.Protocol != nil
	}
	for _, ports := range []struct {
		key string
		to  *[]PortRange
	}{{"local_ports", &p.LocalPorts}, {"remote_ports", &p.RemotePorts}} {
		n := f.by[ports.key]
		if n == nil {
			continue
		}
		if protocolOK && !hasPorts(p.Protocol) {
			d.fail(n.place, "set protocol: to tcp, udp, sctp, dccp or udplite", "%s for protocol %s, which has no ports", ports.key, protocolName(p.Protocol))
		}
		if isOpaque(n) {
			p.Opaque = true
			continue
		}
		for _, item := range d.oneOrMore(n, "a port or a list of ports") {
			if a, b, ok := d.numberRange(item, "a port", 65535); ok {
				*ports.to = append(*ports.to, PortRange{uint16(a), uint16(b)})
			}
		}
	}
	if n := f.by["icmp"]; n != nil {
		d.icmp(n, p, protocolOK)
	}
	if n := f.by["mh_type"]; n != nil {
		d.mobility(n, p, protocolOK)
	}
	if p.Opaque {
		for _, key := range []string{"local_ports", "remote_ports", "icmp", "mh_type"} {
			if n := f.by[key]; n != nil && !isOpaque(n) {
				d.fail(n.place, "write "+key+": opaque, or leave it out", "%s for packets without it, because another key is opaque", key)
			}
		}
	}
	if p.Protocol == nil {
		return
	}
	switch version := familyOf(p); {
	case *p.Protocol == protoICMP && version == "IPv6":
		d.fail(f.by["protocol"].place, "write protocol: icmpv6", "protocol icmp is of IPv4, the addresses of %s are IPv6", p.what)
	case *p.Protocol == protoICMPv6 && version == "IPv4":
		d.fail(f.by["protocol"].place, "write protocol: icmp", "protocol icmpv6 is of IPv6, the addresses of %s are IPv4", p.what)
	}
}

// familyOf is the one family of a policy's addresses, or "" if it has none or both.
func familyOf(p *policyNode) string {
	version := ""
	for _, ranges := range [][]AddressRange{p.Local, p.Remote} {
		for _, r := range ranges {
			switch f := family(r.First); version {
			case "", f:
				version = f
			default:
				return ""
			}
		}
	}
	return version
}

func (d *decoder) icmp(n *node, p *policyNode, protocolOK bool) {
	if protocolOK && (p.Protocol == nil || *p.Protocol != protoICMP && *p.Protocol != protoICMPv6) {
		d.fail(n.place, "set protocol: to icmp or icmpv6", "icmp for protocol %s", protocolName(p.Protocol))
	}
	if isOpaque(n) {
		p.Opaque = true
		return
	}
	f := d.fields(n, "an ICMP selector", icmpKeyNames...)
	if f == nil {
		return
	}
	r := ICMPRange{0, 255, 0, 255}
	if n := f.by["type"]; n != nil {
		if a, b, ok := d.numberRange(n, "an ICMP type", 255); ok {
			r.TypeFirst, r.TypeLast = uint8(a), uint8(b)
		}
	}
	if n := f.by["code"]; n != nil {
		if a, b, ok := d.numberRange(n, "an ICMP code", 255); ok {
			r.CodeFirst, r.CodeLast = uint8(a), uint8(b)
		}
	}
	p.ICMP = &r
}

func (d *decoder) addresses(n *node) (ranges []AddressRange, places []place) {
	if n == nil {
		return nil, nil
	}
	for _, item := range d.oneOrMore(n, "an address, a prefix, a range, or a list of them") {
		if r, ok := d.addressRange(item); ok {
			ranges, places = append(ranges, r), append(places, item.place)
		}
	}
	return ranges, places
}

// sameFamily reports the first address that nothing on the other side goes with.
func (d *decoder) sameFamily(key string, ranges []AddressRange, places []place, otherKey string, others []AddressRange) {
	if len(others) == 0 {
		return
	}
	for _, o := range others {
		if o.First.BitLen() != others[0].First.BitLen() {
			return
		}
	}
	for i, r := range ranges {
		if r.First.BitLen() != others[0].First.BitLen() {
			d.fail(places[i], fmt.Sprintf("add an %s address to %s, or write two policies", family(r.First), otherKey),
				"%s %s is %s, and %s has only %s", key, r, family(r.First), otherKey, family(others[0].First))
			return
		}
	}
}

func (d *decoder) ipProtocol(n *node) *uint8 {
	const want = "an IP protocol, by name or number"
	t, ok := d.text(n, want)
	if !ok {
		return nil
	}
	names := make([]string, len(protocols))
	for i, p := range protocols {
		if p.name == t {
			v := p.number
			return &v
		}
		names[i] = p.name
	}
	if v, err := parseNumber(t); err == nil && v <= 255 {
		b := uint8(v)
		return &b
	}
	hint := d.suggest(t, names, "write a number from 0 to 255, or one of "+strings.Join(names, ", "))
	if t == "any" {
		hint = "leave the key out to match any protocol"
	}
	d.fail(n.place, hint, "expected %s, found %s", want, quote(t))
	return nil
}

func hasPorts(number *uint8) bool {
	for _, p := range protocols {
		if number != nil && p.number == *number {
			return p.ports
		}
	}
	return false
}

func protocolName(number *uint8) string {
	if number == nil {
		return "any"
	}
	return ProtocolName(*number)
}

// ProtocolName is the name of an IP protocol as a policy may say it, or the number where
// it has none.
func ProtocolName(number uint8) string {
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// String is an address, a prefix where the range is one, or first-last.
func (r AddressRange) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	for bits := 0; r.First.IsValid() && bits < r.First.BitLen(); bits++ {
		if p := netip.PrefixFrom(r.First, bits); p.Masked() == p && lastAddr(p) == r.Last {
			return p.String()
		}
	}
	return r.First.String() + "-" + r.Last.String()
}

// String is a port or first-last.
func (r PortRange) String() string { return span(r.First, r.Last) }

func span[T uint8 | uint16](first, last T) string {
	if first == last {
		return strconv.Itoa(int(first))
	}
	return fmt.Sprintf("%d-%d", first, last)
}
