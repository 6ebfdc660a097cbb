package integration

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// stream is a TCP connection on which one host says something every few
// milliseconds, and the other says it back.
type stream struct {
	t      testing.TB
	conn   net.Conn
	echoed atomic.Int64 // octets that came back
	ended  atomic.Bool  // the connection is no more
}

func startStream(t testing.TB, from, to *netlab.Host, at netip.Addr) *stream {
	t.Helper()
	ctx := deadline(t, 10*time.Second)
	l, err := to.Listen(context.Background(), "tcp", netip.AddrPortFrom(at, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	s := &stream{t: t}
	if s.conn, err = from.Dial(ctx, "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			if _, err := s.conn.Write([]byte(netlab.Marker)); err != nil {
				s.ended.Store(true)
				return
			}
		}
	}()
	go func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := s.conn.Read(buffer)
			s.echoed.Add(int64(n))
			if err != nil {
				s.ended.Store(true)
				return
			}
		}
	}()
	s.moves("at its start")
	return s
}

// moves waits until the stream has moved on by some messages.
func (s *stream) moves(when string) {
	s.t.Helper()
	mark := s.echoed.Load() + 20*int64(len(netlab.Marker))
	eventually(s.t, "the open TCP connection goes on "+when, func() bool {
		if s.ended.Load() {
			s.t.Fatalf("the open TCP connection broke %s", when)
		}
		return s.echoed.Load() >= mark
	})
}

// stands checks that nothing of the stream comes through for a while.
func (s *stream) stands(d time.Duration) {
	s.t.Helper()
	time.Sleep(50 * time.Millisecond) // what is under way
	before := s.echoed.Load()
	time.Sleep(d)
	if n := s.echoed.Load() - before; n > 0 || s.ended.Load() {
		s.t.Errorf("%d octets of the connection came through, ended: %v; expected it to stand still", n, s.ended.Load())
	}
}
