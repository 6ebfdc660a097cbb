package ipsec

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const (
	// coalesceFlows is how many flows one queue joins at once; with more, the oldest
	// has to go.
	coalesceFlows = 8
	// coalesceLimit bounds a superframe in octets, so that its buffer comes from a pool.
	coalesceLimit = 1<<16 - 1<<8
	// coalesceSegments bounds how many received frames one superframe holds back.
	coalesceSegments = 64
)

// A coalescer joins the TCP segments for the host that one queue of the wire
// brought in one batch, so that the kernel gets one superframe instead of many
// frames. It belongs to the goroutine that reads the queue.
type coalescer struct {
	flows [coalesceFlows]coalesced
	n     int
	_     [64]byte
}

// coalesced is what has gathered of one flow.
type coalesced struct {
	merger wire.Merger
	src    [6]byte    // Ethernet source that the host sees
	dst    netip.Addr // of the flow
	parts  [][]byte
	held   []*stack.PacketBuffer // in whose memory the parts lie
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

// coalesce keeps w.d, opened from what pkt brought, until the end of the batch, if it
// can be joined to others. It lies in the memory of memory, or elsewhere if that is nil.
// If coalesce returns false, w.d can go to the host at once.
func (e *Engine) coalesce(w *work, pkt, memory *stack.PacketBuffer) bool {
	d := &w.d
	if d.Info.Proto != wire.ProtoTCP || int(pkt.Hash) >= len(e.coalescers) {
		return false
	}
	if e.hosts != nil && len(d.Bytes) > e.MTU() {
		memory = nil // it has to be fragmented
	}
	src := pkt.LinkHeader().Slice()[6:12]
	return e.coalescers[pkt.Hash].take(e, w, d.Bytes, &d.Info, src, memory)
}

// take keeps datagram until the end of the batch, if it can be joined to others.
// What was kept of its flow and can't be joined to it goes out before.
func (c *coalescer) take(e *Engine, w *work, datagram []byte, in *wire.Info, src []byte, pkt *stack.PacketBuffer) bool {
	for i := range c.n {
		f := &c.flows[i]
		if !f.merger.Same(in) {
			continue
		}
		if pkt != nil && len(f.parts) < coalesceSegments && string(f.src[:]) == string(src) && f.merger.Add(datagram, in, coalesceLimit) {
			f.hold(datagram, pkt)
			return true
		}
		e.release(w, f)
		if pkt != nil && f.start(datagram, in, src, pkt) {
			return true
		}
		c.n--
		c.flows[i], c.flows[c.n] = c.flows[c.n], c.flows[i]
		return false
	}
	if pkt == nil {
		return false
	}
	if c.n == coalesceFlows {
		// The first is the oldest, or nearly.
		e.release(w, &c.flows[0])
		c.n--
		c.flows[0], c.flows[c.n] = c.flows[c.n], c.flows[0]
	}
	if !c.flows[c.n].start(datagram, in, src, pkt) {
		return false
	}
	c.n++
	return true
}

func (f *coalesced) start(datagram []byte, in *wire.Info, src []byte, pkt *stack.PacketBuffer) bool {
	if !f.merger.Start(datagram, in) {
		return false
	}
	f.src, f.dst = [6]byte(src), in.Dst
	f.hold(datagram, pkt)
	return true
}

func (f *coalesced) hold(datagram []byte, pkt *stack.PacketBuffer) {
	f.parts = append(f.parts, datagram)
	f.held = append(f.held, pkt.IncRef())
}

// release sends what has gathered of f to the host, and forgets it.
func (e *Engine) release(w *work, f *coalesced) {
	n := f.merger.Len()
	v, b := newFrame(n)
	var off [wire.VirtioNetLen]byte
	f.merger.Write(b[frameHead:], f.parts, off[:])
	out := packetOf(v, frameHead, frameHead+n, tcpip.LinkAddress(f.src[:]))
	copy(out.VirtioNetHeader().Slice(), off[:])
	w.push(out)
	e.toLeft(w, f.dst)
	f.forget()
}

func (f *coalesced) forget() {
	for i, pkt := range f.held {
		pkt.DecRef()
		f.held[i], f.parts[i] = nil, nil
	}
	f.held, f.parts = f.held[:0], f.parts[:0]
}

// clear drops what is held back.
func (c *coalescer) clear() {
	for i := range c.n {
		c.flows[i].forget()
	}
	c.n = 0
}
