package integration

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// A way of leaving Active.
type leaving struct {
	name, onFailure string
	args            []string
	leave           func(b *box)
}

// TestR20_LeavingActive looks at the kernel's neighbour table before and after each way
// of leaving Active: under relay it is right all the time, and under proxy nothing that
// bitw told stays. Nobody is there to see to that after a crash under open, and so that is
// not to be had with proxy.
func TestR20_LeavingActive(t *testing.T) {
	term := func(b *box) {
		_ = b.proc.Signal(syscall.SIGTERM)
		if err := b.proc.Wait(); err != nil {
			b.t.Errorf("bitw up, told to end: %v\n%s", err, b.out)
		}
	}
	tap := func(b *box) {
		if _, stderr, err := b.run("tap", "eth0", "closed", "--clear", "--socket", b.dir+"/c.sock"); err != nil {
			b.t.Errorf("bitw tap closed: %v\n%s", err, stderr)
		}
	}
	recovered := func(b *box) {
		b.proc.Kill()
		if _, stderr, err := b.run("recover", "eth0"); err != nil {
			b.t.Errorf("bitw recover: %v\n%s", err, stderr)
		}
	}
	ways := []leaving{
		{"clean stop", "shut", []string{"--open-on-stop"}, term},
		{"clean stop", "open", nil, term},
		{"tap closed", "shut", nil, tap},
		{"tap closed", "open", nil, tap},
		{"crash and recover", "shut", nil, recovered},
		{"crash", "open", nil, func(b *box) { b.proc.Kill() }},
	}
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	own, peer := mac(t, pair.A), mac(t, pair.B)
	for _, mode := range []string{"proxy", "relay"} {
		for _, w := range ways {
			if mode == "proxy" && w.onFailure == "open" {
				continue
			}
			t.Run(w.onFailure+", "+mode+", "+w.name, func(t *testing.T) {
				b := newBox(t, pair.A, (&plan{settings: "on_failure: " + w.onFailure + "\nneighbors: " + mode + "\n", last: bypassAll}).yaml(true))
				forgetNeighbors(t, pair.A)
				b.up(w.args...)
				want := peer
				if mode == "proxy" {
					want = own
				}
				for _, to := range []netip.Addr{b4, b6} {
					pings(t, pair.A, to, netlab.PingOptions{})
					if got := neighbor(t, pair.A, to); !bytes.Equal(got, want) {
						t.Errorf("Active: the kernel has %v for %v; expected %v", got, to, want)
					}
				}
				w.leave(b)
				for _, to := range []netip.Addr{b4, b6} {
					got := neighbor(t, pair.A, to)
					switch {
					case mode == "relay" && !bytes.Equal(got, peer):
						t.Errorf("the kernel has %v for %v; expected %v", got, to, peer)
					case bytes.Equal(got, own):
						t.Errorf("the kernel still has its own address for %v", to)
					}
					if w.name == "crash" { // the kernel takes the cut away in its own time
						reaches(t, pair.A, to)
					}
					pings(t, pair.A, to, netlab.PingOptions{})
				}
			})
		}
	}
}

// TestR20_ProxyNeedsShut: what would leave wrong neighbours behind is refused, with its
// place and what to write.
func TestR20_ProxyNeedsShut(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := newBox(t, pair.A, (&plan{settings: "on_failure: open\nneighbors: proxy\n", last: bypassAll}).yaml(true))
	for _, verb := range []string{"check", "up"} {
		_, stderr, err := b.run(verb, "-c", b.file)
		if exitCode(err) != 1 || !strings.Contains(stderr, "bitw.yaml:3:12:") || !strings.Contains(stderr, "write relay") {
			t.Errorf("bitw %s: %v\n%s", verb, err, stderr)
		}
	}
	if got := links(t, pair.A); strings.Contains(got, "htap") {
		t.Errorf("a tap is there:\n%s", got)
	}
}

// TestR20_RelayAfterProxy takes an interface over that a bitw left shut which had
// answered for the neighbours.
func TestR20_RelayAfterProxy(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	own, peer := mac(t, pair.A), mac(t, pair.B)
	b := newBox(t, pair.A, (&plan{last: bypassAll}).yaml(true))
	b.up()
	for _, to := range []netip.Addr{b4, b6} {
		pings(t, pair.A, to, netlab.PingOptions{})
		if got := neighbor(t, pair.A, to); !bytes.Equal(got, own) {
			t.Errorf("proxy: the kernel has %v for %v; expected %v", got, to, own)
		}
	}
	b.proc.Kill()
	b.configure((&plan{settings: "neighbors: relay\n", last: bypassAll}).yaml(true))
	b.up()
	for _, to := range []netip.Addr{b4, b6} {
		if got := neighbor(t, pair.A, to); bytes.Equal(got, own) {
			t.Errorf("relay: the kernel still has its own address for %v", to)
		}
		pings(t, pair.A, to, netlab.PingOptions{})
		if got := neighbor(t, pair.A, to); !bytes.Equal(got, peer) {
			t.Errorf("relay: the kernel has %v for %v; expected %v", got, to, peer)
		}
	}
}

// TestR20_RelayProtects has both hosts find each other themselves under either fail
// state, with traffic in transport mode, whose outer header is the host's, and in
// tunnel mode, whose is not.
func TestR20_RelayProtects(t *testing.T) {
	for _, onFailure := range []string{"shut", "open"} {
		pair := netlab.New(t).Pair(netlab.PairOptions{})
		p := &plan{settings: "on_failure: " + onFailure + "\nneighbors: relay\n", flows: []*flow{
			newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4),
			newFlow("six", "tunnel", "aes128gcm16", 0x1002, a6, b6).through(a4, b4),
		}}
		boxes(t, pair, p)
		c := watchClear(pair, 256)
		for _, ends := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
			pings(t, pair.A, ends[1], netlab.PingOptions{Count: 3})
			pings(t, pair.B, ends[0], netlab.PingOptions{Count: 3})
			if got, want := neighbor(t, pair.A, ends[1]), mac(t, pair.B); !bytes.Equal(got, want) {
				t.Errorf("%s: the kernel of A has %v for %v; expected %v", onFailure, got, ends[1], want)
			}
		}
		allESP(t, c)
	}
}

// TestR20_NeighborsChangeLive has bitw apply change neighbors to and fro under pings and a
// stream, between two kernels: nothing is lost or in the clear, and the kernel's table is
// right after each change.
func TestR20_NeighborsChangeLive(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := &plan{flows: []*flow{newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4), newFlow("six", "tunnel", "aes128gcm16", 0x1002, a6, b6)}}
	a, _ := boxes(t, pair, p)
	own, peer := mac(t, pair.A), mac(t, pair.B)
	for _, to := range []netip.Addr{b4, b6} {
		pings(t, pair.A, to, netlab.PingOptions{})
	}
	c := watchClear(pair, 256)
	lost := make(chan error, 3)
	for _, to := range []netip.Addr{b4, b6} {
		go func() {
			r, err := netlab.Ping(deadline(t, 5*patience), pair.A, to, netlab.PingOptions{Count: 3000, Interval: 2 * time.Millisecond})
			if err == nil && r.Lost > 0 {
				err = fmt.Errorf("pings to %v: %v", to, r)
			}
			lost <- err
		}()
	}
	go func() {
		_, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, 64<<20)
		lost <- err
	}()
	for i := range 10 {
		mode := []string{"relay", "proxy"}[i%2]
		p.settings = "neighbors: " + mode + "\n"
		a.configure(p.yaml(true))
		stdout, stderr, err := a.run("apply", a.file)
		if err != nil {
			t.Fatalf("bitw apply: %v\n%s", err, stderr)
		}
		if !strings.Contains(stdout, "neighbors") {
			t.Errorf("bitw apply says\n%s", stdout)
		}
		for _, to := range []netip.Addr{b4, b6} {
			if got := neighbor(t, pair.A, to); mode == "relay" && !bytes.Equal(got, peer) {
				t.Errorf("change %d to relay: the kernel has %v for %v; expected %v", i, got, to, peer)
			}
		}
		time.Sleep(300 * time.Millisecond) // under way
	}
	for range cap(lost) {
		if err := <-lost; err != nil {
			t.Error(err)
		}
	}
	allESP(t, c)

	// What is asked anew is answered as the mode in force says.
	for _, mode := range []string{"proxy", "relay"} {
		p.settings = "neighbors: " + mode + "\n"
		a.configure(p.yaml(true))
		if _, stderr, err := a.run("apply", a.file); err != nil {
			t.Fatalf("bitw apply: %v\n%s", err, stderr)
		}
		forgetNeighbors(t, pair.A)
		want := map[string][]byte{"proxy": own, "relay": peer}[mode]
		for _, to := range []netip.Addr{b4, b6} {
			pings(t, pair.A, to, netlab.PingOptions{Count: 3})
			if got := neighbor(t, pair.A, to); !bytes.Equal(got, want) {
				t.Errorf("%s: the kernel has %v for %v; expected %v", mode, got, to, want)
			}
		}
	}
}
