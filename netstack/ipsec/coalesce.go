package ipsec

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

const (
	// coalesceFlows is how many flows one queue joins at once; with more, the oldest
	// has to go.
	coalesceFlows = 8
	// coalesceLimit bounds a superframe in octets.
	coalesceLimit = 1<<16 - 1<<8
	// coalesceSegments bounds how many received frames one superframe holds back.
	coalesceSegments = 64
)

// A coalescer joins the TCP segments and UDP datagrams for the host that one queue of the
// wire brought in one batch, so that the kernel gets one superframe instead of many
// frames. It belongs to the goroutine that reads the queue.
type coalescer struct {
	flows [coalesceFlows]coalesced
	n     int
	_     [64]byte
}

// coalesced is what has gathered of one flow: a superframe that grows in place.
type coalesced struct {
	merger wire.Merger
	dst    netip.Addr // of the flow
	// frame has room for the longest superframe, with virtio-net and Ethernet header.
	frame []byte
	// trail is that of the first packet, nil while nobody captures.
	trail *trace.Trail
}

// EndBatch sends to the host what was held back of the frames that a queue of the
// right link brought. The link's reader calls it before it waits for the next ones.
func (e *Engine) EndBatch(queue int) {
	if queue >= len(e.coalescers) || e.coalescers[queue].n == 0 {
		return
	}
	c := &e.coalescers[queue]
	w := e.work()
	w.queue = uint32(queue)
	for i := range c.n {
		e.release(w, &c.flows[i])
	}
	c.n = 0
	e.done(w)
}

// coalesce keeps a copy of w.d, which pkt brought or which was opened from that, until the
// end of the batch, if it can be joined to others and is not to go alone, and returns
// where. If that is nil, w.d can go to the host at once. What no SA protected is
// joined only where all of it could be told apart again (R16).
func (e *Engine) coalesce(w *work, pkt *stack.PacketBuffer, alone bool) *coalesced {
	d := &w.d
	if int(pkt.Hash) >= len(e.coalescers) || d.Info.Proto != wire.ProtoTCP && (d.Info.Proto != wire.ProtoUDP || !e.joinUDP.Load()) {
		return nil
	}
	if e.apart.Load() {
		e.EndBatch(int(pkt.Hash)) // what came before must not come after
		return nil
	}
	// What is too long is fragmented, and neither a superframe nor what has no checksum yet
	// can be added to others.
	alone = alone || len(d.Bytes) > e.LinkMTU(hook.Left) || d.Net != nil && (d.Net.NeedsCsum() || d.Net.GSOKind() != wire.GSONone)
	f := e.coalescers[pkt.Hash].take(e, w, d.Bytes, &d.Info, pkt.LinkHeader().Slice()[6:12], alone, w.open.n == 0)
	if f != nil {
		e.turned(w, hook.Left, len(d.Bytes))
		if w.trail != nil {
			w.trail.Add(trace.Step{Station: trace.Out, Verdict: "at the end of the batch, maybe joined to others", Octets: len(d.Bytes), Left: true})
		}
	}
	return f
}

// take keeps datagram until the end of the batch, if it can be joined to others and
// is not alone; one that is to stay as it came also if its identification counts. What was
// kept of its flow and can't be joined to it goes out before.
func (c *coalescer) take(e *Engine, w *work, datagram []byte, in *wire.Info, src []byte, alone, asItCame bool) *coalesced {
	for i := range c.n {
		f := &c.flows[i]
		if !f.merger.Same(in) {
			continue
		}
		if !alone && f.merger.Segments() < coalesceSegments && string(f.src()) == string(src) && (!asItCame || f.merger.Counts(datagram)) && f.merger.Add(datagram, in) {
			return f
		}
		e.release(w, f)
		if !alone && f.start(datagram, in, src) {
			f.trail = w.trail.Keep()
			return f
		}
		c.n--
		c.flows[i], c.flows[c.n] = c.flows[c.n], c.flows[i]
		return nil
	}
	if alone {
		return nil
	}
	if c.n == coalesceFlows {
		// The first is the oldest, or nearly.
		e.release(w, &c.flows[0])
		c.n--
		c.flows[0], c.flows[c.n] = c.flows[c.n], c.flows[0]
	}
	f := &c.flows[c.n]
	if !f.start(datagram, in, src) {
		return nil
	}
	f.trail = w.trail.Keep()
	c.n++
	return f
}

// src is the Ethernet source that the host sees.
func (f *coalesced) src() []byte { return f.frame[frameHead-8 : frameHead-2] }

func (f *coalesced) start(datagram []byte, in *wire.Info, src []byte) bool {
	if f.frame == nil {
		f.frame = make([]byte, frameHead+coalesceLimit)
	}
	if !f.merger.Start(datagram, in, f.frame[frameHead:]) {
		return false
	}
	putEthernet(f.frame[:frameHead], src, in.Version)
	f.dst = in.Dst
	return true
}

// release sends what has gathered of f to the host, and forgets it.
func (e *Engine) release(w *work, f *coalesced) {
	segments := f.merger.Segments()
	datagram := f.merger.Finish(f.frame[:wire.VirtioNetLen])
	frame := f.frame[:frameHead+len(datagram)]
	if f.trail == nil {
		e.frameToLeft(w, frame, f.dst)
		return
	}
	// A packet takes along what it comes of, a train does not.
	f.trail.Joined = segments
	pkt := hook.PacketFrom(frame)
	pkt.Owner = f.trail
	f.trail = nil
	w.push(pkt)
	e.toLeft(w, f.dst)
}

// clear drops what is held back.
func (c *coalescer) clear() { c.n = 0 }
