//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const secret = "protected, not for the wire"

// tattler sends protected datagrams from a host without pause, over whatever eth0 it
// has, so that they also go in the moments between two states. Each says when it was sent.
type tattler struct {
	stop  chan struct{}
	wg    sync.WaitGroup
	tried atomic.Uint64
}

func tattle(t testing.TB, from, to *host) *tattler {
	t.Helper()
	x := &tattler{stop: make(chan struct{})}
	c := from.udp(t, netip.IPv4Unspecified())
	x.wg.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-x.stop:
				return
			default:
			}
			// With no interface, or a firewall's drop, this is an error.
			c.WriteToUDPAddrPort(ne.AppendUint64([]byte(secret), monotonic()), netip.AddrPortFrom(to.addr4, 9))
			x.tried.Add(1)
			if n%50 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	})
	t.Cleanup(x.end)
	return x
}

func (x *tattler) end() {
	if x.stop != nil {
		close(x.stop)
		x.wg.Wait()
		x.stop = nil
	}
}

// busy waits until some more datagrams have been handed to the kernel.
func (x *tattler) busy(t testing.TB) {
	t.Helper()
	n := x.tried.Load()
	until(t, "the sender", func() bool { return x.tried.Load() > n+100 })
}

// wire counts frames on all links of a host that hold the secret and were sent since, or are
// ARP.
type wire struct {
	stop         chan struct{}
	wg           sync.WaitGroup
	secrets, arp atomic.Uint64
}

func (h *host) listen(t testing.TB) *wire {
	t.Helper()
	w := &wire{stop: make(chan struct{})}
	since := monotonic()
	var fd int
	h.in(t, func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
		if err == nil {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
			unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		}
		return err
	})
	w.wg.Go(func() {
		defer unix.Close(fd)
		b := make([]byte, MaxFrame)
		for {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, _ := unix.Poll(fds, 10); n > 0 {
				n, err := unix.Read(fd, b)
				if err != nil {
					continue // a link went down
				}
				// What was sent before may have been on its way.
				if _, at, ok := bytes.Cut(b[:n], []byte(secret)); ok && (len(at) < 8 || ne.Uint64(at) >= since) {
					w.secrets.Add(1)
				}
				if n > 14 && b[12] == 0x08 && b[13] == 0x06 {
					w.arp.Add(1)
				}
				continue
			}
			select {
			case <-w.stop:
				return
			default:
			}
		}
	})
	t.Cleanup(func() { close(w.stop); w.wg.Wait() })
	return w
}

// rounds is how often an interface is created anew: ten times where the hook is the
// usual one.
func rounds(h Hook) int {
	if h == HookTCX {
		return 10
	}
	return 2
}

func (h *host) guard(t testing.TB) (kind GuardKind, index int) {
	t.Helper()
	h.in(t, func() error {
		kind, index = findGuard("eth0")
		return nil
	})
	return kind, index
}

// TestR07_CreatedAnewNothingLeaks deletes and creates the interface ten times under a
// sender, and lets the living device follow.
func TestR07_CreatedAnewNothingLeaks(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: h})
		if kind, err := d.Guard(); kind == GuardNone {
			missing(t, "no guard: %v", err)
		}
		set(t, d, Active, Active)
		w := l.b.listen(t)
		x := tattle(t, l.a, l.b)
		x.busy(t)
		for range rounds(h) {
			l.disconnect(t)
			if err := d.Follow(0); err != nil {
				t.Fatal(err)
			}
			former := l.a.index
			l.connect(t)
			x.busy(t) // only the guard is there
			if left, err := Left(l.a.options(Options{})); !errors.Is(err, ErrBusy) {
				t.Fatalf("Left while the device waits: %v, %v; expected ErrBusy", left, err)
			}
			if err := Recover(l.a.options(Options{})); !errors.Is(err, ErrBusy) {
				t.Fatalf("Recover while the device waits: %v, expected ErrBusy", err)
			}
			if err := d.Follow(l.a.index); err != nil {
				t.Fatal(err)
			}
			if i := d.Info(); i.Index != l.a.index || i.Index == former || !bytes.Equal(i.MAC, l.a.mac) {
				t.Fatalf("%+v, expected the index %d and the MAC %v", i, l.a.index, l.a.mac)
			}
			if _, index := l.a.guard(t); index != l.a.index {
				t.Fatalf("the guard is for index %d, expected %d", index, l.a.index)
			}
			x.busy(t) // and now the cut
		}
		if n := w.secrets.Load(); n != 0 {
			t.Errorf("%d frames leaked", n)
		}
		x.end()
		startPump(t, d)
		until(t, "room in the full queue", d.Kernel().idle)
		passes(t, l)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		passes(t, l)
		wantClean(t, l.a)
	})
}

// TestR07_CreatedAnewWithoutAProcess kills the process, creates the interface anew and
// starts the next process, again and again.
func TestR07_CreatedAnewWithoutAProcess(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		l := newLab(t)
		o := l.a.options(Options{Hook: h})
		p := startChild(t, childSpec{Options: o, Activate: true})
		if kind, _ := l.a.guard(t); kind == GuardNone {
			missing(t, "no guard")
		}
		w := l.b.listen(t)
		x := tattle(t, l.a, l.b)
		for range rounds(h) {
			p.kill()
			l.disconnect(t)
			if left, err := Left(o); !left || err != nil {
				t.Fatalf("Left with the interface gone: %v, %v", left, err)
			}
			l.connect(t)
			x.busy(t)
			if left, err := Left(o); !left || err != nil {
				t.Fatalf("Left with the interface created anew: %v, %v", left, err)
			}
			p = startChild(t, childSpec{Options: o})
			if p.says != "ready true Active Active" {
				t.Fatalf("the next process says %q", p.says)
			}
			x.busy(t)
		}
		if n := w.secrets.Load(); n != 0 {
			t.Errorf("%d frames leaked", n)
		}
		x.end()
		p.kill()
		p = startChild(t, childSpec{Options: o, Pump: true})
		passes(t, l)
		p.kill()
		l.disconnect(t)
		l.connect(t)
		if err := Recover(o); err != nil {
			t.Fatal(err)
		}
		passes(t, l)
		wantClean(t, l.a)
	})
}

// TestR07_RecoverAfterDeletion gives back what is left of an interface that is gone.
func TestR07_RecoverAfterDeletion(t *testing.T) {
	l := newLab(t)
	o := l.a.options(Options{})
	startChild(t, childSpec{Options: o, Activate: true}).kill()
	l.disconnect(t)
	if err := Recover(o); err != nil {
		t.Fatal(err)
	}
	if err := Recover(o); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Recover with nothing left: %v, expected ErrNoInterface", err)
	}
	if left, err := Left(o); left || !errors.Is(err, ErrNoInterface) {
		t.Errorf("Left with nothing left: %v, %v; expected ErrNoInterface", left, err)
	}
	l.connect(t)
	passes(t, l)
	wantClean(t, l.a)
}

// TestR07_TheGuardAloneIsEnough removes pins by hand while the interface is gone: the
// next process begins Active, behind the guard.
func TestR07_TheGuardAloneIsEnough(t *testing.T) {
	l := newLab(t)
	o := l.a.options(Options{})
	p := startChild(t, childSpec{Options: o, Activate: true})
	if kind, _ := l.a.guard(t); kind == GuardNone {
		missing(t, "no guard")
	}
	p.kill()
	l.disconnect(t)
	var st unix.Stat_t
	if err := unix.Fstat(int(l.a.ns.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(DefaultPinDir, key{st.Ino, l.a.index}.String())); err != nil {
		t.Fatal(err)
	}
	htap, ltap := tapNames(l.a.index)
	w := l.b.listen(t)
	x := tattle(t, l.a, l.b)
	l.connect(t)
	x.busy(t)
	if left, err := Left(o); !left || err != nil {
		t.Fatalf("Left: %v, %v", left, err)
	}
	d := l.a.open(t, Options{})
	if !d.TookOver() || d.Kernel().State() != Active || d.Wire().State() != Active {
		t.Errorf("took over %v, states %v and %v; expected Active", d.TookOver(), d.Kernel().State(), d.Wire().State())
	}
	x.busy(t)
	if n := w.secrets.Load(); n != 0 {
		t.Errorf("%d frames leaked", n)
	}
	x.end()
	l.a.in(t, func() error { return errors.Join(removeTap(l.a.nl, htap), removeTap(l.a.nl, ltap)) })
	d.Close()
	passes(t, l)
	wantClean(t, l.a)
}

// TestR07_GuardSeesWhatItSays looks at ARP and at what an interface carries that was
// renamed to a guarded name.
func TestR07_GuardSeesWhatItSays(t *testing.T) {
	for _, c := range []struct {
		kind GuardKind
		set  func(string, []string, int) error
	}{{GuardNetdev, setNetdevGuard}, {GuardINet, setINetGuard}} {
		t.Run(c.kind.String(), func(t *testing.T) {
			l := newLab(t)
			if c.kind == GuardNetdev {
				l.a.in(t, func() error {
					if !hasNamedHooks() {
						missing(t, "chains of the netdev family are not bound to names (Linux 6.16)")
					}
					return nil
				})
			}
			guard := func(index int) {
				l.a.in(t, func() error { return c.set("eth0", []string{"eth0", "wan"}, index) })
			}
			guard(l.a.index)
			passes(t, l)
			guard(l.a.index + 100)
			if kind, index := l.a.guard(t); kind != c.kind || index != l.a.index+100 {
				t.Errorf("found the guard %v for index %d", kind, index)
			}
			w := l.b.listen(t)
			x := tattle(t, l.a, l.b)
			x.busy(t)
			ask(t, l.a)
			rename(t, l.a, "wan")
			x.busy(t)
			if n := w.secrets.Load(); n != 0 {
				t.Errorf("%d frames leaked", n)
			}
			if c.kind == GuardNetdev && w.arp.Load() != 0 {
				t.Errorf("%d ARP frames passed", w.arp.Load())
			}
			x.end()
			rename(t, l.a, "eth0")
			l.a.in(t, func() error {
				was, err := removeGuard("eth0")
				if !was {
					t.Error("no guard was removed")
				}
				return err
			})
			passes(t, l)
		})
	}
}

// ask makes the kernel ask for a neighbour that it does not know.
func ask(t testing.TB, h *host) {
	t.Helper()
	c := h.udp(t, h.addr4)
	for range 10 {
		c.WriteToUDPAddrPort([]byte("who?"), netip.MustParseAddrPort("10.77.0.99:9"))
		time.Sleep(time.Millisecond)
	}
}

func rename(t testing.TB, h *host, name string) {
	t.Helper()
	eth, err := h.nl.LinkByIndex(h.index)
	if err == nil {
		err = renameLink(h.nl, eth, name)
	}
	if err != nil {
		t.Fatal(err)
	}
	// Kernels that want a link down for it forget the IPv6 addresses then.
	h.nl.AddrReplace(eth, &netlink.Addr{IPNet: &net.IPNet{IP: h.addr6.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD})
}

// TestR12_RenamedIsFollowed renames the interface, with a process and without.
func TestR12_RenamedIsFollowed(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: h})
		set(t, d, Active, Active)
		startPump(t, d)
		passes(t, l)
		rename(t, l.a, "wan")
		passes(t, l)
		if err := d.Follow(l.a.index); err != nil {
			t.Fatal(err)
		}
		if i := d.Info(); i.Name != "wan" {
			t.Errorf("the name is %q, expected wan", i.Name)
		}
		passes(t, l)
		if err := Recover(Options{Interface: "wan", NetNS: l.a.path}); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("Recover by the new name: %v, expected ErrBusy and the process", err)
		}
		if err := Recover(Options{Interface: "eth0", NetNS: l.a.path}); !errors.Is(err, ErrBusy) {
			t.Errorf("Recover by the old name: %v, expected ErrBusy", err)
		}
		// Left shut it is found by either name, and given back by either.
		for _, name := range []string{"wan", "eth0"} {
			if err := d.Release(); err != nil {
				t.Fatal(err)
			}
			for _, n := range []string{"wan", "eth0"} {
				if left, err := Left(Options{Interface: n, NetNS: l.a.path}); !left || err != nil {
					t.Errorf("Left by the name %s: %v, %v", n, left, err)
				}
			}
			if err := Recover(Options{Interface: name, NetNS: l.a.path}); err != nil {
				t.Fatal(err)
			}
			passes(t, l)
			rename(t, l.a, "eth0")
			wantClean(t, l.a)
			if name == "eth0" {
				return
			}
			d = l.a.open(t, Options{Hook: h})
			rename(t, l.a, "wan")
			if err := d.Follow(l.a.index); err != nil {
				t.Fatal(err)
			}
			set(t, d, Active, Active)
		}
	})
}

// TestR07_RenamedWithoutAProcess takes a cut over by the interface's new name.
func TestR07_RenamedWithoutAProcess(t *testing.T) {
	l := newLab(t)
	o := l.a.options(Options{})
	startChild(t, childSpec{Options: o, Activate: true}).kill()
	rename(t, l.a, "wan")
	if _, err := Open(o); !errors.Is(err, ErrNoInterface) {
		t.Errorf("Open by the old name: %v, expected ErrNoInterface", err)
	}
	o.Interface = "wan"
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if !d.TookOver() {
		t.Error("not taken over")
	}
	if kind, _ := l.a.guard(t); kind != GuardNone {
		t.Error("the guard of the old name is still there")
	}
	startPump(t, d)
	passes(t, l)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	rename(t, l.a, "eth0")
	wantClean(t, l.a)
}

// TestR07_GuardComesBack removes the guard as reloading a firewall does.
func TestR07_GuardComesBack(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	kind, err := d.Guard()
	if kind == GuardNone {
		missing(t, "no guard: %v", err)
	}
	if restored, err := d.CheckGuard(); restored || err != nil {
		t.Errorf("CheckGuard: %v, %v; nothing was removed", restored, err)
	}
	l.a.in(t, func() error { _, err := removeGuard("eth0"); return err })
	if restored, err := d.CheckGuard(); !restored || err != nil {
		t.Errorf("CheckGuard: %v, %v; expected it to be restored", restored, err)
	}
	if found, index := l.a.guard(t); found != kind || index != l.a.index {
		t.Errorf("the guard is %v for index %d", found, index)
	}
}

// TestR07_OpenHasNoGuard follows under FailOpen too, where nothing keeps an interface
// shut that is not cut.
func TestR07_OpenHasNoGuard(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{OnFailure: FailOpen})
	if kind, err := d.Guard(); kind != GuardNone || err != nil {
		t.Errorf("guard %v, %v", kind, err)
	}
	set(t, d, Active, Active)
	startPump(t, d)
	passes(t, l)
	l.disconnect(t)
	if err := d.Follow(0); err != nil {
		t.Fatal(err)
	}
	l.connect(t)
	passes(t, l) // direct
	if err := d.Follow(l.a.index); err != nil {
		t.Fatal(err)
	}
	before := d.Kernel().frames.Load()
	passes(t, l)
	if d.Kernel().frames.Load() == before {
		t.Error("nothing went by the taps")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	wantClean(t, l.a)
}

// TestR07_TheIndexComesBack: an interface that was away may have the index by which the
// guard knew it, without the programs.
func TestR07_TheIndexComesBack(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		for _, away := range []string{"deleted", "in another namespace"} {
			t.Run(away, func(t *testing.T) {
				l := newLab(t)
				d := l.a.open(t, Options{Hook: h})
				if kind, err := d.Guard(); kind == GuardNone {
					missing(t, "no guard: %v", err)
				}
				set(t, d, Active, Active)
				w, index := l.b.listen(t), l.a.index
				back := func() { l.connectAs(t, index) }
				if away == "deleted" {
					l.disconnect(t)
				} else {
					c := newHost(t, labs.Add(1), "c", 1)
					back = func() {
						l.a.takes(t, c)
						l.a.setUp(t)
						l.linked(t)
						l.a.knows(t, l.b)
					}
					c.takes(t, l.a)
				}
				if err := d.Follow(0); err != nil {
					t.Fatal(err)
				}
				back()
				if l.a.index != index {
					t.Fatalf("the index is %d, expected %d", l.a.index, index)
				}
				x := tattle(t, l.a, l.b)
				x.busy(t) // only the guard is there
				if err := d.Follow(index); err != nil {
					t.Fatal(err)
				}
				x.busy(t)
				if n := w.secrets.Load(); n != 0 {
					t.Errorf("%d frames leaked", n)
				}
				x.end()
				startPump(t, d)
				until(t, "room in the full queue", d.Kernel().idle)
				passes(t, l)
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				passes(t, l)
				wantClean(t, l.a)
			})
		}
	})
}

// TestR07_ProgramsComeBack takes them off as others do who have a use for the qdisc.
func TestR07_ProgramsComeBack(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{Hook: HookCLSACT})
	set(t, d, Active, Active)
	startPump(t, d)
	for _, name := range []string{"eth0", d.Info().KernelTap, d.Info().WireTap} {
		if restored, err := d.CheckCut(); restored || err != nil {
			t.Fatalf("CheckCut: %v, %v; nothing was taken off", restored, err)
		}
		dev, err := l.a.nl.LinkByName(name)
		if err == nil {
			err = l.a.nl.QdiscDel(clsactQdisc(dev.Attrs().Index))
		}
		if err != nil {
			t.Fatal(err)
		}
		if restored, err := d.CheckCut(); !restored || err != nil {
			t.Fatalf("CheckCut without the programs of %s: %v, %v", name, restored, err)
		}
		before := d.Wire().frames.Load()
		passes(t, l)
		if d.Wire().frames.Load() == before {
			t.Errorf("nothing goes by the taps after the programs of %s were taken off", name)
		}
	}
	l.disconnect(t)
	if restored, err := d.CheckCut(); restored || err != nil {
		t.Errorf("CheckCut without the interface: %v, %v", restored, err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.CheckCut(); !errors.Is(err, ErrClosed) {
		t.Errorf("CheckCut of a closed device: %v", err)
	}
}

// TestR04_TapsComeBack sets them down as a network manager may, and takes one away.
func TestR04_TapsComeBack(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	p := startPump(t, d)
	for _, name := range []string{d.Info().KernelTap, d.Info().WireTap} {
		if restored, err := d.CheckTaps(); restored || err != nil {
			t.Fatalf("CheckTaps: %v, %v; both are up", restored, err)
		}
		tap, err := l.a.nl.LinkByName(name)
		if err == nil {
			err = l.a.nl.LinkSetDown(tap)
		}
		if err != nil {
			t.Fatal(err)
		}
		if restored, err := d.CheckTaps(); !restored || err != nil {
			t.Fatalf("CheckTaps with %s down: %v, %v", name, restored, err)
		}
		passes(t, l)
	}
	set(t, d, Closed, Closed)
	p.wg.Wait()
	set(t, d, Active, Active)
	tap, err := l.a.nl.LinkByName(d.Info().KernelTap)
	if err == nil {
		err = l.a.nl.LinkDel(tap)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.CheckTaps(); !errors.Is(err, ErrNoTap) {
		t.Errorf("CheckTaps without %s: %v", d.Info().KernelTap, err)
	}
	// Left shut, it is taken over with taps that are whole.
	if err := d.Release(); err != nil {
		t.Error(err)
	}
	d = l.a.open(t, Options{})
	if !d.TookOver() {
		t.Error("the interface was not left shut")
	}
	startPump(t, d)
	passes(t, l)
}

// takes moves eth0 from another host's namespace.
func (h *host) takes(t testing.TB, from *host) {
	t.Helper()
	eth, err := from.nl.LinkByName("eth0")
	if err == nil {
		err = from.nl.LinkSetNsFd(eth, int(h.ns.Fd()))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestR07_MovedToAnotherNamespace: the interface takes the programs with it, which let
// nothing pass there, and is cut as before when it is back.
func TestR07_MovedToAnotherNamespace(t *testing.T) {
	l := newLab(t)
	c := newHost(t, labs.Add(1), "c", 1)
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	eth, err := l.a.nl.LinkByIndex(l.a.index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.a.nl.LinkSetNsFd(eth, int(c.ns.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := d.Follow(0); err != nil {
		t.Fatal(err)
	}
	w := l.b.listen(t)
	c.setUp(t)
	c.linked(t, c.index)
	c.knows(t, l.b)
	x := tattle(t, c, l.b)
	x.busy(t)
	if n := w.secrets.Load(); n != 0 {
		t.Errorf("%d frames leaked", n)
	}
	x.end()
	if eth, err = c.nl.LinkByIndex(c.index); err != nil {
		t.Fatal(err)
	}
	if err := c.nl.LinkSetNsFd(eth, int(l.a.ns.Fd())); err != nil {
		t.Fatal(err)
	}
	l.a.setUp(t)
	l.linked(t)
	l.a.knows(t, l.b)
	if err := d.Follow(l.a.index); err != nil {
		t.Fatal(err)
	}
	startPump(t, d)
	passes(t, l)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	passes(t, l)
	wantClean(t, l.a)
}
