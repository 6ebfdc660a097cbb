package config

import (
	"slices"
	"strings"
)

// insecure reads what the operator allows although it should not be used.
func (d *decoder) insecure(n *node) {
	d.allowed = make(map[string]place)
	if n.kind == list && len(n.items) == 0 {
		return
	}
	for _, item := range d.oneOrMore(n, "the part of an algorithm's name or a list of them") {
		name, ok := d.text(item, "the part of an algorithm's name")
		if !ok {
			continue
		}
		known := d.opt.InsecureNames
		switch _, twice := d.allowed[name]; {
		case known != nil && !slices.Contains(known, name):
			d.fail(item.place, d.suggest(name, known, "known are "+strings.Join(known, ", ")), "no insecure algorithm is called %s", quote(name))
			continue
		case twice:
			d.fail(item.place, "remove one of them", "%s is there twice", name)
			continue
		}
		d.allowed[name] = item.place
		d.config.AllowInsecure = append(d.config.AllowInsecure, name)
	}
}

// mayUse refuses an algorithm of which allow_insecure does not name every insecure part,
// and warns of it otherwise.
func (d *decoder) mayUse(n *node, name string, a Algorithm) {
	var missing []string
	for _, part := range a.Insecure {
		if _, ok := d.allowed[part]; !ok {
			missing = append(missing, part)
		}
		d.needed[part] = true
	}
	switch {
	case len(missing) > 0:
		d.fail(n.place, "take another, or if the other end has none, set allow_insecure: ["+strings.Join(a.Insecure, ", ")+"]",
			"algorithm %q is insecure: %s", name, a.Weak)
	case len(a.Insecure) > 0:
		d.warn(n.place, "", "algorithm %q is INSECURE, and allowed: %s", name, a.Weak)
	case a.Weak != "":
		d.warn(n.place, "", "algorithm %q is weak: %s", name, a.Weak)
	}
}

// idleAllowance warns of what is allowed and not used.
func (d *decoder) idleAllowance() {
	for name, at := range d.allowed {
		if !d.needed[name] {
			d.warn(at, "remove it", "%s is allowed, and no security association uses it", name)
		}
	}
}

// noSequence refuses what an SA whose packets carry no sequence number cannot have.
func (d *decoder) noSequence(f *fields, sa *SA, a Algorithm) {
	if !a.NoSequence {
		return
	}
	if sa.ESN {
		d.fail(f.by["esn"].place, "remove it", "%s has no sequence numbers, so there are no extended ones", sa.Algorithm)
	}
	if sa.Encap != nil {
		d.fail(f.by["encap"].place, "remove it", "%s is older than ESP in UDP", sa.Algorithm)
	}
	if n := f.by["replay_window"]; n != nil && sa.Direction == In {
		d.warn(n.place, "remove it", "replay_window has no effect: %s has no sequence numbers", sa.Algorithm)
	}
}
