package ipsec

import (
	"fmt"
	"net/netip"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// A Budget is the arithmetic of what the SAs of a policy make of a datagram. All numbers
// are in octets.
type Budget struct {
	// Size is the length of the datagram, IP header included, Sealed with all SAs.
	Size   int `json:"size"`
	Sealed int `json:"sealed"`
	// Limit is the largest datagram that the path takes, LimitBy what says so, and Limits
	// all that say something.
	Limit   int    `json:"limit"`
	LimitBy string `json:"limit_by"`
	Limits  Limits `json:"limits"`
	// MaxInner is the largest datagram that fits the limit once it is sealed; negative if
	// none does.
	MaxInner int `json:"max_inner"`
	// Steps are what each SA adds, in the order of their application.
	Steps []BudgetStep `json:"steps"`
	// Dst is the destination on the wire.
	Dst netip.Addr `json:"-"`
	// Reason is why the SAs cannot be applied, DropNone if they can; Fault is the SA that
	// cannot. Nothing else but Size is set then.
	Reason wire.DropReason `json:"-"`
	Fault  *sa.SA          `json:"-"`
}

// A BudgetStep is what one SA does to the length.
type BudgetStep struct {
	SA     string       `json:"sa"`
	Before int          `json:"before"`
	Parts  []BudgetPart `json:"parts"`
	After  int          `json:"after"`
}

// A BudgetPart is one part of the overhead; a negative one is taken away.
type BudgetPart struct {
	Name   string `json:"name"`
	Octets int    `json:"octets"`
}

// Budget does the arithmetic for a datagram from the host that p protects. p is one of
// the SPD's, and neither it nor its SAs are changed.
func (e *Engine) Budget(p *sa.Policy, datagram []byte) *Budget {
	out := &Budget{Size: len(datagram)}
	w := e.work()
	defer e.done(w)
	w.d.From, w.d.Bytes = hook.Left, datagram
	if out.Reason = wire.Parse(datagram, &w.d.Info); out.Reason != wire.DropNone {
		return out
	}
	shadow := sa.NewShadow(e.SPD(), e.sad, nil)
	b := &w.plan
	reason, fault := b.init(shadow.Policy(p), &w.d.Info, w.now)
	if reason != wire.DropNone {
		out.Reason, out.Fault = reason, shadow.Original(fault)
		return out
	}
	out.Dst = b.dst
	r, _ := e.routes.Load().Lookup(b.dst)
	hop := route{mtu: r.MTU}
	out.Limits = append(out.Limits, Limit{e.MTU(), "link"})
	if hop.mtu != 0 {
		out.Limits = append(out.Limits, Limit{hop.mtu, fmt.Sprintf("route %v", r.Destination)})
	}
	for i := range b.steps[:b.n] {
		s := b.steps[i].sa
		if learned := s.PMTU(w.now); learned != 0 {
			out.Limits = append(out.Limits, Limit{learned, fmt.Sprintf("path MTU of SA %s, told by a router", s.Name)})
		}
	}
	out.Limit, out.LimitBy = e.pathLimit(b, hop, w.now), out.Limits.least().By
	out.MaxInner = b.maxInner(out.Limit)
	out.Sealed = b.sealedLen(out.Size)
	n := out.Size
	for i := range b.steps[:b.n] {
		x := b.steps[i].budget(n)
		out.Steps = append(out.Steps, x)
		n = x.After
	}
	return out
}

// budget takes apart what sealedLen adds up for a datagram of n octets.
func (st *step) budget(n int) BudgetStep {
	x := BudgetStep{SA: st.sa.Name, Before: n, After: n}
	add := func(name string, octets int) {
		if octets != 0 {
			x.Parts = append(x.Parts, BudgetPart{name, octets})
			x.After += octets
		}
	}
	s, t := st.sa, st.sa.Transform
	plain, padded := st.payload(n)
	switch {
	case st.strip != 0:
		add("inner IP header, which BEET mode leaves out", st.options-st.strip)
		fallthrough
	case st.outer == 20:
		add("outer IPv4 header", st.outer)
	case st.outer == 40:
		add("outer IPv6 header", st.outer)
	}
	add("UDP header", st.udp)
	if s.Key.Proto == wire.ProtoAH {
		add("AH header with ICV", t.HeaderLen())
	} else {
		add("ESP header", t.HeaderLen()-s.Algorithm.IVLen)
		add("IV", s.Algorithm.IVLen)
	}
	add("TFC padding", padded-plain)
	if trailer := t.TrailerLen(padded); trailer != 0 {
		add("padding", trailer-espTrailer-s.Algorithm.ICVLen)
		add("ESP trailer", espTrailer)
		add("ICV", s.Algorithm.ICVLen)
	}
	return x
}

// espTrailer is pad length and next header (RFC 4303 §2.5, §2.6).
const espTrailer = 2
