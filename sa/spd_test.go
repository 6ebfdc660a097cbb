package sa

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bitw/netstack/wire"
)

// modelLookup is the slow and obvious SPD.
func modelLookup(policies []*Policy, d Direction, f *Flow) *Policy {
	for _, p := range policies {
		if p.Directions.Has(d) && modelMatch(&p.Selector, f) {
			return p
		}
	}
	return nil
}

func modelMatch(s *Selector, f *Flow) bool {
	if f.Local.Is4() != f.Remote.Is4() || !inAny(s.Local, f.Local) || !inAny(s.Remote, f.Remote) {
		return false
	}
	if s.Proto != AnyProto && s.Proto != f.Proto || s.Opaque && f.HasPorts {
		return false
	}
	if s.wantsUpper() && !f.HasPorts {
		return false
	}
	if f.Proto == protoMH {
		return byteIn(s.MHTypes, f.MHType)
	}
	if isICMP(f.Proto) {
		return byteIn(s.ICMPTypes, f.ICMPType) && byteIn(s.ICMPCodes, f.ICMPCode)
	}
	return portIn(s.LocalPorts, f.LocalPort) && portIn(s.RemotePorts, f.RemotePort)
}

func nameOf(p *Policy) string {
	if p == nil {
		return "no policy"
	}
	return fmt.Sprintf("%s (%v)", p.Name, &p.Selector)
}

func inAny(list []AddrRange, a netip.Addr) bool {
	for _, r := range list {
		if r.From.Is4() == a.Is4() && r.From.Compare(a) <= 0 && a.Compare(r.To) <= 0 {
			return true
		}
	}
	return len(list) == 0
}

func portIn(list []PortRange, p uint16) bool {
	for _, r := range list {
		if r.From <= p && p <= r.To {
			return true
		}
	}
	return len(list) == 0
}

func byteIn(list []ByteRange, b uint8) bool {
	for _, r := range list {
		if r.From <= b && b <= r.To {
			return true
		}
	}
	return len(list) == 0
}

// drawAddr draws from few enough addresses that ranges meet, the ends of the
// families included.
func drawAddr(t *rapid.T, v6 bool) netip.Addr {
	edge := rapid.IntRange(0, 5).Draw(t, "edge")
	low := rapid.Uint8().Draw(t, "low")
	if v6 {
		a := netip.MustParseAddr("2001:db8::").As16()
		a[7], a[15] = low&3, low
		switch edge {
		case 0:
			a = netip.IPv6Unspecified().As16()
		case 1:
			for i := range a {
				a[i] = 0xff
			}
		}
		return netip.AddrFrom16(a)
	}
	switch edge {
	case 0:
		return netip.IPv4Unspecified()
	case 1:
		return netip.AddrFrom4([4]byte{255, 255, 255, 255})
	}
	return netip.AddrFrom4([4]byte{10, low & 3, 0, low})
}

func drawRanges(t *rapid.T) (list []AddrRange) {
	for range rapid.IntRange(0, 3).Draw(t, "ranges") {
		v6 := rapid.Bool().Draw(t, "v6")
		a := drawAddr(t, v6)
		if rapid.Bool().Draw(t, "prefix") {
			bits := rapid.IntRange(0, a.BitLen()).Draw(t, "bits")
			list = append(list, AddrRangeFromPrefix(netip.PrefixFrom(a, bits)))
			continue
		}
		b := drawAddr(t, v6)
		if b.Less(a) {
			a, b = b, a
		}
		list = append(list, AddrRange{a, b})
	}
	return list
}

func drawPorts(t *rapid.T) (list []PortRange) {
	for range rapid.IntRange(0, 2).Draw(t, "port ranges") {
		a, b := drawPort(t), drawPort(t)
		list = append(list, PortRange{min(a, b), max(a, b)})
	}
	return list
}

func drawPort(t *rapid.T) uint16 {
	return rapid.SampledFrom([]uint16{0, 1, 53, 80, 255, 256, 257, 443, 65534, 65535}).Draw(t, "port")
}

func drawBytes(t *rapid.T) (list []ByteRange) {
	for range rapid.IntRange(0, 2).Draw(t, "byte ranges") {
		a, b := drawByte(t), drawByte(t)
		list = append(list, ByteRange{min(a, b), max(a, b)})
	}
	return list
}

func drawByte(t *rapid.T) uint8 {
	return rapid.SampledFrom([]uint8{0, 1, 3, 8, 128, 254, 255}).Draw(t, "byte")
}

func drawProto(t *rapid.T) uint8 {
	return rapid.SampledFrom([]uint8{AnyProto, 1, 6, 17, 47, 58, 132, 135, 255}).Draw(t, "proto")
}

// drawSelector may draw one that cannot be.
func drawSelector(t *rapid.T, s *Selector) {
	s.Local, s.Remote, s.Proto = drawRanges(t), drawRanges(t), drawProto(t)
	switch {
	case rapid.IntRange(0, 3).Draw(t, "opaque") == 0:
		s.Opaque = true
	case hasPorts(s.Proto):
		s.LocalPorts, s.RemotePorts = drawPorts(t), drawPorts(t)
	case isICMP(s.Proto):
		s.ICMPTypes, s.ICMPCodes = drawBytes(t), drawBytes(t)
	case s.Proto == protoMH:
		s.MHTypes = drawBytes(t)
	}
}

func drawPolicies(t *rapid.T, most int) (policies []*Policy) {
	for i := range rapid.IntRange(0, most).Draw(t, "policies") {
		p := &Policy{Name: fmt.Sprint(i), Action: Bypass, Directions: Directions(rapid.IntRange(0, 2).Draw(t, "directions"))}
		drawSelector(t, &p.Selector)
		if p.Selector.check() == nil {
			policies = append(policies, p)
		}
	}
	return policies
}

func drawFlow(t *rapid.T) (Direction, *Flow) {
	v6 := rapid.Bool().Draw(t, "flow v6")
	f := &Flow{
		Local: drawAddr(t, v6), Remote: drawAddr(t, v6), Proto: drawProto(t),
		LocalPort: drawPort(t), RemotePort: drawPort(t), ICMPType: drawByte(t), ICMPCode: drawByte(t), MHType: drawByte(t),
		HasPorts: rapid.Bool().Draw(t, "has ports"),
	}
	return Direction(rapid.IntRange(0, 1).Draw(t, "direction")), f
}

func TestR32_LookupIsTheFirstMatchInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policies := drawPolicies(t, 140)
		spd, err := NewSPD(policies)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			d, f := drawFlow(t)
			if got, want := spd.Lookup(d, f), modelLookup(policies, d, f); got != want {
				t.Fatalf("%v %v: got %s, want %s", d, f, nameOf(got), nameOf(want))
			}
		}
	})
}

// Thousands of policies make summaries of several words and the jump table.
func TestR32_LookupAmongTenThousand(t *testing.T) {
	policies := manyPolicies(10000)
	policies = append(policies, &Policy{Name: "rest", Selector: Selector{Proto: 6}, Action: Bypass})
	spd, err := NewSPD(policies)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 10000; i += 7 {
		for _, v6 := range []bool{false, true} {
			f := manyFlow(i, v6)
			want := modelLookup(policies, Outbound, f)
			if got := spd.Lookup(Outbound, f); got != want {
				t.Fatalf("flow %v: got %s, want %s", f, nameOf(got), nameOf(want))
			}
			f.RemotePort++
			if got, want := spd.Lookup(Inbound, f), modelLookup(policies, Inbound, f); got != want {
				t.Fatalf("flow %v: got %s, want %s", f, nameOf(got), nameOf(want))
			}
		}
	}
}

// ::/80 ends with an IPv4-mapped address, and is no IPv4 range for that.
func TestR32_MappedAddresses(t *testing.T) {
	for _, c := range []struct {
		prefix, addr string
		want         bool
	}{
		{"::/80", "::1", true},
		{"::/80", "10.0.0.1", false},
		{"::/80", "::ffff:10.0.0.1", false},
		{"::/0", "10.0.0.1", false},
		{"0.0.0.0/0", "::ffff:10.0.0.1", true},
		{"0.0.0.0/0", "::1", false},
	} {
		r, a := AddrRangeFromPrefix(netip.MustParsePrefix(c.prefix)), netip.MustParseAddr(c.addr)
		spd, err := NewSPD([]*Policy{{Name: "p", Selector: Selector{Local: []AddrRange{r}}, Action: Bypass}})
		if err != nil {
			t.Fatal(err)
		}
		if got := spd.Lookup(Outbound, &Flow{Local: a, Remote: a}) != nil; got != c.want || r.Contains(a) != c.want {
			t.Errorf("%s in %s: lookup %v, Contains %v, want %v", c.addr, c.prefix, got, r.Contains(a), c.want)
		}
	}
	mapped := AddrRange{netip.MustParseAddr("::ffff:10.0.0.0"), netip.MustParseAddr("::ffff:10.0.0.9")}
	if !mapped.Contains(netip.MustParseAddr("10.0.0.5")) {
		t.Error("a range of IPv4-mapped addresses does not hold its IPv4 addresses")
	}
}

func TestR32_NoMatchIsNil(t *testing.T) {
	ten := netip.MustParseAddr("10.0.0.1")
	flow := &Flow{Local: ten, Remote: ten, Proto: 6, HasPorts: true}
	empty, err := NewSPD(nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := NewSPD([]*Policy{{Name: "all", Action: Bypass}})
	if err != nil {
		t.Fatal(err)
	}
	if empty.Lookup(Outbound, flow) != nil || all.Lookup(Direction(2), flow) != nil || all.Lookup(Outbound, &Flow{}) != nil {
		t.Error("a policy where there is none")
	}
	mixed := *flow
	mixed.Remote = netip.MustParseAddr("2001:db8::1")
	if all.Lookup(Inbound, &mixed) != nil {
		t.Error("a flow from IPv4 to IPv6 matched")
	}
	mapped := *flow
	mapped.Local = netip.MustParseAddr("::ffff:10.0.0.1")
	if all.Lookup(Inbound, &mapped) == nil {
		t.Error("an IPv4-mapped address is not its IPv4 address")
	}
	if (*Policy)(nil).CheckInbound(nil) != wire.DropNoPolicy {
		t.Error("no match is not no_policy")
	}
}

func TestR32_ContradictionsAreErrors(t *testing.T) {
	v4, v6 := []AddrRange{AddrRangeFrom(netip.MustParseAddr("10.0.0.1"))}, []AddrRange{AddrRangeFrom(netip.MustParseAddr("2001:db8::1"))}
	l := []*Lineage{NewLineage("l")}
	one := func(p *Policy) []*Policy { p.Name = "p"; return []*Policy{p} }
	sel := func(s Selector) []*Policy { return one(&Policy{Selector: s}) }
	for _, c := range []struct {
		name     string
		policies []*Policy
		want     string
	}{
		{"no name", []*Policy{{}}, "policy 1 has no name"},
		{"nil", []*Policy{nil}, "policy 1 has no name"},
		{"twice", []*Policy{{Name: "a"}, {Name: "b"}, {Name: "a"}}, `policies 1 and 3 are both named "a"`},
		{"families", sel(Selector{Local: v4, Remote: v6}), "no address family in common"},
		{"range of two families", sel(Selector{Local: []AddrRange{{v4[0].From, v6[0].From}}}), "mixes IPv4 and IPv6"},
		{"range backward", sel(Selector{Local: []AddrRange{{netip.MustParseAddr("10.0.0.2"), v4[0].From}}}), "ends before it starts"},
		{"range empty", sel(Selector{Local: []AddrRange{{}}}), "without addresses"},
		{"zone", sel(Selector{Local: []AddrRange{AddrRangeFrom(netip.MustParseAddr("fe80::1%eth0"))}}), "zone"},
		{"ICMP for IPv6", sel(Selector{Local: v6, Proto: 1}), "want 58"},
		{"ICMPv6 for IPv4", sel(Selector{Local: v4, Proto: 58}), "want 1"},
		{"ports of any", sel(Selector{LocalPorts: []PortRange{{1, 2}}}), "ports need a protocol"},
		{"ports of GRE", sel(Selector{Proto: 47, LocalPorts: []PortRange{{1, 2}}}), "found protocol 47"},
		{"types of TCP", sel(Selector{Proto: 6, ICMPTypes: []ByteRange{{1, 2}}}), "need protocol 1 or 58"},
		{"ports backward", sel(Selector{Proto: 6, RemotePorts: []PortRange{{2, 1}}}), "2-1 ends before"},
		{"types backward", sel(Selector{Proto: 1, ICMPTypes: []ByteRange{{2, 1}}}), "2-1 ends before"},
		{"opaque ports", sel(Selector{Proto: 6, Opaque: true, RemotePorts: []PortRange{{1, 2}}}), "opaque excludes"},
		{"protect nothing", one(&Policy{Action: Protect, In: l}), "names no SA for direction out"},
		{"protect one way", one(&Policy{Action: Protect, Out: l}), "names no SA for direction in"},
		{"bypass with SA", one(&Policy{Action: Bypass, Out: l}), "takes no SAs"},
		{"other direction", one(&Policy{Action: Protect, Directions: OnlyOutbound, Out: l, In: l}), "does not apply"},
		{"bundle twice", one(&Policy{Action: Protect, Out: []*Lineage{l[0], l[0]}, In: l}), "stands twice"},
		{"missing SA", one(&Policy{Action: Protect, Out: []*Lineage{nil}, In: l}), "is missing"},
		{"unknown action", one(&Policy{Action: 9}), "unknown action"},
		{"unknown directions", one(&Policy{Directions: 9}), "unknown directions"},
	} {
		if _, err := NewSPD(c.policies); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
	if _, err := NewSPD([]*Policy{{Name: "a", Action: 9}, {Name: "b", Directions: 9}}); err == nil || strings.Count(err.Error(), "policy") != 2 {
		t.Errorf("not one error for each policy: %v", err)
	}
}

func TestR32_Words(t *testing.T) {
	for _, c := range []struct{ from, to, want string }{
		{"10.0.0.1", "10.0.0.1", "10.0.0.1"},
		{"10.0.0.0", "10.0.0.255", "10.0.0.0/24"},
		{"0.0.0.0", "255.255.255.255", "0.0.0.0/0"},
		{"10.0.0.1", "10.0.0.4", "10.0.0.1-10.0.0.4"},
		{"2001:db8::", "2001:db8::ffff", "2001:db8::/112"},
	} {
		r := AddrRange{netip.MustParseAddr(c.from), netip.MustParseAddr(c.to)}
		if got := r.String(); got != c.want {
			t.Errorf("%s to %s: got %q, want %q", c.from, c.to, got, c.want)
		}
		if p, ok := r.Prefix(); ok && AddrRangeFromPrefix(p) != r {
			t.Errorf("%v does not come back from its prefix", r)
		}
		if !r.Contains(r.From) || !r.Contains(r.To) || r.Contains(netip.MustParseAddr("fe80::1")) && c.from != "::" {
			t.Errorf("%v contains the wrong addresses", r)
		}
	}
	s := Selector{Remote: []AddrRange{AddrRangeFromPrefix(netip.MustParsePrefix("10.1.2.3/8"))}, Proto: 6, RemotePorts: []PortRange{{80, 80}, {8000, 8080}}}
	if got, want := s.String(), "local any remote 10.0.0.0/8 tcp remote port 80,8000-8080"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := fmt.Sprint(Outbound, Inbound, Discard, Bypass, Protect, Transport, Tunnel, BothDirections); got != "out in discard bypass protect transport tunnel both" {
		t.Errorf("words are %q", got)
	}
}

func TestLookupAllocatesNothing(t *testing.T) {
	spd, err := NewSPD(manyPolicies(1000))
	if err != nil {
		t.Fatal(err)
	}
	for _, v6 := range []bool{false, true} {
		f := manyFlow(777, v6)
		if n := testing.AllocsPerRun(100, func() { spd.Lookup(Outbound, f) }); n != 0 {
			t.Errorf("%v allocations per lookup", n)
		}
	}
}
