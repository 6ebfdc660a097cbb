package config

import (
	"fmt"
	"slices"
	"strings"
)

// opaque in the place of ports, types and codes stands for their absence, as
// swanctl has it.
const opaque = "opaque"

func isOpaque(n *node) bool { return n.kind == scalar && n.text == opaque }

// mobility reads the types of a mobility header (RFC 4301 §4.4.1.1).
func (d *decoder) mobility(n *node, p *policyNode, protocolOK bool) {
	if protocolOK && (p.Protocol == nil || *p.Protocol != protoMH) {
		d.fail(n.place, "set protocol: to mh", "mh_type for protocol %s", protocolName(p.Protocol))
	}
	if isOpaque(n) {
		p.Opaque = true
		return
	}
	for _, item := range d.oneOrMore(n, "a type or a list of types") {
		if a, b, ok := d.numberRange(item, "a mobility header type", 255); ok {
			p.MHTypes = append(p.MHTypes, TypeRange{uint8(a), uint8(b)})
		}
	}
}

// populate reads which selectors a policy takes from the packet.
func (d *decoder) populate(f *fields, p *policyNode) {
	n := f.by["populate"]
	if n == nil {
		return
	}
	if p.Action != "" && p.Action != Protect {
		d.fail(n.place, "remove it, or set action: protect", "%s populates selectors, but its action is %s", p.what, p.Action)
	}
	known := PopulateKeys()
	found := make(map[string]bool)
	for _, item := range d.oneOrMore(n, "the name of a selector or a list of them") {
		name, ok := d.text(item, "the name of a selector")
		if !ok {
			continue
		}
		switch {
		case !slices.Contains(known, name):
			d.fail(item.place, d.suggest(name, known, "known are "+strings.Join(known, ", ")), "cannot populate %s", quote(name))
		case found[name]:
			d.fail(item.place, "remove one of them", "%s is there twice", name)
		default:
			d.populates(item, name, f, p)
		}
		found[name] = true
	}
	if (found["local_ports"] || found["remote_ports"] || found["icmp"] || found["mh_type"]) && p.Protocol == nil && f.by["protocol"] == nil && !f.meant["protocol"] && !found["protocol"] {
		d.fail(n.place, "set protocol:, or populate protocol too", "%s populates what only some protocols have, for any protocol", p.what)
	}
	for _, name := range known {
		if found[name] {
			p.Populate = append(p.Populate, name)
		}
	}
	d.warn(n.place, "", "%s drops what it matches, because keys that stand in a configuration are no key manager that could make SAs for each value", p.what)
}

// populates checks one name.
func (d *decoder) populates(item *node, name string, f *fields, p *policyNode) {
	fits := p.Protocol == nil
	switch name {
	case "local_ports", "remote_ports":
		fits = fits || hasPorts(p.Protocol)
	case "icmp":
		fits = fits || *p.Protocol == protoICMP || *p.Protocol == protoICMPv6
	case "mh_type":
		fits = fits || *p.Protocol == protoMH
	default:
		return
	}
	switch {
	case !fits:
		d.fail(item.place, "remove it", "protocol %s has no %s to populate", protocolName(p.Protocol), name)
	case p.Opaque:
		d.fail(item.place, "remove it", "%s to populate from packets without it, because of opaque", name)
	}
}

// String is a type or first-last.
func (r TypeRange) String() string { return span(r.First, r.Last) }

// opaqueKeys are the keys in which a policy with this protocol says opaque.
func opaqueKeys(protocol *uint8) []string {
	switch {
	case hasPorts(protocol):
		return []string{"local_ports", "remote_ports"}
	case protocol != nil && (*protocol == protoICMP || *protocol == protoICMPv6):
		return []string{"icmp"}
	}
	return []string{"mh_type"}
}

// upper is the value of a key that may be opaque.
func (p *Policy) upper(key string, value any) any {
	if p.Opaque && slices.Contains(opaqueKeys(p.Protocol), key) {
		return opaque
	}
	return value
}

func (w *writer) upper(p *Policy) {
	if p.Opaque {
		for _, key := range opaqueKeys(p.Protocol) {
			w.line(4, key, opaque)
		}
	}
	w.list(4, "local_ports", texts(p.LocalPorts))
	w.list(4, "remote_ports", texts(p.RemotePorts))
	if p.ICMP != nil {
		fmt.Fprintf(w, "    icmp: {type: %s, code: %s}\n", span(p.ICMP.TypeFirst, p.ICMP.TypeLast), span(p.ICMP.CodeFirst, p.ICMP.CodeLast))
	}
	w.list(4, "mh_type", texts(p.MHTypes))
	w.list(4, "populate", p.Populate)
}
