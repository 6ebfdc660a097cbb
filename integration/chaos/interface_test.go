package chaos

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/integration/netlab"
)

// TestR12_InterfaceChanges changes the interface of A under a protected flow: set down
// and up, its carrier lost, its MTU changed, an address added. The flow goes on after
// each and nothing of it is ever in the clear.
func TestR12_InterfaceChanges(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	boxes(t, pair, "shut", protect())
	c := watch(pair)
	tr := start(t, pair)
	on := func(n *netlab.Namespace, device string, f func(*netlink.Handle, netlink.Link) error) func() error {
		return func() error {
			l, err := n.Netlink().LinkByName(device)
			if err != nil {
				return err
			}
			return f(n.Netlink(), l)
		}
	}
	down, up := (*netlink.Handle).LinkSetDown, (*netlink.Handle).LinkSetUp
	mtu := func(octets int) func(*netlink.Handle, netlink.Link) error {
		return func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, octets) }
	}
	other := netip.MustParsePrefix("192.0.2.101/24")
	for _, event := range []struct {
		what     string
		do, undo func() error
		lost     int // at most; -1: as it comes
	}{
		{"down and up", on(&pair.A.Namespace, "eth0", down), on(&pair.A.Namespace, "eth0", up), -1},
		{"carrier lost", on(&pair.Wire.Namespace, "port-a", down), on(&pair.Wire.Namespace, "port-a", up), -1},
		{"MTU 1300 and back", on(&pair.A.Namespace, "eth0", mtu(1300)), on(&pair.A.Namespace, "eth0", mtu(1500)), 0},
		{"address added", func() error { return pair.A.AddAddrs("eth0", other) }, func() error { return nil }, 0},
	} {
		s := tr.begin()
		if err := event.do(); err != nil {
			t.Fatalf("%s: %v", event.what, err)
		}
		time.Sleep(200 * time.Millisecond)
		if err := event.undo(); err != nil {
			t.Fatalf("%s: %v", event.what, err)
		}
		tr.flows("after " + event.what)
		lost := s.end("ESP, shut: " + event.what)
		if event.lost >= 0 {
			atMost(t, event.what, lost, event.lost)
		}
	}
	tr.finish()
	tr.ordered()
	nothingClear(t, c)
	// The new address answers by the other policy, in the clear.
	eventually(t, "an answer of the added address", func() bool {
		r, err := netlab.Ping(deadline(t, patience), pair.B, other.Addr(), netlab.PingOptions{Timeout: 200 * time.Millisecond})
		return err == nil && r.Received == 1
	})
	if out, err := pair.A.Run(deadline(t, patience), "ip", "-br", "addr", "show", "dev", "eth0"); err != nil || !strings.Contains(out, a4.String()+"/24") {
		t.Errorf("addresses of A: %s, %v; expected the first one still there", out, err)
	}
}
