//go:build linux

package ethtap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestR07_KilledShutNothingPassesUntilTakeover(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		t.Cleanup(func() { Recover(l.a.options(Options{})) })
		ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
		o := l.a.options(Options{Hook: hook})

		first := startChild(t, childSpec{Options: o, Activate: true, Pump: true})
		if want := "ready false Active Active"; first.says != want {
			t.Fatalf("the first process says %q, expected %q", first.says, want)
		}
		probe(t, ua, ub, "out")
		probe(t, ub, ua, "in")
		if _, err := Open(o); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(first.cmd.Process.Pid)) {
			t.Fatalf("a second Open: %v, expected ErrBusy and pid %d", err, first.cmd.Process.Pid)
		}
		if err := Recover(o); !errors.Is(err, ErrBusy) {
			t.Fatalf("Recover of a live device: %v, expected ErrBusy", err)
		}

		first.kill()
		// From here to the end of this block no frame may cross. Whatever is sent
		// now would arrive before what the second process lets through.
		ra, rb := l.a.raw(t), l.b.raw(t)
		for i := range 50 {
			unix.Write(ra.fd, frame(l.a.mac, l.b.mac, i, 100)) // ENOBUFS tells of the drop
			send(t, ub, ua, "leak in")
			ua.WriteToUDPAddrPort([]byte("leak out"), addrOf(ub))
		}

		second := startChild(t, childSpec{Options: l.a.options(Options{}), Pump: true})
		if want := "ready true Active Active"; second.says != want {
			t.Fatalf("the second process says %q, expected %q", second.says, want)
		}
		last := frame(l.a.mac, l.b.mac, 1000, 100)
		ra.send(t, last)
		rb.want(t, last)
		for _, way := range [][2]int{{0, 1}, {1, 0}} {
			s := []string{"after", "takeover"}[way[0]]
			from, to := ua, ub
			if way[0] == 1 {
				from, to = ub, ua
			}
			send(t, from, to, s)
			if got := next(t, to); got != s {
				t.Errorf("%q arrives, expected %q: something passed while shut", got, s)
			}
		}
		second.end(t)
		wantClean(t, l.a)
		passes(t, l)
	})
}

func TestR07_KilledOpenTheFlowReturns(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		t.Cleanup(func() { Recover(l.a.options(Options{})) })
		ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
		o := l.a.options(Options{Hook: hook, OnFailure: FailOpen, DeadMan: 400 * time.Millisecond})
		p := startChild(t, childSpec{Options: o, Activate: true, Pump: true})
		probe(t, ua, ub, "out")
		p.kill()
		probe(t, ua, ub, "out again")
		probe(t, ub, ua, "in again")
		passes(t, l)

		// The next process starts afresh, and takes nothing for a takeover.
		d := l.a.open(t, Options{OnFailure: FailOpen})
		if d.TookOver() || d.Kernel().State() != Closed {
			t.Errorf("took over %v, kernel tap %v", d.TookOver(), d.Kernel().State())
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		wantClean(t, l.a)
	})
}

func TestR07_HungOpenTheFlowReturns(t *testing.T) {
	l := newLab(t)
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	o := l.a.options(Options{OnFailure: FailOpen, DeadMan: 200 * time.Millisecond})
	p := startChild(t, childSpec{Options: o, Activate: true})
	p.cmd.Process.Signal(unix.SIGSTOP)
	probe(t, ua, ub, "out")
	probe(t, ub, ua, "in")
	p.cmd.Process.Signal(unix.SIGCONT)
	p.end(t)
	wantClean(t, l.a)
}

func TestR07_RecoverByHand(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		p := startChild(t, childSpec{Options: l.a.options(Options{Hook: hook}), Activate: true})
		p.kill()
		if len(l.a.traces(t)) == 0 {
			t.Error("a killed process left nothing: the interface is open")
		}
		for range 2 { // the second finds nothing to do
			if err := Recover(l.a.options(Options{})); err != nil {
				t.Fatal(err)
			}
		}
		wantClean(t, l.a)
		passes(t, l)
	})
}

func TestR07_ReleaseLeavesItShut(t *testing.T) {
	l := newLab(t)
	t.Cleanup(func() { Recover(l.a.options(Options{})) })
	p := startChild(t, childSpec{Options: l.a.options(Options{}), Activate: true, Pump: true, Release: true})
	p.end(t)

	// What another process left shut can be taken over open, too.
	d := l.a.open(t, Options{OnFailure: FailOpen})
	if !d.TookOver() || d.Kernel().State() != Active || d.Wire().State() != Active {
		t.Fatalf("took over %v, states %v %v", d.TookOver(), d.Kernel().State(), d.Wire().State())
	}
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	pu := startPump(t, d)
	probe(t, ua, ub, "out")
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	pu.wg.Wait()
	wantClean(t, l.a)
}

// TestTakeoverAfterPartialLoss: pins or taps that an operator removed are made
// again, and the states stay.
func TestTakeoverAfterPartialLoss(t *testing.T) {
	l := newLab(t)
	t.Cleanup(func() { Recover(l.a.options(Options{})) })
	p := startChild(t, childSpec{Options: l.a.options(Options{}), Activate: true})
	p.kill()
	ns, ino, err := openNamespace(l.a.path)
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	if err := os.Remove(pinPath("", key{ino, l.a.index}) + "/eth_in"); err != nil {
		t.Fatal(err)
	}
	_, ltap := tapNames(l.a.index)
	if err := removeTap(l.a.nl, ltap); err != nil {
		t.Fatal(err)
	}
	d := l.a.open(t, Options{})
	if !d.TookOver() || d.Wire().State() != Active {
		t.Fatalf("took over %v, wire tap %v", d.TookOver(), d.Wire().State())
	}
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	startPump(t, d)
	probe(t, ua, ub, "out")
	probe(t, ub, ua, "in")
}

// TestDrainLosesNothing toggles under a flow in both directions.
func TestDrainLosesNothing(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	const datagrams = 2000
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := d.SetStates(Active, Active); err != nil {
				t.Error(err)
				return
			}
			p := new(pump)
			p.copy(d.Kernel(), d.Wire())
			p.copy(d.Wire(), d.Kernel())
			time.Sleep(5 * time.Millisecond)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			if err := d.Drain(ctx); err != nil {
				t.Error(err)
			}
			cancel()
			p.wg.Wait()
			if err := p.bad.Load(); err != nil {
				t.Error(*err)
			}
		}
	})
	for i := range datagrams {
		s := fmt.Sprint(i)
		send(t, ua, ub, s)
		send(t, ub, ua, s)
		if got := next(t, ub); got != s {
			t.Errorf("out: %q, expected %q", got, s)
			break
		}
		if got := next(t, ua); got != s {
			t.Errorf("in: %q, expected %q", got, s)
			break
		}
	}
	close(stop)
	wg.Wait()
}

// TestDrainDeliversWhatIsQueued: a reader that comes late still finds, and can
// still write out, every frame accepted while the tap was Active.
func TestDrainDeliversWhatIsQueued(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	ra, rb := l.a.raw(t), l.b.raw(t)
	set(t, d, Active, Active)
	const frames = 200
	for i := range frames {
		ra.send(t, frame(l.a.mac, l.b.mac, i, 100))
	}
	until(t, "queued frames", d.Kernel().queued)
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		done <- d.Drain(ctx)
	}()
	until(t, "the drain to begin", func() bool { return d.Kernel().State() == Closed })
	p := startPump(t, d)
	for i := range frames {
		rb.want(t, frame(l.a.mac, l.b.mac, i, 100))
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	p.wg.Wait()
}

func TestDrainGivesUp(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Active, Closed)
	l.a.raw(t).send(t, frame(l.a.mac, l.b.mac, 1, 100)) // and nobody reads
	until(t, "a queued frame", d.Kernel().queued)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := d.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Drain: %v, expected context.DeadlineExceeded", err)
	}
	if s := d.Kernel().State(); s != Closed {
		t.Errorf("state %v after a drain that gave up", s)
	}
}

// TestReadReturnsWhenClosed: a blocked read ends with the state and with the
// device, and works again afterwards.
func TestReadReturnsWhenClosed(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	ra := l.a.raw(t)
	for i, end := range []func() error{
		func() error { return d.SetStates(Closed, Closed) },
		func() error { return d.Wire().SetState(Closed) },
		d.Close,
	} {
		set(t, d, Active, Passive)
		ra.send(t, frame(l.a.mac, l.b.mac, i, 100))
		readTest(t, d.Kernel())
		got := make(chan error, 1)
		go func() {
			b := make([]byte, MaxFrame)
			for {
				if _, err := d.Wire().Read(b); err != nil {
					got <- err
					return
				}
			}
		}()
		if err := end(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-got:
			if !errors.Is(err, ErrClosed) || !errors.Is(err, os.ErrClosed) {
				t.Errorf("read: %v, expected ErrClosed", err)
			}
		case <-time.After(patience):
			t.Fatal("the read does not return")
		}
	}
	for _, err := range []error{d.SetStates(Active, Active), d.Kernel().SetState(Passive), d.Drain(context.Background()), closedNeighbors(d)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("on a closed device: %v, expected ErrClosed", err)
		}
	}
	if err := errors.Join(d.Close(), d.Release()); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		name string
		o    Options
		is   error
		says string
	}{
		{"missing interface", Options{Interface: "eth7", NetNS: l.a.path}, ErrNoInterface, "lo, eth0"},
		{"no name", Options{NetNS: l.a.path}, ErrNoInterface, ""},
		{"loopback", Options{Interface: "lo", NetNS: l.a.path}, ErrNotEthernet, "loopback"},
		{"missing namespace", Options{Interface: "eth0", NetNS: l.a.path + "-none"}, os.ErrNotExist, l.a.path},
		{"not a namespace", Options{Interface: "eth0", NetNS: os.DevNull}, unix.EINVAL, os.DevNull},
		{"pins elsewhere", Options{Interface: "eth0", NetNS: l.a.path, PinDir: t.TempDir()}, ErrOccupied, "bpf filesystem"},
		{"queues", Options{Interface: "eth0", NetNS: l.a.path, Queues: 65}, nil, "65"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Open(c.o)
			if err == nil {
				d.Close()
				t.Fatal("it opens")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v, expected to match %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, expected to name %s", err, c.says)
			}
			wantClean(t, l.a)
		})
	}

	t.Run("occupied name", func(t *testing.T) {
		_, ltap := tapNames(l.a.index)
		la := netlink.NewLinkAttrs()
		la.Name = ltap
		foreign := &netlink.Veth{LinkAttrs: la, PeerName: "foreign"}
		if err := l.a.nl.LinkAdd(foreign); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(l.a.options(Options{})); !errors.Is(err, ErrOccupied) {
			t.Errorf("%v, expected ErrOccupied", err)
		}
		if _, err := l.a.nl.LinkByName(ltap); err != nil {
			t.Errorf("the foreign link: %v", err)
		}
		if err := l.a.nl.LinkDel(foreign); err != nil {
			t.Fatal(err)
		}
		wantClean(t, l.a)
	})

	t.Run("not root", func(t *testing.T) {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and never back: the thread ends without rights
			if unix.Gettid() == os.Getpid() {
				done <- ErrPermission
				return
			}
			hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var none [2]unix.CapUserData
			if err := unix.Capset(&hdr, &none[0]); err != nil {
				done <- err
				return
			}
			_, err := Open(l.a.options(Options{}))
			done <- err
		}()
		if err := <-done; !errors.Is(err, ErrPermission) {
			t.Errorf("%v, expected ErrPermission", err)
		}
		wantClean(t, l.a)
	})
}

func TestNoTUNIsNamed(t *testing.T) {
	l := newLab(t)
	p := startChild(t, childSpec{Options: l.a.options(Options{}), HideTUN: true})
	if !strings.Contains(p.says, tunPath) {
		t.Errorf("it says %q", p.says)
	}
	wantClean(t, l.a)
}

// TestInterfaceVanishes: Close works on what is left.
func TestInterfaceVanishes(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: hook})
		set(t, d, Active, Active)
		eth, err := l.a.nl.LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.a.nl.LinkDel(eth); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		ls, err := l.a.nl.LinkList()
		if err != nil || len(ls) != 1 {
			t.Errorf("%d links left (%v), expected lo", len(ls), err)
		}
	})
}

func TestNoHookNamesFeatureAndVersion(t *testing.T) {
	err := noCLSACT("sch_clsact", "CONFIG_NET_SCH_INGRESS", unix.ENOENT)
	if !errors.Is(err, ErrNoHook) || !strings.Contains(err.Error(), "Linux 6.6") || !strings.Contains(err.Error(), kernelRelease()) {
		t.Error(err)
	}
	if err := noCLSACT("cls_bpf", "CONFIG_NET_CLS_BPF", unix.EPERM); !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
}

func TestOpenTwiceIsBusy(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	for range 2 {
		if _, err := Open(l.a.options(Options{})); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), fmt.Sprint(os.Getpid())) {
			t.Errorf("%v, expected ErrBusy with our pid", err)
		}
	}
	set(t, d, Active, Active) // the first is none the worse
	startPump(t, d)
	passes(t, l)
}

func TestCloseLeavesNothing(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		for _, fail := range []FailState{FailShut, FailOpen} {
			t.Run(fail.String(), func(t *testing.T) {
				l := newLab(t)
				wantClean(t, l.a)
				before := runtime.NumGoroutine()
				fds := openFiles(t)
				for range 2 {
					d, err := Open(l.a.options(Options{Hook: hook, OnFailure: fail, Queues: 2}))
					if err != nil {
						t.Fatal(err)
					}
					if i := d.Info(); i.Index != l.a.index || !bytes.Equal(i.MAC, l.a.mac) || i.MTU != 1500 || i.Hook != hook {
						t.Errorf("info %+v", i)
					}
					set(t, d, Active, Active)
					if err := d.Close(); err != nil {
						t.Error(err)
					}
					wantClean(t, l.a)
				}
				until(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
				until(t, "descriptors to close", func() bool { return openFiles(t) <= fds })
			})
		}
	})
}

func openFiles(t testing.TB) int {
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

// TestForeignQdiscStays: a clsact qdisc that was there is not ours to remove.
func TestForeignQdiscStays(t *testing.T) {
	l := newLab(t)
	if err := l.a.nl.QdiscAdd(clsactQdisc(l.a.index)); err != nil {
		missing(t, "clsact: %v", err)
	}
	d := l.a.open(t, Options{Hook: HookCLSACT})
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if tr := l.a.traces(t); len(tr) != 1 || tr[0] != "clsact on eth0" {
		t.Errorf("left %v, expected the foreign qdisc only", tr)
	}
}

// TestR04_NobodyStandsBeforeTheCut: programs and filters of others that were there before, and
// let each frame pass on their own, let none past the cut.
func TestR04_NobodyStandsBeforeTheCut(t *testing.T) {
	hooks(t, func(t *testing.T, h Hook) {
		l := newLab(t)
		pass, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "pass", Type: ebpf.SchedCLS, License: "Apache-2.0", Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R0, 0), asm.Return(), // TCX_PASS, TC_ACT_OK
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer pass.Close()
		l.a.in(t, func() error {
			if h == HookTCX {
				for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
					p, err := link.AttachTCX(link.TCXOptions{Interface: l.a.index, Program: pass, Attach: at})
					if err != nil {
						return err
					}
					t.Cleanup(func() { p.Close() })
				}
				return nil
			}
			errs := []error{l.a.nl.QdiscAdd(clsactQdisc(l.a.index))}
			for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
				for _, prio := range []uint16{1, 7} {
					errs = append(errs, l.a.nl.FilterAdd(&netlink.BpfFilter{
						FilterAttrs: netlink.FilterAttrs{LinkIndex: l.a.index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: prio},
						Fd:          pass.FD(), Name: "pass", DirectAction: true,
					}))
				}
			}
			return errors.Join(errs...)
		})
		d := l.a.open(t, Options{Hook: h})
		set(t, d, Active, Active)
		out, in := l.b.listen(t), l.a.udp(t, l.a.addr4)
		x, y := tattle(t, l.a, l.b), l.b.udp(t, l.b.addr4)
		for range 100 {
			send(t, y, in, secret)
		}
		x.busy(t)
		x.end()
		if n := out.secrets.Load(); n != 0 {
			t.Errorf("%d frames left past the cut", n)
		}
		if got, err := nextWithin(in, 50*time.Millisecond); err == nil {
			t.Errorf("%q came past the cut", got)
		}
		startPump(t, d)
		until(t, "room in the full queue", d.Kernel().idle)
		passes(t, l)
	})
}

// TestTwoDevicesInOneProcess: both ends of a veth, both named eth0.
func TestTwoDevicesInOneProcess(t *testing.T) {
	l := newLab(t)
	var wg sync.WaitGroup
	for _, h := range []*host{l.a, l.b} {
		wg.Go(func() {
			d, err := Open(h.options(Options{}))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { wantClean(t, h) })
			startPump(t, d)
			if err := d.SetStates(Active, Active); err != nil {
				t.Error(err)
			}
			p := new(pump)
			p.copy(d.Kernel(), d.Wire())
			p.copy(d.Wire(), d.Kernel())
			t.Cleanup(func() { d.Close(); p.wg.Wait() })
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	passes(t, l)
	transfer(t, l.a, l.b, addr4)
	transfer(t, l.b, l.a, addr6)
}
