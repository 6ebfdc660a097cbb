package sa

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// Mismatches are those that keep the SPD from its answer.
func TestR50_MismatchesAreWhyAPolicyDoesNotMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		f := &Flow{
			Local: drawAddr(t, v6), Remote: drawAddr(t, v6), HasPorts: rapid.Bool().Draw(t, "known"),
			Proto:     rapid.SampledFrom([]uint8{6, 17, 1, 58, 135, 47}).Draw(t, "proto"),
			LocalPort: drawPort(t), RemotePort: drawPort(t), ICMPType: rapid.Uint8Range(0, 9).Draw(t, "type"), MHType: 1,
		}
		if f.Proto == 47 {
			f.HasPorts = false
		}
		p := &Policy{
			Name: "p", Directions: rapid.SampledFrom([]Directions{BothDirections, OnlyOutbound, OnlyInbound}).Draw(t, "directions"),
			Selector: Selector{Local: drawRanges(t), Remote: drawRanges(t), Proto: rapid.SampledFrom([]uint8{0, 6, 17, 1, 58, 135}).Draw(t, "wanted")},
		}
		s := &p.Selector
		switch {
		case hasPorts(s.Proto):
			s.LocalPorts, s.RemotePorts = drawPorts(t), drawPorts(t)
		case isICMP(s.Proto):
			s.ICMPTypes = drawBytes(t)
		case s.Proto == protoMH:
			s.MHTypes = drawBytes(t)
		}
		if !s.wantsUpper() {
			s.Opaque = rapid.IntRange(0, 3).Draw(t, "opaque") == 0
		}
		spd, err := NewSPD([]*Policy{p})
		if err != nil {
			t.Skip()
		}
		d := rapid.SampledFrom([]Direction{Outbound, Inbound}).Draw(t, "direction")
		if list := p.Mismatches(d, f); (spd.Lookup(d, f) == p) != (len(list) == 0) {
			t.Fatalf("%v for %v and %v", list, f, s)
		}
	})
}

func TestR50_MismatchInWords(t *testing.T) {
	p := &Policy{Name: "web", Selector: Selector{
		Remote: []AddrRange{AddrRangeFromPrefix(netip.MustParsePrefix("192.0.2.0/24"))}, Proto: 6, RemotePorts: []PortRange{{80, 80}},
	}}
	f := Flow{Local: netip.MustParseAddr("10.0.0.5"), Remote: netip.MustParseAddr("192.0.2.9"), Proto: 6, LocalPort: 1, RemotePort: 443, HasPorts: true}
	if got := p.Mismatches(Outbound, &f); len(got) != 1 || got[0].String() != "remote port 443, expected 80" {
		t.Errorf("%v", got)
	}
	f.Proto = 17
	if got := p.Mismatches(Outbound, &f); len(got) != 1 || got[0].String() != "protocol udp, expected tcp" {
		t.Errorf("%v", got)
	}
	f.Proto, f.HasPorts = 6, false
	if got := p.Mismatches(Outbound, &f); len(got) != 1 || got[0].String() != "ports or type none that can be known, expected remote port 80" {
		t.Errorf("%v", got)
	}
}
