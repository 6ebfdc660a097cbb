package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/link"
)

// The stages of an engine, of which each has all goroutines, hooks and counters of an
// appliance around it: 32 superframes of 42 segments to ESP, and back. Bytes are of TCP
// payload.
func BenchmarkEngine(b *testing.B) {
	for _, name := range []string{DefaultSuite, "chacha20poly1305", "aes128-sha256"} {
		for _, inbound := range []bool{false, true} {
			b.Run(name+"/"+map[bool]string{false: "outbound", true: "inbound"}[inbound], func(b *testing.B) {
				benchmarkEngine(b, name, inbound)
			})
		}
	}
}

func benchmarkEngine(b *testing.B, name string, inbound bool) {
	s, err := newSuite(name)
	if err != nil {
		b.Fatal(err)
	}
	e, err := newEngine(b.Context(), s)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := e.stop(); err != nil {
			b.Error(err)
		}
	}()
	b.SetBytes(superframes * payloadEach)
	b.ReportAllocs()
	for b.Loop() {
		if inbound {
			b.StopTimer()
		}
		_, err := e.outbound(inbound)
		if inbound {
			b.StartTimer()
			if err == nil {
				_, err = e.inbound()
			}
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/(superframes*segmentsEach), "ns/packet")
}

// The whole way through two graphs in memory: superframes from a host's link through
// one appliance, over the wire as ESP and through the other to the far host's link.
// Bytes are of TCP payload. Every goroutine, queue and copy of the real thing takes
// part, but for the kernel.
func BenchmarkGraph(b *testing.B) {
	for _, action := range []config.Action{config.Protect, config.Bypass} {
		b.Run(string(action), func(b *testing.B) { benchmarkGraph(b, action) })
	}
}

func benchmarkGraph(b *testing.B, action config.Action) {
	g := newGraph(b, action)
	b.SetBytes(payloadEach)
	b.ReportAllocs()
	b.ResetTimer()
	g.carry(b, b.N)
	b.StopTimer()
}

// A graph is two appliances in memory, one after the other.
type graph struct {
	boxes   [2]*box
	host    link.Device // whose frames go in
	frames  [][]byte    // one superframe
	arrived chan int    // octets of TCP payload
}

func newGraph(b *testing.B, action config.Action) *graph {
	b.Helper()
	s, err := newSuite(DefaultSuite)
	if err != nil {
		b.Fatal(err)
	}
	hostA, leftA := link.Pipe(link.PipeOptions{Queue: 8192})
	hostB, leftB := link.Pipe(link.PipeOptions{Queue: 8192})
	rightA, rightB := link.Pipe(link.PipeOptions{Queue: 8192})
	g := &graph{host: hostA, arrived: make(chan int, 1024)}
	b.Cleanup(func() {
		_ = hostB.Close()
		for range g.arrived {
		}
		if err := stopBoxes(g.boxes); err != nil {
			b.Error(err)
		}
	})
	for i, links := range [2][2]link.Device{{leftA, rightA}, {leftB, rightB}} {
		cfg := s.config(i, "", action)
		cfg.StaticNeighbors = []config.Neighbor{{Address: address(1 - i).Addr(), MAC: mac(1 - i)}}
		host := appliance.Host{MAC: mac(i), Addresses: []netip.Prefix{address(i)}}
		if g.boxes[i], err = startBox(b.Context(), cfg, appliance.WithLinks(links[0], links[1], host)); err != nil {
			close(g.arrived)
			b.Fatal(err)
		}
	}
	g.frames = [][]byte{superframe(mac(0), mac(0), address(0).Addr(), address(1).Addr())}
	go func() {
		defer close(g.arrived)
		bufs, sizes := make([][]byte, 64), make([]int, 64)
		for i := range bufs {
			bufs[i] = make([]byte, link.MaxFrameLen)
		}
		for {
			n, err := hostB.ReadFrames(bufs, sizes)
			octets := 0
			for i := range n {
				octets += tcpPayload(bufs[i][:sizes[i]])
			}
			g.arrived <- octets
			if err != nil {
				return
			}
		}
	}()
	g.carry(b, 1) // the first finds the next hop unresolved
	return g
}

// carry takes n superframes from end to end.
func (g *graph) carry(b *testing.B, n int) {
	// As many superframes are under way as fit the queues.
	const window = 64
	sent, got := 0, 0
	for got < n*payloadEach {
		for sent < n && sent*payloadEach-got < window*payloadEach {
			if _, err := g.host.WriteFrames(g.frames); err != nil {
				b.Fatal(err)
			}
			sent++
		}
		select {
		case octets := <-g.arrived:
			got += octets
		case <-time.After(5 * time.Second):
			b.Fatalf("after %d of %d octets nothing comes any more: %v", got, sent*payloadEach, dropsOf(g.boxes))
		}
	}
}

// What metrics that are scraped each second take from throughput. Rounds of a tenth of a
// second with a scrape of both appliances and without take turns, so that what is scraped ten
// times as often stands out from the machine's own noise; a tenth of the difference of their
// medians is the result. An iteration is a pair of rounds.
func BenchmarkScrapeEachSecond(b *testing.B) {
	g := newGraph(b, config.Protect)
	registries := [2]*prometheus.Registry{prometheus.NewRegistry(), prometheus.NewRegistry()}
	for i, r := range registries {
		r.MustRegister(g.boxes[i].Metrics())
	}
	const length = time.Second / 10
	n, took := 64, time.Duration(0)
	for ; took < length; n *= 2 {
		begin := time.Now()
		g.carry(b, n)
		took = time.Since(begin)
	}
	n = max(1, int(float64(n/2)*float64(length)/float64(took)))
	round := func(scrape bool) time.Duration {
		begin := time.Now()
		if scrape {
			for _, r := range registries {
				if _, err := r.Gather(); err != nil {
					b.Error(err)
				}
			}
		}
		g.carry(b, n)
		return time.Since(begin)
	}
	var times [2][]time.Duration // without, with
	for i := 0; b.Loop(); i++ {
		for j := range 2 {
			k := (i + j) % 2
			times[k] = append(times[k], round(k == 1))
		}
	}
	var median [2]float64
	for k := range times {
		slices.Sort(times[k])
		median[k] = float64(times[k][len(times[k])/2])
	}
	b.ReportMetric(100*(median[1]/median[0]-1)*float64(length)/float64(time.Second), "%slower")
}

func dropsOf(boxes [2]*box) string {
	return fmt.Sprint(boxes[0].Status().DropsBySide, boxes[1].Status().DropsBySide)
}

// tiny is a plan that shows the structure in a moment, and measures nothing of worth.
func tiny() plan {
	return plan{
		rounds: 2, memory: time.Millisecond,
		kernelRounds: 2, limit: 10 * time.Minute, tcp: 20 * time.Millisecond, udp: 5 * time.Millisecond, trials: 2, pings: 200,
		beside: 20 * time.Millisecond,
	}
}

// A bench that is cancelled ends, and says so.
func TestCancelled(t *testing.T) {
	p := tiny()
	p.rounds = 1 << 30
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := start(ctx, Options{Memory: true}, p); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, expected that time is over", err)
	}
}
