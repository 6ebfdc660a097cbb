package appliance

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bitw/config"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

// nextPacket reads one packet of a trace.
func nextPacket(t *testing.T, x *Trace) *TracedPacket {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := x.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func stationsOf(p *TracedPacket) (list []string) {
	for i := range p.Stations {
		list = append(list, p.Stations[i].Station)
	}
	return list
}

func newTrace(t *testing.T, a *Appliance, filter string) *Trace {
	t.Helper()
	x, err := a.Trace(filter)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

// A packet's trace names every station that it meets, in their order.
func TestR50_TraceStations(t *testing.T) {
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg))
	in := newTrace(t, p.boxB, "in udp")
	p.datagrams(t, 1)
	nextPacket(t, in) // so neighbours are known
	events := p.boxA.Subscribe(0)
	defer events.Close()
	out := newTrace(t, p.boxA, "out udp host 192.0.2.2")
	if ev := awaitEvent(t, events, ofKind(TraceStarted)); ev.Filter != "out udp host 192.0.2.2" {
		t.Errorf("begun %+v", ev)
	}
	p.datagrams(t, 1)
	x := nextPacket(t, out)
	if got := stationsOf(x); !slices.Equal(got, []string{"link", "rule", "sa", "transform", "forward", "neighbor", "out"}) {
		t.Errorf("out by %v", got)
	}
	if x.Direction != "out" || !strings.HasPrefix(x.Packet, "udp 192.0.2.1:") || x.Dropped != "" || !strings.Contains(x.Verdict, "protect by rule v4; SA ab") {
		t.Errorf("out %+v", x)
	}
	if s := x.Stations[2]; s.Name != "ab" || s.SPI != "0x00001001" || s.Side != "host" || s.Algorithm != "aes128gcm16" || s.Address != "192.0.2.2" {
		t.Errorf("its SA %+v", s)
	}
	x = nextPacket(t, in)
	if got := stationsOf(x); !slices.Equal(got, []string{"link", "sa", "transform", "rule", "forward", "out"}) {
		t.Errorf("in by %v", got)
	}
	if x.Direction != "in" || !strings.HasPrefix(x.Packet, "esp 192.0.2.1 > 192.0.2.2 spi 0x00001001") || !strings.HasPrefix(x.Inner, "udp 192.0.2.1:") {
		t.Errorf("in %+v", x)
	}
	if end := out.Close(); end.Packets != 1 || end.Missed != 0 {
		t.Errorf("the end %+v", end)
	}
	awaitEvent(t, events, ofKind(TraceStopped))
	if _, err := p.boxA.Trace("udp port 99999"); err == nil {
		t.Error("a filter that is none")
	}
	if err := p.boxB.Close(); err != nil {
		t.Error(err)
	}
	for {
		if _, err := in.Next(t.Context()); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.boxB.Trace(""); err == nil {
		t.Error("a trace of what has ended")
	}
}

// What is dropped says why.
func TestR50_TraceDrops(t *testing.T) {
	cfg := protectAll(t)
	other := mirror(cfg)
	other.SAs = slices.Clone(other.SAs)
	other.SAs[0].EncryptionKey = key(t, 20)
	cfg.Policies = append(slices.Clone(cfg.Policies), config.Policy{Name: "no", Action: config.Discard})
	p := newMemoryPair(t, cfg, other)
	x := newTrace(t, p.boxB, "drop icv")
	d := newTrace(t, p.boxA, "drop policy_discard rule no")
	p.datagrams(t, 1)
	if got := nextPacket(t, x); got.Dropped != wire.DropICV.String() || got.Stations[len(got.Stations)-1].Station != "drop" ||
		got.Stations[len(got.Stations)-1].Name != "ab" || !strings.HasPrefix(got.Verdict, "dropped: icv") {
		t.Errorf("%+v", got)
	}
	p.datagramsTo(t, netip.MustParseAddr("192.0.2.77"), 1)
	if got := nextPacket(t, d); got.Dropped != "policy_discard" || !strings.Contains(got.Packet, "> 192.0.2.77:") {
		t.Errorf("%+v", got)
	}
}

// Nobody reads, and the packets do not wait for it: what there is no room for is counted.
func TestR50_TraceIsBounded(t *testing.T) {
	x := &Trace{free: make(chan *traced, 2), full: make(chan *traced, 2)}
	for range 2 {
		x.free <- new(traced)
	}
	trail := new(trace.Trail)
	at := time.Unix(100, 0)
	tell := func(n int) {
		for range n {
			trail.Reset(at, true)
			trail.Add(trace.Step{Station: trace.Link, Octets: 60})
			x.Packet(trail)
		}
	}
	if n := testing.AllocsPerRun(100, func() { tell(1) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
	if got := x.take(<-x.full); got.Missed != 0 || len(got.Stations) != 1 {
		t.Errorf("the first %+v", got)
	}
	x.take(<-x.full)
	tell(1)
	if got := x.take(<-x.full); got.Missed != 99 { // of 101
		t.Errorf("after a gap %+v", got)
	}
	// There are not more in a second than that, however fast it is read.
	at = at.Add(time.Second)
	told := 0
	for range 2 * tracedPerSecond {
		tell(1)
		for len(x.full) > 0 {
			x.take(<-x.full)
			told++
		}
	}
	if told != tracedPerSecond || x.missed.Load() != tracedPerSecond {
		t.Errorf("%d told and %d missed in a second", told, x.missed.Load())
	}
}
