package appliance

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

const (
	// traceLinesPerSecond bounds what nodes tell the log of packets; the rest is counted.
	traceLinesPerSecond = 200
	// traceQueue is how many lines wait for the log.
	traceQueue = 256
)

// A traceLog writes to the log what nodes tell by their levels. The packet path hands it
// lines and does not wait for it.
type traceLog struct {
	levels *traceLevels
	log    logrus.FieldLogger
	lines  chan traceLine
	// left is how many lines this second may still have, and missing how many it had too
	// many since the last line.
	left    atomic.Int64
	missing atomic.Uint64

	mu       sync.Mutex
	watching *hook.Watch
	stop     chan struct{}
	done     chan struct{}
}

type traceLine struct {
	node, flow, station, text string
	level                     trace.Level
}

var _ hook.Observer = (*traceLog)(nil)

func newTraceLog(levels *traceLevels, log logrus.FieldLogger) *traceLog {
	return &traceLog{levels: levels, log: log, lines: make(chan traceLine, traceQueue)}
}

// watch has the log see packets if any node tells something of them, and else not.
func (l *traceLog) watch(w *hook.Watch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch want := l.levels.ofPackets(); {
	case want && l.watching == nil:
		l.watching, l.stop, l.done = w, make(chan struct{}), make(chan struct{})
		l.left.Store(traceLinesPerSecond)
		go l.run(l.stop, l.done)
		w.Add(l)
	case !want:
		l.end()
	}
}

// close ends it.
func (l *traceLog) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}

func (l *traceLog) end() {
	if l.watching == nil {
		return
	}
	l.watching.Remove(l)
	close(l.stop)
	<-l.done
	l.watching = nil
}

// run writes lines until stop.
func (l *traceLog) run(stop, done chan struct{}) {
	defer close(done)
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for {
		select {
		case x := <-l.lines:
			l.write(x)
		case <-second.C:
			l.left.Store(traceLinesPerSecond)
		case <-stop:
			for len(l.lines) > 0 {
				l.write(<-l.lines)
			}
			return
		}
	}
}

func (l *traceLog) write(x traceLine) {
	log := l.log.WithFields(logrus.Fields{"node": x.node, "level": x.level.String(), "packet": x.flow, "station": x.station})
	if n := l.missing.Swap(0); n > 0 {
		log = log.WithField("lines_missing", n)
	}
	if x.level >= trace.SoftErrors {
		log.Warn(x.text)
		return
	}
	log.Info(x.text)
}

// Snaplen implements hook.Observer.
func (*traceLog) Snaplen() int { return 0 }

// Loose implements hook.Observer.
func (*traceLog) Loose(*trace.Frame) {}

// Packet implements hook.Observer.
func (l *traceLog) Packet(t *trace.Trail) {
	flow := ""
	steps := t.Steps()
	for i := range steps {
		s := &steps[i]
		id, level := partOf(s)
		name, on := l.levels.on(id, level, s.Algorithm)
		if !on {
			continue
		}
		if l.left.Add(-1) < 0 {
			l.missing.Add(1)
			continue
		}
		if flow == "" {
			flow = t.Flow.String()
		}
		select {
		case l.lines <- traceLine{name, flow, s.Station.String(), s.Text(), level}:
		default:
			l.missing.Add(1)
		}
	}
}

// partOf says which node does what a step tells of, and how much of it that is.
func partOf(s *trace.Step) (trace.ID, trace.Level) {
	side := func(left, right trace.ID) trace.ID {
		if s.Left {
			return left
		}
		return right
	}
	switch s.Station {
	case trace.Link, trace.Out:
		return side(trace.EthKern, trace.EthDev), trace.FullTrace
	case trace.Hook:
		if s.Verdict == "answered" {
			return side(trace.ARP0, trace.ARP1), trace.Detailed
		}
		return side(trace.Eth0, trace.Eth1), trace.Detailed
	case trace.Rule:
		return trace.SPIInt, trace.FunctionalTrace
	case trace.SA:
		return trace.SAIDMgr, trace.Detailed
	case trace.Transform:
		return trace.RFC1825, trace.Detailed
	case trace.Fragment, trace.PathMTU:
		return trace.IP, trace.MoreEvents
	case trace.Neighbor:
		if s.MAC == [6]byte{} {
			return side(trace.ARP0, trace.ARP1), trace.MoreEvents
		}
		return side(trace.ARP0, trace.ARP1), trace.Detailed
	case trace.Forward:
		return map[string]trace.ID{"tcp": trace.ForwardTCP, "udp": trace.ForwardUDP, "icmp": trace.ForwardICMP, "other": trace.ForwardOther}[s.Name], trace.FullTrace
	}
	return dropPart(s), trace.SoftErrors
}

// dropPart says which node dropped a packet.
func dropPart(s *trace.Step) trace.ID {
	switch r := s.Reason; {
	case r == wire.DropPolicyDiscard:
		return trace.Sink
	case r == wire.DropNoSA || r == wire.DropAcquireTimeout || r == wire.DropUnknownSPI:
		return trace.SAIDMgr
	case r == wire.DropForeignMAC || r == wire.DropOwnAddressSpoof:
		return trace.VNet
	case r == wire.DropClassDiscard || r == wire.DropBadFrame || r == wire.DropBadOffload:
		if s.Left {
			return trace.Eth0
		}
		return trace.Eth1
	case r == wire.DropUnresolved:
		return trace.ARP1
	case r < wire.DropUnknownSPI:
		return trace.SPIInt
	case r < wire.DropMalformed:
		return trace.RFC1825
	}
	return trace.IP
}
