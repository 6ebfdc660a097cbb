package integration

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"bitw/integration/netlab"
)

// TestR07_R50_WhatNoReaderSawIsCounted has frames lost in the taps, and others pass bitw by
// while it is held up: it tells of both when it comes back.
func TestR07_R50_WhatNoReaderSawIsCounted(t *testing.T) {
	for _, onFailure := range []string{"shut", "open"} {
		t.Run(onFailure, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			p := &plan{settings: "on_failure: " + onFailure + "\n", flows: []*flow{newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4)}}
			a, b := boxes(t, pair, p)
			defer b.giveBack()
			defer a.giveBack()
			pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
			seen := watchClear(pair, 0)
			left := func() (full, open uint64, health string) {
				s := a.status()
				return s.DropsBySide["left"]["tap_full"], s.Links["left"].PassedOpen, fmt.Sprint(s.Health)
			}
			if full, open, health := left(); full+open != 0 || strings.Contains(health, "held up") {
				t.Errorf("before anything is lost: %d lost, %d passed, %s", full, open, health)
			}

			if err := a.proc.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			if onFailure == "open" {
				eventually(t, "the interface opens", func() bool {
					burst(t, pair.A, 10)
					return seen.Watched(0).Frames > 0
				})
			} else {
				burst(t, pair.A, 3000)
			}
			if err := a.proc.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			switch onFailure {
			case "shut":
				eventually(t, "what found the queue full is counted", func() bool {
					full, _, health := left()
					return full > 0 && strings.Contains(health, "came faster than bitw read them")
				})
				if _, open, _ := left(); open != 0 {
					t.Errorf("%d frames are said to have passed by themselves under shut", open)
				}
				allESP(t, seen)
			case "open":
				eventually(t, "what passed is counted", func() bool {
					_, open, health := left()
					return open > 0 && strings.Contains(health, "passed without protection")
				})
				eventually(t, "what passed is told", func() bool { return strings.Contains(a.out.String(), "event=passed-open") })
			}
			pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
		})
	}
}

// TestR01_R50_WhatAClosedTapDropsIsCounted has one tap Closed, so that nothing passes.
func TestR01_R50_WhatAClosedTapDropsIsCounted(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := boxes(t, pair, protected())
	defer b.giveBack()
	defer a.giveBack()
	pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
	before := a.status()
	if _, stderr, err := a.run("tap", "eth0", "--socket", a.dir+"/c.sock", "closed", "--wire"); err != nil {
		t.Fatal(err, stderr)
	}
	silent(t, pair.B, a4)
	eventually(t, "the packets are counted", func() bool { return a.drops(before)["tap_closed"] >= 3 })
	stdout, stderr, err := a.run(append([]string{"drops"}, a.which()...)...)
	if err != nil || !strings.Contains(stdout, "the states of the taps let nothing pass") {
		t.Errorf("bitw drops: %v, %s%s", err, stdout, stderr)
	}
}

// burst sends so many datagrams to b.
func burst(t testing.TB, from *netlab.Host, n int) {
	t.Helper()
	c, err := from.Dial(deadline(t, patience), "udp", netip.AddrPortFrom(b4, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write([]byte(netlab.Marker)); err != nil {
			t.Fatal(err)
		}
	}
}
