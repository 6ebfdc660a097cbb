//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// row is three namespaces: a host behind a box, whose eth1 it is on, and a peer on the
// box's eth0. The box has addresses of both networks on both, which must not matter.
type row struct {
	lab
	box *host
}

func newRow(t testing.TB) *row {
	t.Helper()
	if err := errors.Join(checkCapabilities(), checkTUN()); err != nil {
		missing(t, "%v", err)
	}
	n := labs.Add(1)
	r := &row{lab: lab{a: newHost(t, n, "a", 1), b: newHost(t, n, "b", 2)}, box: newHost(t, n, "x", 3)}
	r.plug(t, inside)
	r.plug(t, outside)
	r.know(t)
	t.Cleanup(func() { Remove(r.options(Options{})) })
	return r
}

// know gives who sends the neighbour entries of those it sends to for good. Without, its
// socket waits for room until the kernel gives up asking.
func (r *row) know(t testing.TB) {
	t.Helper()
	r.a.knows(t, r.b)
	r.b.knows(t, r.a)
	r.box.knows(t, r.b)
}

// plug makes the veth of one side of the box, and unplug deletes it.
func (r *row) plug(t testing.TB, side int) {
	t.Helper()
	h := []*host{outside: r.b, inside: r.a}[side]
	la := netlink.NewLinkAttrs()
	la.Name = sideNames[side]
	if err := r.box.nl.LinkAdd(&netlink.Veth{LinkAttrs: la, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.ns.Fd())}); err != nil {
		missing(t, "make a veth: %v", err)
	}
	h.setUp(t)
	if side == outside {
		r.box.setUp(t)
	} else if err := r.box.nl.LinkSetUp(r.link(t, side)); err != nil {
		t.Fatal(err)
	}
	h.linked(t, h.index)
	r.box.linked(t, r.link(t, side).Attrs().Index)
}

func (r *row) unplug(t testing.TB, side int) {
	t.Helper()
	if err := r.box.nl.LinkDel(r.link(t, side)); err != nil {
		t.Fatal(err)
	}
}

var sideNames = []string{outside: "eth0", inside: "eth1"}

func (r *row) link(t testing.TB, side int) netlink.Link {
	t.Helper()
	l, err := r.box.nl.LinkByName(sideNames[side])
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (r *row) options(o Options) Options {
	o = r.box.options(o)
	o.Inside = "eth1"
	return o
}

func (r *row) open(t testing.TB, o Options) *Device {
	t.Helper()
	o.Inside = "eth1"
	return r.box.open(t, o)
}

// traces lists what is left on either interface of the box.
func (r *row) traces(t testing.TB) []string {
	t.Helper()
	in, err := r.box.nl.LinkByName("eth1")
	if err != nil {
		t.Fatal(err)
	}
	inside := *r.box
	inside.index = in.Attrs().Index
	var found []string
	for _, s := range append(r.box.traces(t), inside.traces(t)...) {
		if s != "link eth1" {
			found = append(found, s)
		}
	}
	for side, name := range sideNames {
		if r.link(t, side).Attrs().Promisc != 0 {
			found = append(found, name+" promiscuous")
		}
	}
	r.box.in(t, func() error {
		if kind, _ := findGuard("eth1"); kind != GuardNone {
			found = append(found, "guard of eth1")
		}
		return nil
	})
	return found
}

// severed checks that the box's kernel neither hears the host nor reaches the peer.
func (r *row) severed(t *testing.T, d *Device) {
	t.Helper()
	ub := r.b.udp(t, r.b.addr4)
	ux := r.box.udp(t, r.box.addr4)
	r.b.knows(t, r.box)
	r.box.knows(t, r.b)
	raw := r.box.raw(t)
	for range 5 {
		ux.WriteToUDPAddrPort([]byte("from the box"), addrOf(ub)) // may tell of the drop
		send(t, ub, ux, "to the box")
		unix.Write(raw.fd, frame(r.box.mac, r.b.mac, 7, 100))
	}
	for _, c := range []*net.UDPConn{ub, ux} {
		if s, err := nextWithin(c, 100*time.Millisecond); err == nil {
			t.Errorf("%q crosses between the peer and the kernel of the box", s)
		}
	}
	if d == nil {
		return
	}
	if s, err := d.Wire().Stats(); err != nil || s.Own < 10 {
		t.Errorf("stats %+v, %v: what the box's own kernel sent is not counted", s, err)
	}
}

func TestR13_ClosedJoinsTheTwo(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		d := r.open(t, Options{Hook: hook})
		if i := d.Info(); i.Name != "eth0" || i.Inside != "eth1" || i.InsideIndex == i.Index || len(i.InsideMAC) != 6 || bytes.Equal(i.MAC, i.InsideMAC) {
			t.Errorf("info %+v", i)
		}
		passes(t, &r.lab)
		r.severed(t, d)
		for _, addr := range []func(*host) netip.Addr{addr4, addr6} {
			transfer(t, r.a, r.b, addr)
			transfer(t, r.b, r.a, addr)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}

func TestR13_PassiveCopiesActiveSeversAndACopyLoopJoins(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		d := r.open(t, Options{Hook: hook})
		set(t, d, Passive, Passive)
		ra, rb := r.a.raw(t), r.b.raw(t)
		for i := range 30 {
			f := frame(r.a.mac, r.b.mac, i, 60+i*40)
			ra.send(t, f)
			rb.want(t, f)
			if got := readTest(t, d.Kernel()); !bytes.Equal(got, f) {
				t.Fatalf("the copy of %x is %x", head(f), head(got))
			}
			f = frame(r.b.mac, r.a.mac, 1000+i, 60+i*40)
			rb.send(t, f)
			ra.want(t, f)
			if got := readTest(t, d.Wire()); !bytes.Equal(got, f) {
				t.Fatalf("the copy of %x is %x", head(f), head(got))
			}
		}
		if _, err := d.Kernel().Write(withHeader(frame(r.b.mac, r.a.mac, 1, 100))); !errors.Is(err, ErrPassive) {
			t.Errorf("a write to a Passive tap: %v", err)
		}

		set(t, d, Active, Active)
		for i := range 30 {
			f, w := frame(r.a.mac, r.b.mac, i, 200), frame(r.a.mac, r.b.mac, 100+i, 300)
			ra.send(t, f)
			if got := readTest(t, d.Kernel()); !bytes.Equal(got, f) {
				t.Fatalf("read %x, expected %x", head(got), head(f))
			}
			if _, err := d.Wire().Write(withHeader(w)); err != nil {
				t.Fatal(err)
			}
			rb.want(t, w) // and not f
			f, w = frame(r.b.mac, r.a.mac, i, 200), frame(r.b.mac, r.a.mac, 100+i, 300)
			rb.send(t, f)
			if got := readTest(t, d.Wire()); !bytes.Equal(got, f) {
				t.Fatalf("read %x, expected %x", head(got), head(f))
			}
			if _, err := d.Kernel().Write(withHeader(w)); err != nil {
				t.Fatal(err)
			}
			ra.want(t, w)
		}
		r.severed(t, d)

		p := startPump(t, d)
		passes(t, &r.lab)
		for _, addr := range []func(*host) netip.Addr{addr4, addr6} {
			transfer(t, r.a, r.b, addr)
			transfer(t, r.b, r.a, addr)
		}
		if n := p.longest.Load(); n < 10000 {
			t.Errorf("the longest frame read had %d octets; expected superframes", n)
		}
		r.severed(t, d)
	})
}

func TestR07_R13_KilledShutNothingPassesUntilTakeover(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		ua, ub := r.a.udp(t, r.a.addr4), r.b.udp(t, r.b.addr4)
		first := startChild(t, childSpec{Options: r.options(Options{Hook: hook}), Activate: true, Pump: true})
		probe(t, ua, ub, "out")
		for _, o := range []Options{r.options(Options{}), r.box.options(Options{Interface: "eth0"})} {
			if _, err := Open(o); !errors.Is(err, ErrBusy) {
				t.Fatalf("a second Open: %v, expected ErrBusy", err)
			}
		}
		first.kill()
		for range 50 {
			send(t, ub, ua, "leak in")
			ua.WriteToUDPAddrPort([]byte("leak out"), addrOf(ub))
		}
		r.severed(t, nil)

		// It is not what one interface alone could be taken over from, nor the inside.
		for _, o := range []Options{{Interface: "eth0"}, {Interface: "eth1"}, {Interface: "eth1", Inside: "eth0"}} {
			o.NetNS = r.box.path
			if _, err := Open(o); !errors.Is(err, ErrOccupied) {
				t.Errorf("Open of %q and inside %q: %v, expected ErrOccupied", o.Interface, o.Inside, err)
			}
		}
		if err := Recover(Options{Interface: "eth1", NetNS: r.box.path}); !errors.Is(err, ErrOccupied) {
			t.Errorf("Recover of the inside: %v, expected ErrOccupied", err)
		}

		second := startChild(t, childSpec{Options: r.options(Options{}), Pump: true})
		if want := "ready true Active Active"; second.says != want {
			t.Fatalf("the second process says %q, expected %q", second.says, want)
		}
		probeOnly(t, ua, ub, "after")
		probeOnly(t, ub, ua, "takeover")

		second.kill()
		o := r.options(Options{})
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		probeOnly(t, ua, ub, "recovered out")
		probeOnly(t, ub, ua, "recovered in")
		r.severed(t, nil)
		d, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		if d.TookOver() || d.Kernel().State() != Closed {
			t.Errorf("took over %v, kernel tap %v: it was left open", d.TookOver(), d.Kernel().State())
		}
		if err := d.Leave(); err != nil {
			t.Error(err)
		}
		probeOnly(t, ua, ub, "left open")
		if err := Remove(o); err != nil {
			t.Error(err)
		}
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}

func TestR07_R13_KilledOpenTheFlowIsDirect(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		ua, ub := r.a.udp(t, r.a.addr4), r.b.udp(t, r.b.addr4)
		o := r.options(Options{Hook: hook, OnFailure: FailOpen, DeadMan: 400 * time.Millisecond})
		for range 2 { // the second takes over what the first left open
			p := startChild(t, childSpec{Options: o, Activate: true, Pump: true})
			if want := "ready false Active Active"; p.says != want {
				t.Fatalf("the process says %q, expected %q", p.says, want)
			}
			probe(t, ua, ub, "out")
			p.kill()
			probe(t, ua, ub, "out again")
			probe(t, ub, ua, "in again")
			passes(t, &r.lab)
			r.severed(t, nil)
		}
		// A hung one counts as dead.
		p := startChild(t, childSpec{Options: o, Activate: true})
		p.cmd.Process.Signal(unix.SIGSTOP)
		probe(t, ua, ub, "past it")
		probe(t, ub, ua, "past it")
		p.kill()

		// What was left open can be shut from now on.
		shut := startChild(t, childSpec{Options: r.options(Options{Hook: hook}), Activate: true, Pump: true})
		probe(t, ua, ub, "by the loop")
		shut.kill()
		for range 20 {
			send(t, ub, ua, "leak in")
			ua.WriteToUDPAddrPort([]byte("leak out"), addrOf(ub))
		}
		// And what was left shut be opened.
		last := startChild(t, childSpec{Options: o, Pump: true})
		if want := "ready true Active Active"; last.says != want {
			t.Fatalf("the process says %q, expected %q", last.says, want)
		}
		probeOnly(t, ua, ub, "not a leak")
		probeOnly(t, ub, ua, "not a leak")
		last.end(t)
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}

// TestR13_DrainLosesNothing: a flow becomes direct, and each datagram comes once, in order
// unless the readers were behind for longer than a drain waits.
func TestR13_DrainLosesNothing(t *testing.T) {
	r := newRow(t)
	d := r.open(t, Options{DrainTimeout: patience})
	set(t, d, Active, Active)
	startPump(t, d)
	ua, ub := r.a.udp(t, r.a.addr4), r.b.udp(t, r.b.addr4)
	const n = 2000
	var come atomic.Int64
	go func() {
		for i := range n {
			for int64(i) >= come.Load()+mostUnderWay && t.Context().Err() == nil {
				time.Sleep(time.Millisecond)
			}
			ua.WriteToUDPAddrPort([]byte{byte(i), byte(i >> 8)}, addrOf(ub))
			time.Sleep(50 * time.Microsecond)
		}
	}()
	var took time.Duration
	ended := make(chan error, 1)
	go func() {
		time.Sleep(20 * time.Millisecond)
		begun := time.Now()
		err := d.Leave()
		took = time.Since(begun)
		ended <- err
	}()
	seen, astray := make(map[string]bool), 0
	for i := range n {
		got := next(t, ub)
		if seen[got] {
			t.Fatalf("datagram %x came twice", got)
		}
		seen[got] = true
		if got != string([]byte{byte(i), byte(i >> 8)}) {
			astray++
		}
		come.Add(1)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if astray > 0 && took < handOverTime {
		t.Errorf("%d datagrams came out of order", astray)
	}
}

// anew are the sides whose interface is deleted and created anew, one after the other and
// both at once.
var anew = [][]int{{inside}, {outside}, {inside, outside}}

// TestR13_R07_CreatedAnewIsFollowed deletes NICs and makes them anew while the box's
// kernel and the host send without pause: nothing leaks, the living device follows, and
// its taps and readers go on.
func TestR13_R07_CreatedAnewIsFollowed(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		d := r.open(t, Options{Hook: hook})
		if kind, err := d.Guard(); kind == GuardNone {
			missing(t, "no guard: %v", err)
		}
		set(t, d, Active, Active)
		for _, sides := range anew {
			w := r.b.listen(t)
			senders := []*tattler{tattle(t, r.box, r.b), tattle(t, r.a, r.b)}
			busy := func() {
				for _, x := range senders {
					x.busy(t)
				}
			}
			busy()
			for _, side := range sides {
				r.unplug(t, side)
				if err := d.followSide(side, 0); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Handover(); !errors.Is(err, ErrNoInterface) {
					t.Errorf("a handover with %s gone: %v", sideNames[side], err)
				}
			}
			for _, side := range sides {
				r.plug(t, side)
			}
			r.know(t)
			busy() // only the guards are there
			if err := Recover(r.options(Options{})); !errors.Is(err, ErrBusy) && !errors.Is(err, ErrOccupied) {
				t.Fatalf("Recover while the device waits: %v", err)
			}
			for _, side := range sides {
				l := r.link(t, side).Attrs()
				if err := d.followSide(side, l.Index); err != nil {
					t.Fatal(err)
				}
				r.box.in(t, func() error {
					if kind, index := findGuard(sideNames[side]); kind == GuardNone || index != l.Index {
						t.Errorf("the guard of %s is %v for index %d, expected %d", sideNames[side], kind, index, l.Index)
					}
					return nil
				})
			}
			i := d.Info()
			if in, out := r.link(t, inside).Attrs(), r.link(t, outside).Attrs(); i.Index != out.Index || i.InsideIndex != in.Index ||
				!bytes.Equal(i.MAC, out.HardwareAddr) || !bytes.Equal(i.InsideMAC, in.HardwareAddr) || in.Promisc != 1 || out.Promisc != 1 {
				t.Errorf("%+v, promiscuous %d and %d; expected the interfaces %+v and %+v", i, in.Promisc, out.Promisc, in, out)
			}
			busy() // and now the cut
			if n := w.secrets.Load(); n != 0 {
				t.Errorf("%v created anew: %d frames leaked", sides, n)
			}
			for _, x := range senders {
				x.end()
			}
			set(t, d, Closed, Closed)
			passes(t, &r.lab)
			set(t, d, Active, Active)
			r.severed(t, d)
		}
		startPump(t, d)
		passes(t, &r.lab)
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}

// TestR13_R07_CreatedAnewWithoutAProcess is the same with nobody there; the next process
// takes over.
func TestR13_R07_CreatedAnewWithoutAProcess(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		r := newRow(t)
		o := r.options(Options{Hook: hook})
		p := startChild(t, childSpec{Options: o, Activate: true})
		for _, sides := range anew {
			w := r.b.listen(t)
			senders := []*tattler{tattle(t, r.box, r.b), tattle(t, r.a, r.b)}
			p.kill()
			for _, side := range sides {
				r.unplug(t, side)
			}
			for _, side := range sides {
				r.plug(t, side)
			}
			r.know(t)
			for _, x := range senders {
				x.busy(t)
			}
			p = startChild(t, childSpec{Options: o})
			if p.says != "ready true Active Active" {
				t.Fatalf("%v created anew: the next process says %q", sides, p.says)
			}
			for _, x := range senders {
				x.busy(t)
				x.end()
			}
			if n := w.secrets.Load(); n != 0 {
				t.Errorf("%v created anew: %d frames leaked", sides, n)
			}
		}
		p.kill()
		p = startChild(t, childSpec{Options: o, Pump: true})
		passes(t, &r.lab)
		p.kill()
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		passes(t, &r.lab)
		// Of two of which one is another since there is no flow to give back.
		r.unplug(t, inside)
		r.plug(t, inside)
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		if joined, err := Joined(o); joined || err != nil {
			t.Errorf("joined %v, %v", joined, err)
		}
		if tr := r.traces(t); len(tr) > 0 {
			t.Errorf("left behind: %v", tr)
		}
	})
}

func TestR13_OpenRefuses(t *testing.T) {
	r := newRow(t)
	for _, test := range []struct {
		o    Options
		want error
	}{
		{Options{Interface: "eth0", Inside: "eth0"}, ErrOccupied},
		{Options{Interface: "eth0", Inside: "eth9"}, ErrNoInterface},
		{Options{Interface: "eth0", Inside: "lo"}, ErrNotEthernet},
	} {
		test.o.NetNS = r.box.path
		if _, err := Open(test.o); !errors.Is(err, test.want) {
			t.Errorf("%+v: %v, expected %v", test.o, err, test.want)
		}
	}
	// What an administrator set stays.
	l, err := r.box.nl.LinkByName("eth1")
	if err == nil {
		err = r.box.nl.SetPromiscOn(l)
	}
	if err != nil {
		t.Fatal(err)
	}
	d := r.open(t, Options{})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if l, err = r.box.nl.LinkByName("eth1"); err != nil || l.Attrs().Promisc != 1 {
		t.Errorf("promiscuous %d, %v", l.Attrs().Promisc, err)
	}
}
