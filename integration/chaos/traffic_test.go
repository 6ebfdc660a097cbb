package chaos

import (
	"crypto/sha256"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// traffic is what goes on between two hosts while things happen to them: a TCP
// connection with data in both directions, and probes in both directions.
type traffic struct {
	t      testing.TB
	probes [2]*probes // A to B, B to A
	stream [2]*stream // A to B, B to A
}

// stream is one direction of the connection.
type stream struct {
	stop     chan struct{}
	arrived  atomic.Int64
	sent     chan result
	received chan result
}

type result struct {
	digest netlab.Digest
	err    error
}

// streamRate is in octets a millisecond: enough that segments are always under way,
// not so much that queues fill.
const streamRate = 4096

// start starts the traffic between the hosts' IPv4 addresses.
func start(t testing.TB, pair *netlab.Pair) *traffic { return startBetween(t, pair, a4, b4) }

// startBetween starts the traffic between two addresses.
func startBetween(t testing.TB, pair *netlab.Pair, a, b netip.Addr) *traffic {
	t.Helper()
	tr := &traffic{t: t}
	for _, h := range []*netlab.Host{pair.A, pair.B} {
		if err := h.RetryOften(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := deadline(t, patience)
	l, err := pair.B.Listen(ctx, "tcp", net.JoinHostPort(b.String(), "7002"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca, err := pair.A.Dial(ctx, "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cb, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = ca.Close(), cb.Close() })
	tr.stream = [2]*stream{newStream(ca, cb, 1), newStream(cb, ca, 2)}
	sa, sb := socket(t, pair.A, a), socket(t, pair.B, b)
	tr.probes = [2]*probes{newProbes(t, sa, sb), newProbes(t, sb, sa)}
	tr.flows("at the start")
	return tr
}

func newStream(from, to net.Conn, seed uint64) *stream {
	s := &stream{stop: make(chan struct{}), sent: make(chan result, 1), received: make(chan result, 1)}
	go func() {
		var r result
		r.digest, r.err = s.send(from, seed)
		s.sent <- r
	}()
	go func() {
		var r result
		r.digest, r.err = netlab.Receive(counted{to, &s.arrived})
		s.received <- r
	}()
	return s
}

type counted struct {
	io.Reader
	n *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// send writes until stop, then closes its direction.
func (s *stream) send(to net.Conn, seed uint64) (d netlab.Digest, err error) {
	payload, sum, b := netlab.NewPayload(seed), sha256.New(), make([]byte, 4*streamRate)
	tick := time.NewTicker(4 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			sum.Sum(d.Sum[:0])
			return d, to.(*net.TCPConn).CloseWrite()
		case <-tick.C:
		}
		_, _ = payload.Read(b)
		_, _ = sum.Write(b)
		if _, err := to.Write(b); err != nil {
			return d, err
		}
		d.Size += int64(len(b))
	}
}

// flows waits until everything goes in both directions, after and in spite of what
// happened.
func (tr *traffic) flows(after string) {
	tr.t.Helper()
	var from [2]int
	var octets [2]int64
	for i := range 2 {
		from[i], octets[i] = tr.probes[i].now(), tr.stream[i].arrived.Load()
	}
	for i, way := range []string{"A to B", "B to A"} {
		eventually(tr.t, "probes from "+way+" "+after, func() bool { return tr.probes[i].arrived(from[i]) > 20 })
		eventually(tr.t, "the connection's data from "+way+" "+after, func() bool { return tr.stream[i].arrived.Load() > octets[i]+8*streamRate })
	}
}

// span is a span of probes of both directions.
type span struct {
	tr   *traffic
	from [2]int
}

// begin begins a span, with some probes before what is going to happen.
func (tr *traffic) begin() span {
	s := span{tr: tr}
	for i, p := range tr.probes {
		s.from[i] = p.now()
	}
	time.Sleep(20 * time.Millisecond)
	return s
}

// end ends a span, once what was under way has come, and puts it in the table.
func (s span) end(what string) [2]cost {
	s.tr.t.Helper()
	var to [2]int
	for i, p := range s.tr.probes {
		to[i] = p.now()
	}
	// On a busy machine what is late is not lost: later ones have come, and nothing more
	// for a while.
	const look, calm = 10 * time.Millisecond, 25
	var c [2]cost
	began := time.Now()
	for quiet := 0; quiet < calm; quiet++ {
		time.Sleep(look)
		for i, p := range s.tr.probes {
			was := c[i]
			c[i] = p.cost(s.from[i], to[i])
			if c[i] != was || c[i].lost > 0 && !p.past(to[i]) && time.Since(began) < patience {
				quiet = 0
			}
		}
		if c[0].lost == 0 && c[1].lost == 0 {
			break
		}
	}
	shared.note(what, c)
	return c
}

// atMost checks that no direction lost more than so many probes.
func atMost(t testing.TB, what string, c [2]cost, lost int) {
	t.Helper()
	for i, way := range []string{"A to B", "B to A"} {
		if c[i].lost > lost {
			t.Errorf("%s: of %d probes from %s, one a millisecond, %d were lost, the longest gap %d; expected at most %d", what, c[i].sent, way, c[i].lost, c[i].gap, lost)
		}
	}
}

// finish ends the traffic and checks that the connection has carried all that was
// given to it and that no probe came changed or, unless doubles is set, twice.
func (tr *traffic) finish() {
	tr.t.Helper()
	for _, s := range tr.stream {
		close(s.stop)
	}
	for i, way := range []string{"A to B", "B to A"} {
		var r [2]result
		for k, c := range []chan result{tr.stream[i].sent, tr.stream[i].received} {
			select {
			case r[k] = <-c:
			case <-time.After(patience):
				tr.t.Errorf("the connection's data from %s does not end", way)
				return
			}
			if r[k].err != nil {
				tr.t.Errorf("the connection from %s: %v", way, r[k].err)
			}
		}
		if r[0].digest != r[1].digest {
			tr.t.Errorf("the connection from %s: sent %v, received %v", way, r[0].digest, r[1].digest)
		}
		p := tr.probes[i]
		p.end()
		p.mu.Lock()
		if p.wrong > 0 || p.twice > 0 {
			tr.t.Errorf("probes from %s: %d are not what was sent, %d came twice", way, p.wrong, p.twice)
		}
		p.mu.Unlock()
	}
}

// ordered checks that each probe came after those that were sent before it.
func (tr *traffic) ordered() {
	tr.t.Helper()
	for i, way := range []string{"A to B", "B to A"} {
		p := tr.probes[i]
		p.mu.Lock()
		if p.late > 0 {
			tr.t.Errorf("%d probes from %s came after later ones", p.late, way)
		}
		p.mu.Unlock()
	}
}
