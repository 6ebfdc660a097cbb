package config

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// A decoder turns nodes into a Config. It goes on after an error, so that one run
// reports all.
type decoder struct {
	*source
	opt      Options
	config   Config
	keyFiles map[string]*keyFile
	// firstKey is where the file itself holds a key.
	firstKey place
	// saNames are all names found, of broken SAs too, so that a policy is not blamed
	// for an SA that is merely wrong.
	saNames map[string]place
	sas     []saNode
	used    map[string]bool
	// allowed are the names in allow_insecure, and needed those that an SA needs there.
	allowed map[string]place
	needed  map[string]bool
	// byName is made from sas at its first use.
	byName map[string]saNode
}

func (d *decoder) decode(root *node) {
	f := d.fields(root, "a configuration", fileKeyNames...)
	if f == nil {
		return
	}
	d.config.marks = map[string]mark{"": {Position{File: d.file}, ""}}
	for key, n := range f.by {
		if n.kind == scalar {
			d.config.marks[key] = mark{d.position(n.place), d.line(n.place.line)}
		}
	}
	d.nics(f)
	c := &d.config
	if n := f.by["on_failure"]; n != nil {
		c.OnFailure = enum(d.source, n, Shut, Open)
	}
	if n := f.by["control"]; n != nil {
		d.control(n)
	}
	if n := f.by["control_group"]; n != nil {
		c.ControlGroup = d.group(n)
	}
	if n := f.by["control_admin_group"]; n != nil {
		c.ControlAdminGroup = d.group(n)
	}
	if n := f.by["metrics"]; n != nil {
		c.Metrics = d.metrics(n)
	}
	if n := f.by["state_dir"]; n != nil {
		if n.kind == scalar && n.text == "" {
			c.StateDir = ""
		} else if t, ok := d.text(n, "a directory"); ok {
			c.StateDir = d.relative(t)
		}
	}
	if n := f.by["icmp_errors"]; n != nil {
		c.ICMPErrors = enum(d.source, n, ICMPAccept, ICMPVerify, ICMPDiscard)
	}
	if n := f.by["log_level"]; n != nil {
		c.LogLevel = enum(d.source, n, "error", "warn", "info", "debug", "trace")
	}
	if n := f.by["trace"]; n != nil {
		d.trace(n)
	}
	if n := f.by["watchdog"]; n != nil {
		c.Watchdog = d.watchdog(n)
	}
	if n := f.by["confine"]; n != nil {
		c.Confine = enum(d.source, n, ConfineFull, ConfineCapabilities, ConfineOff)
	}
	d.bypass(f)
	d.offloads(f)
	d.limits(f)
	if n := f.by["mtu"]; n != nil {
		if v, ok := d.number(n, 576, 65535); ok {
			c.MTU = int(v)
			if v < 1280 {
				d.warn(n.place, "", "IPv6 needs an MTU of 1280 or more, found %d", v)
			}
		}
	}
	if n := f.by["classes"]; n != nil {
		d.classes(n)
	}
	d.neighbors(f)
	if n := f.by["static_neighbors"]; n != nil {
		d.staticNeighbors(n)
	}
	if n := f.by["routes"]; n != nil {
		d.routes(n)
	}
	d.saNames, d.used, d.needed = make(map[string]place), make(map[string]bool), make(map[string]bool)
	if n := f.by["allow_insecure"]; n != nil {
		d.insecure(n)
	}
	if n := f.by["security_associations"]; n != nil {
		d.securityAssociations(n)
	}
	if n := f.by["policies"]; n != nil {
		d.policies(n)
	}
	d.idleAllowance()
	d.betweenTwo(f)
	if n := f.by["policies"]; n == nil || n.kind == null || n.kind == list && len(n.items) == 0 {
		d.warn(root.place, "add policies", "no policies: every packet is discarded")
	}
	for _, sa := range d.sas {
		if sa.name != "" && !d.used[sa.name] {
			d.warn(sa.place, fmt.Sprintf("name it under %q of a policy, or remove it", sa.direction), "security association %q is used by no policy", sa.name)
		}
	}
}

func (d *decoder) interfaceName(f *fields) {
	n := f.by["interface"]
	if n == nil {
		if !d.opt.NoInterface && !f.meant["interface"] {
			d.fail(f.place, "add interface: with the name of the interface to cut, or inside: and outside:", "no interface")
		}
		return
	}
	t, ok := d.nicName(n)
	if !ok {
		return
	}
	d.config.Interface = t
	if d.config.Control == "" {
		d.config.Control = DefaultControl(t)
	}
}

// nicName reads the name of an interface.
func (d *decoder) nicName(n *node) (string, bool) {
	t, ok := d.text(n, "the name of an interface")
	if !ok {
		return "", false
	}
	// What Linux's dev_valid_name refuses, and ":" which it keeps for aliases.
	if len(t) > 15 || t == "." || t == ".." || strings.ContainsAny(t, "/: \t") {
		d.fail(n.place, "a name has 1 to 15 octets without spaces, / and :", "%s cannot be the name of an interface", quote(t))
		return "", false
	}
	return t, true
}

// etherTypes that no rule may name by its number: for IP the policies decide, and ARP
// is a class of its own.
var etherTypes = []struct {
	number       uint64
	reason, hint string
}{
	{0x0800, "is IPv4, which the policies decide", "write a policy"},
	{0x0806, "is ARP", "name the class arp, or see neighbors"},
	{0x86dd, "is IPv6, which the policies decide", "write a policy"},
}

func (d *decoder) classes(n *node) {
	if n.kind == null {
		return
	}
	const what = "a mapping of classes"
	if n.kind != mapping {
		d.fail(n.place, "write one class a line, such as lldp: bypass", "expected %s, found %s", what, n.found())
		return
	}
	by := make(map[string]*node)
	for _, e := range n.entries {
		class := Class{Name: e.key, Pos: d.position(e.place)}
		if t, ok := strings.CutPrefix(e.key, "ethertype"); ok {
			t = strings.TrimSpace(t)
			v, err := parseNumber(t)
			if err != nil || v < 0x600 || v > 0xffff {
				d.fail(e.place, "write for example: ethertype 0x88cc", "expected an EtherType from 0x0600 to 0xffff, found %s", quote(t))
				continue
			}
			class.Name, class.EtherType = fmt.Sprintf("ethertype 0x%04x", v), uint16(v)
			refused := false
			for _, x := range etherTypes {
				if x.number == v {
					d.fail(e.place, x.hint, "EtherType 0x%04x %s", v, x.reason)
					refused = true
				}
			}
			if refused {
				continue
			}
		} else if !contains(d.opt.Classes, e.key) {
			hint := "known are ethertype 0x0600 to 0xffff"
			if len(d.opt.Classes) > 0 {
				hint = "known are " + strings.Join(d.opt.Classes, ", ") + " and ethertype 0x0600 to 0xffff"
			}
			d.fail(e.place, d.suggest(e.key, d.opt.Classes, hint), "unknown class %s", quote(e.key))
			continue
		}
		if !d.once(by, entry{class.Name, e.place, e.value}, "classes") {
			continue
		}
		by[class.Name] = &node{place: e.place}
		class.Action = enum(d.source, e.value, Bypass, Discard)
		if class.Action == Bypass && (class.EtherType == 0x8100 || class.EtherType == 0x88a8) {
			d.warn(e.place, "", "frames with a VLAN tag may hold IP packets, which then pass without any policy")
		}
		d.config.Classes = append(d.config.Classes, class)
	}
}

func (d *decoder) staticNeighbors(n *node) {
	seen := make(map[netip.Addr]place)
	for _, item := range d.list(n, "static neighbors") {
		f := d.fields(item, "a neighbor", neighborKeyNames...)
		if f == nil {
			continue
		}
		v := Neighbor{Pos: d.position(item.place)}
		if a := d.required(f, "address", "a neighbor"); a != nil {
			var ok bool
			if v.Address, ok = d.address(a); ok {
				if before, twice := seen[v.Address]; twice {
					d.fail(a.place, "remove one of them", "neighbor %s is already in line %d", v.Address, before.line)
				} else if !isStation(v.Address) {
					d.fail(a.place, "", "a neighbor has one address of its own, found %s", v.Address)
				}
				seen[v.Address] = a.place
			}
		}
		if m := d.required(f, "mac", "a neighbor"); m != nil {
			if t, ok := d.text(m, "an Ethernet address"); ok {
				mac, err := net.ParseMAC(t)
				switch {
				case err != nil || len(mac) != 6:
					d.fail(m.place, "", "expected an Ethernet address such as 02:00:00:00:00:09, found %s", quote(t))
				case mac[0]&1 != 0 || bytes.Equal(mac, make([]byte, 6)):
					d.fail(m.place, "", "Ethernet address %s is a group's or nobody's, expected that of one station", mac)
				}
				v.MAC = mac
			}
		}
		d.config.StaticNeighbors = append(d.config.StaticNeighbors, v)
	}
}

func (d *decoder) routes(n *node) {
	seen := make(map[netip.Prefix]place)
	for _, item := range d.list(n, "routes") {
		f := d.fields(item, "a route", routeKeyNames...)
		if f == nil {
			continue
		}
		r := Route{Pos: d.position(item.place)}
		known := false
		if p := d.required(f, "destination", "a route"); p != nil {
			if r.Destination, known = d.prefix(p); known {
				if before, twice := seen[r.Destination]; twice {
					d.fail(p.place, "remove one of them", "a route to %s is already in line %d", r.Destination, before.line)
				}
				seen[r.Destination] = p.place
			}
		}
		if v := f.by["via"]; v != nil {
			var ok bool
			r.Via, ok = d.address(v)
			switch {
			case ok && !isStation(r.Via):
				d.fail(v.place, "", "a next hop has one address of its own, found %s", r.Via)
			case ok && known && r.Via.BitLen() != r.Destination.Addr().BitLen():
				d.fail(v.place, "", "next hop %s is %s, destination %s is %s", r.Via, family(r.Via), r.Destination, family(r.Destination.Addr()))
			}
		}
		d.config.Routes = append(d.config.Routes, r)
	}
}

// required gives the node of a key that has to be there, or reports its absence.
func (d *decoder) required(f *fields, key, what string) *node {
	n := f.by[key]
	if n == nil && !f.meant[key] {
		d.fail(f.place, "add "+key+":", "%s without %s", what, key)
	}
	return n
}
