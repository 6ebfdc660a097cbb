package appliance

import (
	"testing"
	"time"

	"bitw/sa"
)

// What an SA and a policy carried of late, over 5 to 10 seconds, and what cannot be told.
func TestR50_Rates(t *testing.T) {
	box := usedBox(t, protectAll(t))
	b := box.bump.Load()
	x, p := b.sad.All()[0], b.engine.SPD().Policies()[0]
	var r rates
	now := time.Unix(1000, 0)
	second := func() {
		now = now.Add(time.Second)
		r.tick(now.UnixNano(), b.gauges)
	}
	for _, g := range []func() gauge{func() gauge { return gaugeOf(x) }, func() gauge { return gaugeOfPolicy(p, sa.Outbound) }} {
		if got := new(rates).of(g(), now.UnixNano()); got != nil {
			t.Errorf("%+v before anything was read", got)
		}
	}
	for range 30 {
		second()
		x.Packets.Add(10)
		x.Bytes.Add(1000)
		p.Counters[sa.Outbound].Add(20, 2000, now.UnixNano())
	}
	for name, c := range map[string]struct {
		g             gauge
		packets, bits float64
	}{
		"SA": {gaugeOf(x), 10, 8000}, "policy": {gaugeOfPolicy(p, sa.Outbound), 20, 16000},
	} {
		got := r.of(c.g, now.Add(time.Second).UnixNano())
		if got == nil || got.Packets != c.packets || got.Bits != c.bits || got.Over < rateTicks || got.Over > 2*rateTicks+1 {
			t.Errorf("%s: %+v, expected %v packets/s and %v bit/s", name, got, c.packets, c.bits)
		}
	}
	if got := r.of(gauge{x, 0, 0}, now.UnixNano()); got != nil {
		t.Errorf("%+v of counters that began anew", got)
	}
}
