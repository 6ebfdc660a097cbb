package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/appliance"
	"bitw/appliance/client"
	"bitw/integration/netlab"
)

func TestTapUsage(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"tap", "tap needs IFACE and STATE"},
		{"tap eth0", "tap needs STATE"},
		{"tap eth0 open", `closed, passive or active, not "open"`},
		{"tap eth0 Active", `not "Active"`},
		{"tap eth0 active passive", `tap takes no argument "passive"`},
		{"tap eth0 closed --kernel --wire", "for both give neither"},
		{"tap eth0 closed -o yaml", `not "yaml"`},
	} {
		w := newWorld(t)
		w.call(t, 2, "", c.want, strings.Fields(c.args)...)
	}
	w := newWorld(t)
	w.call(t, 1, "", "start one with: bitw up -c FILE; to only watch: bitw observe eth0", "tap", "eth0", "passive")
	w = newWorld(t)
	w.die(t, "eth0")
	w.call(t, 1, "", "nobody answers on", "tap", "eth0", "closed", "--clear")
	w = newWorld(t)
	w.serve(t, "eth0", "{}")
	w.call(t, 1, "", "of another version", "tap", "eth0", "active")
}

// patience is how long a test waits for what must happen; nothing is measured.
const patience = 30 * time.Second

// answered waits until an echo request is answered. The first may wait for the neighbour.
func answered(t *testing.T, from *netlab.Host, to netip.Addr, when string) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		if pings(t, from, to, 1, 500*time.Millisecond) == 1 {
			return
		}
	}
	t.Errorf("%s: no ping was answered", when)
}

// silent checks that no echo request is answered.
func silent(t *testing.T, from *netlab.Host, to netip.Addr, when string) {
	t.Helper()
	if pings(t, from, to, 2, 500*time.Millisecond) != 0 {
		t.Errorf("%s: a ping was answered, and nothing should pass", when)
	}
}

// pings tells how many of n echo requests are answered within a time each.
func pings(t *testing.T, from *netlab.Host, to netip.Addr, n int, within time.Duration) int {
	t.Helper()
	r, err := netlab.Ping(t.Context(), from, to, netlab.PingOptions{Count: n, Timeout: within})
	// The kernel tells a sender when its frame is dropped before the interface.
	if err != nil && !errors.Is(err, syscall.ENOBUFS) {
		t.Fatal(err)
	}
	return r.Received
}

// upForTest is up, and leaves nothing behind after the test: a killed process leaves
// pins, which outlive its namespace.
func (l *liveHost) upForTest(t *testing.T) *netlab.Process {
	t.Helper()
	p, _ := l.up(t)
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
		l.call(t, 0, 0, "", "recover", "eth0")
	})
	return p
}

func (l *liveHost) status(t *testing.T) *appliance.Status {
	t.Helper()
	s := new(appliance.Status)
	if err := json.Unmarshal([]byte(l.call(t, 0, 0, "", "status", "--socket", l.socket, "-o", "json")), s); err != nil {
		t.Fatal(err)
	}
	return s
}

func (l *liveHost) tap(t *testing.T, status int, want string, args ...string) {
	t.Helper()
	l.call(t, 0, status, want, append([]string{"tap", "eth0", "--socket", l.socket}, args...)...)
}

// The states of the taps of a running bitw, each tap on its own, and what they mean
// for protected traffic.
func TestR01_TapVerb(t *testing.T) {
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	addrA, addrB := netlab.DefaultA()[0].Addr(), netlab.DefaultB()[0].Addr()
	a := newLiveHost(t, pair.A, addrA, addrB, 0x1001, 0x2001)
	b := newLiveHost(t, pair.B, addrB, addrA, 0x2001, 0x1001)
	pa := a.upForTest(t)
	b.upForTest(t)
	capture := pair.Wire.Capture(netlab.CaptureOptions{})
	both := func(want string, args ...string) {
		t.Helper()
		a.tap(t, 0, want, args...)
		b.tap(t, 0, want, args...)
	}
	clear := func() int { return capture.Counts().Of(netlab.Other) }

	answered(t, a.Host, addrB, "active")
	a.tap(t, 1, `policy "peer" says protect; if that is wanted, say --clear`, "closed")
	a.tap(t, 1, "say --clear", "passive")
	if s := a.status(t); s.State != "active" {
		t.Errorf("after a refusal it is %s", s.State)
	}
	a.tap(t, 0, "kernel tap closed, wire tap active: nothing passes", "closed", "--kernel")
	silent(t, a.Host, addrB, "the kernel's tap is closed")
	a.tap(t, 1, "say --clear", "passive", "--wire")
	a.tap(t, 0, "kernel tap active, wire tap active: all goes by the policies", "active", "--kernel")
	a.tap(t, 0, "kernel tap active, wire tap passive: nothing passes", "passive", "--wire")
	silent(t, a.Host, addrB, "the wire's tap is passive")
	a.tap(t, 0, "", "active")
	answered(t, a.Host, addrB, "active again")
	if n := clear(); n != 0 {
		t.Errorf("%d frames in the clear so far", n)
	}
	for _, state := range []string{"closed", "passive"} {
		both("all passes in the clear", state, "--clear")
		if s := a.status(t); s.State != "clear" || len(s.Health) == 0 || !strings.Contains(s.Health[0].String(), "bitw tap eth0 active") {
			t.Errorf("%s: it is %s, findings %q", state, s.State, s.Health)
		}
		sealed, before := a.status(t).SAs, clear()
		const count = 5
		if n := pings(t, a.Host, addrB, count, patience); n != count {
			t.Errorf("%s: %d of %d pings were answered", state, n, count)
		}
		for i, x := range a.status(t).SAs {
			if x.Packets != sealed[i].Packets {
				t.Errorf("%s: SA %s did work for frames that pass by themselves", state, x.Name)
			}
		}
		// The capture may be behind.
		for end := time.Now().Add(patience); clear() < before+2*count; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d frames passed in the clear, expected %d", state, clear()-before, 2*count)
			}
		}
		both("all goes by the policies", "active")
		before = clear()
		answered(t, a.Host, addrB, "active after "+state)
		if n := clear(); n != before {
			t.Errorf("active after %s: %d frames in the clear", state, n-before)
		}
	}
	// Down leaves it shut, whatever was set by hand.
	a.tap(t, 0, "", "closed", "--clear")
	a.call(t, 0, 0, "bitw on eth0 is down", "down", "--socket", a.socket)
	if err := pa.Wait(); err != nil {
		t.Error(err)
	}
	b.tap(t, 0, "", "closed", "--clear")
	silent(t, a.Host, addrB, "after the end")
	pa = a.upForTest(t)
	b.tap(t, 0, "", "active")
	answered(t, a.Host, addrB, "taken over")
	// SIGTERM while clear ends as well, with the readers at the gate.
	a.tap(t, 0, "", "closed", "--clear")
	if err := pa.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := pa.Wait(); err != nil {
		t.Error(err)
	}
}

// knows gives the host the neighbour entry of another for good.
func (l *liveHost) knows(t *testing.T, other *liveHost, addr netip.Addr) {
	t.Helper()
	own, err := l.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	peer, err := other.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Netlink().NeighSet(&netlink.Neigh{
		LinkIndex: own.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: peer.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
	}); err != nil {
		t.Fatal(err)
	}
}

// With a policy that lets everything pass, next to nothing is lost and nothing doubled
// while the taps go through their states, many times faster than by hand.
func TestR01_TapToggle(t *testing.T) {
	a, b, addrB := livePair(t)
	// What the kernel has queued for a neighbour may go when that is forgotten; here
	// only the taps are looked at.
	a.knows(t, b, addrB)
	text := "interface: eth0\ncontrol: " + a.socket + "\nneighbors: relay\npolicies:\n  - {name: all, action: bypass}\n"
	if err := os.WriteFile(a.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	a.upForTest(t)
	answered(t, a.Host, addrB, "active")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	type result struct {
		sent, lost, twice int
		err               error
	}
	done := make(chan result, 1)
	go func() {
		var sum result
		for sum.sent < 1500 && sum.err == nil {
			r, err := netlab.Ping(ctx, a.Host, addrB, netlab.PingOptions{Count: 100, Interval: time.Millisecond, Timeout: patience})
			if errors.Is(err, syscall.ENOBUFS) { // the kernel tells of a frame that the cut has dropped
				sum.sent, sum.lost, err = sum.sent+1, sum.lost+1, nil
			}
			sum.sent, sum.lost, sum.twice, sum.err = sum.sent+r.Sent, sum.lost+r.Lost, sum.twice+r.Duplicates, err
		}
		done <- sum
	}()
	asks := client.New(a.socket)
	behind := 0 // how often it was told that readers were too far behind
	set := func(state string) {
		t.Helper()
		for end := time.Now().Add(patience); ; behind++ {
			_, err := asks.SetTaps(ctx, appliance.TapRequest{Kernel: state, Wire: state})
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	toggles := 0
	for {
		for _, s := range []string{"closed", "active", "passive", "active", "passive", "closed", "active"} {
			set(s)
			toggles++
		}
		select {
		case r := <-done:
			t.Logf("%d pings and %d changes of state: %d lost, %d answered twice; behind %d times", r.sent, toggles, r.lost, r.twice, behind)
			if r.err != nil {
				t.Fatal(r.err)
			}
			if r.lost > 0 && behind == 0 || r.twice != 0 {
				t.Errorf("%d pings lost and %d answered twice in %d changes of state", r.lost, r.twice, toggles)
			}
			return
		default:
		}
	}
}
