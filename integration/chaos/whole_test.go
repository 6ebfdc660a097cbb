package chaos

import (
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/integration/netlab"
)

// TestR48_Whole does to the protected host A, one after the other, all that can happen to
// a bitw and its interface, by either hook, with either fail state, and over IPv4 and
// IPv6: the flow always comes back, and under "shut" nothing of it is ever in the clear.
// Under "open" what passes while bitw is dead or hangs is in the clear, and B, which
// protects, takes none of it.
func TestR48_Whole(t *testing.T) {
	for _, hook := range []string{"tcx", "clsact"} {
		for _, onFailure := range []string{"shut", "open"} {
			for _, ip := range []struct {
				name string
				a, b netip.Addr
			}{{"IPv4", a4, b4}, {"IPv6", a6, b6}} {
				name := hook + ", " + onFailure + ", " + ip.name
				t.Run(name, func(t *testing.T) {
					pair := netlab.New(t).Pair(netlab.PairOptions{})
					b := boxes(t, pair, onFailure, protectBetween(ip.a, ip.b), "--hook", hook)
					seen := watch(pair)
					whole(t, pair, b[0], startBetween(t, pair, ip.a, ip.b), name, hook)
					if onFailure == "shut" {
						nothingClear(t, seen)
					}
				})
			}
		}
	}
}

func whole(t *testing.T, pair *netlab.Pair, box *box, tr *traffic, name, hook string) {
	nl := pair.A.Netlink()
	link := func(device string) netlink.Link {
		l, err := nl.LinkByName(device)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	try := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, event := range []struct {
		what string
		do   func()
		lost int // at most; -1: as it comes
	}{
		{"taken over", func() { box.takeOver("--hook", hook) }, 0},
		{"killed, started", func() {
			box.proc.Kill()
			box.up("--hook", hook)
		}, -1},
		{"hung for 300 ms", func() {
			box.signal(syscall.SIGSTOP)
			time.Sleep(300 * time.Millisecond)
			box.signal(syscall.SIGCONT)
		}, -1},
		{"down and up", func() {
			try(nl.LinkSetDown(link("eth0")))
			time.Sleep(50 * time.Millisecond)
			try(nl.LinkSetUp(link("eth0")))
			if hostOf := tr.probes[0].from.LocalAddr().(interface{ AddrPort() netip.AddrPort }).AddrPort().Addr(); hostOf.Is6() {
				// The kernel forgets the IPv6 addresses of an interface that is down.
				try(pair.A.AddAddrs("eth0", netip.PrefixFrom(hostOf, 64)))
			}
		}, -1},
		{"renamed", func() { try(nl.LinkSetName(link("eth0"), "wan0")) }, 0},
		{"renamed back", func() { try(nl.LinkSetName(link("wan0"), "eth0")) }, 0},
		{"deleted and created anew", func() {
			try(nl.LinkDel(link("eth0")))
			try(pair.A.Plug(pair.Wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}))
		}, -1},
	} {
		s := tr.begin()
		event.do()
		tr.flows("after " + event.what)
		lost := s.end(fmt.Sprintf("ESP, %s: %s", name, event.what))
		if event.lost >= 0 {
			atMost(t, event.what, lost, event.lost)
		}
	}
	tr.finish()
}
