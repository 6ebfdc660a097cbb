package hook

import (
	"bytes"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
)

// TestAnnounce: RFC 5227 §3 has sender and target the same, RFC 4861 §7.2.6 has an
// advertisement to all nodes, not solicited, that overrides.
func TestAnnounce(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		out := new(sunk)
		Announce(out, a, macPeer)
		frames := out.take()
		if len(frames) != 1 {
			t.Fatalf("%v: %d frames", a, len(frames))
		}
		f := frames[0]
		if !bytes.Equal(f[6:12], []byte(macPeer)) || f[0]&1 == 0 {
			t.Errorf("%v: from %x to %x", a, f[6:12], f[:6])
		}
		if a.Is4() {
			want := arpFrame(macAll, 1, macPeer, a, "\x00\x00\x00\x00\x00\x00", a)
			if !bytes.Equal(f, want) {
				t.Errorf("%x, expected %x", f, want)
			}
			continue
		}
		var m ndMessage
		if !isND(f[14:]) || !parseND(f[14:], false, &m) || m.typ != icmpNA || m.target != a || m.link != macPeer ||
			m.flags&naSolicited != 0 || m.flags&naOverride == 0 || m.dst != netip.MustParseAddr("ff02::1") ||
			tcpip.LinkAddress(f[:6]) != multicastMAC(m.dst) {
			t.Errorf("%+v in %x", m, f)
		}
	}
}

// TestSetNeighbors: one that answers lets cross, and answers again.
func TestSetNeighbors(t *testing.T) {
	b := newBump(t)
	question := arpFrame(macAll, 1, macHost, host4, "\x00\x00\x00\x00\x00\x00", peer4)
	for _, cross := range []bool{false, true, false} {
		for side, c := range b.classes {
			if cross {
				c.SetNeighbors(crossing[side])
			} else {
				c.SetNeighbors(Answer)
			}
		}
		take(&b.fromLeft)
		take(&b.fromRight)
		b.send(b.kern, question)
		back, over := take(&b.fromLeft), take(&b.fromRight)
		if cross && (len(back) != 0 || len(over) != 1 || !bytes.Equal(over[0], question)) {
			t.Errorf("crossing: came back %x, crossed %x", back, over)
		}
		if !cross && (len(back) != 1 || len(over) != 0) {
			t.Errorf("answering: came back %x, crossed %x", back, over)
		}
	}
}
