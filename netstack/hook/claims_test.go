package hook

import (
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// What two stations say of one address, and what one station says after another.
func TestR50_Claims(t *testing.T) {
	a, x, y := netip.MustParseAddr("192.0.2.2"), tcpip.LinkAddress("\x02\x00\x00\x00\x00\x01"), tcpip.LinkAddress("\x02\x00\x00\x00\x00\x02")
	type word struct {
		mac    tcpip.LinkAddress
		answer bool
		after  time.Duration
	}
	for name, test := range map[string]struct {
		words    []word
		conflict bool
	}{
		"one station":               {[]word{{x, true, 0}, {x, false, time.Second}, {x, true, time.Second}}, false},
		"both answer":               {[]word{{x, true, 0}, {y, true, time.Millisecond}}, true},
		"one takes over by a word":  {[]word{{x, true, 0}, {y, false, time.Millisecond}, {y, true, time.Second}}, false},
		"one takes over in time":    {[]word{{x, true, 0}, {y, true, time.Minute}}, false},
		"to and fro":                {[]word{{x, false, 0}, {y, false, time.Second}, {x, false, time.Second}}, true},
		"over, and much later back": {[]word{{x, true, 0}, {y, false, time.Hour}, {x, false, time.Hour}}, false},
	} {
		var now time.Duration
		c := NewClaims(func() int64 { return int64(now) })
		for _, w := range test.words {
			now += w.after
			c.other(a, w.mac, w.answer)
		}
		got := c.Conflicts()
		if (len(got) == 1) != test.conflict {
			t.Errorf("%s: conflicts %v, expected one: %v", name, got, test.conflict)
		}
		if test.conflict && (len(got) != 1 || len(got[0].Stations) != 2 || got[0].Own || got[0].Last != int64(now)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	var now time.Duration
	c := NewClaims(func() int64 { return int64(now) })
	for i := range 10 * maxClaims {
		now += time.Millisecond
		c.other(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), x, true)
		c.own(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), x)
	}
	if n := len(c.seen); n > maxClaims {
		t.Errorf("%d addresses are kept account of", n)
	}
	if n := len(c.Conflicts()); n != maxClaims {
		t.Errorf("%d conflicts, expected %d", n, maxClaims)
	}
	c.other(netip.IPv4Unspecified(), x, true)
	(*Claims)(nil).own(a, x) // nobody wants to know
}

// What is a claim on the wire, by frames.
func TestR50_ClaimsOnTheWire(t *testing.T) {
	reply := func(from tcpip.LinkAddress) []byte { return arpFrame(macHost, 2, from, peer4, macHost, host4) }
	advertised := func(from tcpip.LinkAddress, about netip.Addr, flags byte) []byte {
		return ndFrame(macHost, from, advert(flags, about, host6, about, from))
	}
	for name, x := range map[string]struct {
		frames [][]byte
		about  netip.Addr // in conflict, if any
		own    bool
	}{
		"two answer":                {[][]byte{reply(macPeer), reply(macEvil)}, peer4, false},
		"one answers twice":         {[][]byte{reply(macPeer), reply(macPeer)}, netip.Addr{}, false},
		"two advertise":             {[][]byte{advertised(macPeer, peer6, naSolicited|naOverride), advertised(macEvil, peer6, naSolicited|naOverride)}, peer6, false},
		"two of an anycast address": {[][]byte{advertised(macPeer, peer6, naSolicited), advertised(macEvil, peer6, naSolicited)}, netip.Addr{}, false},
		"asks with our address":     {[][]byte{arpFrame(macAll, 1, macEvil, host4, header.UnspecifiedEthernetAddress, peer4)}, host4, true},
		"advertises our address":    {[][]byte{advertised(macEvil, host6, naOverride)}, host6, true},
		"probes for our address":    {[][]byte{arpFrame(macAll, 1, macEvil, any4, header.UnspecifiedEthernetAddress, host4)}, netip.Addr{}, false},
		"our own frame comes back":  {[][]byte{arpFrame(macAll, 1, macHost, host4, header.UnspecifiedEthernetAddress, peer4)}, netip.Addr{}, false},
	} {
		b := newBump(t)
		for _, f := range x.frames {
			b.send(b.dev, f)
		}
		got := b.claims.Conflicts()
		switch {
		case !x.about.IsValid() && len(got) > 0:
			t.Errorf("%s: conflicts %+v", name, got)
		case x.about.IsValid() && (len(got) != 1 || got[0].Address != x.about || got[0].Own != x.own):
			t.Errorf("%s: conflicts %+v, expected one about %v", name, got, x.about)
		}
	}
}
