package bench

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"bitw/appliance/netns"
)

// A kernelMeasure is something that is measured of each pair.
type kernelMeasure struct {
	name, unit string
	values     []string // names of what take returns
	take       func(ctx context.Context, p *pair, plan *plan) ([]float64, error)
}

func kernelMeasures() []kernelMeasure {
	return []kernelMeasure{
		{"TCP from a to b", "Mbit/s", []string{"tcp-ab"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return one(tcpRate(ctx, p.hosts[0], p.hosts[1], address(1).Addr(), plan.tcp))
		}},
		{"TCP from b to a", "Mbit/s", []string{"tcp-ba"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return one(tcpRate(ctx, p.hosts[1], p.hosts[0], address(0).Addr(), plan.tcp))
		}},
		{"UDP of 64 octets", "packets/s", []string{"udp-64"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return one(udpRate(ctx, p, 64, plan))
		}},
		{"UDP of 1,400 octets", "packets/s", []string{"udp-1400"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return one(udpRate(ctx, p, 1400, plan))
		}},
		{"round trips", "µs", []string{"rtt-p50", "rtt-p99"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return roundTrips(ctx, p.hosts[0], address(1).Addr(), plan.pings)
		}},
		{"round trips beside TCP", "µs", []string{"rtt-tcp-p50", "rtt-tcp-p99"}, func(ctx context.Context, p *pair, plan *plan) ([]float64, error) {
			return roundTripsBesideTCP(ctx, p.hosts[0], p.hosts[1], address(1).Addr(), plan.beside)
		}},
	}
}

func one(value float64, err error) ([]float64, error) { return []float64{value}, err }

// connectTimeout is long enough for every pair that works, on a busy machine too.
const connectTimeout = 10 * time.Second

// tcpRate sends over one connection for a while, after a quarter of that which does not
// count, and returns Mbit/s of what arrives.
func tcpRate(ctx context.Context, from, to *netns.Namespace, at netip.Addr, length time.Duration) (float64, error) {
	l, err := to.ListenTCP(ctx, netip.AddrPortFrom(at, 0))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	out, err := from.DialTCP(ctx, l.Addr().(*net.TCPAddr).AddrPort())
	if err != nil {
		return 0, err
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	warm := length / 4
	start := time.Now()
	end := start.Add(warm + length)
	sent := make(chan error, 1)
	go func() {
		block := make([]byte, 256<<10)
		_ = out.SetWriteDeadline(end.Add(2 * connectTimeout)) // it ends when the reader closes
		for {
			if _, err := out.Write(block); err != nil {
				sent <- err
				return
			}
		}
	}()
	block := make([]byte, 1<<20)
	octets := 0
	began, now := start.Add(warm), start
	// Where hardly anything arrives, it takes as long as it takes.
	_ = in.SetReadDeadline(end.Add(connectTimeout))
	for octets == 0 || now.Before(end) {
		n, err := in.Read(block)
		if err != nil {
			return 0, fmt.Errorf("TCP: %w", err)
		}
		if now = time.Now(); now.After(began) {
			octets += n
		}
	}
	_, _ = in.Close(), out.Close()
	<-sent
	return float64(octets) * 8 / 1e6 / now.Sub(began).Seconds(), nil
}

// pingData is how many octets follow the ICMP header, as many as ping sends.
const pingData = 56

// roundTrips sends n echo requests one after the other, and returns the 50th and the
// 99th percentile of their times in microseconds. Lost ones are left out.
func roundTrips(ctx context.Context, from *netns.Namespace, to netip.Addr, n int) ([]float64, error) {
	return echoes(ctx, from, to, n/2, func(answered, lost int) bool { return answered+lost < n })
}

// roundTripsBesideTCP is roundTrips while one connection sends in the same direction for a
// while, of which a quarter has passed before. What waits in a queue that the connection
// fills is in the times.
func roundTripsBesideTCP(ctx context.Context, from, to *netns.Namespace, at netip.Addr, length time.Duration) ([]float64, error) {
	const maxLost = 50
	ended := make(chan error, 1)
	go func() {
		_, err := tcpRate(ctx, from, to, at, length)
		ended <- err
	}()
	var (
		over bool
		err  error
	)
	select {
	case err = <-ended:
		over = true
	case <-time.After(length / 4):
	}
	values, pingErr := echoes(ctx, from, at, maxLost, func(answered, lost int) bool {
		if !over {
			select {
			case err = <-ended:
				over = true
			default:
			}
		}
		return !over || answered == 0 && err == nil
	})
	if !over {
		err = <-ended
	}
	if err = cmp.Or(err, pingErr); err != nil {
		return nil, fmt.Errorf("round trips beside TCP: %w", err)
	}
	return values, nil
}

// echoes sends echo requests one after the other as long as more says, by how many were
// answered and how many were not, and returns the 50th and the 99th percentile of their
// times in microseconds. More than maxLost without an answer are an error.
func echoes(ctx context.Context, from *netns.Namespace, to netip.Addr, maxLost int, more func(answered, lost int) bool) ([]float64, error) {
	c, err := from.DialPing(ctx, to)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var times []float64
	for seq, lost := 0, 0; more(len(times), lost); seq++ {
		d, err := ping(c, uint16(seq), 200*time.Millisecond)
		if errors.Is(err, os.ErrDeadlineExceeded) && lost < maxLost {
			lost++
			continue
		} else if err != nil {
			return nil, fmt.Errorf("round trips: %w", err)
		}
		times = append(times, float64(d)/1e3)
		if seq%64 == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	if len(times) == 0 {
		return nil, errors.New("round trips: no answer")
	}
	slices.Sort(times)
	return []float64{percentile(times, 50), percentile(times, 99)}, nil
}

// ping returns the time of one round trip.
func ping(c net.Conn, seq uint16, timeout time.Duration) (time.Duration, error) {
	message := [8 + pingData]byte{0: 8} // echo request (RFC 792)
	binary.BigEndian.PutUint16(message[6:], seq)
	var answer [256]byte
	start := time.Now()
	if err := c.SetDeadline(start.Add(timeout)); err != nil {
		return 0, err
	}
	if _, err := c.Write(message[:]); err != nil {
		return 0, err
	}
	for {
		n, err := c.Read(answer[:])
		if err != nil {
			return 0, err
		}
		if n >= 8 && binary.BigEndian.Uint16(answer[6:]) == seq {
			return time.Since(start), nil
		}
	}
}

// reach returns when the hosts of a pair find each other.
func (p *pair) reach(ctx context.Context) error {
	c, err := p.hosts[0].DialPing(ctx, address(1).Addr())
	if err != nil {
		return err
	}
	defer c.Close()
	for seq, end := uint16(0), time.Now().Add(connectTimeout); ; seq++ {
		if _, err = ping(c, seq, 100*time.Millisecond); err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Now().After(end) {
			return fmt.Errorf("the hosts do not reach each other: %w", err)
		}
	}
}
