//go:build linux

package ethtap

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOffloadsOff: traffic passes with each way of moving many frames at once turned off,
// at the start and while it runs, and on again.
func TestOffloadsOff(t *testing.T) {
	for name, o := range map[string]Options{
		"ring": {NoRing: true}, "batches": {NoBatches: true}, "superframes": {NoSuperframes: true},
		"all": {NoRing: true, NoBatches: true, NoSuperframes: true}, "two queues": {NoRing: true, NoBatches: true, Queues: 2},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			d := l.a.open(t, o)
			i := d.Info()
			if (i.Rings == 0) != o.NoRing || i.NoRing+i.NoBatches+i.NoSuperframes != "" {
				t.Errorf("%d rings, refused %q %q %q", i.Rings, i.NoRing, i.NoBatches, i.NoSuperframes)
			}
			set(t, d, Active, Active)
			p := startPump(t, d)
			passes(t, l)
			transfer(t, l.a, l.b, addr4)
			transfer(t, l.b, l.a, addr6)
			if n := p.longest.Load(); o.NoSuperframes && n > 1600 {
				t.Errorf("a frame of %d octets was read", n)
			}
			for range 2 {
				d.SetBatches(o.NoBatches)
				if err := d.SetSuperframes(o.NoSuperframes); err != nil {
					t.Fatal(err)
				}
				passes(t, l)
				transfer(t, l.a, l.b, addr4)
				o.NoBatches, o.NoSuperframes = !o.NoBatches, !o.NoSuperframes
			}
		})
	}
}

// TestBatchesRefused: a packet socket that refuses what the TAP takes is used no more, and
// no frame is lost by that.
func TestBatchesRefused(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	for _, q := range d.wire.queues {
		q.send.batches.New = func() any {
			s := newSendings()
			s.call = func(uintptr) { s.errno = unix.EINVAL }
			return s
		}
	}
	set(t, d, Active, Active)
	rb := l.b.raw(t)
	var list [][]byte
	for i := range 5 {
		list = append(list, withHeader(frame(l.a.mac, l.b.mac, i, 100)))
	}
	if n, err := d.Wire().Queues()[0].WriteBatch(list); n != len(list) || err != nil {
		t.Fatalf("%d written: %v", n, err)
	}
	for _, f := range list {
		rb.want(t, f[HeaderLen:])
	}
	if d.Info().NoBatches == "" {
		t.Error("nobody is told that batches do not work")
	}
	d.SetBatches(true)
	if why := d.Info().NoBatches; why != "" {
		t.Errorf("turned on again, but %s", why)
	}
	startPump(t, d)
	passes(t, l)
	if d.Info().NoBatches == "" {
		t.Error("what does not work was used again")
	}
	passes(t, l)
}

// forwarding is what the feature of h's interface is.
func (h *host) forwarding(t testing.TB) (on bool) {
	t.Helper()
	h.in(t, func() error {
		was, err := setFeature("eth0", udpForwarding, true)
		if on = was; err == nil && !was {
			_, err = setFeature("eth0", udpForwarding, false)
		}
		return err
	})
	return on
}

// TestUDPForwarding: what is turned on is turned off by Close, Recover and by itself, and
// what an administrator turned on stays.
func TestUDPForwarding(t *testing.T) {
	l := newLab(t)
	if l.a.forwarding(t) {
		t.Fatal("it is on before anybody asked")
	}
	o := Options{OnFailure: FailShut}
	for name, end := range map[string]func(d *Device) error{
		"close":   (*Device).Close,
		"off":     func(d *Device) error { return d.SetUDPForwarding(false) },
		"recover": func(d *Device) error { return errors.Join(d.Release(), Recover(l.a.options(o))) },
	} {
		t.Run(name, func(t *testing.T) {
			d := l.a.open(t, o)
			if err := d.SetUDPForwarding(true); err != nil {
				t.Fatal(err)
			}
			if !l.a.forwarding(t) {
				t.Error("it is not on")
			}
			if err := end(d); err != nil {
				t.Error(err)
			}
			if l.a.forwarding(t) {
				t.Error("it stayed on")
			}
			d.Close()
		})
	}
	// After a crash by the next process, or by hand, whatever the fail state.
	for _, fails := range []FailState{FailShut, FailOpen} {
		for name, end := range map[string]func(o Options) error{
			"recover": Recover,
			"open": func(o Options) error {
				d, err := Open(o)
				if err != nil {
					return err
				}
				return d.Close()
			},
		} {
			o := l.a.options(Options{OnFailure: fails})
			startChild(t, childSpec{Options: o, Forward: true}).kill()
			if !l.a.forwarding(t) {
				t.Fatalf("%v, %s: it is not on", fails, name)
			}
			if err := end(o); err != nil {
				t.Error(err)
			}
			if l.a.forwarding(t) {
				t.Errorf("%v, %s: it stayed on after a crash", fails, name)
			}
			var st unix.Stat_t
			if err := unix.Fstat(int(l.a.ns.Fd()), &st); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(forwardingNote(pinPath("", key{st.Ino, l.a.index}))); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%v, %s: the note: %v", fails, name, err)
			}
		}
	}
	l.a.in(t, func() error { _, err := setFeature("eth0", udpForwarding, true); return err })
	d := l.a.open(t, o)
	if err := d.SetUDPForwarding(true); err != nil {
		t.Fatal(err)
	}
	d.Close()
	if !l.a.forwarding(t) {
		t.Error("what somebody else had turned on was turned off")
	}
	l.a.in(t, func() error {
		if _, err := setFeature("eth0", "no-such-feature", true); err == nil {
			t.Error("a feature that does not exist was set")
		}
		return nil
	})
}
