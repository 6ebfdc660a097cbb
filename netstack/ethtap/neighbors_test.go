package ethtap

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
)

func closedNeighbors(d *Device) error {
	_, err := d.CorrectNeighbors(nil)
	if e := d.AskNeighborsAnew(); !errors.Is(e, ErrClosed) {
		return e
	}
	return err
}

// TestR48_NeighborsAreAskedAnew: what waits for a neighbour that was asked for while
// nothing passed goes on as soon as something does, and not with the kernel's next
// question, which is made to be long in coming.
func TestR48_NeighborsAreAskedAnew(t *testing.T) {
	for _, way := range []struct {
		name string
		open func(*testing.T, *host, *Device)
	}{
		{"device", func(t *testing.T, h *host, d *Device) {
			set(t, d, Closed, Closed)
			if err := d.AskNeighborsAnew(); err != nil {
				t.Fatal(err)
			}
		}},
		{"recover", func(t *testing.T, h *host, d *Device) {
			if err := d.Release(); err != nil {
				t.Fatal(err)
			}
			if err := Recover(h.options(Options{})); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			l := newLab(t)
			l.a.in(t, func() error {
				return errors.Join(
					os.WriteFile("/proc/sys/net/ipv4/neigh/eth0/retrans_time_ms", []byte("60000"), 0),
					os.WriteFile("/proc/sys/net/ipv6/neigh/eth0/retrans_time_ms", []byte("60000"), 0))
			})
			d := l.a.open(t, Options{OnFailure: FailShut})
			set(t, d, Active, Active)
			var to []*net.UDPConn
			for _, ends := range [][2]netip.Addr{{l.a.addr4, l.b.addr4}, {l.a.addr6, l.b.addr6}} {
				if err := l.a.nl.NeighDel(&netlink.Neigh{LinkIndex: l.a.index, IP: ends[1].AsSlice()}); err != nil {
					t.Fatal(err)
				}
				b := l.b.udp(t, ends[1])
				send(t, l.a.udp(t, ends[0]), b, "waits")
				to = append(to, b)
			}
			until(t, "the kernel to ask", func() bool {
				asked, err := l.a.nl.NeighListExecute(netlink.Ndmsg{Index: uint32(l.a.index), State: netlink.NUD_INCOMPLETE})
				return err == nil && len(asked) == len(to)
			})
			way.open(t, l.a, d)
			for _, b := range to {
				if got := next(t, b); got != "waits" {
					t.Errorf("%q arrived", got)
				}
			}
		})
	}
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
