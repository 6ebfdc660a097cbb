//go:build !race

// The race detector makes sync.Pool forget at random, so allocations are counted
// without it only.

package legacy

import (
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// Design rule 6: no allocation per packet.
func TestNoAllocations(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		s := transform.Sequence{SPI: 1}
		p := unsealed(x, ipHeader(opt.IPv6, a.Protocol, 1500), pattern(1400, 0), 6)
		before := *p
		if n := testing.AllocsPerRun(200, func() {
			*p = before
			if r := x.Seal(p, s); r != wire.DropNone {
				t.Fatal(r)
			}
			if r := x.Open(p, s); r != wire.DropNone {
				t.Fatal(r)
			}
		}); n != 0 {
			t.Errorf("Seal and Open allocate %v times", n)
		}
	})
}
