package graphcomp

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"bitw/config"
)

// A way is what becomes of the packets of one direction.
type way struct {
	action config.Action // "" if nothing was said
	sas    []string
	pos    config.Position
}

// A relation is what is said of the traffic between two sets of addresses.
type relation struct {
	name          string
	local, remote []config.AddressRange
	out, in       way
}

const (
	protoICMP   = 1
	protoICMPv6 = 58
)

// policies makes the SPD: for each forwarder what its lower node wants.
func (b *builder) policies() {
	var relations []*relation
	if b.graph.Protects() {
		relations = append(b.pairs(), b.hosts()...)
	}
	for _, n := range b.graph.Nodes {
		if !isForwarder(n.Protocol) {
			continue
		}
		for _, number := range b.protocols(n) {
			if n.Lower[0].Protocol == "ip" {
				b.plan.Policies = append(b.plan.Policies, config.Policy{
					Name: policyName(n, number), Direction: config.Both, Action: config.Bypass, Protocol: &number, Pos: n.Pos,
				})
				continue
			}
			for _, r := range relations {
				if (number == protoICMPv6) == r.is6() || number != protoICMP && number != protoICMPv6 {
					b.relate(r, policyName(n, number), number)
				}
			}
		}
	}
}

// protocols are the IP protocol numbers that a forwarder takes.
func (b *builder) protocols(n *Node) []uint8 {
	number := uint8(b.graph.Numbers[n.Protocol])
	if n.Protocol == "ipf_icmp" && number == protoICMP {
		return []uint8{protoICMP, protoICMPv6}
	}
	return []uint8{number}
}

func policyName(n *Node, number uint8) string {
	if number == protoICMPv6 && n.Protocol == "ipf_icmp" {
		return n.Name + "v6"
	}
	return n.Name
}

func (r *relation) is6() bool {
	for _, list := range [][]config.AddressRange{r.local, r.remote} {
		if len(list) > 0 {
			return list[0].First.Is6()
		}
	}
	return false
}

// relate makes the policies of one relation and protocol: one where both ways are alike.
func (b *builder) relate(r *relation, name string, number uint8) {
	p := config.Policy{Name: name + "/" + r.name, Local: r.local, Remote: r.remote, Protocol: &number}
	if r.out.action == r.in.action && r.out.action != "" {
		p.Direction, p.Action, p.Out, p.In, p.Pos = config.Both, r.out.action, r.out.sas, r.in.sas, r.out.pos
		b.plan.Policies = append(b.plan.Policies, p)
		return
	}
	if r.out.action != "" {
		q := p
		q.Name, q.Direction, q.Action, q.Out, q.Pos = p.Name+"/out", config.Out, r.out.action, r.out.sas, r.out.pos
		b.plan.Policies = append(b.plan.Policies, q)
	}
	if r.in.action != "" {
		q := p
		q.Name, q.Direction, q.Action, q.In, q.Pos = p.Name+"/in", config.In, r.in.action, r.in.sas, r.in.pos
		b.plan.Policies = append(b.plan.Policies, q)
	}
}

// used returns the map of a manager that saidmgr stands on, or nil.
func (b *builder) used(manager string) *KeyMap {
	if !b.graph.only("saidmgr").stands(manager) {
		return nil
	}
	return b.keys.Map(manager)
}

// pairs are the relations of km/sauser: by source and destination. Those between other
// hosts are not for this one, so that all hosts may have one file.
func (b *builder) pairs() []*relation {
	m := b.used("km/sauser")
	if m == nil {
		return nil
	}
	var list []*relation
	for _, k := range m.keys {
		source, destination := m.pair(k.Address)
		out, in := slices.Contains(b.own, source), slices.Contains(b.own, destination)
		local, remote := source, destination
		switch {
		case out && in:
			b.fail(k.Pos, "remove it", "%s goes from this host to itself", m.AddressText(k.Address))
			continue
		case in:
			local, remote = destination, source
		case !out:
			continue
		}
		name := local.String() + "/" + remote.String()
		i := slices.IndexFunc(list, func(r *relation) bool { return r.name == name })
		if i < 0 {
			i = len(list)
			list = append(list, &relation{name: name, local: alone(local), remote: alone(remote)})
		}
		w := b.way(k, source, destination)
		if out {
			list[i].out = w
		} else {
			list[i].in = w
		}
	}
	return list
}

// hosts are the relations of km/b: by destination alone.
func (b *builder) hosts() []*relation {
	m := b.used("km/b")
	if m == nil {
		return nil
	}
	var list []*relation
	for _, k := range m.keys {
		destination := m.host(k.Address)
		if slices.Contains(b.own, destination) {
			list = append(list, &relation{name: "to/" + destination.String(), local: alone(destination), in: b.way(k, netip.Addr{}, destination)})
			continue
		}
		var sources []netip.Addr
		for _, a := range b.own {
			if a.BitLen() == destination.BitLen() {
				sources = append(sources, a)
			}
		}
		if len(sources) != 1 {
			b.fail(k.Pos, "give vnet one address of its family", "%s is for the one address of this host, and it has %d of the family", m.AddressText(k.Address), len(sources))
			continue
		}
		list = append(list, &relation{name: "to/" + destination.String(), local: alone(sources[0]), remote: alone(destination), out: b.way(k, sources[0], destination)})
	}
	return list
}

func alone(a netip.Addr) []config.AddressRange {
	return []config.AddressRange{{First: a, Last: a}}
}

// way says what the value of a key means: SPIs in the order in which they are applied,
// SPI 0 alone the sink, no octets bypass.
func (b *builder) way(k *Key, source, destination netip.Addr) way {
	w := way{pos: k.Pos, action: config.Protect}
	v := k.Value.Bytes()
	switch {
	case k.State == Empty:
		w.action = ""
	case k.State == Invalid:
		w.action = config.Discard
	case len(v) == 0:
		w.action = config.Bypass
	case len(v)%4 != 0:
		b.fail(k.Pos, "write 0xSPI/0xSPI", "a list of SPIs has a multiple of 4 octets, found %d", len(v))
	case len(v) == 4 && binary.BigEndian.Uint32(v) == 0:
		w.action = config.Discard
	default:
		for ; len(v) > 0; v = v[4:] {
			spi := binary.BigEndian.Uint32(v)
			name := b.association(k, spi, source, destination)
			if name == "" {
				continue
			}
			if slices.Contains(w.sas, name) {
				b.fail(k.Pos, "remove one of them", "SPI 0x%08x stands twice", spi)
				continue
			}
			w.sas = append(w.sas, name)
		}
	}
	return w
}
