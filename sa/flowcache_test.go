package sa

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// A flowCache is what could stand in front of an SPD: one entry for each hash, never
// stale, because an entry belongs to one SPD, and of bounded size. It is here to
// measure whether it would pay, and the package has none because it does not: a
// look-up by SPD costs tens of nanoseconds whatever the rules, which a hit halves, and
// a miss more than doubles, with an allocation.
type flowCache struct {
	slots [4096]atomic.Pointer[cachedFlow]
}

type cachedFlow struct {
	spd    *SPD
	d      Direction
	flow   Flow
	policy *Policy
}

func (c *flowCache) lookup(spd *SPD, d Direction, f *Flow) *Policy {
	l, r := uint128From(f.Local), uint128From(f.Remote)
	h := mix(l.lo^r.lo<<32^r.hi, l.hi^uint64(f.Proto)<<40^uint64(f.LocalPort)<<16^uint64(f.RemotePort)^0x9e3779b97f4a7c15)
	at := &c.slots[h>>52]
	if e := at.Load(); e != nil && e.spd == spd && e.d == d && e.flow == *f {
		return e.policy
	}
	p := spd.Lookup(d, f)
	at.Store(&cachedFlow{spd, d, *f, p})
	return p
}

// "x-of-SPD" is the time with the cache as a multiple of that without.
func BenchmarkFlowCache(b *testing.B) {
	spd, err := NewSPD(manyPolicies(10000))
	if err != nil {
		b.Fatal(err)
	}
	for _, n := range []int{16, 256, 2048, 16384} {
		flows := make([]*Flow, n)
		for i := range flows {
			flows[i] = manyFlow(i*7919%10000, false)
			flows[i].LocalPort = uint16(i)
		}
		c := new(flowCache)
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) {
			ratioTo(b, []string{"SPD", "cache"}, func(_ *testing.B, which string) func(int) {
				if which == "SPD" {
					return func(i int) { spd.Lookup(Outbound, flows[i&(n-1)]) }
				}
				return func(i int) { c.lookup(spd, Outbound, flows[i&(n-1)]) }
			})
		})
	}
}
