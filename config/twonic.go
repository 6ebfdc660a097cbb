package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// nics reads which interface is cut, or between which two bitw stands.
func (d *decoder) nics(f *fields) {
	one, inside, outside := f.by["interface"], f.by["inside"], f.by["outside"]
	if inside == nil && outside == nil {
		d.interfaceName(f)
		for _, key := range []string{"protected", "mirror_link"} {
			if n := f.by[key]; n != nil {
				d.fail(n.place, "remove it, or write inside: and outside: instead of interface:", "%s without inside and outside", key)
			}
		}
		return
	}
	const hint = "write interface: to cut one interface, or inside: and outside: to stand between two"
	switch {
	case one != nil:
		first := inside
		if first == nil || outside != nil && outside.place.line < first.place.line {
			first = outside
		}
		d.fail(first.place, hint, "%s beside interface in line %d", keyAt(f, first), one.place.line)
	case inside == nil && !f.meant["inside"]:
		d.fail(outside.place, "add inside: with the interface towards the protected hosts", "outside without inside")
	case outside == nil && !f.meant["outside"]:
		d.fail(inside.place, "add outside: with the interface towards the wire", "inside without outside")
	}
	if inside != nil {
		d.config.Inside, _ = d.nicName(inside)
	}
	if outside != nil {
		if t, ok := d.nicName(outside); ok {
			d.config.Interface, d.config.Control = t, DefaultControl(t)
			if t == d.config.Inside {
				d.fail(outside.place, "name the other interface", "inside and outside are both %s", quote(t))
			}
		}
	}
	if n := f.by["mirror_link"]; n != nil {
		d.config.MirrorLink = d.boolean(n)
	}
	n := f.by["protected"]
	if n == nil {
		if !f.meant["protected"] {
			d.fail(f.place, "add protected: with the addresses of the hosts on the inside", "inside and outside without protected")
		}
		return
	}
	d.protected(n)
}

func keyAt(f *fields, n *node) string {
	for key, x := range f.by {
		if x == n {
			return key
		}
	}
	return ""
}

// protected reads the addresses behind the box.
func (d *decoder) protected(n *node) {
	for _, item := range d.oneOrMore(n, "an address, a prefix, or a list of them") {
		p, ok := d.prefix(item)
		if !ok {
			continue
		}
		a := p.Addr()
		switch {
		case a.IsMulticast(), p.IsSingleIP() && a.IsUnspecified():
			d.fail(item.place, "", "expected the address of a host or the prefix of a network, found %s", p)
			continue
		case p.Bits() == 0:
			d.fail(item.place, "name the networks that are on the inside", "%s would be everything, and nothing would be outside", p)
			continue
		}
		for _, q := range d.config.Protected {
			if p.Overlaps(q) {
				d.fail(item.place, "remove one of them", "%s overlaps %s", p, q)
			}
		}
		d.config.Protected = append(d.config.Protected, p)
	}
}

// betweenTwo checks what the two-NIC form asks of the rest.
func (d *decoder) betweenTwo(f *fields) {
	if d.config.Inside == "" || len(d.config.Protected) == 0 {
		return
	}
	for _, sn := range d.sas {
		if !sn.whole {
			continue
		}
		sa := &d.config.SAs[sn.index]
		if why := d.config.needsTunnel(sa); why != "" {
			d.fail(sn.mode, "set mode: tunnel", "security association %q is in transport mode, and %s", sa.Name, why)
		}
	}
	if len(d.config.Routes) == 0 {
		d.warn(f.by["inside"].place, "add routes: the prefix of the outside network without via, and 0.0.0.0/0 with the router as via",
			"no routes: between two interfaces bitw has no others, so that nothing reaches the outside")
	}
}

// needsTunnel says why an SA may not be in transport mode, or "". A box with more
// than one host behind it is a security gateway to them, and a gateway protects what
// it forwards in tunnel mode (RFC 4301 §3.3, §4.1). Where the SA ends at an address of
// the box itself it is a host there, and may use transport mode.
func (c *Config) needsTunnel(sa *SA) string {
	if sa.Mode != Transport {
		return ""
	}
	end := sa.Source
	if sa.Direction == In {
		end = sa.Destination
	}
	if !slices.ContainsFunc(c.Protected, func(p netip.Prefix) bool { return p.Contains(end) }) {
		return ""
	}
	var same []string
	for _, p := range c.Protected {
		if p.Addr().BitLen() == end.BitLen() {
			same = append(same, p.String())
		}
	}
	if len(same) == 1 && same[0] == netip.PrefixFrom(end, end.BitLen()).String() {
		return ""
	}
	return fmt.Sprintf("more than one %s address is protected (%s), expected one (RFC 4301 §3.3)", family(end), strings.Join(same, ", "))
}

// CheckTwoNIC checks what Load and Parse check of the two-NIC form, for a
// configuration made by hand. The error names what is at fault.
func (c *Config) CheckTwoNIC() error {
	switch {
	case c.Inside == "" && len(c.Protected) == 0 && !c.MirrorLink:
		return nil
	case c.Inside == "":
		return fmt.Errorf("protected and mirror_link are for two interfaces, and inside is empty")
	case c.Interface == "" || c.Interface == c.Inside:
		return fmt.Errorf("inside is %q and outside %q, expected two interfaces", c.Inside, c.Interface)
	case len(c.Protected) == 0:
		return fmt.Errorf("inside and outside without protected: expected the addresses on the inside")
	}
	for i := range c.SAs {
		if why := c.needsTunnel(&c.SAs[i]); why != "" {
			return fmt.Errorf("security association %q is in transport mode, and %s", c.SAs[i].Name, why)
		}
	}
	return nil
}

// IsProtected says whether an address is behind the box, in the two-NIC form. The next
// hop of a route is not, since that is on the outside, also where its network is protected.
func (c *Config) IsProtected(a netip.Addr) bool {
	return slices.ContainsFunc(c.Protected, func(p netip.Prefix) bool { return p.Contains(a) }) &&
		!slices.ContainsFunc(c.Routes, func(r Route) bool { return r.Via == a })
}

// OutsideAddresses are the addresses that bitw itself has on the outside, in the
// two-NIC form: the ends on this side of SAs, as far as no protected host has them.
func (c *Config) OutsideAddresses() []netip.Addr {
	var own []netip.Addr
	for i := range c.SAs {
		end := c.SAs[i].Source
		if c.SAs[i].Direction == In {
			end = c.SAs[i].Destination
		}
		if !c.IsProtected(end) && !slices.Contains(own, end) {
			own = append(own, end)
		}
	}
	return own
}
