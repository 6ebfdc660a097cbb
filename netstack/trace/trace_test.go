package trace

import (
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bitw/netstack/wire"
)

func TestR46_Levels(t *testing.T) {
	names := LevelNames()
	if len(names) != 10 || names[0] != "TR_FULL_TRACE" || names[9] != "TR_ALWAYS" {
		t.Fatalf("%q", names)
	}
	for i, name := range names {
		l, ok := ParseLevel(name)
		if !ok || l != Level(i+1) || l.String() != name {
			t.Errorf("%s: %v, %v", name, l, ok)
		}
	}
	if _, ok := ParseLevel(""); ok {
		t.Error("the empty name is a level")
	}
	n := &NewNodes()[SPIInt]
	for l := FullTrace; l <= Always; l++ {
		if n.On(l) != (l >= Errors) {
			t.Errorf("by default %v is on: %v", l, n.On(l))
		}
	}
	for set := FullTrace; set <= Always; set++ {
		n.Set(set)
		for l := FullTrace; l <= Always; l++ {
			if n.On(l) != (l >= set) {
				t.Errorf("at %v %v is on: %v", set, l, n.On(l))
			}
		}
	}
	if n.Set(LevelUnset); n.Level() != DefaultLevel {
		t.Errorf("unset is %v", n.Level())
	}
	seen := make(map[string]bool)
	for i, name := range NodeNames() {
		if name == "" || seen[name] || name != ID(i).String() {
			t.Errorf("node %d: %q", i, name)
		}
		seen[name] = true
	}
	if len(seen) != int(NumIDs) {
		t.Errorf("%d names of %d nodes", len(seen), NumIDs)
	}
}

// What a point costs whose level is off: row R46 wants it near free.
func BenchmarkLevelOff(b *testing.B) {
	n := &NewNodes()[SPIInt]
	on := 0
	for range b.N { // b.Loop would measure a call, which there is none of on the packet path
		if n.On(FunctionalTrace) {
			on++
		}
	}
	if on != 0 {
		b.Fatal("on")
	}
}

// example is the trail of a protected UDP datagram that was dropped in the end.
func example() *Trail {
	t := new(Trail)
	t.Reset(time.Unix(0, 0), true)
	t.Flow = Flow{
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), Proto: wire.ProtoUDP,
		SrcPort: 1000, DstPort: 2000, HasPorts: true, Len: 128, EtherType: wire.EtherTypeIPv4, DF: true,
	}
	t.Add(Step{Station: Link, Octets: 142, Left: true})
	t.Add(Step{Station: Rule, Name: "to-b", Verdict: "protect", Left: true})
	t.Add(Step{Station: SA, Name: "ab", SPI: 0x1001, Verdict: "found", Algorithm: "aes128gcm16", Address: t.Flow.Dst, Left: true})
	t.Add(Step{Station: Transform, Name: "ab", SPI: 0x1001, Verdict: "sealed", From: 128, Octets: 160, Left: true})
	t.Drop(wire.DropNoRoute, "to-b", "", 0)
	return t
}

func TestR50_Filter(t *testing.T) {
	x := example()
	inner := example()
	inner.Left = false
	inner.Flow = Flow{Src: netip.MustParseAddr("2001:db8::1"), Dst: netip.MustParseAddr("2001:db8::2"), Proto: wire.ProtoESP, SPI: 0x77, Fragment: true, Offset: 1480}
	inner.Inner, inner.HasInner = x.Flow, true
	for _, c := range []struct {
		text       string
		out, inner bool
	}{
		{"", true, true},
		{"udp", true, true},
		{"tcp", false, false},
		{"not tcp", true, true},
		{"not udp", false, true}, // the outer one is not
		{"esp", false, true},
		{"proto 17", true, true},
		{"out", true, false},
		{"in and udp", false, true},
		{"host 192.0.2.2", true, true},
		{"src 192.0.2.2", false, false},
		{"dst 192.0.2.0/24 src 192.0.2.1", true, true},
		{"host 2001:db8::1", false, true},
		{"port 2000", true, true},
		{"sport 2000", false, false},
		{"dport 2000", true, true},
		{"udp 192.0.2.1:1000 > 192.0.2.2:2000", true, true},
		{"192.0.2.1 > any", true, true},
		{"[2001:db8::1] > 2001:db8::2", false, true},
		{"[2001:db8::1]:5 > any", false, false},
		{"any > 192.0.2.2:2001", false, false},
		{"rule to-b", true, true},
		{"rule to-c", false, false},
		{"sa ab", true, true},
		{"spi 0x1001", true, true},
		{"spi 0x77", false, true},
		{"drop", true, true},
		{"drop no_route udp", true, true},
		{"drop too_big", false, false},
		{"not drop", false, false},
		{"all", true, true},
		{"tcp or udp", true, true},
		{"tcp port 2000 or arp", false, false},
		{"tcp or out and udp or rule x", true, false},
		{"udp or all", true, true},
		{"len 128 df", true, true},
		{"greater 129 or less 127", false, true}, // the outer one has no length here
		{"greater 128 less 128", true, true},
		{"udp 192.0.2.1:1000 > 192.0.2.2:2000 len 128 df out", true, false}, // as bitw explain has it
		{"type 8", false, false},
		{"ip udp", true, true},
		{"ip6", false, false},
		{"src host 192.0.2.1 and dst port 2000", true, true},
		{"src net 192.0.2.0/25 src port 2000", false, false},
		{"net 192.0.2.0/24", true, true},
		{"arp", false, false},
		{"host ::ffff:192.0.2.1", true, true},
		{"[::ffff:192.0.2.1]:1000 > any", true, true},
		{"frag", false, true},
		{"frag 1480", false, true},
		{"frag 0", false, false},
		{"frag 192.0.2.1 > any", false, false},
		{"not frag 2001:db8::1 > any", false, false},
	} {
		f, err := ParseFilter(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if got := [2]bool{f.Match(x), f.Match(inner)}; got != [2]bool{c.out, c.inner} {
			t.Errorf("%q: %v, want %v and %v", c.text, got, c.out, c.inner)
		}
	}
	for _, c := range []struct {
		text   string
		column int
		says   string
	}{
		{"tpc", 1, "known are"},
		{"udp  tpc", 6, `"tpc" is not known`},
		{"udp host", 9, `after host, found ""`},
		{"host x", 6, "expected an address or prefix"},
		{"tcp port 65536 out", 10, "0 to 65535"},
		{"proto tcp", 7, "0 to 255"},
		{"rule", 5, "expected a name after rule"},
		{"not", 4, "expected a word after not"},
		{"not all", 5, "expected a word after not"},
		{"or udp", 1, "before or"},
		{"udp or or tcp", 8, "before or"},
		{"udp or", 7, "after or"},
		{"src port x", 10, "after port"},
		{"less x", 6, "after less"},
		{"1.2.3.4 > x", 11, "or any"},
		{"out x > 1.2.3.4", 5, "or any"},
		{"udp and", 8, "after and"},
		{"udp and or tcp", 9, "after and"},
		{"frag 8x", 6, "after frag"},
		{"host fe80::1%eth0", 6, "without a zone"},
		{"net ::ffff:192.0.2.0/120", 5, "such as 192.0.2.0/24"},
		{"drop icvv", 6, "no reason of a drop"},
		{"drop 192.0.2.1", 6, "no reason of a drop"},
		{"drop udp icvv", 10, "is not known here"},
		{strings.Repeat("udp ", 300), 1025, "at most 1024"},
	} {
		var e *FilterError
		if _, err := ParseFilter(c.text); !errors.As(err, &e) || e.Column != c.column || !strings.Contains(e.Message, c.says) {
			t.Errorf("%q: error %v, want column %d and %q", c.text, err, c.column, c.says)
		}
	}
}

// A frame of no one packet has what it brings and a direction, but no verdict.
func TestR50_FilterFrame(t *testing.T) {
	for _, c := range []struct {
		text string
		fits bool
	}{
		{"", true}, {"udp port 2000", true}, {"tcp", false}, {"in", true}, {"out", false}, {"in not tcp", true},
		{"drop", false}, {"not drop", false}, {"rule to-b", false},
	} {
		f, err := ParseFilter(c.text)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.MatchFrame(&Frame{Left: true, Written: true, Flow: example().Flow}); got != c.fits {
			t.Errorf("%q: %v", c.text, got)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"udp 192.0.2.1:1000 > 192.0.2.2:2000", "not drop too_big rule a", "host 10.0.0.0/8 port 0x10", "[::1]:5 > any", "src port 5 or not all", "ip6 greater 1400 or df type 8 less 0"} {
		f.Add(s)
	}
	x := example()
	f.Fuzz(func(_ *testing.T, text string) {
		if g, err := ParseFilter(text); err == nil {
			g.Match(x)
			g.MatchFrame(&Frame{Flow: x.Flow})
		}
	})
}

// What a filter asks for by name can be looked up, and a word that is not known be corrected.
func TestR50_FilterNames(t *testing.T) {
	f, err := ParseFilter("rule a drop or not sa b and sa c")
	if err != nil {
		t.Fatal(err)
	}
	rules, sas := f.Names()
	if want := [][]string{{"a"}, {"b", "c"}}; !reflect.DeepEqual([][]string{rules, sas}, want) {
		t.Errorf("%v and %v, want %v", rules, sas, want)
	}
	var e *FilterError
	if _, err := ParseFilter("drop icvv"); !errors.As(err, &e) || e.Word != "icvv" || !slices.Contains(e.Known, "icv") || !slices.Contains(e.Known, "host") {
		t.Errorf("%+v", e)
	}
}

// Only the first fragment has an SPI or a type; what the others begin with is neither.
func TestR50_FlowOfFragments(t *testing.T) {
	for _, c := range []struct {
		in   wire.Info
		want string
	}{
		{wire.Info{Proto: wire.ProtoESP, IsFragment: true, MoreFragments: true}, "esp 192.0.2.1 > 192.0.2.2 spi 0x01020304 len 28 frag"},
		{wire.Info{Proto: wire.ProtoESP, IsFragment: true, FragOffset: 1480}, "esp 192.0.2.1 > 192.0.2.2 len 28 frag 1480"},
		{wire.Info{Proto: wire.ProtoAH, IsFragment: true, FragOffset: 8}, "ah 192.0.2.1 > 192.0.2.2 len 28 frag 8"},
		{wire.Info{Proto: wire.ProtoICMPv6, IsFragment: true, FragOffset: 8}, "icmpv6 192.0.2.1 > 192.0.2.2 len 28 frag 8"},
	} {
		c.in.Src, c.in.Dst = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		c.in.Version, c.in.HeaderLen, c.in.TotalLen = 4, 20, 28
		var f Flow
		f.SetInfo(&c.in, append(make([]byte, 20), 1, 2, 3, 4, 5, 6, 7, 8))
		if got := f.String(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		filter, err := ParseFilter(f.String())
		if err != nil || !filter.Match(&Trail{Flow: f}) {
			t.Errorf("%q is no filter for it: %v", f.String(), err)
		}
	}
}

func TestR50_TrailText(t *testing.T) {
	x := example()
	if got, want := x.Verdict(), "dropped: no_route; protect by rule to-b; SA ab 0x00001001 aes128gcm16"; got != want {
		t.Errorf("verdict %q, want %q", got, want)
	}
	if got, want := x.Flow.String(), "udp 192.0.2.1:1000 > 192.0.2.2:2000 len 128 df"; got != want {
		t.Errorf("flow %q, want %q", got, want)
	}
	want := []string{
		"link a frame of 142 octets from the host", "rule to-b: protect", "sa ab 0x00001001 aes128gcm16 to 192.0.2.2",
		"transform sealed by ab, 128 → 160 octets", "drop no_route, on the account of rule to-b",
	}
	for i, s := range x.Steps() {
		if got := s.Station.String() + " " + s.Text(); i >= len(want) || got != want[i] {
			t.Errorf("step %d: %q", i, got)
		}
	}
	// A way that is too long keeps its end.
	for range 2 * maxSteps {
		x.Add(Step{Station: Fragment})
	}
	x.Drop(wire.DropICV, "", "", 0)
	if s := x.Steps(); len(s) != maxSteps || s[maxSteps-1].Reason != wire.DropICV || x.More() != 2*maxSteps-(maxSteps-5)+1 {
		t.Errorf("%d steps, %d more, the last %+v", len(s), x.More(), s[len(s)-1])
	}
	var none *Trail
	none.Add(Step{})
	none.Drop(wire.DropICV, "", "", 0)
	none.Opened(nil, nil)
}
