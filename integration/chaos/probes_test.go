package chaos

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

const (
	// probePort is the port of both ends of the probes.
	probePort = 7001
	// catchUp is for how long a sender that was held up sends what it did not.
	catchUp = 50 * time.Millisecond
	// manyUnder is how many probes may be under way before there are fewer: of the queues
	// on the way the shortest holds 1000 frames.
	manyUnder = 400
)

// cost is what happened to the probes of one direction in a span of numbers.
type cost struct {
	sent, lost int
	gap        int // the longest run of lost ones
}

// probes is one direction: numbered datagrams, one a millisecond.
type probes struct {
	from, to *net.UDPConn
	stop     chan struct{}
	wg       sync.WaitGroup

	mu    sync.Mutex
	got   []uint8 // by number: how often it came
	last  int     // the number that came last
	late  int     // came after one with a higher number
	twice int
	wrong int // not what was sent
}

// probe is the datagram of a number; the content differs from one to the next.
func probe(b []byte, seq int) []byte {
	b = binary.BigEndian.AppendUint64(b[:0], uint64(seq))
	b = append(b, netlab.Marker...)
	x := uint64(seq)*0x9e3779b97f4a7c15 + 1
	for range 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b = binary.BigEndian.AppendUint64(b, x)
	}
	return b
}

// newProbes starts a direction.
func newProbes(t testing.TB, from, to *net.UDPConn) *probes {
	p := &probes{from: from, to: to, stop: make(chan struct{}), last: -1}
	p.wg.Go(p.send)
	go p.receive()
	t.Cleanup(p.end)
	return p
}

// socket is a datagram socket of a host, with room for what comes while nobody reads.
func socket(t testing.TB, h *netlab.Host, addr netip.Addr) *net.UDPConn {
	t.Helper()
	pc, err := h.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(addr, probePort).String())
	if err != nil {
		t.Fatal(err)
	}
	c := pc.(*net.UDPConn)
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20)
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// send sends the number of probes that the clock demands: what the scheduler held up
// for a moment is sent at once, so that a number stands for a millisecond. Of many
// that are under way it sends one in ten milliseconds.
func (p *probes) send() {
	to := p.to.LocalAddr().(*net.UDPAddr).AddrPort()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var b []byte
	var due time.Duration
	then := time.Now()
	for seq := 0; ; {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		pace := time.Millisecond
		if p.underWay() > manyUnder {
			pace *= 10
		}
		now := time.Now()
		due = min(due+now.Sub(then), catchUp)
		then = now
		for ; due >= pace; due -= pace {
			p.mu.Lock()
			p.got = append(p.got, 0)
			p.mu.Unlock()
			b = probe(b, seq)
			seq++
			// One that the kernel refuses, its interface being down, is lost.
			_, _ = p.from.WriteToUDPAddrPort(b, to)
		}
	}
}

func (p *probes) receive() {
	b := make([]byte, 2048)
	var want []byte
	for {
		n, err := p.to.Read(b)
		if err != nil {
			return
		}
		p.mu.Lock()
		seq := -1
		if n >= 8 {
			seq = int(binary.BigEndian.Uint64(b))
		}
		if want = probe(want, seq); seq < 0 || seq >= len(p.got) || !bytes.Equal(b[:n], want) {
			p.wrong++
			p.mu.Unlock()
			continue
		}
		if p.got[seq]++; p.got[seq] > 1 {
			p.twice++
		}
		if seq < p.last {
			p.late++
		}
		p.last = max(p.last, seq)
		p.mu.Unlock()
	}
}

// end ends the sending; what is under way still counts.
func (p *probes) end() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.wg.Wait()
}

// underWay is how many have been sent since the last one that came.
func (p *probes) underWay() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got) - 1 - p.last
}

// past says whether some came that were sent after that number.
func (p *probes) past(seq int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last >= seq+20
}

// now is the number of the next probe.
func (p *probes) now() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

// arrived is how many of the numbers from one on came.
func (p *probes) arrived(from int) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.got[min(from, len(p.got)):] {
		if g > 0 {
			n++
		}
	}
	return n
}

// cost is what the numbers from one to another cost.
func (p *probes) cost(from, to int) (c cost) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gap := 0
	for _, g := range p.got[from:to] {
		c.sent++
		if gap++; g > 0 {
			gap = 0
		} else {
			c.lost++
		}
		c.gap = max(c.gap, gap)
	}
	return c
}
