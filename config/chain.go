package config

import (
	"fmt"
	"net/netip"
)

// chains reads the SAs of a policy and checks that they can do what it asks.
func (d *decoder) chains(f *fields, p *policyNode) {
	for _, c := range []struct {
		direction Direction
		to        *[]string
	}{{Out, &p.Out}, {In, &p.In}} {
		key := string(c.direction)
		n := f.by[key]
		applies := p.Direction == Both || p.Direction == c.direction
		switch {
		case n == nil:
			if p.Action == Protect && applies && !f.meant[key] {
				d.fail(f.place, fmt.Sprintf("add %s: with the names of SAs with direction %s", key, key), "%s protects with direction %s, but has no %s", p.what, p.Direction, key)
			}
			continue
		case p.Action != "" && p.Action != Protect:
			d.fail(n.place, "remove it, or set action: protect", "%s has SAs, but its action is %s", p.what, p.Action)
		case p.Direction != "" && !applies:
			d.fail(n.place, "remove it, or set direction: both", "%s has %s, but its direction is %s", p.what, key, p.Direction)
		}
		*c.to = d.chain(n, p, c.direction)
	}
}

// chain reads the names of the SAs of one direction, in the order of their
// application to a packet that leaves.
func (d *decoder) chain(n *node, p *policyNode, direction Direction) []string {
	var names []string
	seen := make(map[string]bool)
	// What an SA in transport or BEET mode finds in the IP header: the policy's own
	// addresses, or after a tunnel or BEET its ends.
	local, remote := p.Local, p.Remote
	inner := p.what
	covered := !p.vague
	for _, item := range d.oneOrMore(n, "the name of an SA or a list of them") {
		name, ok := d.text(item, "the name of an SA")
		if !ok {
			covered = false
			continue
		}
		sa, ok := d.lookup(item, name, direction)
		if !ok {
			covered = false
			continue
		}
		if seen[name] {
			d.fail(item.place, "remove one of them", "security association %q is there twice", name)
		}
		seen[name] = true
		d.used[name] = true
		names = append(names, name)
		if sa == nil || !covered {
			covered = false
			continue
		}
		here, there := sa.Source, sa.Destination
		innerHere, innerThere := sa.InnerSource, sa.InnerDestination
		if sa.Mode == Transport {
			innerHere, innerThere = here, there
		}
		if direction == In {
			here, there = there, here
			innerHere, innerThere = innerThere, innerHere
		}
		if sa.Mode != Tunnel {
			covered = d.covers(item, sa, inner, "local", local, innerHere) && d.covers(item, sa, inner, "remote", remote, innerThere)
		}
		if sa.Mode != Transport {
			local, remote = single(here), single(there)
			inner = fmt.Sprintf("%s %q", sa.Mode, name)
		}
	}
	return names
}

// lookup finds an SA for a policy. The SA is nil if it is there but broken.
func (d *decoder) lookup(item *node, name string, direction Direction) (*SA, bool) {
	if _, ok := d.saNames[name]; !ok {
		known := make([]string, 0, len(d.sas))
		for _, sn := range d.sas {
			if sn.name != "" {
				known = append(known, sn.name)
			}
		}
		hint := "add it under security_associations"
		d.fail(item.place, d.suggest(name, known, hint), "no security association %s", quote(name))
		return nil, false
	}
	sn := d.saByName(name)
	if sn.direction != "" && sn.direction != direction {
		d.used[name] = true
		d.fail(item.place, fmt.Sprintf("name one with direction %s", direction), "security association %q has direction %s, expected %s", name, sn.direction, direction)
		return nil, false
	}
	if !sn.whole {
		return nil, true
	}
	return &d.config.SAs[sn.index], true
}

func (d *decoder) saByName(name string) saNode {
	if d.byName == nil {
		d.byName = make(map[string]saNode, len(d.sas))
		for _, sn := range d.sas {
			if _, twice := d.byName[sn.name]; !twice {
				d.byName[sn.name] = sn
			}
		}
	}
	return d.byName[name]
}

// covers checks that an SA in transport mode goes where the packets go: it keeps
// their IP header (RFC 4301 §4.1), so its ends have to be theirs. In BEET mode it is
// the inner ends that must be (draft-nikander-esp-beet-mode-09 §5.1).
func (d *decoder) covers(item *node, sa *SA, inner, key string, ranges []AddressRange, end netip.Addr) bool {
	found := ""
	if len(ranges) == 0 {
		found = "any"
	}
	for _, r := range ranges {
		if r.First != end || r.Last != end {
			found = r.String()
			break
		}
	}
	if found == "" {
		return true
	}
	d.fail(item.place, fmt.Sprintf("use mode: tunnel, or narrow %s to %s", key, end),
		"security association %q is in %s mode with %s end %s, but %s has %s %s", sa.Name, sa.Mode, key, end, inner, key, found)
	return false
}

func single(a netip.Addr) []AddressRange { return []AddressRange{{a, a}} }
