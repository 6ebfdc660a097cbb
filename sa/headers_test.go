package sa

import "testing"

func TestRFC4301_5_1_2_1_DSField(t *testing.T) {
	var mapped [64]uint8
	mapped[46] = 34
	const inner, outer = 46<<2 | 2, 12<<2 | 2
	for _, c := range []struct {
		name      string
		h         Headers
		out, back uint8 // DSCP of the outer header, and of what leaves the tunnel
	}{
		{"default", Headers{}, 46, 46},
		{"in", Headers{DSCP: CopyDSCPIn}, 0, 12},
		{"both", Headers{DSCP: CopyDSCPBoth}, 46, 12},
		{"none", Headers{DSCP: CopyDSCPNone}, 0, 46},
		{"map", Headers{DSCPMap: &mapped}, 34, 46},
		{"map and in", Headers{DSCPMap: &mapped, DSCP: CopyDSCPIn}, 34, 12},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.h.OuterTOS(inner); got != c.out<<2|2 {
				t.Errorf("outer %#x", got)
			}
			if got, drop := c.h.InnerTOS(outer, inner); drop || got != c.back<<2|2 {
				t.Errorf("inner %#x, drop %v", got, drop)
			}
		})
	}
}

// RFC 6040 §4.1 gives the outer field of both modes, §4.2 figure 4 what arrives.
func TestRFC6040_4_1_EncapsulationModes(t *testing.T) {
	normal, compatible := Headers{}, Headers{NoECN: true}
	for ecn := range uint8(4) {
		if got := normal.OuterTOS(ecn); got != ecn {
			t.Errorf("normal mode: %d gives %d", ecn, got)
		}
		if got := compatible.OuterTOS(ecn); got != 0 {
			t.Errorf("compatibility mode: %d gives %d", ecn, got)
		}
		for outer := range uint8(4) {
			if got, drop := compatible.InnerTOS(outer, ecn); got != ecn || drop {
				t.Errorf("copy_ecn no: outer %d changes inner %d to %d, drop %v", outer, ecn, got, drop)
			}
		}
	}
	if _, drop := normal.InnerTOS(3, 0); !drop {
		t.Error("CE over Not-ECT is not dropped")
	}
	if got, _ := normal.InnerTOS(3, 2); got != 3 {
		t.Errorf("CE over ECT(0) gives %d", got)
	}
}

func TestRFC4301_8_1_DF(t *testing.T) {
	for rule, want := range map[DFRule][2]bool{CopyDF: {false, true}, SetDF: {true, true}, ClearDF: {false, false}} {
		h := Headers{DF: rule}
		if got := [2]bool{h.OuterDF(false), h.OuterDF(true)}; got != want {
			t.Errorf("rule %d: %v, want %v", rule, got, want)
		}
	}
}

func TestHeadersCheck(t *testing.T) {
	var wrong [64]uint8
	wrong[1] = 64
	for _, h := range []Headers{{DF: 3}, {DSCP: 4}, {FlowLabel: 1 << 20}, {DSCPMap: &wrong}} {
		if h.check() == nil {
			t.Errorf("%+v passes", h)
		}
	}
	if err := (&Headers{FlowLabel: 1<<20 - 1, TTL: 255}).check(); err != nil {
		t.Error(err)
	}
}
