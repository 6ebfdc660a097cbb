package sa

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// manyPolicies returns n policies: hosts, networks and ranges of both families,
// each for another port or range of ports.
func manyPolicies(n int) []*Policy {
	policies := make([]*Policy, n)
	for i := range policies {
		f4, f6 := manyFlow(i, false), manyFlow(i, true)
		bits4, bits6 := 32-i%9, 128-i%65
		policies[i] = &Policy{Name: fmt.Sprint(i), Action: Bypass, Selector: Selector{
			Local:       []AddrRange{AddrRangeFromPrefix(netip.PrefixFrom(f4.Local, 24)), AddrRangeFromPrefix(netip.PrefixFrom(f6.Local, 64))},
			Remote:      []AddrRange{AddrRangeFromPrefix(netip.PrefixFrom(f4.Remote, bits4)), AddrRangeFromPrefix(netip.PrefixFrom(f6.Remote, bits6))},
			Proto:       f4.Proto,
			RemotePorts: []PortRange{{f4.RemotePort, f4.RemotePort + uint16(i%3)}},
		}}
	}
	return policies
}

// manyFlow returns the flow that policy i is for.
func manyFlow(i int, v6 bool) *Flow {
	h, l := byte(i>>8), byte(i)
	f := &Flow{Proto: 6 + 11*uint8(i%2), LocalPort: 40000, RemotePort: uint16(1 + i*5%60000), HasPorts: true}
	f.Local, f.Remote = netip.AddrFrom4([4]byte{192, 168, l % 16, 1}), netip.AddrFrom4([4]byte{10, h, l, 7})
	if v6 {
		a, b := netip.MustParseAddr("2001:db8::1").As16(), netip.MustParseAddr("2001:db8:1::7").As16()
		a[7], b[6], b[7] = l%16, h, l
		f.Local, f.Remote = netip.AddrFrom16(a), netip.AddrFrom16(b)
	}
	return f
}

// ratioTo measures each size in a run of its own, and then all of them in turns: what
// it reports as "x-of-NAME" is the shortest time of many turns as a multiple of the
// first size's, so that what else the machine does disturbs it little.
func ratioTo[T any](b *testing.B, sizes []T, prepare func(*testing.B, T) func(i int)) {
	steps := make([]func(int), len(sizes))
	best := make([]time.Duration, len(sizes))
	turn := func(n int) {
		const many = 1 << 14
		start := time.Now()
		for i := range many {
			steps[n](i)
		}
		if d := time.Since(start); best[n] == 0 || d < best[n] {
			best[n] = d
		}
	}
	for n, size := range sizes {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			if steps[n] == nil {
				steps[n] = prepare(b, size)
			}
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				steps[n](i)
				i++
			}
			if n == 0 || steps[0] == nil {
				return
			}
			for range 100 {
				turn(0)
				turn(n)
			}
			b.ReportMetric(float64(best[n])/float64(best[0]), fmt.Sprintf("x-of-%v", sizes[0]))
		})
	}
}

// As many flows are walked through for each size, so that what differs is the
// number of rules.
func BenchmarkSPDLookup(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		b.Run(map[bool]string{false: "IPv4", true: "IPv6"}[v6], func(b *testing.B) {
			ratioTo(b, []int{10, 100, 1000, 10000}, func(b *testing.B, n int) func(int) {
				spd, err := NewSPD(manyPolicies(n))
				if err != nil {
					b.Fatal(err)
				}
				flows := make([]*Flow, 256)
				for i := range flows {
					flows[i] = manyFlow(i*7919%n, v6)
				}
				return func(i int) {
					if spd.Lookup(Outbound, flows[i&255]) == nil {
						b.Fatal("no match")
					}
				}
			})
		})
	}
}

func BenchmarkSPDCompile(b *testing.B) {
	policies := manyPolicies(10000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewSPD(policies); err != nil {
			b.Fatal(err)
		}
	}
}

// manyKey is the i-th of many SAs. It is computed, as a packet brings it along, so
// that no list of keys has to come from memory.
func manyKey(i int) Key {
	return Key{uint32(0x1000 + i*2654435761>>4), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), transform.ProtoESP}
}

func manySAs(b *testing.B, n int) *SAD {
	db := NewSAD()
	for i := range n {
		cfg := testConfig(Inbound)
		cfg.Key = manyKey(i)
		if err := db.Add(mustNew(b, cfg)); err != nil {
			b.Fatal(err)
		}
	}
	return db
}

// "active" looks up 100 SAs among all, as where few peers of many talk at a time.
// "every" takes all in an order without rhyme, so that with many SAs each look-up
// misses the caches: that is the price of memory. "used" does the same and reads the
// SA, too, as a packet does: one miss more, which no table can save.
func BenchmarkSADLookup(b *testing.B) {
	for _, order := range []string{"active", "every", "used"} {
		b.Run(order, func(b *testing.B) {
			ratioTo(b, []int{100, 1000, 10000, 100000}, func(b *testing.B, n int) func(int) {
				db, at, used := manySAs(b, n), 0, order == "used"
				stride, wrap := 7919%n, n
				if order == "active" {
					stride = n / 100
				}
				return func(int) {
					if at += stride; at >= wrap {
						at -= wrap
					}
					k := manyKey(at)
					s := db.Lookup(k.SPI, k.Dst, k.Proto)
					if s == nil || used && s.Usable(1e18) != wire.DropNone {
						b.Fatal("not found, or not usable")
					}
				}
			})
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	for _, size := range []int{32, 64, 1024, 65536} {
		b.Run(fmt.Sprintf("window=%d", size), func(b *testing.B) {
			cfg := testConfig(Inbound)
			cfg.ESN, cfg.ReplayWindow = true, size
			s := mustNew(b, cfg)
			b.ReportAllocs()
			for i := uint32(1); b.Loop(); i++ {
				full, _ := s.CheckReplay(i)
				s.Accept(full)
			}
		})
	}
}

func BenchmarkTakeSeq(b *testing.B) {
	cfg := testConfig(Outbound)
	cfg.ESN = true
	s := mustNew(b, cfg)
	b.ReportAllocs()
	for b.Loop() {
		s.TakeSeq(1)
	}
}
