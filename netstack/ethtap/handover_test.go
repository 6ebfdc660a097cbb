//go:build linux

package ethtap

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sent is a Handover as another process gets it.
func sent(t testing.TB, d *Device) *Handover {
	t.Helper()
	h, err := d.Handover()
	if err != nil {
		t.Fatal(err)
	}
	if len(h.FDs) > MaxHandoverFDs {
		t.Errorf("%d descriptors, more than MaxHandoverFDs", len(h.FDs))
	}
	text, err := json.Marshal(h.Info)
	if err != nil {
		t.Fatal(err)
	}
	h.Info = HandoverInfo{}
	if err := json.Unmarshal(text, &h.Info); err != nil {
		t.Fatal(err)
	}
	return h
}

// succeed hands a device over, as two processes would.
func succeed(t testing.TB, old *Device, o Options) *Device {
	t.Helper()
	next, err := Adopt(o, sent(t, old))
	if err != nil {
		t.Fatal(err)
	}
	startPump(t, next)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := old.Hold(ctx); err != nil {
		t.Fatal(err)
	}
	if err := old.SetStates(Closed, Closed); !errors.Is(err, ErrHeld) {
		t.Errorf("a change of states while held: %v", err)
	}
	if err := next.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := old.Yield(); err != nil {
		t.Error(err)
	}
	if err := next.Settle(); err != nil {
		t.Fatal(err)
	}
	return next
}

// form is a cut of one interface, or of two.
type form struct {
	*lab
	cut     *host // whose eth0 it is
	options func(Options) Options
	traces  func(testing.TB) []string
}

// forms runs fn with either form.
func forms(t *testing.T, fn func(t *testing.T, f form)) {
	t.Run("one NIC", func(t *testing.T) {
		l := newLab(t)
		t.Cleanup(func() { Recover(l.a.options(Options{})) })
		fn(t, form{l, l.a, l.a.options, l.a.traces})
	})
	t.Run("two NICs", func(t *testing.T) {
		r := newRow(t)
		fn(t, form{&r.lab, r.box, r.options, r.traces})
	})
}

// TestR13_R48_Handover hands a cut over again and again while datagrams pass: none is
// lost, and what the fail state is afterwards is what the last one asked for.
func TestR13_R48_Handover(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		for _, fails := range [][]FailState{{FailShut, FailShut, FailShut}, {FailOpen, FailOpen}, {FailShut, FailOpen, FailShut}} {
			t.Run(fmt.Sprint(fails), func(t *testing.T) {
				forms(t, func(t *testing.T, f form) { handOver(t, f, hook, fails) })
			})
		}
	})
}

func handOver(t *testing.T, on form, hook Hook, fails []FailState) {
	o := on.options(Options{Hook: hook, OnFailure: fails[0], Queues: 2, DeadMan: 150 * time.Millisecond})
	d := on.cut.open(t, o)
	set(t, d, Active, Active)
	startPump(t, d)
	ua, ub := on.a.udp(t, on.a.addr4), on.b.udp(t, on.b.addr4)
	probe(t, ua, ub, "before")
	stop, ways := make(chan struct{}), new(sync.WaitGroup)
	var lost [2]int
	for i, way := range [][2]*net.UDPConn{{ua, ub}, {ub, ua}} {
		ways.Go(func() { lost[i] = number(way[0], way[1], stop) })
	}
	for _, f := range fails[1:] {
		time.Sleep(30 * time.Millisecond)
		o.OnFailure = f
		d = succeed(t, d, o)
		if !d.TookOver() || d.Kernel().State() != Active || d.Wire().State() != Active {
			t.Errorf("took over %v, taps %v and %v", d.TookOver(), d.Kernel().State(), d.Wire().State())
		}
	}
	if d.opts.OnFailure == FailOpen {
		// The dead man's switch of the last one is fed.
		for range 2 {
			at := d.cut.count(offDeadline)
			until(t, "the dead man's switch to be fed", func() bool { return d.cut.count(offDeadline) > at })
		}
	} else if d.cut.count(offDeadline) != 0 {
		t.Error("a dead man's switch is on")
	}
	close(stop)
	ways.Wait()
	if lost != [2]int{} {
		t.Errorf("datagrams lost: %v", lost)
	}
	if _, err := Open(o); !errors.Is(err, ErrBusy) {
		t.Errorf("a third Open: %v, expected ErrBusy", err)
	}
	pinned, direct := pinsOf(t, on.cut), 0
	for _, e := range pinned {
		if n := e.Name(); n == pinInsideDirect || n == pinOutsideDirect {
			direct++
		}
	}
	if want := d.opts.OnFailure == FailShut || hook == HookCLSACT || d.twoNIC(); want != (len(pinned) > 0) {
		t.Errorf("%v: %d pins", d.opts.OnFailure, len(pinned))
	}
	if want := d.opts.OnFailure == FailOpen && hook == HookTCX && d.twoNIC(); want != (direct == 2) || !want && direct > 0 {
		t.Errorf("%v: %d pins of programs that pass frames by themselves", d.opts.OnFailure, direct)
	}
	if d.twoNIC() {
		// The end of the process: the flow is direct, or nothing passes.
		if err := d.Release(); err != nil {
			t.Error(err)
		}
		if d.opts.OnFailure == FailShut {
			send(t, ua, ub, "a leak")
			if s, err := nextWithin(ub, 100*time.Millisecond); err == nil {
				t.Errorf("%q passes", s)
			}
		} else {
			probe(t, ua, ub, "past it")
			probe(t, ub, ua, "past it")
		}
		if err := Remove(o); err != nil {
			t.Error(err)
		}
	} else if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left := on.traces(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if !d.twoNIC() {
		passes(t, on.lab)
	}
}

func pinsOf(t testing.TB, h *host) []os.DirEntry {
	t.Helper()
	_, ino, err := openNamespace(h.path)
	if err != nil {
		t.Fatal(err)
	}
	entries, _ := os.ReadDir(filepath.Join(DefaultPinDir, key{ino, h.index}.String()))
	return entries
}

// mostUnderWay is how many datagrams a test has on their way at a time where none may be lost:
// the queues hold as many although nobody reads them for a while.
const mostUnderWay = kernelQueueLen / 2

// number sends numbered datagrams, one a millisecond, and returns how many do not come.
func number(from, to *net.UDPConn, stop <-chan struct{}) (lost int) {
	var come atomic.Int64
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for seen := make(map[string]bool); ; come.Store(int64(len(seen))) {
			select {
			case <-ended:
				return
			default:
			}
			if s, err := nextWithin(to, 20*time.Millisecond); err == nil && strings.HasPrefix(s, "number ") {
				seen[s] = true
			}
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	sent := int64(0)
	for more := true; more; {
		select {
		case <-stop:
			more = false
		case <-tick.C:
			if sent < come.Load()+mostUnderWay {
				_, _ = from.WriteToUDPAddrPort(fmt.Append(nil, "number ", sent), addrOf(to)) // refused is lost
				sent++
			}
		}
	}
	for end := time.Now().Add(patience); come.Load() < sent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	close(ended)
	<-done
	return int(sent - come.Load())
}

// A handover that comes to nothing changes nothing.
func TestR13_R48_HandoverTakenBack(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) { forms(t, func(t *testing.T, f form) { takenBack(t, f, hook) }) })
}

func takenBack(t *testing.T, on form, hook Hook) {
	for _, f := range []FailState{FailShut, FailOpen} {
		o := on.options(Options{Hook: hook, OnFailure: f})
		d := on.cut.open(t, o)
		set(t, d, Active, Active)
		startPump(t, d)
		ua, ub := on.a.udp(t, on.a.addr4), on.b.udp(t, on.b.addr4)
		probe(t, ua, ub, "before")
		for _, end := range []func(*Device) error{(*Device).Close, (*Device).Release, (*Device).Leave, (*Device).Yield} {
			second, err := Adopt(o, sent(t, d))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			if err := d.Hold(ctx); err != nil {
				t.Fatal(err)
			}
			cancel()
			send(t, ua, ub, "waits")
			if err := end(second); err != nil {
				t.Error(err)
			}
			d.Resume()
			if s := next(t, ub); s != "waits" {
				t.Errorf("%q comes, expected what waited", s)
			}
			probe(t, ub, ua, "after")
		}
		// Nobody reads: the hold does not come about, and all goes on.
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		idle := on.cut.open(t, o)
		set(t, idle, Passive, Passive)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if err := idle.Hold(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hold without readers: %v", err)
		}
		cancel()
		set(t, idle, Closed, Closed)
		if err := idle.Close(); err != nil {
			t.Error(err)
		}
		if left := on.traces(t); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{Hook: HookTCX})
	for name, c := range map[string]struct {
		change func(*Options, *Handover)
		says   string
	}{
		"layout":          {func(_ *Options, h *Handover) { h.Info.Layout++ }, "layout version"},
		"interface":       {func(_ *Options, h *Handover) { h.Info.Index++ }, "not of"},
		"namespace":       {func(_ *Options, h *Handover) { h.Info.NetNS++ }, "network namespace"},
		"hook":            {func(o *Options, _ *Handover) { o.Hook = HookCLSACT }, "cut by tcx"},
		"no hook":         {func(_ *Options, h *Handover) { h.Info.Hook = 9 }, "cut by"},
		"pins":            {func(o *Options, _ *Handover) { o.PinDir = "/sys/fs/bpf/other" }, "pins in"},
		"inside":          {func(o *Options, _ *Handover) { o.Inside = "eth1" }, "inside interface"},
		"too few":         {func(_ *Options, h *Handover) { h.FDs = h.FDs[:3] }, "3 descriptors"},
		"none":            {func(_ *Options, h *Handover) { h.FDs, h.Info.Queues = nil, 0 }, "0 descriptors"},
		"links":           {func(_ *Options, h *Handover) { h.Info.Links, h.Info.Queues = 2, 2 }, ""},
		"wrong order":     {func(_ *Options, h *Handover) { h.FDs[0], h.FDs[1] = h.FDs[1], h.FDs[0] }, "the lock"},
		"no map":          {func(_ *Options, h *Handover) { h.FDs[1], h.FDs[2] = h.FDs[2], h.FDs[1] }, "the map"},
		"no link":         {func(_ *Options, h *Handover) { h.FDs[7], h.FDs[3] = h.FDs[3], h.FDs[7] }, ""},
		"no ring":         {func(_ *Options, h *Handover) { h.FDs[6], h.FDs[7] = h.FDs[7], h.FDs[6] }, "a packet ring"},
		"slots too large": {func(_ *Options, h *Handover) { h.Info.Slot = 1 << 20 }, "slots of 1048576"},
		"links in a mess": {func(_ *Options, h *Handover) { h.FDs[7], h.FDs[9] = h.FDs[9], h.FDs[7] }, "on interface"},
	} {
		t.Run(name, func(t *testing.T) {
			o, h := l.a.options(Options{}), sent(t, d)
			fds := append([]int(nil), h.FDs...)
			c.change(&o, h)
			kept := len(h.FDs)
			next, err := Adopt(o, h)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, expected one that says %q", err, c.says)
			}
			if next != nil {
				_ = next.Yield()
			}
			(&Handover{FDs: fds[kept:]}).Close()
		})
	}
	// The device has not noticed.
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	set(t, d, Active, Active)
	startPump(t, d)
	probe(t, ua, ub, "still")
}
