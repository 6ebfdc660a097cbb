package chaos

import (
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

// TestR10_DirectionsIndependent stalls one direction of the program, and floods it: the
// other one goes on.
func TestR10_DirectionsIndependent(t *testing.T) {
	for _, c := range []struct {
		name string
		yaml [2]string
	}{{"bypass", both(bypass)}, {"ESP", protect()}} {
		t.Run(c.name, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			boxes(t, pair, "shut", c.yaml)
			tr := start(t, pair)

			// What leaves A comes to a queue that lets out 64 kbit/s and is soon full.
			tc := func(args ...string) {
				t.Helper()
				if _, err := pair.A.Run(deadline(t, patience), "tc", append([]string{"qdisc"}, args...)...); err != nil {
					t.Fatal(err)
				}
			}
			s := tr.begin()
			tc("replace", "dev", "eth0", "root", "tbf", "rate", "64kbit", "burst", "2000", "limit", "4000")
			time.Sleep(time.Second)
			lost := s.end(c.name + ", shut: A to B stalled")
			tc("del", "dev", "eth0", "root")
			if lost[0].lost == 0 {
				t.Errorf("A to B was not stalled")
			}
			atMost(t, "A to B stalled", [2]cost{1: lost[1]}, 0)
			tr.flows("after the stall")

			stop := flood(t, pair)
			s = tr.begin()
			time.Sleep(time.Second)
			lost = s.end(c.name + ", shut: A to B flooded")
			stop()
			// The flood takes processor time from the others, and room in B's queues
			// from nobody that goes to A.
			if lost[1].lost > lost[1].sent/2 {
				t.Errorf("A to B flooded: of %d probes from B to A %d were lost", lost[1].sent, lost[1].lost)
			}
			tr.flows("after the flood")
			tr.finish()
		})
	}
}

// TestR10_StalledReader has nobody read the kernel's tap for a while: what comes from
// the wire goes on, and what waited goes its way, in order, when the reader is back.
func TestR10_StalledReader(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	dev, err := ethtap.Open(ethtap.Options{Interface: "eth0", NetNS: pair.A.NetNSPath()})
	if err != nil {
		t.Fatal(err)
	}
	var pumps sync.WaitGroup
	defer pumps.Wait()
	defer dev.Close()
	tr := start(t, pair)
	s := tr.begin()
	if err := dev.SetStates(ethtap.Active, ethtap.Active); err != nil {
		t.Fatal(err)
	}
	copyFrames(t, &pumps, dev.Wire(), dev.Kernel())
	from := tr.probes[0].now()
	time.Sleep(500 * time.Millisecond)
	if n := tr.probes[0].arrived(from); n > 0 {
		t.Errorf("nobody reads the kernel's tap, and %d probes from A to B came", n)
	}
	copyFrames(t, &pumps, dev.Kernel(), dev.Wire())
	tr.flows("after the reader is back")
	// A queue holds 1000 frames, and those under way are fewer.
	atMost(t, "a reader stalled", s.end("copied: reader of the kernel's tap stalled for 500 ms"), 0)
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	tr.finish()
	tr.ordered()
}

// flood sends datagrams from A to B as fast as two goroutines can, until stopped.
func flood(t testing.TB, pair *netlab.Pair) (stop func()) {
	t.Helper()
	pc, err := pair.A.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(a4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			b := make([]byte, 1000)
			for {
				// Nobody listens there: B drops them, and says so now and then.
				if _, err := pc.WriteTo(b, &net.UDPAddr{IP: b4.AsSlice(), Port: 7009}); err != nil {
					return
				}
			}
		})
	}
	return func() { _ = pc.Close(); wg.Wait() }
}
