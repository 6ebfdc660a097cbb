package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A Copy says whether a header field passes between the inner and the outer header of
// an SA, in swanctl's words. Empty stands for the default.
type Copy string

// Yes and No are for all fields, Set for DF alone, and for DSCP Yes is both of
// CopyOut, its default, and CopyIn.
const (
	CopyYes Copy = "yes"
	CopyNo  Copy = "no"
	CopySet Copy = "set"
	CopyOut Copy = "out"
	CopyIn  Copy = "in"
)

// A Fragment says where a datagram is cut that does not fit a tunnel.
type Fragment string

// After is the default: what the tunnel made is cut. Before has the far end get whole
// packets of ESP or AH.
const (
	After  Fragment = "after"
	Before Fragment = "before"
)

// Headers says how the outer header of an SA relates to the inner one (RFC 4301
// §5.1.2). The zero value is the default.
type Headers struct {
	CopyDF, CopyECN, CopyDSCP Copy
	// DSCP gives the outer code points of some inner ones; CopyDSCP decides about the
	// others.
	DSCP map[uint8]uint8
	// TTL is that of the outer header, 0 for 64.
	TTL           uint8
	CopyFlowLabel bool
	FlowLabel     uint32
	Fragment      Fragment
}

// headerKeys are those of an SA that Headers come from.
var headerKeys = []string{"copy_df", "copy_ecn", "copy_dscp", "dscp", "ttl", "flow_label", "fragment"}

// saHeaders reads what an outer header gets.
func (d *decoder) saHeaders(f *fields, sa *SA) {
	h := &sa.Headers
	for i, key := range headerKeys {
		n := f.by[key]
		if n == nil {
			continue
		}
		if sa.Mode == Transport || sa.Mode == BEET && i >= 4 {
			d.fail(n.place, "remove it", "%s is for an outer header of its own, and mode is %s", key, sa.Mode)
			continue
		}
		switch key {
		case "copy_df":
			h.CopyDF = enum(d.source, n, CopyYes, CopyNo, CopySet)
		case "copy_ecn":
			h.CopyECN = enum(d.source, n, CopyYes, CopyNo)
		case "copy_dscp":
			h.CopyDSCP = enum(d.source, n, CopyOut, CopyIn, CopyYes, CopyNo)
		case "dscp":
			d.onlyFor(n, key, Out, sa)
			h.DSCP = d.dscp(n)
		case "ttl":
			d.onlyFor(n, key, Out, sa)
			v, _ := d.number(n, 1, 255)
			h.TTL = uint8(v)
		case "flow_label":
			d.onlyFor(n, key, Out, sa)
			if n.kind == scalar && n.text == "copy" {
				h.CopyFlowLabel = true
			} else if v, ok := d.number(n, 0, 1<<20-1); ok {
				h.FlowLabel = uint32(v)
			}
		case "fragment":
			d.onlyFor(n, key, Out, sa)
			h.Fragment = enum(d.source, n, After, Before)
		}
	}
}

// dscp reads one code point for all packets, or a mapping of inner to outer ones.
func (d *decoder) dscp(n *node) map[uint8]uint8 {
	const top = 63
	m := make(map[uint8]uint8)
	if n.kind != mapping {
		if v, ok := d.number(n, 0, top); ok {
			for inner := range uint8(top + 1) {
				m[inner] = uint8(v)
			}
		}
		return m
	}
	for _, e := range n.entries {
		first, last, ok := d.numberRange(&node{kind: scalar, place: e.place, text: e.key}, "a DSCP", top)
		if !ok {
			continue
		}
		outer, ok := d.number(e.value, 0, top)
		for inner := uint8(first); ok && inner <= uint8(last); inner++ {
			if _, twice := m[inner]; twice {
				d.fail(e.place, "name each once", "DSCP %d is already mapped", inner)
				break
			}
			m[inner] = uint8(outer)
		}
	}
	return m
}

// headers writes what differs from the default.
func (w *writer) headers(h *Headers) {
	for _, x := range []struct{ key, value string }{
		{"copy_df", string(h.CopyDF)}, {"copy_ecn", string(h.CopyECN)}, {"copy_dscp", string(h.CopyDSCP)},
		{"dscp", dscpText(h.DSCP)}, {"fragment", string(h.Fragment)},
	} {
		if x.value != "" {
			fmt.Fprintf(w, "    %s: %s\n", x.key, x.value)
		}
	}
	if h.TTL != 0 {
		fmt.Fprintf(w, "    ttl: %d\n", h.TTL)
	}
	switch {
	case h.CopyFlowLabel:
		w.WriteString("    flow_label: copy\n")
	case h.FlowLabel != 0:
		fmt.Fprintf(w, "    flow_label: 0x%x\n", h.FlowLabel)
	}
}

func dscpText(m map[uint8]uint8) string {
	if len(m) == 0 {
		return ""
	}
	var items []string
	for _, inner := range slices.Sorted(maps.Keys(m)) {
		items = append(items, fmt.Sprintf("%d: %d", inner, m[inner]))
	}
	return "{" + strings.Join(items, ", ") + "}"
}

// headerItems are what headerKeys say of two SAs.
func headerItems(a, b *Headers) []item {
	type label struct {
		copy  bool
		value uint32
	}
	return []item{
		{"copy_df", a.CopyDF, b.CopyDF}, {"copy_ecn", a.CopyECN, b.CopyECN}, {"copy_dscp", a.CopyDSCP, b.CopyDSCP},
		{"dscp", dscpText(a.DSCP), dscpText(b.DSCP)}, {"ttl", a.TTL, b.TTL},
		{"flow_label", label{a.CopyFlowLabel, a.FlowLabel}, label{b.CopyFlowLabel, b.FlowLabel}},
		{"fragment", a.Fragment, b.Fragment},
	}
}

// ICMPErrors is a rule for ICMP errors that come in the clear (RFC 4301 §6.1.1).
type ICMPErrors string

// The rules: as the policies say; only about what the host sends in the clear, or about
// ESP and AH; none.
const (
	ICMPAccept  ICMPErrors = "accept"
	ICMPVerify  ICMPErrors = "verify"
	ICMPDiscard ICMPErrors = "discard"
)

// ClampToPMTU as Policy.MSSClamp stands for what fits the path.
const ClampToPMTU = -1

// mssClamp reads pmtu, no, or a number of octets.
func (d *decoder) mssClamp(f *fields, p *policyNode) {
	n := f.by["mss_clamp"]
	if n == nil {
		return
	}
	if p.Action != "" && p.Action != Protect {
		d.fail(n.place, "remove it", "mss_clamp is for what is protected, and action is %s", p.Action)
		return
	}
	switch {
	case n.kind == scalar && n.text == "no":
	case n.kind == scalar && n.text == "pmtu":
		p.MSSClamp = ClampToPMTU
	case n.kind == scalar:
		v, err := parseNumber(n.text)
		if err != nil || v < 64 || v > 65495 {
			d.fail(n.place, numberHint(n.text), "expected pmtu, no, or a number of octets from 64 to 65495, found %s", quote(n.text))
		} else {
			p.MSSClamp = int(v)
		}
	default:
		d.fail(n.place, "", "expected pmtu, no, or a number of octets, found %s", n.found())
	}
}
