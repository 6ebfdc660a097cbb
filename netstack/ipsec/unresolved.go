package ipsec

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	// A next hop that does not answer is told to the host about at most so many of the
	// datagrams that wait for it, and so many next hops are kept account of.
	maxUnresolvedHops  = 64
	maxUnresolvedQuote = 8
	// unresolvedQuote is as much of a datagram as an ICMP error about it quotes.
	unresolvedQuote = 576
	// unresolvedAge is longer than a next hop is asked for.
	unresolvedAge = 10 * time.Second
)

// unresolved remembers the beginnings of the host's datagrams that wait, sealed
// by now, for a next hop: the ICMP error about them quotes what the host sent
// (RFC 1812 §5.2.7.1).
type unresolved struct {
	mu   sync.Mutex
	hops map[netip.Addr][]waiting
}

type waiting struct {
	quote []byte
	info  wire.Info
	since int64
}

// remember notes that w.d waits for a next hop.
func (u *unresolved) remember(w *work, hop netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.hops[hop]
	if len(list) >= maxUnresolvedQuote || list == nil && len(u.hops) >= maxUnresolvedHops {
		return
	}
	if u.hops == nil {
		u.hops = make(map[netip.Addr][]waiting)
	}
	quote := append([]byte(nil), w.d.Bytes[:min(len(w.d.Bytes), unresolvedQuote)]...)
	info := w.d.Info
	info.TotalLen = len(quote)
	u.hops[hop] = append(list, waiting{quote, info, w.now})
}

// take returns what waited for a next hop, and forgets it.
func (u *unresolved) take(hop netip.Addr) []waiting {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := u.hops[hop]
	delete(u.hops, hop)
	return list
}

// expire forgets what came through long ago.
func (u *unresolved) expire(now, age int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for hop, list := range u.hops {
		if now-list[len(list)-1].since > age {
			delete(u.hops, hop)
		}
	}
}

// Revoked says of a packet that waits for a next hop that the policies no longer let it pass in
// the clear, as they did when it came: Again is for it. Of fragments it is said as well,
// about which only the whole tells.
func (e *Engine) Revoked(pkt *stack.PacketBuffer) bool {
	if !pkt.NetworkPacketInfo.IsForwardedPacket {
		return false
	}
	w := e.work()
	defer e.done(w)
	if w.read(pkt, hook.Left) != wire.DropNone || w.d.Info.IsFragment {
		return true
	}
	p := e.outboundPolicy(w)
	return p == nil || p.Action != sa.Bypass || w.quotes
}

// Again takes packets of the host that have waited for a next hop, and decides about them as
// if they came now. It takes their references.
func (e *Engine) Again(pkts []*stack.PacketBuffer) {
	for _, pkt := range pkts {
		w := e.work()
		e.outboundPacket(w, pkt)
		e.done(w)
		pkt.DecRef()
	}
}

// Unresolved tells the engine that a next hop did not answer, and that a packet
// for it was dropped and counted. It sends the host the ICMP error that a router
// would send, and is what hook.ResolverOptions.Failed wants.
func (e *Engine) Unresolved(nextHop netip.Addr, _ *stack.PacketBuffer) {
	for _, x := range e.waiting.take(nextHop) {
		w := e.work()
		w.d = hook.Datagram{From: hook.Left, Bytes: x.quote, Info: x.info}
		e.hostUnreachable(w)
		e.done(w)
	}
}
