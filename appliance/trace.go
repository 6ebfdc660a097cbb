package appliance

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

const (
	// traceRoom is how many packets of a trace wait to be read.
	traceRoom = 256
	// tracedPerSecond bounds the packets of a trace, so that reading it takes no more than a
	// small part of what the packets themselves need. The others are counted.
	tracedPerSecond = 4000
	// maxTraceSeconds bounds TraceRequest.Seconds: a week.
	maxTraceSeconds = 7 * 24 * 3600
)

// A TraceRequest says which packets are to be traced, and for how long.
type TraceRequest struct {
	// Filter is as trace.FilterGrammar has it; empty for all packets.
	Filter string `json:"filter,omitempty"`
	// Count ends the trace after so many packets, Seconds after that time; 0 for never.
	Count   int     `json:"count,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
}

// A TracedPacket is one packet with all that it met in the box.
type TracedPacket struct {
	Time time.Time `json:"time"`
	// Direction is "out" for what the host sent, "in" for what came from the wire.
	Direction string `json:"direction"`
	// Packet is the packet as it came, in the words of a filter, and Inner what was in it
	// once SAs were taken off.
	Packet string `json:"packet"`
	Inner  string `json:"inner,omitempty"`
	// Dropped is the reason, where the packet or a part of it was dropped.
	Dropped string `json:"dropped,omitempty"`
	// Verdict says in a line what became of it.
	Verdict  string         `json:"verdict"`
	Stations []TraceStation `json:"stations"`
	// MoreStations is how many there were beside.
	MoreStations int `json:"more_stations,omitempty"`
	// Missed is how many packets that fit the filter came before this one and are not
	// told: its reader was too slow for them, or there were too many in a second.
	Missed uint64 `json:"missed,omitempty"`
}

// A TraceStation is what a packet met at one place. The fields are those of trace.Step.
type TraceStation struct {
	// Station is "link", "hook", "rule", "sa", "transform", "fragment", "pmtu", "neighbor",
	// "forward", "out" or "drop"; Side is "host" or "wire".
	Station string `json:"station"`
	Side    string `json:"side"`
	// Text is for people.
	Text      string `json:"text"`
	Verdict   string `json:"verdict,omitempty"`
	Name      string `json:"name,omitempty"`
	Algorithm string `json:"algorithm,omitempty"`
	SPI       string `json:"spi,omitempty"`
	Address   string `json:"address,omitempty"`
	MAC       string `json:"mac,omitempty"`
	From      int    `json:"from,omitempty"`
	Octets    int    `json:"octets,omitempty"`
	Frames    int    `json:"frames,omitempty"`
	Reason    string `json:"reason,omitempty"`
}

// A TraceEnd is what a trace came to.
type TraceEnd struct {
	Packets uint64 `json:"packets"`
	// Missed is how many packets that fit were not told.
	Missed uint64 `json:"missed"`
}

// A TraceLine is what the control socket answers of a trace: a packet, or at last the end.
type TraceLine struct {
	*TracedPacket
	End *TraceEnd `json:"end,omitempty"`
}

// A Trace tells packets as their way through the box ends. It is for one goroutine; the
// packet path puts copies into its room and does not wait for it.
type Trace struct {
	a      *Appliance
	watch  *hook.Watch
	filter *trace.Filter
	words  string
	by     string

	free, full chan *traced
	second     atomic.Int64 // since 1970, of left
	left       atomic.Int64 // how many may be told in this second
	missed     atomic.Uint64
	unwatch    func()
	// told and lost are those of TraceEnd.
	told, lost atomic.Uint64
}

// traced is room for one packet.
type traced struct {
	trail  trace.Trail
	missed uint64
}

var _ hook.Observer = (*Trace)(nil)

// Trace traces the packets that fit a filter, as trace.FilterGrammar has it, from now on
// until Close. While nobody traces, that costs a packet one load; while somebody does, each
// goes by itself instead of in a train with others, its way is noted, and those that fit
// cost a copy of that. What its reader is too slow for is counted. A
// packet that has to wait in the box, for a neighbour or an SA, ends its way with that.
func (a *Appliance) Trace(filter string) (*Trace, error) { return a.traceFor("", filter) }

func (a *Appliance) traceFor(by, filter string) (*Trace, error) {
	f, err := trace.ParseFilter(filter)
	if err != nil {
		return nil, err
	}
	b, err := a.running()
	if err != nil {
		return nil, err
	}
	t := &Trace{a: a, watch: b.watch, filter: f, words: filter, by: by, free: make(chan *traced, traceRoom), full: make(chan *traced, traceRoom)}
	for range traceRoom {
		t.free <- new(traced)
	}
	a.tell(Event{Kind: TraceStarted, Level: "info", Text: "a trace was started", Filter: filter, By: by})
	t.watch.Add(t)
	t.unwatch = a.watchers.add(Watcher{Kind: WatcherTrace, By: by, Since: time.Unix(0, a.opt.clock()), Filter: filter}, func() (packets, missed uint64) {
		return t.told.Load(), t.lost.Load() + t.missed.Load()
	})
	return t, nil
}

// Close ends the trace, and returns what it came to.
func (t *Trace) Close() TraceEnd {
	if t.watch != nil {
		t.watch.Remove(t)
		t.watch = nil
		t.unwatch()
		t.lost.Add(t.missed.Swap(0) + uint64(len(t.full)))
		t.a.tell(Event{Kind: TraceStopped, Level: "info", Text: "a trace of " + some(t.told.Load(), "packet") + " was stopped", Filter: t.words, By: t.by})
	}
	return TraceEnd{Packets: t.told.Load(), Missed: t.lost.Load()}
}

// Next returns the next packet, and waits for it until ctx ends, whose error it then
// returns, or the appliance, which is io.EOF.
func (t *Trace) Next(ctx context.Context) (*TracedPacket, error) {
	select {
	case x := <-t.full:
		return t.take(x), nil
	default:
	}
	select {
	case x := <-t.full:
		return t.take(x), nil
	case <-t.a.done:
		return nil, io.EOF
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// take tells a packet and gives its room back.
func (t *Trace) take(x *traced) *TracedPacket {
	p := describe(&x.trail)
	p.Missed = x.missed
	t.told.Add(1)
	t.lost.Add(x.missed)
	t.free <- x
	return p
}

// Snaplen implements hook.Observer.
func (*Trace) Snaplen() int { return 0 }

// Loose implements hook.Observer.
func (*Trace) Loose(*trace.Frame) {}

// Packet implements hook.Observer.
func (t *Trace) Packet(x *trace.Trail) {
	if !t.filter.Match(x) {
		return
	}
	if now, was := x.At.Unix(), t.second.Load(); now != was && t.second.CompareAndSwap(was, now) {
		t.left.Store(tracedPerSecond)
	}
	if t.left.Add(-1) >= 0 {
		select {
		case room := <-t.free:
			x.CopyTo(&room.trail)
			room.missed = t.missed.Swap(0)
			t.full <- room // there is as much room as there are of them
			return
		default:
		}
	}
	t.missed.Add(1)
}

// describe puts a packet's way into words.
func describe(t *trace.Trail) *TracedPacket {
	p := &TracedPacket{
		Time: t.At, Direction: "in", Packet: t.Flow.String(), Verdict: t.Verdict(),
		Stations: make([]TraceStation, 0, len(t.Steps())), MoreStations: t.More(),
	}
	if t.Left {
		p.Direction = "out"
	}
	if t.HasInner {
		p.Inner = t.Inner.String()
	}
	if t.Reason != wire.DropNone {
		p.Dropped = t.Reason.String()
	}
	for i := range t.Steps() {
		p.Stations = append(p.Stations, station(&t.Steps()[i]))
	}
	return p
}

func station(s *trace.Step) TraceStation {
	x := TraceStation{
		Station: s.Station.String(), Side: "wire", Text: s.Text(), Verdict: s.Verdict, Name: s.Name, Algorithm: s.Algorithm,
		From: s.From, Octets: s.Octets, Frames: s.Frames,
	}
	if s.Left {
		x.Side = "host"
	}
	if s.SPI != 0 {
		x.SPI = spiText(s.SPI)
	}
	if s.Address != (netip.Addr{}) {
		x.Address = s.Address.String()
	}
	if s.MAC != [6]byte{} {
		x.MAC = fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", s.MAC[0], s.MAC[1], s.MAC[2], s.MAC[3], s.MAC[4], s.MAC[5])
	}
	if s.Reason != wire.DropNone {
		x.Reason = s.Reason.String()
	}
	return x
}

// streamTrace answers POST /v1/trace.
func (a *Appliance) streamTrace(s *stream, r *http.Request) error {
	req, err := requested[TraceRequest](r)
	if err != nil {
		return err
	}
	if req.Count < 0 || req.Seconds < 0 || req.Seconds > maxTraceSeconds {
		return badRequest("expected a count of 0 or more and 0 to %d seconds, found %d and %v", maxTraceSeconds, req.Count, req.Seconds)
	}
	if _, err := trace.ParseFilter(req.Filter); err != nil {
		return badRequest("%v", err)
	}
	t, err := a.traceFor(who(r.Context()), req.Filter)
	if err != nil {
		return err
	}
	defer t.Close()
	if err := s.begin("application/x-ndjson"); err != nil {
		return err
	}
	ctx := s.ctx
	if req.Seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(req.Seconds*float64(time.Second)))
		defer cancel()
	}
	for n := 0; req.Count == 0 || n < req.Count; n++ {
		p, err := t.Next(ctx)
		if err != nil {
			break // it is to end
		}
		if err := s.line(TraceLine{TracedPacket: p}); err != nil {
			return err
		}
	}
	end := t.Close()
	return s.line(TraceLine{End: &end})
}
