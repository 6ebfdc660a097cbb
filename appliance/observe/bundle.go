package observe

import (
	"bitw/netstack/ipsec"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	// ipv6MinMTU is the least that an IPv6 sender can be told (RFC 8200 §5).
	ipv6MinMTU = 1280

	ipv4Len, ipv6Len = 20, 40
)

// bundle is the arithmetic of the SAs that an outbound datagram would get.
type bundle struct {
	steps []step
}

type step struct {
	sa *sa.SA
	// keep is what stays in front of the ESP or AH header: in tunnel mode the new outer
	// header, in transport mode the datagram's own headers up to there.
	keep int
	// udp is the length of the header of ESP in UDP, 0 without.
	udp int
	// take is how much longer the datagram is than what the SA encloses of it: nothing in
	// tunnel mode, in transport mode keep, in BEET mode the header, which goes.
	take int
}

// bundleOf gives the SAs that p would apply to the datagram in, or the reason why it
// would be dropped instead.
func bundleOf(p *sa.Policy, in *wire.Info) (bundle, wire.DropReason) {
	var b bundle
	if p.Populate != 0 {
		return bundle{}, wire.DropNoSA // each value that it populates gets SAs of its own
	}
	src, dst, at, header := in.Src, in.Dst, in.InsertAt, in.HeaderLen
	for _, l := range p.Out {
		s := l.Outbound()
		switch {
		case s == nil:
			return bundle{}, wire.DropNoSA
		case s.Transform == nil:
			return bundle{}, wire.DropKeyInvalid
		case s.Mode == sa.BEET && (src != s.InnerSrc || dst != s.InnerDst):
			return bundle{}, wire.DropSelectorMismatch
		case s.Mode == sa.Transport && s.Key.Dst != dst:
			// A transport mode SA ends where the datagram does.
			return bundle{}, wire.DropSelectorMismatch
		}
		take := 0
		if s.Mode == sa.BEET {
			take = ipsec.BEETTakes(dst, header)
		}
		if s.Mode != sa.Transport {
			at = ipv4Len
			if s.Key.Dst.Is6() {
				at = ipv6Len
			}
			src, dst, header = s.Src, s.Key.Dst, at
		} else {
			take = at
		}
		udp := 0
		if s.Encap != nil {
			udp = wire.UDPLen
		}
		b.steps = append(b.steps, step{sa: s, keep: at, udp: udp, take: take})
	}
	if len(b.steps) == 0 {
		return bundle{}, wire.DropNoSA
	}
	return b, wire.DropNone
}

func (b *bundle) names() []string {
	var names []string
	for _, st := range b.steps {
		names = append(names, st.sa.Name)
	}
	return names
}

// sealedLen is the length of a datagram of n octets after all SAs.
func (b *bundle) sealedLen(n int) int {
	for _, st := range b.steps {
		t, pay := st.sa.Transform, n-st.take
		n = st.keep + st.udp + t.HeaderLen() + pay + t.TrailerLen(pay)
	}
	return n
}

// maxInner is the largest datagram whose sealed form has at most limit octets; it is
// negative if there is none.
func (b *bundle) maxInner(limit int) int {
	for i := len(b.steps) - 1; i >= 0; i-- {
		st := &b.steps[i]
		room := st.sa.Transform.MaxPayload(limit - st.keep - st.udp)
		if room < 0 {
			return -1
		}
		limit = room + st.take
	}
	return limit
}
