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
	said   atomic.Int64 // octets given to the connection
	echoed atomic.Int64 // octets that came back
	ended  atomic.Bool  // the connection is no more
}

func startStream(t testing.TB, from, to *netlab.Host, at netip.Addr) *stream {
	t.Helper()
	for _, h := range []*netlab.Host{from, to} {
		if err := h.RetryOften(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := deadline(t, patience)
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
			n, err := s.conn.Write([]byte(netlab.Marker))
			s.said.Add(int64(n))
			if err != nil {
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

// spoken waits until no connection of the hosts sends anything by itself any more, not even
// its end once more.
func spoken(t testing.TB, hosts ...*netlab.Host) {
	t.Helper()
	for _, h := range hosts {
		eventually(t, "the connections of "+h.Name()+" have ended", func() bool {
			out, err := h.Run(deadline(t, patience), "ss", "-Htn", "exclude", "listening", "exclude", "time-wait", "exclude", "fin-wait-2")
			if err != nil {
				t.Fatal(err)
			}
			return out == ""
		})
	}
}

// moves waits until all that was said comes back, and some messages more.
func (s *stream) moves(when string) {
	s.t.Helper()
	mark := s.said.Load() + 20*int64(len(netlab.Marker))
	eventually(s.t, "the open TCP connection goes on "+when, func() bool {
		if s.ended.Load() {
			s.t.Fatalf("the open TCP connection broke %s", when)
		}
		return s.echoed.Load() >= mark
	})
}

// stands checks that nothing of the stream comes through for a while, once what was under
// way has come.
func (s *stream) stands(d time.Duration) {
	s.t.Helper()
	eventually(s.t, "the open TCP connection stands still", func() bool {
		before := s.echoed.Load()
		time.Sleep(d)
		return s.echoed.Load() == before
	})
	if s.ended.Load() {
		s.t.Error("the open TCP connection broke; expected it to stand still")
	}
}
