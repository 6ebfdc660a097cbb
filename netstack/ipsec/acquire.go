package ipsec

import (
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Defaults of HoldLimits.
const (
	DefaultHoldPackets = 64
	DefaultHoldOctets  = 256 << 10
	DefaultHoldMemory  = 8 << 20
	DefaultHoldTime    = 10 * time.Second
)

// maxHoldTold is about how many of the datagrams of one lineage the host is told that
// no SA came.
const maxHoldTold = 8

// HoldLimits bound what waits for SAs that a key manager has been asked for. 0 stands
// for the default.
type HoldLimits struct {
	// Packets and Octets are of one lineage, the octets those of memory. What comes
	// beyond is dropped as DropQueueFull.
	Packets, Octets int
	// Memory is as Octets, for all lineages.
	Memory int
	// Time is how long a datagram waits at most, and how long after an Acquire the next
	// one for that lineage may come.
	Time time.Duration
}

func (l HoldLimits) withDefaults() HoldLimits {
	if l.Packets == 0 {
		l.Packets = DefaultHoldPackets
	}
	if l.Octets == 0 {
		l.Octets = DefaultHoldOctets
	}
	if l.Memory == 0 {
		l.Memory = DefaultHoldMemory
	}
	if l.Time == 0 {
		l.Time = DefaultHoldTime
	}
	return l
}

// holds are the host's datagrams that wait for SAs, by lineage, as they came from the
// host: they are parsed and decided about anew when they leave. While a lineage has a
// queue, what comes later goes behind it, so that order is kept.
type holds struct {
	limits HoldLimits
	count  atomic.Int32 // of queues; where it is 0 the packet path looks no further

	mu     sync.Mutex
	queues map[*sa.Lineage]*holdQueue
	memory int
	closed bool
}

type holdState uint8

const (
	holdWaiting  holdState = iota // for an answer of the key manager
	holdDraining                  // what waited is on its way
	holdRefused                   // the key manager said no, and is not asked again yet
)

type holdQueue struct {
	lineage *sa.Lineage
	policy  *sa.Policy // of the datagram that came first
	flow    sa.Flow
	since   int64 // the key manager was asked, or refused
	state   holdState
	waiter  *sa.Waiter
	list    []held
	octets  int
	told    int // about how many the host was told
	// gone says that the datagram that just left the queue must wait on. It belongs to
	// drain.
	gone bool
}

// held is one datagram, whole or as its fragments.
type held struct {
	policy *sa.Policy
	pkts   []*stack.PacketBuffer
	octets int
}

// release lets go of the datagram.
func (x *held) release() {
	for _, pkt := range x.pkts {
		pkt.DecRef()
	}
}

// holdBehind puts w.d behind what waits for a lineage of p, if anything does, and
// says whether it has. It came as pkt, or as the fragments in set.
func (e *Engine) holdBehind(w *work, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) bool {
	h := &e.holds
	if h.count.Load() == 0 {
		return false
	}
	h.mu.Lock()
	for _, l := range p.Out {
		q := h.queues[l]
		if q == nil || q == w.releasing || q.state == holdRefused && l.Outbound() != nil {
			continue
		}
		reason := h.put(q, p, w.packet(pkt), set)
		tell := reason == wire.DropNoSA && q.mayTell()
		h.mu.Unlock()
		if w.trail != nil {
			w.noteSA(nil, "waits for one")
		}
		if reason != wire.DropNone {
			e.dropped(w, hook.Left, reason, p, nil)
		}
		if tell {
			e.prohibited(w)
		}
		return true
	}
	h.mu.Unlock()
	return false
}

// acquire deals with a datagram for which p has no SA: it waits, and the key manager
// is asked for one, unless nobody can be asked. again says that the SA has come in
// the meantime.
func (e *Engine) acquire(w *work, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) (again bool) {
	h := &e.holds
	l := missing(p)
	switch {
	case l == nil && len(p.Out) > 0 && len(p.Out) <= maxBundle:
		return true
	case w.releasing != nil && w.releasing.lineage == l:
		w.releasing.gone = true // the SA was there for too short a time
		return false
	case l == nil || l.Notify == nil:
		e.dropped(w, hook.Left, wire.DropNoSA, p, nil)
		return false
	}
	h.mu.Lock()
	q := h.queues[l]
	first := q == nil
	if first {
		q = &holdQueue{lineage: l, policy: p, flow: w.flow, since: w.now}
	}
	reason := h.put(q, p, w.packet(pkt), set)
	if first && reason == wire.DropNone {
		if h.queues == nil {
			h.queues = make(map[*sa.Lineage]*holdQueue)
		}
		h.queues[l] = q
		h.count.Add(1)
		e.await(q)
	}
	h.mu.Unlock()
	if reason != wire.DropNone {
		e.dropped(w, hook.Left, reason, p, nil)
	}
	if w.trail != nil {
		w.noteSA(nil, "waits for one")
	}
	if first && reason == wire.DropNone {
		e.sad.NeedSA(l, p, &w.flow)
	}
	return false
}

// missing returns the first lineage of p that has no SA to send by.
func missing(p *sa.Policy) *sa.Lineage {
	for _, l := range p.Out {
		if l.Outbound() == nil {
			return l
		}
	}
	return nil
}

// put adds a datagram to a queue. h.mu is held.
func (h *holds) put(q *holdQueue, p *sa.Policy, pkt *stack.PacketBuffer, set *fragmentSet) wire.DropReason {
	x := held{policy: p}
	if pkt != nil {
		x.pkts = []*stack.PacketBuffer{pkt}
	} else {
		for i := range set.fragments {
			x.pkts = append(x.pkts, set.fragments[i].pkt)
		}
	}
	for _, part := range x.pkts {
		x.octets += memoryOf(part)
	}
	switch {
	case h.closed:
		return wire.DropEndpointGone
	case q.state == holdRefused:
		return wire.DropNoSA
	case len(q.list) >= h.limits.Packets || q.octets+x.octets > h.limits.Octets || h.memory+x.octets > h.limits.Memory:
		return wire.DropQueueFull
	}
	for _, part := range x.pkts {
		part.IncRef()
	}
	q.list = append(q.list, x)
	q.octets += x.octets
	h.memory += x.octets
	return wire.DropNone
}

// take removes the first datagram of a queue. h.mu is held.
func (h *holds) take(q *holdQueue) held {
	x := q.list[0]
	q.list[0] = held{}
	q.list = q.list[1:]
	q.octets -= x.octets
	h.memory -= x.octets
	return x
}

// putBack undoes take. h.mu is held.
func (h *holds) putBack(q *holdQueue, x held) {
	q.list = append([]held{x}, q.list...)
	q.octets += x.octets
	h.memory += x.octets
}

// remove ends a queue, and returns what was in it. h.mu is held.
func (h *holds) remove(q *holdQueue) []held {
	list := h.empty(q)
	delete(h.queues, q.lineage)
	h.count.Add(-1)
	return list
}

// empty takes all from a queue. h.mu is held.
func (h *holds) empty(q *holdQueue) []held {
	list := q.list
	h.memory -= q.octets
	q.list, q.octets = nil, 0
	return list
}

// await lets a queue know of the key manager's answer. h.mu is held.
func (e *Engine) await(q *holdQueue) {
	q.waiter = q.lineage.Wait(func(granted bool) {
		// On the key manager's goroutine, which has other things to do, or on one that
		// holds h.mu.
		if granted {
			go e.drain(q)
		} else {
			go e.refuse(q)
		}
	})
}

// drain sends what waited, in order, by the SA that has come.
func (e *Engine) drain(q *holdQueue) {
	h := &e.holds
	for {
		h.mu.Lock()
		if h.queues[q.lineage] != q {
			h.mu.Unlock()
			return // Close was quicker
		}
		q.state = holdDraining
		if len(q.list) == 0 {
			h.remove(q)
			h.mu.Unlock()
			return
		}
		if q.lineage.Outbound() == nil {
			// It is gone again. What is left waits for the next.
			q.state, q.since = holdWaiting, e.clock()
			e.await(q)
			h.mu.Unlock()
			e.sad.NeedSA(q.lineage, q.policy, &q.flow)
			return
		}
		x := h.take(q)
		h.mu.Unlock()
		for _, pkt := range x.pkts {
			w := e.work()
			w.releasing = q
			e.outboundPacket(w, pkt)
			e.done(w)
		}
		if q.gone {
			q.gone = false
			h.mu.Lock()
			closed := h.closed
			if !closed {
				h.putBack(q, x)
			}
			h.mu.Unlock()
			if closed {
				e.discard(q, []held{x}, wire.DropEndpointGone)
			}
			continue
		}
		x.release()
	}
}

// refuse drops what waited, since the key manager said that no SA will come, and
// keeps the queue for a time, in which it is not asked again.
func (e *Engine) refuse(q *holdQueue) {
	h := &e.holds
	h.mu.Lock()
	if h.queues[q.lineage] != q {
		h.mu.Unlock()
		return
	}
	list := h.empty(q)
	q.state, q.since = holdRefused, e.clock()
	e.await(q)
	h.mu.Unlock()
	e.discard(q, list, wire.DropNoSA)
}

// expireHolds gives up what has waited too long.
func (e *Engine) expireHolds(now int64) {
	h := &e.holds
	if h.count.Load() == 0 {
		return
	}
	var queues []*holdQueue
	var lists [][]held
	h.mu.Lock()
	for _, q := range h.queues {
		if q.state != holdDraining && now-q.since >= int64(h.limits.Time) && q.waiter.Stop() {
			queues, lists = append(queues, q), append(lists, h.remove(q))
		}
	}
	h.mu.Unlock()
	for i, q := range queues {
		e.discard(q, lists[i], wire.DropAcquireTimeout)
	}
}

// discard drops what waited, and tells the host about some of it: that the other end
// cannot be reached, or that it is prohibited to (RFC 4301 §5.1.1 b).
func (e *Engine) discard(q *holdQueue, list []held, reason wire.DropReason) {
	for i := range list {
		x := &list[i]
		e.drop(nil, hook.Left, reason, x.policy, nil)
		e.holds.mu.Lock()
		tell := reason != wire.DropEndpointGone && q.mayTell()
		e.holds.mu.Unlock()
		if tell {
			e.tellHeld(x.pkts[0], reason)
		}
		x.release()
	}
}

// tellHeld tells the host about a datagram that waited in vain.
func (e *Engine) tellHeld(pkt *stack.PacketBuffer, reason wire.DropReason) {
	w := e.work()
	defer e.done(w)
	switch {
	case w.read(pkt, hook.Left) != wire.DropNone:
	case reason == wire.DropNoSA:
		e.prohibited(w)
	default:
		e.hostUnreachable(w)
	}
}

// mayTell says whether the host may be told once more, and counts it.
func (q *holdQueue) mayTell() bool {
	if q.told >= maxHoldTold {
		return false
	}
	q.told++
	return true
}

// prohibited tells the host that it may not send w.d.
func (e *Engine) prohibited(w *work) {
	code := uint8(wire.ICMPv4AdminProhibited)
	if w.d.Info.Version == 6 {
		code = wire.ICMPv6AdminProhibited
	}
	if b, ok := wire.AppendUnreachable(w.icmp[:0], w.d.Bytes, &w.d.Info, code); ok {
		e.icmpToHost(w, b)
	}
}

// closeHolds drops all that waits. Nothing waits afterwards.
func (e *Engine) closeHolds() {
	h := &e.holds
	h.mu.Lock()
	h.closed = true
	var lists [][]held
	for _, q := range h.queues {
		q.waiter.Stop()
		lists = append(lists, h.remove(q))
	}
	h.mu.Unlock()
	for _, list := range lists {
		e.discard(nil, list, wire.DropEndpointGone)
	}
}

// Held returns how many datagrams of the host wait for an SA now.
func (e *Engine) Held() int {
	h := &e.holds
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, q := range h.queues {
		n += len(q.list)
	}
	return n
}
