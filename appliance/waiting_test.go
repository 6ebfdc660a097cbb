package appliance

import (
	"testing"

	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

// TestR47_FramesWait fills the queue of each tap of an interface, with nobody to read it:
// frames wait for the engine while the tap is Active and the engine is to have them.
func TestR47_FramesWait(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	dev, err := ethtap.Open(ethtap.Options{Interface: "eth0", NetNS: pair.A.NetNSPath()})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	x := &taps{device: dev, gates: [2]*tapGate{newTapGate(), newTapGate()}}
	if x.waiting(0, 0) || x.waiting(1, 0) {
		t.Error("frames wait at a tap that is Closed")
	}
	for side, from := range []*netlab.Host{pair.A, pair.B} {
		states := [2]ethtap.State{}
		states[side] = ethtap.Active
		if err := dev.SetStates(states[0], states[1]); err != nil {
			t.Fatal(err)
		}
		to := map[*netlab.Host]string{pair.A: "192.0.2.2:7", pair.B: "192.0.2.1:7"}[from]
		c, err := from.Dial(t.Context(), "udp", to)
		if err != nil {
			t.Fatal(err)
		}
		soon(t, "a frame waits", func() bool {
			_, _ = c.Write([]byte("waits")) // what is refused is refused because nobody answers
			return x.waiting(side, 0)
		})
		_ = c.Close()
		if x.waiting(side, 1) {
			t.Error("frames wait in a queue that is not there")
		}
		x.gates[side].live.Store(false)
		if x.waiting(side, 0) {
			t.Error("frames wait for an engine that is to have none")
		}
	}
}
