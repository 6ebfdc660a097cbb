//go:build linux

package ethtap

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestBigTCP: superframes of more than 64 KB do not fit a tap, and the kernel cuts them
// before they get there.
func TestBigTCP(t *testing.T) {
	l := newLab(t)
	const big = 200_000 // octets
	for _, h := range []*host{l.a, l.b} {
		eth, err := h.nl.LinkByIndex(h.index)
		if err != nil {
			t.Fatal(err)
		}
		for _, set := range []func(netlink.Link, int) error{
			h.nl.LinkSetGSOMaxSize, h.nl.LinkSetGROMaxSize, h.nl.LinkSetGSOIPv4MaxSize, h.nl.LinkSetGROIPv4MaxSize,
		} {
			if err := set(eth, big); err != nil {
				missing(t, "BIG TCP (Linux 6.3): %v", err)
			}
		}
	}
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	p := startPump(t, d)
	for _, addr := range []func(*host) netip.Addr{addr6, addr4} {
		transferSize(t, l.a, l.b, addr, 48<<20)
		transferSize(t, l.b, l.a, addr, 48<<20)
	}
	for _, tap := range []*Tap{d.Kernel(), d.Wire()} {
		s, err := tap.Stats()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v, longest %d", tap.Name(), s, p.longest.Load())
		if s.Oversize > 0 {
			t.Errorf("%s: %d frames were too long", tap.Name(), s.Oversize)
		}
	}
}
