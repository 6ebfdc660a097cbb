//go:build !race

// The race detector makes sync.Pool forget at random, so allocations are counted
// without it only.

package transform

import (
	"testing"

	"bitw/netstack/wire"
)

// Design rule 6: no allocation per packet, neither for good packets nor for bad ones.
func TestNoAllocations(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		s := Sequence{SPI: 1, Number: 0x100000001, ESN: true}
		p := unsealed(x, ipHeader(opt.IPv6, a.Protocol, 1500), pattern(1400, 0), 6)
		before := *p
		cycle := func(tamper byte, want wire.DropReason) float64 {
			return testing.AllocsPerRun(200, func() {
				*p = before
				if r := x.Seal(p, s); r != wire.DropNone {
					t.Fatal(r)
				}
				p.Buf[p.End-1] ^= tamper
				if r := x.Open(p, s); r != want {
					t.Fatal(r)
				}
			})
		}
		if n := cycle(0, wire.DropNone); n != 0 {
			t.Errorf("Seal and Open allocate %v times", n)
		}
		if n := cycle(1, wire.DropICV); n != 0 {
			t.Errorf("Seal and a failing Open allocate %v times", n)
		}
	})
}
