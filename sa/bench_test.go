package sa

import (
	"fmt"
	"net/netip"
	"testing"

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

func BenchmarkSPDLookup(b *testing.B) {
	for _, n := range []int{1, 10, 100, 10000} {
		spd, err := NewSPD(manyPolicies(n))
		if err != nil {
			b.Fatal(err)
		}
		for _, v6 := range []bool{false, true} {
			flows := make([]*Flow, 256)
			for i := range flows {
				flows[i] = manyFlow(i*7919%n, v6)
			}
			b.Run(fmt.Sprintf("rules=%d/v6=%v", n, v6), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if spd.Lookup(Outbound, flows[i&255]) == nil {
						b.Fatal("no match")
					}
				}
			})
		}
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

func BenchmarkSADLookup(b *testing.B) {
	for _, n := range []int{1, 100, 10000, 100000} {
		db := NewSAD()
		keys := make([]Key, n)
		for i := range keys {
			cfg := testConfig(Inbound)
			cfg.Key = Key{uint32(0x1000 + i*2654435761>>4), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), transform.ProtoESP}
			keys[i] = cfg.Key
			if err := db.Add(mustNew(b, cfg)); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("SAs=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				k := &keys[i*7919%n]
				if db.Lookup(k.SPI, k.Dst, k.Proto) == nil {
					b.Fatal("not found")
				}
			}
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
