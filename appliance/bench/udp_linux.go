package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

const (
	// udpBatch is how many datagrams go to the kernel in one call.
	udpBatch = 16
	// udpBuffer is the receiver's, in octets: bursts of the sender's are not what is
	// measured.
	udpBuffer = 8 << 20
	// goodPart of the datagrams must arrive.
	goodPart = 0.99
)

// A flood sends datagrams of one size from host a to host b.
type flood struct {
	out   net.Conn
	in    net.PacketConn
	batch *ipv4.PacketConn
	msgs  []ipv4.Message
	trial uint32
	got   atomic.Int64 // of the trial
	now   atomic.Uint32
	done  chan struct{}
}

func newFlood(ctx context.Context, p *pair, size int) (*flood, error) {
	f := &flood{done: make(chan struct{})}
	var err error
	if f.in, err = p.hosts[1].ListenUDP(ctx, netip.AddrPortFrom(address(1).Addr(), 0)); err != nil {
		return nil, err
	}
	if f.out, err = p.hosts[0].DialUDP(ctx, f.in.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		_ = f.in.Close()
		return nil, err
	}
	raw, err := f.in.(*net.UDPConn).SyscallConn()
	if err == nil {
		var set error
		err = raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer)
		})
		err = errors.Join(err, set)
	}
	if err != nil {
		_, _ = f.in.Close(), f.out.Close()
		return nil, fmt.Errorf("receive buffer: %w", err)
	}
	f.batch = ipv4.NewPacketConn(f.out.(net.PacketConn))
	f.msgs = make([]ipv4.Message, udpBatch)
	for i := range f.msgs {
		f.msgs[i].Buffers = [][]byte{make([]byte, size)}
	}
	go f.receive(size)
	return f, nil
}

func (f *flood) close() {
	_, _ = f.in.Close(), f.out.Close()
	<-f.done
}

// receive counts the datagrams of the trial.
func (f *flood) receive(size int) {
	defer close(f.done)
	c := ipv4.NewPacketConn(f.in)
	msgs := make([]ipv4.Message, 64)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, size)}
	}
	for {
		n, err := c.ReadBatch(msgs, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		good, now := int64(0), f.now.Load()
		for _, m := range msgs[:max(0, n)] {
			if m.N == size && binary.BigEndian.Uint32(m.Buffers[0]) == now {
				good++
			}
		}
		f.got.Add(good)
	}
}

// offer sends at a rate in packets a second, 0 for as fast as it can, and returns how
// many a second were sent, and the part that arrived.
func (f *flood) offer(rate float64, length time.Duration) (sent, part float64, err error) {
	f.trial++
	f.got.Store(0)
	f.now.Store(f.trial)
	for _, m := range f.msgs {
		binary.BigEndian.PutUint32(m.Buffers[0], f.trial)
	}
	n := 0
	start := time.Now()
	for {
		passed := time.Since(start)
		if passed >= length {
			break
		}
		if rate > 0 && float64(n) > rate*passed.Seconds() {
			// Shorter than what the runtime's timers can do.
			_ = unix.Nanosleep(&unix.Timespec{Nsec: 50_000}, nil)
			continue
		}
		k, err := f.batch.WriteBatch(f.msgs, 0)
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return 0, 0, fmt.Errorf("UDP: %w", err)
		}
		n += max(k, 1) // what the kernel had no room for is lost, too
	}
	passed := time.Since(start)
	// The rest arrives, or does not.
	for last, quiet := f.got.Load(), 0; quiet < 3; {
		time.Sleep(5 * time.Millisecond)
		if got := f.got.Load(); got == last {
			quiet++
		} else {
			last, quiet = got, 0
		}
		if time.Since(start) > 2*length+time.Second {
			break
		}
	}
	return float64(n) / passed.Seconds(), float64(f.got.Load()) / float64(n), nil
}

// udpRate looks for the highest rate, in packets a second that arrive, at which fewer
// than 1 of 100 are lost. It begins where it ended the last time.
func udpRate(ctx context.Context, p *pair, size int, plan *plan) (float64, error) {
	f, err := newFlood(ctx, p, size)
	if err != nil {
		return 0, err
	}
	defer f.close()
	name := fmt.Sprint(size)
	guess := p.rates[name]
	var best, low, high float64
	trials := plan.trials
	if guess == 0 {
		trials *= 2 // nothing is known yet
	}
	for range trials {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		sent, part, err := f.offer(guess, plan.udp)
		if err != nil {
			return 0, err
		}
		good := part >= goodPart
		if good {
			best = max(best, sent*part)
		}
		if good && (guess == 0 || sent < guess*0.97) {
			break // the sender can no more
		}
		switch {
		case good:
			low = guess
		case guess == 0:
			high = sent
		default:
			high = guess
		}
		switch {
		case !good && guess == 0:
			guess = sent * max(part, 0.05)
		case high == 0:
			guess = low * 1.3
		case low == 0:
			guess *= 0.7
		default:
			guess = math.Sqrt(low * high)
		}
	}
	if best > 0 {
		p.rates[name] = best
	}
	return best, nil
}
