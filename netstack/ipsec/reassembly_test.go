package ipsec

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"runtime"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// firstFragment is a first fragment of n octets of payload.
func firstFragment(src, dst netip.Addr, n int) []byte {
	d := ip(src, dst, wire.ProtoUDP, false, pattern(n))
	binary.BigEndian.PutUint16(d[6:], 0x2000) // more fragments
	wire.UpdateIPv4Checksum(d)
	return d
}

// TestR27_AMillionFirstFragmentsStayUnderTheCap floods the wire side with beginnings of
// datagrams that never end, from as many sources, and looks at what is held: as counted,
// and on the heap.
func TestR27_AMillionFirstFragmentsStayUnderTheCap(t *testing.T) {
	for _, payload := range []int{8, 1400} {
		s := newStation(t, macA, macB, addrA4)
		s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
		r := &s.e.sides[hook.Right].fragments
		heap := func() int {
			runtime.GC()
			runtime.GC() // what pools held goes with the second
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc)
		}
		before := heap()
		f := frame(macB, macA, firstFragment(addrB4, addrA4, payload), nil)
		d := f[link.HeaderLen:]
		const flood = 500_000 // of each payload
		for i := range flood {
			binary.BigEndian.PutUint32(d[12:], 0x0a000000+uint32(i))
			wire.UpdateIPv4Checksum(d)
			pkt := link.NewPacket(f, tcpip.LinkAddress(macA))
			s.e.inbound(pkt)
			pkt.DecRef()
			if r.memory > DefaultFragmentMemory {
				t.Fatalf("%d octets are held after %d fragments", r.memory, i+1)
			}
		}
		if held, dropped := r.incomplete(), s.drops(hook.Right)["frag_memory"]; held+int(dropped) != flood || held == 0 {
			t.Errorf("%d held, %d dropped of %d", held, dropped, flood)
		}
		if used := heap() - before; used > DefaultFragmentMemory {
			t.Errorf("fragments of %d octets take %d octets of the heap, the cap is %d and %d are counted", payload, used, DefaultFragmentMemory, r.memory)
		}
		s.e.Close()
	}
}

// TestR27_AFlooderStarvesHimselfOnly has one source send beginnings of datagrams without
// end, between the two fragments of each datagram of others.
func TestR27_AFlooderStarvesHimselfOnly(t *testing.T) {
	s := newStation(t, macA, macB, addrA4)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	r := &s.e.sides[hook.Right].fragments
	flooder := netip.MustParseAddr("198.51.100.1")
	begin := firstFragment(flooder, addrA4, 1400)
	flood := func(n int) {
		for range n {
			binary.BigEndian.PutUint16(begin[4:], binary.BigEndian.Uint16(begin[4:])+1)
			wire.UpdateIPv4Checksum(begin)
			s.fromWire(begin)
		}
	}
	flood(5000)
	if s.drops(hook.Right)["frag_memory"] == 0 {
		t.Fatal("the memory is not full")
	}
	others := 0
	for last := byte(1); last < 255; last++ {
		other := netip.AddrFrom4([4]byte{203, 0, 113, last})
		if r.shareOf(&fragmentKey{src: other}) == r.shareOf(&fragmentKey{src: flooder}) {
			continue // nobody can tell them apart
		}
		others++
		parts := fragments(t, udpTo(other, addrA4, 5, 6, 4000), 1500)
		s.fromWire(parts[0])
		flood(4)
		s.fromWire(parts[1:]...)
	}
	if got := len(s.left.take(t, "", "")); got != 3*others || others == 0 {
		t.Errorf("%d fragments of %d datagrams arrived: %v", got, others, s.drops(hook.Right))
	}
}

// TestR27_SharesOfSAs has the source that a fragment inside a tunnel names not matter: it
// is the SA that tells whose it is.
func TestR27_SharesOfSAs(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	r := &p.b.e.sides[hook.Right].fragments
	one, other := p.b.sad.Lookup(0x1001, addrB4, transform.ProtoESP), p.a.sad.Lookup(0x2002, addrA4, transform.ProtoESP)
	key := func(src netip.Addr, by *sa.SA) *fragmentKey {
		k := &fragmentKey{src: src}
		k.came[0] = by
		return k
	}
	if one == nil || other == nil || r.shareOf(key(addrA4, one)) != r.shareOf(key(addrB4, one)) {
		t.Error("one SA has two shares")
	}
	for range 64 { // other seeds
		if r.shareOf(key(addrA4, one)) != r.shareOf(key(addrA4, other)) {
			return
		}
		r.seed = maphash.MakeSeed()
	}
	t.Error("all SAs have one share")
}

// TestRFC4301_7_FragmentsByRule sends a datagram in fragments each way: it passes where a
// rule takes fragments, and where one discards them it is dropped, counted for the rule,
// while whole ones, and those that are fragments on the wire only, pass.
func TestRFC4301_7_FragmentsByRule(t *testing.T) {
	whole, cut := udpTo(addrA4, addrB4, 1, 2, 1000), udpTo(addrA4, addrB4, 1, 2, 4000)
	bypass := func(discard bool) *sa.Policy {
		return &sa.Policy{Name: "clear", Action: sa.Bypass, Selector: sa.Selector{Proto: sa.AnyProto}, DiscardFragments: discard}
	}
	for _, discard := range []bool{false, true} {
		want := 3
		if discard {
			want = 0
		}
		expect := func(s *station, side hook.Side, p *sa.Policy, got [][]byte, n int, what string) {
			t.Helper()
			drops := s.drops(side)["frag_policy"]
			counted := p.Counters[directionFrom(side)].Drops.Load(wire.DropFragPolicy)
			if len(got) != n || drops != counted || (drops == 1) != (n == 0) {
				t.Errorf("%s, discard %t: %d packets, drops %v, %d of the rule", what, discard, len(got), s.drops(side), counted)
			}
		}
		out := newStation(t, macA, macB, addrA4)
		p := bypass(discard)
		out.policies(p)
		for _, f := range fragments(t, cut, 1500) {
			out.fromHost(f, nil)
		}
		expect(out, hook.Left, p, out.right.take(t, "", ""), want, "in the clear, out")
		out.fromHost(whole, nil)
		if len(out.right.take(t, "", "")) != 1 {
			t.Errorf("a whole datagram does not leave")
		}

		in := newStation(t, macB, macA, addrB4)
		p = bypass(discard)
		in.policies(p)
		in.fromWire(fragments(t, cut, 1500)...)
		expect(in, hook.Right, p, in.left.take(t, "", ""), want, "in the clear, in")

		// Protected: what the host fragmented, what the path fragments, and what a peer
		// fragmented before its tunnel.
		pair := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
		protect := pair.a.protect("to-b", addrA4, addrB4, "ab", "ba")
		protect.DiscardFragments = discard
		pair.a.policies(protect)
		for _, f := range fragments(t, cut, 1500) {
			pair.a.fromHost(f, nil)
		}
		expect(pair.a, hook.Left, protect, pair.a.right.take(t, "", ""), want, "protected, out")

		back := pair.b.protect("to-a", addrB4, addrA4, "ba", "ab")
		back.DiscardFragments = discard
		pair.b.policies(back)
		pair.a.policies(pair.a.protect("to-b", addrA4, addrB4, "ab", "ba"))
		if got, wired := pair.cross(cut, nil); len(got) != 1 || len(wired) < 2 {
			t.Errorf("fragments of ESP are not fragments of the datagram: %v", pair.b.drops(hook.Right))
		}
		for _, f := range fragments(t, cut, 1400) {
			pair.a.tunnelFragment(pair.b, f)
		}
		n := 1
		if discard {
			n = 0
		}
		expect(pair.b, hook.Right, back, pair.b.left.take(t, "", ""), n, "protected, in")
	}
}

// tunnelFragment seals a fragment as it is by a's SA to b, as a peer does that fragments
// before its tunnel, and gives it to b.
func (s *station) tunnelFragment(b *station, fragment []byte) {
	s.t.Helper()
	var plan bundle
	info := parse(s.t, fragment)
	p := s.e.SPD().Lookup(sa.Outbound, &sa.Flow{Local: info.Src, Remote: info.Dst, Proto: info.Proto})
	if reason, _ := plan.init(p, &info, s.now); reason != wire.DropNone {
		s.t.Fatal(reason)
	}
	if reason, _ := plan.takeSeq(1); reason != wire.DropNone {
		s.t.Fatal(reason)
	}
	buf := make([]byte, plan.room(len(fragment))+frameHead)
	start := frameHead + plan.front
	end := start + copy(buf[start:], fragment)
	start, end, reason, _ := plan.seal(buf, start, end, 0, &info, s.e.nextID)
	if reason != wire.DropNone {
		s.t.Fatal(reason)
	}
	b.fromWire(buf[start:end])
}

// TestRFC3168_5_3_CongestionInFragments marks the fragments of a datagram one by one.
func TestRFC3168_5_3_CongestionInFragments(t *testing.T) {
	for _, six := range []bool{false, true} {
		a, b := addrA4, addrB4
		if six {
			a, b = addrA6, addrB6
		}
		for _, c := range []struct {
			ecn  [3]uint8
			want uint8
			drop bool
		}{
			{[3]uint8{2, 2, 2}, 2, false}, {[3]uint8{3, 2, 2}, 3, false}, {[3]uint8{2, 2, 3}, 3, false}, {[3]uint8{1, 3, 1}, 3, false},
			{[3]uint8{0, 0, 0}, 0, false}, {[3]uint8{0, 2, 0}, 0, false}, {[3]uint8{0, 3, 0}, 0, true}, {[3]uint8{3, 3, 0}, 0, true},
		} {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, six, false)
			parts := fragments(t, udpTo(a, b, 1, 2, 4000), 1500)
			for i, part := range parts {
				wire.SetTOS(part, 0x28|c.ecn[i])
				p.a.fromHost(part, nil)
			}
			if c.drop {
				p.a.expectDrop(hook.Left, wire.DropECN)
				continue
			}
			p.b.fromWire(p.a.right.take(t, "", "")...)
			got := p.b.left.take(t, "", "")
			if len(got) != 1 {
				t.Fatalf("%v: %d arrived, %v %v", c.ecn, len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
			if in := parse(t, got[0]); in.TOS != 0x28|c.want {
				t.Errorf("%v: %#x, want %#x", c.ecn, in.TOS, 0x28|c.want)
			}
		}
	}
}
