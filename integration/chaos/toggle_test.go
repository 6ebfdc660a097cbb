package chaos

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

const (
	// toggles is how often the taps go to Active and back.
	toggles = 50
	// qdiscGone is how many probes, one a millisecond, the kernel may drop while it
	// removes a qdisc, or as many as are sent while it does: on a busy machine that waits
	// for others, for an RCU grace period.
	qdiscGone = 50
)

// TestR11_Toggles cuts the interface of A by package ethtap alone, with the plain copy
// loop, and makes both taps Active and Closed again fifty times, a hundred changes: no
// frame is lost, changed, doubled or overtaken by a later one of its flow.
func TestR11_Toggles(t *testing.T) {
	for _, c := range []struct {
		name      string
		hook      ethtap.Hook
		onFailure ethtap.FailState
		a, b      netip.Addr
	}{
		{"tcx, shut", ethtap.HookTCX, ethtap.FailShut, a4, b4},
		{"clsact, open, IPv6", ethtap.HookCLSACT, ethtap.FailOpen, a6, b6},
	} {
		t.Run(c.name, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			toggle(t, pair, startBetween(t, pair, c.a, c.b), c.name, ethtap.Options{
				Interface: "eth0", NetNS: pair.A.NetNSPath(), Hook: c.hook, OnFailure: c.onFailure, DeadMan: patience,
			})
		})
	}
}

func toggle(t *testing.T, pair *netlab.Pair, tr *traffic, name string, o ethtap.Options) {
	t.Helper()
	dev, err := ethtap.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	closed := false
	defer func() {
		if !closed {
			_ = dev.Close()
		}
	}()
	raw := startFrames(t, pair)
	s := tr.begin()
	for i := range toggles {
		var pumps sync.WaitGroup
		if err := dev.SetStates(ethtap.Active, ethtap.Active); err != nil {
			t.Fatal(err)
		}
		copyFrames(t, &pumps, dev.Kernel(), dev.Wire())
		copyFrames(t, &pumps, dev.Wire(), dev.Kernel())
		time.Sleep(time.Duration(20+i%7) * time.Millisecond)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := dev.Drain(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
		pumps.Wait()
		time.Sleep(time.Duration(5+i%5) * time.Millisecond)
	}
	atMost(t, "toggles", s.end("copied, "+name+": 50 times Closed, Active, Closed"), 0)
	for i, tap := range []*ethtap.Tap{dev.Kernel(), dev.Wire()} {
		stats, err := tap.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if stats.Read < toggles || stats.Overflow+stats.Severed+stats.Refused+stats.Oversize+stats.Discarded > 0 {
			t.Errorf("%s tap: %+v; expected many frames read and none lost", []string{"kernel", "wire"}[i], stats)
		}
	}
	raw.finish()
	s = tr.begin()
	before := tr.probes[0].now()
	if err := dev.Close(); err != nil {
		t.Error(err)
	}
	closed = true
	// The kernel stops a device for a moment when its clsact qdisc goes.
	lost := 0
	if o.Hook == ethtap.HookCLSACT {
		lost = max(qdiscGone, tr.probes[0].now()-before)
	}
	atMost(t, "end of the cut", s.end("copied, "+name+": the cut taken away"), lost)
	tr.finish()
	tr.ordered()
}

// copyFrames is the plain copy loop, until the tap is Closed.
func copyFrames(t testing.TB, wg *sync.WaitGroup, from, to *ethtap.Tap) {
	wg.Go(func() {
		b := make([]byte, ethtap.MaxFrame)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if _, err := to.Write(b[:n]); err != nil {
				t.Errorf("writing to %s: %v", to.Name(), err)
			}
		}
	})
}

// frames are numbered frames of noise from A to B, sent and received as they are, of
// an EtherType for local experiments (IEEE 802, 88B5), of all lengths from 60 to 1514.
type frames struct {
	t    testing.TB
	fd   int // B's socket
	stop chan struct{}
	sent chan int
	done chan struct{} // nothing more is received

	mu                sync.Mutex
	came              map[int]int // by number: how often
	last, late, wrong int
}

const experimental = 0x88b5

// frame is the frame of a number, without the addresses.
func frame(seq int) []byte {
	r := rand.New(rand.NewPCG(uint64(seq), 1))
	b := binary.BigEndian.AppendUint16(nil, experimental)
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	for range 38 + r.IntN(1454) {
		b = append(b, byte(r.Uint32()))
	}
	return b
}

func startFrames(t testing.TB, pair *netlab.Pair) *frames {
	t.Helper()
	f := &frames{t: t, stop: make(chan struct{}), sent: make(chan int, 1), done: make(chan struct{}), came: make(map[int]int), last: -1}
	var fds, index [2]int
	var macs [2][]byte
	for i, h := range []*netlab.Host{pair.A, pair.B} {
		l, err := h.Netlink().LinkByName("eth0")
		if err != nil {
			t.Fatal(err)
		}
		index[i], macs[i] = l.Attrs().Index, l.Attrs().HardwareAddr
		if err := h.Do(func() (err error) {
			fds[i], err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fds[i]) })
	}
	f.fd = fds[1]
	_ = unix.SetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	if err := unix.Bind(f.fd, &unix.SockaddrLinklayer{Protocol: experimental>>8 | experimental&0xff<<8, Ifindex: index[1]}); err != nil {
		t.Fatal(err)
	}
	header := append(bytes.Clone(macs[1]), macs[0]...)
	go func() {
		seq := 0
		defer func() { f.sent <- seq }()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-f.stop:
				return
			case <-tick.C:
			}
			if seq-f.arrived() >= manyUnder {
				continue
			}
			if err := unix.Sendto(fds[0], append(header[:12:12], frame(seq)...), 0, &unix.SockaddrLinklayer{Ifindex: index[0]}); err != nil {
				t.Errorf("sending frame %d: %v", seq, err)
				return
			}
			seq++
		}
	}()
	_ = unix.SetsockoptTimeval(f.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	ended := make(chan struct{})
	go f.receive(ended)
	t.Cleanup(func() {
		close(ended)
		<-f.done
	})
	return f
}

// receive takes what comes until the test has ended.
func (f *frames) receive(ended <-chan struct{}) {
	defer close(f.done)
	b := make([]byte, 2048)
	for {
		select {
		case <-ended:
			return
		default:
		}
		n, _, err := unix.Recvfrom(f.fd, b, 0)
		if err != nil {
			continue // nothing for a while
		}
		f.mu.Lock()
		seq := -1
		if n >= 22 {
			seq = int(binary.BigEndian.Uint64(b[14:]))
		}
		switch {
		case seq < 0 || !bytes.Equal(b[12:n], frame(seq)):
			f.wrong++
		case seq < f.last:
			f.late++
			fallthrough
		default:
			f.came[seq]++
			f.last = max(f.last, seq)
		}
		f.mu.Unlock()
	}
}

// arrived is how many of the frames came.
func (f *frames) arrived() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.came)
}

// finish ends the sending and checks that B got every frame once, as it was, in order.
func (f *frames) finish() {
	f.t.Helper()
	close(f.stop)
	sent := <-f.sent
	for end := time.Now().Add(patience); f.arrived() < sent && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for what comes twice
	f.mu.Lock()
	defer f.mu.Unlock()
	twice := 0
	for _, n := range f.came {
		twice += n - 1
	}
	if lost := sent - len(f.came); lost != 0 || twice+f.wrong+f.late > 0 || sent == 0 {
		f.t.Errorf("of %d frames %d were lost, %d came twice, %d came otherwise than sent, %d after later ones", sent, lost, twice, f.wrong, f.late)
	}
}
