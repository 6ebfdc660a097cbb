//go:build linux

package ethtap

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// tcxOn lists the tcx programs on the host's eth0.
func tcxOn(t testing.TB, h *host) []string {
	var found []string
	h.in(t, func() error {
		for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
			r, err := link.QueryPrograms(link.QueryOptions{Target: h.index, Attach: at})
			if errors.Is(err, ebpf.ErrNotSupported) {
				return nil
			}
			if err != nil {
				return err
			}
			for _, p := range r.Programs {
				found = append(found, fmt.Sprintf("tcx program %d", p.ID))
			}
		}
		return nil
	})
	return found
}

// hooks runs a test with each hook.
func hooks(t *testing.T, fn func(t *testing.T, h Hook)) {
	for _, h := range []Hook{HookTCX, HookCLSACT} {
		t.Run(h.String(), func(t *testing.T) { fn(t, h) })
	}
}

func TestR01_StatesAreThreeAndIndependent(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	if k, w := d.Kernel().State(), d.Wire().State(); k != Closed || w != Closed {
		t.Fatalf("after Open the states are %v and %v, expected Closed and Closed", k, w)
	}
	all := []State{Closed, Passive, Active}
	for _, k := range all {
		for _, w := range all {
			was := d.Wire().State()
			if err := d.Kernel().SetState(k); err != nil {
				t.Fatal(err)
			}
			if gw := d.Wire().State(); gw != was {
				t.Errorf("the kernel tap was made %v, and the wire tap is %v, expected %v as before", k, gw, was)
			}
			if err := d.Wire().SetState(w); err != nil {
				t.Fatal(err)
			}
			if gk, gw := d.Kernel().State(), d.Wire().State(); gk != k || gw != w {
				t.Errorf("states %v and %v, expected %v and %v", gk, gw, k, w)
			}
			if f := d.cut.flow(); f != flowOf(k, w) {
				t.Errorf("the map says %+v, expected %+v", f, flowOf(k, w))
			}
		}
	}
	if err := d.SetStates(Active+1, Closed); err == nil {
		t.Error("a fourth state was taken")
	}
	if k, w := d.Kernel().State(), d.Wire().State(); k != Active || w != Active {
		t.Errorf("a refused change left %v and %v", k, w)
	}
}

func TestR02_ClosedPassesUnchangedAndInOrder(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: hook})
		passes(t, l)
		b := make([]byte, MaxFrame)
		for _, tap := range []*Tap{d.Kernel(), d.Wire()} {
			if _, err := tap.Read(b); !errors.Is(err, ErrClosed) {
				t.Errorf("read from %s: %v, expected ErrClosed", tap.Name(), err)
			}
			if _, err := tap.Write(b[:100]); !errors.Is(err, ErrClosed) {
				t.Errorf("write to %s: %v, expected ErrClosed", tap.Name(), err)
			}
			if tap.queued() {
				t.Errorf("%s has something queued", tap.Name())
			}
		}
		refused(t, l, d)
	})
}

// refused checks that the programs refuse what comes by the taps although no write is
// allowed, as from a writer who was late. d takes nothing out of the flow.
func refused(t *testing.T, l *lab, d *Device) {
	t.Helper()
	for _, c := range []struct {
		tap      *Tap
		from, to *host
	}{{d.Wire(), l.a, l.b}, {d.Kernel(), l.b, l.a}} {
		rf, rt := c.from.raw(t), c.to.raw(t)
		before, err := c.tap.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(c.tap.queues[0].fd, withHeader(frame(c.from.mac, c.to.mac, 3000, 100))); err != nil {
			t.Fatal(err)
		}
		until(t, "a refused frame is counted at "+c.tap.Name(), func() bool {
			s, err := c.tap.Stats()
			return err == nil && s.Refused == before.Refused+1
		})
		last := frame(c.from.mac, c.to.mac, 3001, 100)
		rf.send(t, last)
		rt.want(t, last) // and not the other
	}
}

// passes checks that frames cross both ways unchanged and in order.
func passes(t *testing.T, l *lab) {
	t.Helper()
	ra, rb := l.a.raw(t), l.b.raw(t)
	for i := range 200 {
		ra.send(t, frame(l.a.mac, l.b.mac, i, 60+i*7))
		rb.want(t, frame(l.a.mac, l.b.mac, i, 60+i*7))
	}
	for _, addr := range []func(*host) netip.Addr{addr4, addr6} {
		ua, ub := l.a.udp(t, addr(l.a)), l.b.udp(t, addr(l.b))
		for i := range 100 {
			s := fmt.Sprintf("%d %x", i, bytes.Repeat([]byte{byte(i)}, i*6))
			send(t, ub, ua, s)
			if got := next(t, ua); got != s {
				t.Fatalf("from the wire came %.20q, expected %.20q", got, s)
			}
			send(t, ua, ub, s)
			if got := next(t, ub); got != s {
				t.Fatalf("from the kernel came %.20q, expected %.20q", got, s)
			}
		}
	}
}

func addr4(h *host) netip.Addr { return h.addr4 }
func addr6(h *host) netip.Addr { return h.addr6 }

func TestR03_PassiveCopiesAndRefusesWrites(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: hook})
		set(t, d, Passive, Passive)
		ra, rb := l.a.raw(t), l.b.raw(t)
		ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
		for i := range 50 {
			f := frame(l.a.mac, l.b.mac, i, 60+i*29)
			ra.send(t, f)
			rb.want(t, f)
			if got := readTest(t, d.Kernel()); !bytes.Equal(got, f) {
				t.Fatalf("the copy of %x is %x", head(f), head(got))
			}
			// The same from the wire, where the kernel's end is a socket.
			s := fmt.Sprintf("datagram %d", i)
			send(t, ub, ua, s)
			if got := next(t, ua); got != s {
				t.Fatalf("from the wire came %q, expected %q", got, s)
			}
			readMatch(t, d.Wire(), func(f []byte) bool { return bytes.HasSuffix(f, []byte(s)) })
		}
		for _, tap := range []*Tap{d.Kernel(), d.Wire()} {
			if _, err := tap.Write(make([]byte, 100)); !errors.Is(err, ErrPassive) {
				t.Errorf("write to %s: %v, expected ErrPassive", tap.Name(), err)
			}
		}
		refused(t, l, d)
	})
}

// withHeader puts an empty virtio-net header before a frame.
func withHeader(f []byte) []byte { return append(make([]byte, HeaderLen), f...) }

func TestR04_ActiveTakesAndOnlyWrittenFramesPass(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		t.Run("batches", func(t *testing.T) { activeTakes(t, Options{Hook: hook}) })
		t.Run("one by one", func(t *testing.T) { activeTakes(t, Options{Hook: hook, NoRing: true, NoBatches: true}) })
	})
}

func activeTakes(t *testing.T, o Options) {
	l := newLab(t)
	d := l.a.open(t, o)
	ra, rb := l.a.raw(t), l.b.raw(t)
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)

	// Each frame can be read and does not go on. That it did not is seen by
	// the frame that is written afterwards: it is the next that arrives.
	set(t, d, Active, Active)
	for i := range 20 {
		f := frame(l.a.mac, l.b.mac, i, 200)
		ra.send(t, f)
		if got := readTest(t, d.Kernel()); !bytes.Equal(got, f) {
			t.Fatalf("read %x, expected %x", head(got), head(f))
		}
		w := frame(l.a.mac, l.b.mac, 1000+i, 300)
		if n, err := d.Wire().Write(withHeader(w)); err != nil || n != HeaderLen+len(w) {
			t.Fatalf("write to the wire: %d, %v", n, err)
		}
		rb.want(t, w)
	}
	send(t, ub, ua, "not let in")
	got := readMatch(t, d.Wire(), func(f []byte) bool { return bytes.HasSuffix(f, []byte("not let in")) })
	// Write another datagram of the same length instead.
	in := bytes.Replace(got, []byte("not let in"), []byte("let inside"), 1)
	clear(in[14+20+6 : 14+20+8]) // no UDP checksum
	if _, err := d.Kernel().Write(withHeader(in)); err != nil {
		t.Fatal(err)
	}
	if s := next(t, ua); s != "let inside" {
		t.Fatalf("the kernel got %q", s)
	}

	// One Active tap severs the other side too: what is not written does not
	// reach the NIC.
	set(t, d, Closed, Active)
	if _, err := unix.Write(ra.fd, frame(l.a.mac, l.b.mac, 2000, 100)); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("sending into the severed side: %v, expected ENOBUFS", err)
	}
	w := frame(l.a.mac, l.b.mac, 2001, 100)
	if _, err := d.Wire().Write(withHeader(w)); err != nil {
		t.Fatal(err)
	}
	rb.want(t, w)
	if s, err := d.Kernel().Stats(); err != nil || s.Severed == 0 {
		t.Errorf("stats %+v, %v: the severed frame is not counted", s, err)
	}
	if _, err := d.Kernel().Write(withHeader(w)); !errors.Is(err, ErrClosed) {
		t.Errorf("write to Closed htap: %v", err)
	}
}

func TestR05_WholeFramesOrAnError(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	ra := l.a.raw(t)
	f := frame(l.a.mac, l.b.mac, 7, 1000)
	ra.send(t, f)
	for _, n := range []int{0, HeaderLen, 1012, MaxFrame - 1} {
		if got, err := d.Kernel().Read(make([]byte, n)); !errors.Is(err, io.ErrShortBuffer) || got != 0 {
			t.Errorf("read into %d octets: %d, %v; expected 0, io.ErrShortBuffer", n, got, err)
		}
	}
	if got := readTest(t, d.Kernel()); !bytes.Equal(got, f) {
		t.Errorf("after the short reads came %x, expected %x", head(got), head(f))
	}
	for _, n := range []int{0, HeaderLen, HeaderLen + 13, MaxFrame + 1} {
		if got, err := d.Wire().Write(make([]byte, n)); !errors.Is(err, ErrFrame) || got != 0 {
			t.Errorf("write of %d octets: %d, %v; expected 0, ErrFrame", n, got, err)
		}
	}
	bad := withHeader(f)
	bad[0], bad[1] = 1, 0xff // NEEDS_CSUM and no such GSO type
	if _, err := d.Wire().Write(bad); !errors.Is(err, ErrFrame) {
		t.Errorf("write with a false header: %v, expected ErrFrame", err)
	}
}

// TestR05_SuperframesWhole reads what a kernel leaves for the device to segment: one read
// gives all of it, with how it is to be cut.
func TestR05_SuperframesWhole(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Active, Active)
	p := new(pump)
	p.copy(d.Wire(), d.Kernel())
	whole, mtu := make(chan error, 1), d.Info().MTU
	p.wg.Go(func() {
		bad := errors.New("no superframe came")
		b := make([]byte, MaxFrame)
		for {
			n, err := d.Kernel().Read(b)
			if err != nil {
				whole <- bad
				return
			}
			const gsoTCP4, ecn = 1, 0x80
			if size := int(binary.NativeEndian.Uint16(b[4:])); bad != nil && n > HeaderLen+14+mtu {
				// The IP header says how long it is.
				ip := b[HeaderLen+14 : n]
				if b[1]&^ecn != gsoTCP4 || size == 0 || size > mtu-40 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
					bad = fmt.Errorf("%d octets with the virtio-net header %x, of a datagram of %d", n, b[:HeaderLen], binary.BigEndian.Uint16(ip[2:]))
				} else {
					bad = nil
				}
			}
			if _, err := d.Wire().Write(b[:n]); err != nil && !dropped(err) {
				t.Error(err)
			}
		}
	})
	transfer(t, l.a, l.b, addr4)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if err := <-whole; err != nil {
		t.Error(err)
	}
	p.wg.Wait()
}

// TestR06_WireOverflowIsCounted fills the queue of the wire's tap, Passive and Active:
// what does not fit is counted, and a live flow goes on.
func TestR06_WireOverflowIsCounted(t *testing.T) {
	for _, state := range []State{Passive, Active} {
		t.Run(state.String(), func(t *testing.T) {
			l := newLab(t)
			d := l.a.open(t, Options{})
			set(t, d, Closed, state)
			ra, rb := l.a.raw(t), l.b.raw(t)
			const frames = 2 * wireQueueLen
			for i := range frames { // nobody reads
				f := frame(l.b.mac, l.a.mac, i, 80)
				rb.send(t, f)
				if state == Passive {
					ra.want(t, f)
				}
			}
			until(t, "all frames are in the queue or counted", func() bool { return d.cut.count(offWireTaken) >= frames || state == Passive })
			s, err := d.Wire().Stats()
			if err != nil {
				t.Fatal(err)
			}
			if s.Overflow == 0 {
				t.Errorf("%d frames that nobody read: %+v, expected some counted as overflow", frames, s)
			}
			set(t, d, Closed, Closed)
			if after, err := d.Wire().Stats(); err != nil || after.Overflow+after.Discarded < frames {
				t.Errorf("%d frames, but overflow %d and discarded %d (%v)", frames, after.Overflow, after.Discarded, err)
			}
		})
	}
}

func TestR06_PassiveOverflowIsCountedAndTheFlowGoesOn(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Passive, Closed)
	ra, rb := l.a.raw(t), l.b.raw(t)
	const frames = 3 * kernelQueueLen
	for i := range frames { // nobody reads, every frame arrives
		f := frame(l.a.mac, l.b.mac, i, 80)
		ra.send(t, f)
		rb.want(t, f)
	}
	s, err := d.Kernel().Stats()
	if err != nil {
		t.Fatal(err)
	}
	if s.Overflow < frames-kernelQueueLen-8 {
		t.Errorf("%d of %d copies counted as overflow, expected about %d", s.Overflow, frames, frames-kernelQueueLen)
	}
	set(t, d, Closed, Closed)
	after, err := d.Kernel().Stats()
	if err != nil {
		t.Fatal(err)
	}
	if after.Overflow+after.Discarded < frames {
		t.Errorf("%d frames, but overflow %d and discarded %d", frames, after.Overflow, after.Discarded)
	}
}

func TestR08_ActiveWithNobodyCopyingSevers(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		d := l.a.open(t, Options{Hook: hook})
		ra, rb := l.a.raw(t), l.b.raw(t)
		ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
		arrived := l.a.allFrames(t)
		set(t, d, Active, Active)
		const frames = 100
		for i := range frames {
			ra.send(t, frame(l.a.mac, l.b.mac, i, 100))
			send(t, ub, ua, "severed")
		}
		arrived.await(t, frames, func(f []byte) bool { return bytes.HasSuffix(f, []byte("severed")) })
		for _, tap := range []*Tap{d.Kernel(), d.Wire()} {
			until(t, "all frames at both taps", func() bool { return tap.queued() && d.cut.count(tap.offTaken()) >= frames })
		}
		set(t, d, Closed, Closed)
		last := frame(l.a.mac, l.b.mac, 1000, 100)
		ra.send(t, last)
		rb.want(t, last) // and not one of the hundred
		probeOnly(t, ub, ua, "direct again")
	})
}

// probeOnly is probe where nothing else may arrive.
func probeOnly(t testing.TB, from, to *net.UDPConn, payload string) {
	t.Helper()
	send(t, from, to, payload)
	if got := next(t, to); got != payload {
		t.Fatalf("%q arrives, expected %q", got, payload)
	}
}

func TestR09_CopyLoopRestoresConnectivity(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		for _, queues := range []int{1, 2} {
			t.Run(fmt.Sprintf("%d queues", queues), func(t *testing.T) {
				l := newLab(t)
				d := l.a.open(t, Options{Hook: hook, Queues: queues})
				p := startPump(t, d)
				p.wg.Wait() // Closed: the readers come back at once
				set(t, d, Active, Active)
				p = startPump(t, d)
				passes(t, l)
				for _, addr := range []func(*host) netip.Addr{addr4, addr6} {
					transfer(t, l.a, l.b, addr)
					transfer(t, l.b, l.a, addr)
				}
				if n := p.longest.Load(); n < 10000 {
					t.Errorf("the longest frame read had %d octets; expected superframes", n)
				}
			})
		}
	})
}

// transfer sends some MB by TCP and compares digests.
func transfer(t testing.TB, from, to *host, addr func(*host) netip.Addr) {
	t.Helper()
	transferSize(t, from, to, addr, 4<<20)
}

func transferSize(t testing.TB, from, to *host, addr func(*host) netip.Addr, size int64) {
	t.Helper()
	var ln net.Listener
	to.in(t, func() (err error) {
		ln, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(addr(to), 0)))
		return err
	})
	defer ln.Close()
	type result struct {
		sum [32]byte
		n   int64
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(3 * patience))
		h := sha256.New()
		n, err := io.Copy(h, c)
		done <- result{[32]byte(h.Sum(nil)), n, err}
	}()
	var c net.Conn
	from.in(t, func() (err error) {
		c, err = net.DialTCP("tcp", nil, ln.Addr().(*net.TCPAddr))
		return err
	})
	c.SetDeadline(time.Now().Add(3 * patience))
	data := make([]byte, size)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	if _, err := c.Write(data); err != nil {
		t.Fatalf("send: %v", err)
	}
	c.Close()
	got := <-done
	if got.err != nil || got.n != size || got.sum != sha256.Sum256(data) {
		t.Fatalf("received %d octets (%v), expected %d with the same digest", got.n, got.err, size)
	}
}

func TestR10_StalledReaderDoesNotBlockTheOtherDirection(t *testing.T) {
	for _, stalled := range []string{"kernel", "wire"} {
		t.Run(stalled, func(t *testing.T) {
			l := newLab(t)
			d := l.a.open(t, Options{})
			set(t, d, Active, Active)
			// Nobody reads one tap, which is filled; the other one's frames are copied.
			from, to, full, read, frames := l.b, l.a, d.Kernel(), d.Wire(), 2*kernelQueueLen
			if stalled == "wire" {
				from, to, full, read, frames = l.a, l.b, d.Wire(), d.Kernel(), 2*wireQueueLen
			}
			p := new(pump)
			p.copy(read, full)
			defer func() { d.Close(); p.wg.Wait() }()
			r := to.raw(t)
			for i := range frames {
				r.send(t, frame(to.mac, from.mac, i, 80))
			}
			until(t, "the queue of the "+stalled+" tap is full", func() bool {
				s, err := full.Stats()
				return err == nil && s.Overflow > 0
			})
			uf, ut := from.udp(t, from.addr4), to.udp(t, to.addr4)
			for i := range 100 {
				s := fmt.Sprintf("goes on %d", i)
				send(t, uf, ut, s)
				if got := next(t, ut); got != s {
					t.Fatalf("past the stalled %s tap came %q, expected %q", stalled, got, s)
				}
			}
		})
	}
}
