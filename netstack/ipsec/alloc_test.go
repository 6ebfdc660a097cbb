//go:build !race

package ipsec

import (
	"testing"

	"bitw/netstack/link"
	"bitw/sa"
	"bitw/sa/transform"
)

// TestPacketPathAllocatesNothing: rule 6 of the design, for a superframe out and for
// its segments in, joined again. The race detector makes pools forget. A pool that the collector has emptied fills anew now
// and then, so a few calls may allocate.
func TestPacketPathAllocatesNothing(t *testing.T) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, mode, false, false)
		coalescing(p)
		out := &counter{}
		p.a.e.Bind(p.a.left, out, fixedNeighbors{macB})
		p.b.e.Bind(&counter{}, p.b.right, fixedNeighbors{macA})
		super := tcpTo(addrA4, addrB4, 60000, true)
		super[33] = 0x10
		pkt := link.NewPacket(frame(macA, macA, super, superframe(super, 1448)), macA)
		defer pkt.DecRef()
		if n := testing.AllocsPerRun(200, func() { p.a.e.outbound(pkt) }); n >= 1 {
			t.Errorf("%v: %v allocations for a superframe out", mode, n)
		}
		const rounds = 101 // AllocsPerRun runs once more
		out.keep = make([][]byte, 0, rounds*44)
		for len(out.keep) < cap(out.keep) {
			p.a.e.outbound(pkt)
		}
		frames := make([][]byte, len(out.keep))
		for i, d := range out.keep {
			frames[i] = frame(macA, macB, d, nil)
		}
		if n := testing.AllocsPerRun(rounds-1, func() {
			for _, f := range frames[:44] {
				in := link.NewPacket(f, macB)
				p.b.e.inbound(in)
				in.DecRef()
			}
			p.b.e.EndBatch(0)
			frames = frames[44:]
		}); n >= 2 {
			t.Errorf("%v: %v allocations for 44 datagrams in", mode, n)
		}
		if d := p.b.dropped(); d != 0 {
			t.Errorf("%v: %d dropped", mode, d)
		}
	}
}
