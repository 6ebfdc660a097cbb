package observe

import (
	"fmt"
	"net/netip"

	"bitw/netstack/wire"
	"bitw/sa"
)

// Room is the largest datagram in octets that a protecting policy can send, where what
// leaves may have limit octets, and the other end of its outermost SA. The datagram has
// an IP header without options.
func Room(p *sa.Policy, limit int) (inner int, peer netip.Addr, err error) {
	if len(p.Out) == 0 || p.Out[0].Outbound() == nil {
		return 0, peer, fmt.Errorf("no SA: %v", wire.DropNoSA)
	}
	first := p.Out[0].Outbound()
	in := wire.Info{Src: first.Src, Dst: first.Key.Dst, Version: 4, InsertAt: ipv4Len, HeaderLen: ipv4Len}
	if first.Mode == sa.BEET {
		in.Src, in.Dst = first.InnerSrc, first.InnerDst
	}
	if in.Dst.Is6() {
		in.Version, in.InsertAt, in.HeaderLen = 6, ipv6Len, ipv6Len
	}
	b, reason := bundleOf(p, &in)
	if reason != wire.DropNone {
		return 0, peer, fmt.Errorf("%v", reason)
	}
	return b.maxInner(limit), b.steps[len(b.steps)-1].sa.Key.Dst, nil
}
