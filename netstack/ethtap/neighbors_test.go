package ethtap

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

func closedNeighbors(d *Device) error {
	_, err := d.CorrectNeighbors(nil)
	return err
}

// TestCorrectNeighbors: of the entries those that hold the interface's own address get
// the one that is known, or go; the others stay.
func TestCorrectNeighbors(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	other, known := net.HardwareAddr{2, 0, 0, 0, 0, 7}, net.HardwareAddr{2, 0, 0, 0, 0, 8}
	entries := []struct {
		ip        string
		mac       net.HardwareAddr
		state     int
		flags     int
		want      net.HardwareAddr // nil: deleted
		wantState int
	}{
		{"10.77.0.90", l.a.mac, netlink.NUD_STALE, 0, nil, 0},
		{"fd77::90", l.a.mac, netlink.NUD_REACHABLE, 0, nil, 0},
		{"10.77.0.91", l.a.mac, netlink.NUD_REACHABLE, 0, known, netlink.NUD_STALE},
		{"fd77::91", l.a.mac, netlink.NUD_STALE, netlink.NTF_ROUTER, known, netlink.NUD_STALE},
		{"10.77.0.92", other, netlink.NUD_STALE, 0, other, netlink.NUD_STALE},
		{"fd77::93", l.a.mac, netlink.NUD_PERMANENT, 0, l.a.mac, netlink.NUD_PERMANENT},
	}
	for _, e := range entries {
		if err := l.a.nl.NeighSet(&netlink.Neigh{LinkIndex: l.a.index, IP: netip.MustParseAddr(e.ip).AsSlice(), HardwareAddr: e.mac, State: e.state, Flags: e.flags}); err != nil {
			t.Fatal(err)
		}
	}
	truth := func(a netip.Addr) (net.HardwareAddr, bool) {
		s := a.String()
		return known, s == "10.77.0.91" || s == "fd77::91"
	}
	found, err := d.CorrectNeighbors(truth)
	if err != nil || found != 4 {
		t.Fatalf("%d found, %v; expected 4", found, err)
	}
	ns, err := l.a.nl.NeighList(l.a.index, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var is *netlink.Neigh
		for i := range ns {
			if ns[i].IP.Equal(netip.MustParseAddr(e.ip).AsSlice()) && ns[i].State != netlink.NUD_FAILED {
				is = &ns[i]
			}
		}
		switch {
		case e.want == nil && is != nil:
			t.Errorf("%s is still there, state %#x", e.ip, is.State)
		case e.want != nil && (is == nil || !bytes.Equal(is.HardwareAddr, e.want) || is.State != e.wantState || is.Flags != e.flags):
			t.Errorf("%s is %+v; expected %v in state %#x", e.ip, is, e.want, e.wantState)
		}
	}
	if found, err := d.CorrectNeighbors(truth); err != nil || found != 0 {
		t.Errorf("once more: %d found, %v", found, err)
	}
}
