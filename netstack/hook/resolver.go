package hook

import (
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const (
	// maxUnresolved is how many next hops may be unresolved at once. A host that scans
	// its network must not make us hold packets for all of it.
	maxUnresolved = 256
	// maxWaitingOctets bounds what waits for all of them, for it may be superframes.
	maxWaitingOctets = 16 << 20
	// touchEvery is how often a next hop in use is shown to netstack's cache, so that
	// reachability detection goes on (RFC 4861 §7.3).
	touchEvery = time.Second
)

// ResolverOptions describe a Resolver.
type ResolverOptions struct {
	Clock tcpip.Clock
	// Waiting is how many packets wait for one next hop, DefaultWaiting if 0. When one
	// more comes the oldest is dropped as wire.DropQueueFull, or goes to the address that
	// the next hop had until another was announced.
	Waiting int
	// Output writes a packet that waited to its next hop. The packet stays the caller's.
	// If nil, the Ethernet destination is set and the packet written to the link that
	// Attach got.
	Output func(pkt *stack.PacketBuffer, mac tcpip.LinkAddress)
	// Failed, if not nil, learns of each packet whose next hop did not answer, before it
	// is let go. It is counted already. This is the place to send ICMP.
	Failed func(nextHop netip.Addr, pkt *stack.PacketBuffer)
	// Drops counts; it may be shared.
	Drops *wire.DropCounters
}

// A Resolver keeps the Ethernet addresses of next hops for the packet path. Looking one
// up takes no lock and does not allocate; the truth stays in the neighbour cache of the
// stack's NIC, static entries included, which the Resolver follows as the stack's
// NUDDispatcher.
//
// It is made before the stack, given to it in stack.Options.NUDDisp, and then told
// of it by Attach. Any number of goroutines may use it.
type Resolver struct {
	o   ResolverOptions
	s   *stack.Stack
	nic tcpip.NICID
	to  stack.LinkWriter

	mu         sync.Mutex
	hops       atomic.Pointer[map[netip.Addr]*nextHop] // replaced, never changed, under mu
	unresolved int
	octets     int // of packets that wait
}

// nextHop is one neighbour. It is in the table while it is resolved or waited for.
type nextHop struct {
	mac     atomic.Pointer[tcpip.LinkAddress] // nil while unresolved
	touched atomic.Int64                      // tcpip.MonotonicTime in nanoseconds
	waiting queue                             // under Resolver.mu
	asked   bool                              // resolution is under way; under Resolver.mu
	// former is the address that it had until it was announced at another, empty if it had
	// none: what no queue takes goes there.
	former tcpip.LinkAddress
	// found is the address while the packets that waited for it are let go, and mac is
	// not yet known to anybody, so that none overtakes them; under Resolver.mu.
	found tcpip.LinkAddress
}

var _ stack.NUDDispatcher = (*Resolver)(nil)

// NewResolver returns a Resolver that knows nobody yet.
func NewResolver(o ResolverOptions) *Resolver {
	if o.Waiting <= 0 {
		o.Waiting = DefaultWaiting
	}
	r := &Resolver{o: o}
	r.hops.Store(&map[netip.Addr]*nextHop{})
	return r
}

// Attach names the stack and NIC whose neighbour cache it is, and the link to write
// to. It must come before the first packet.
func (r *Resolver) Attach(s *stack.Stack, nic tcpip.NICID, to stack.LinkWriter) {
	r.s, r.nic, r.to = s, nic, to
}

// Lookup returns the Ethernet address of a next hop if it is known now. For the
// groups of multicast it always is.
func (r *Resolver) Lookup(next netip.Addr) (tcpip.LinkAddress, bool) {
	h := (*r.hops.Load())[next]
	if h == nil {
		if next.IsMulticast() {
			return multicastMAC(next), true
		}
		return "", false
	}
	mac := h.mac.Load()
	if mac == nil {
		return "", false
	}
	now := r.now()
	if t := h.touched.Load(); now-t >= int64(touchEvery) && h.touched.CompareAndSwap(t, now) {
		r.ask(next, func(stack.LinkResolutionResult) {})
	}
	return *mac, true
}

// Peek is Lookup, but never has the cache ask. It knows also what the cache would answer
// at once to Enqueue, and so is not for the packet path.
func (r *Resolver) Peek(next netip.Addr) (tcpip.LinkAddress, bool) {
	h := (*r.hops.Load())[next]
	switch {
	case h == nil && next.IsMulticast():
		return multicastMAC(next), true
	case h != nil && h.mac.Load() != nil:
		return *h.mac.Load(), true
	case h != nil:
		return "", false
	}
	entries, err := r.s.Neighbors(r.nic, protocolOf(next))
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		if e.Addr == addressOf(next) && e.LinkAddr != "" && e.State != stack.Incomplete && e.State != stack.Unreachable {
			return e.LinkAddr, true
		}
	}
	return "", false
}

func (r *Resolver) now() int64 {
	return r.o.Clock.NowMonotonic().Sub(tcpip.MonotonicTime{}).Nanoseconds()
}

// ask goes to netstack's cache, which sends solicitations if it must.
func (r *Resolver) ask(next netip.Addr, done func(stack.LinkResolutionResult)) tcpip.Error {
	return r.s.GetLinkAddress(r.nic, addressOf(next), tcpip.Address{}, protocolOf(next), done)
}

// Enqueue sends pkt to next as soon as its address is found, for which it takes a
// reference; nobody may change the packet any more. After as many solicitations as the
// NIC's NUD configuration says, all packets for next fail with wire.DropUnresolved.
func (r *Resolver) Enqueue(next netip.Addr, pkt *stack.PacketBuffer) {
	if mac, ok := r.Lookup(next); ok {
		r.output(pkt, mac)
		return
	}
	r.mu.Lock()
	h := (*r.hops.Load())[next]
	full := r.octets+pkt.MemSize() > maxWaitingOctets
	switch {
	case h == nil && (full || r.unresolved >= maxUnresolved), h != nil && full && h.former == "" && h.mac.Load() == nil:
		r.mu.Unlock()
		r.o.Drops.Add(wire.DropQueueFull)
		return
	case h == nil:
		h = r.add(next, "")
	case h.mac.Load() != nil: // found in the meantime
		mac := *h.mac.Load()
		r.mu.Unlock()
		r.output(pkt, mac)
		return
	}
	for len(h.waiting.list) > 0 && (full || !h.waiting.fits(pkt, r.o.Waiting)) {
		r.dropOldest(h)
		full = r.octets+pkt.MemSize() > maxWaitingOctets
	}
	if full { // by what waits for others
		r.output(pkt, h.former)
		r.mu.Unlock()
		return
	}
	h.waiting.put(pkt)
	r.octets += pkt.MemSize()
	asked := h.asked || h.found != ""
	h.asked = h.found == ""
	r.mu.Unlock()
	if !asked {
		r.find(next, h)
	}
}

// add puts an unresolved next hop into the table, with r.mu held.
func (r *Resolver) add(next netip.Addr, former tcpip.LinkAddress) *nextHop {
	h := &nextHop{former: former}
	r.change(func(m map[netip.Addr]*nextHop) { m[next] = h })
	r.unresolved++
	return h
}

// dropOldest makes room in h's queue, with r.mu held.
func (r *Resolver) dropOldest(h *nextHop) {
	pkt := h.waiting.shift()
	r.octets -= pkt.MemSize()
	if h.former != "" {
		r.output(pkt, h.former)
	} else {
		r.o.Drops.Add(wire.DropQueueFull)
	}
	pkt.DecRef()
}

// Want has the cache ask for a next hop that is not known, for packets that are to come.
func (r *Resolver) Want(next netip.Addr) {
	if (*r.hops.Load())[next] != nil || next.IsMulticast() {
		return
	}
	r.mu.Lock()
	if (*r.hops.Load())[next] != nil || r.unresolved >= maxUnresolved {
		r.mu.Unlock()
		return
	}
	h := r.add(next, "")
	h.asked = true
	r.mu.Unlock()
	r.find(next, h)
}

// Wanted returns how many next hops are asked for.
func (r *Resolver) Wanted() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unresolved
}

// find asks for h, whose asked is set.
func (r *Resolver) find(next netip.Addr, h *nextHop) {
	// The callback may run at once or much later, and then with the cache's locks held.
	err := r.ask(next, func(res stack.LinkResolutionResult) {
		if res.Err != nil {
			r.lose(next, h)
		} else {
			r.resolved(next, h, res.LinkAddress)
		}
	})
	if _, wait := err.(*tcpip.ErrWouldBlock); err != nil && !wait {
		r.lose(next, h)
	}
}

// change replaces the table by a changed copy, with r.mu held. Neighbours come and go
// rarely, packets do not.
func (r *Resolver) change(f func(map[netip.Addr]*nextHop)) {
	m := maps.Clone(*r.hops.Load())
	f(m)
	r.hops.Store(&m)
}

// resolved notes h's address and lets its packets go, later: it may be called with
// locks of the neighbour cache held.
func (r *Resolver) resolved(next netip.Addr, h *nextHop, mac tcpip.LinkAddress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (*r.hops.Load())[next] != h {
		return // lost before
	}
	h.asked = false
	switch {
	case h.mac.Load() != nil:
		h.mac.Store(&mac)
	case h.found != "":
		h.found = mac
	case len(h.waiting.list) == 0:
		r.publish(h, mac)
	default:
		h.found = mac
		r.o.Clock.AfterFunc(0, func() { r.release(h) })
	}
}

// publish makes h's address known to the packet path, with r.mu held.
func (r *Resolver) publish(h *nextHop, mac tcpip.LinkAddress) {
	r.unresolved--
	h.found = ""
	h.touched.Store(r.now())
	h.mac.Store(&mac)
}

// release sends what waits for h, and what joins it meanwhile, in order, and then
// makes the address known.
func (r *Resolver) release(h *nextHop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for h.found != "" {
		waiting, mac := r.takeWaiting(h), h.found
		if len(waiting) == 0 {
			r.publish(h, mac)
			return
		}
		r.mu.Unlock()
		for _, pkt := range waiting {
			r.output(pkt, mac)
			pkt.DecRef()
		}
		r.mu.Lock()
	}
}

// lose forgets h. What waits for it fails, later.
func (r *Resolver) lose(next netip.Addr, h *nextHop) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if (*r.hops.Load())[next] != h {
		return
	}
	if h.mac.Load() == nil {
		r.unresolved--
	}
	h.found = ""
	r.change(func(m map[netip.Addr]*nextHop) { delete(m, next) })
	if waiting := r.takeWaiting(h); len(waiting) > 0 {
		r.o.Clock.AfterFunc(0, func() {
			for _, pkt := range waiting {
				r.o.Drops.Add(wire.DropUnresolved)
				if r.o.Failed != nil {
					r.o.Failed(next, pkt)
				}
				pkt.DecRef()
			}
		})
	}
}

// takeWaiting empties h's queue, with r.mu held.
func (r *Resolver) takeWaiting(h *nextHop) []*stack.PacketBuffer {
	list := h.waiting.list
	r.octets -= h.waiting.octets
	h.waiting = queue{}
	return list
}

// TakeBack returns the packets, of those that wait, of which yes says so, in the order in
// which they came to each next hop. They wait no more, and their references are the caller's.
func (r *Resolver) TakeBack(yes func(*stack.PacketBuffer) bool) (taken []*stack.PacketBuffer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range *r.hops.Load() {
		for _, pkt := range r.takeWaiting(h) {
			if yes(pkt) {
				taken = append(taken, pkt)
				continue
			}
			h.waiting.put(pkt)
			r.octets += pkt.MemSize()
			pkt.DecRef() // put has one of its own
		}
	}
	return taken
}

func (r *Resolver) output(pkt *stack.PacketBuffer, mac tcpip.LinkAddress) {
	if r.o.Output != nil {
		r.o.Output(pkt, mac)
		return
	}
	copy(pkt.LinkHeader().Slice(), mac)
	writeOne(r.to, pkt)
}

// Announced tells that a station announced next as its own unasked. If a next hop in
// use has another address than it had, the new one is not believed: the cache forgets
// the old one and asks. A static entry stays. Until the answer comes, packets wait, and the
// oldest go to the old address when the queue is full: where a station is told by more than
// one, either address may do.
func (r *Resolver) Announced(next netip.Addr, mac tcpip.LinkAddress) {
	h := (*r.hops.Load())[next]
	if h == nil {
		return
	}
	old := h.mac.Load()
	if old == nil || *old == mac {
		return
	}
	list, err := r.s.Neighbors(r.nic, protocolOf(next))
	if err != nil {
		return
	}
	for _, e := range list {
		if e.Addr != addressOf(next) || e.State == stack.Static {
			continue
		}
		r.mu.Lock()
		if (*r.hops.Load())[next] != h {
			r.mu.Unlock()
			return
		}
		asks := r.add(next, *old)
		asks.asked = true
		r.mu.Unlock()
		_ = r.s.RemoveNeighbor(r.nic, protocolOf(next), e.Addr)
		r.find(next, asks)
	}
}

// OnNeighborAdded implements stack.NUDDispatcher.
func (r *Resolver) OnNeighborAdded(nic tcpip.NICID, e stack.NeighborEntry) {
	r.OnNeighborChanged(nic, e)
}

// OnNeighborChanged implements stack.NUDDispatcher. The cache calls it with locks
// held, so it must not go back there.
func (r *Resolver) OnNeighborChanged(nic tcpip.NICID, e stack.NeighborEntry) {
	next, h := r.hopOf(nic, e.Addr)
	if h == nil {
		return
	}
	switch e.State {
	case stack.Reachable, stack.Stale, stack.Delay, stack.Probe, stack.Static:
		if old := h.mac.Load(); old == nil || *old != e.LinkAddr {
			r.resolved(next, h, e.LinkAddr)
		}
	case stack.Unreachable:
		r.lose(next, h)
	}
}

// OnNeighborRemoved implements stack.NUDDispatcher.
func (r *Resolver) OnNeighborRemoved(nic tcpip.NICID, e stack.NeighborEntry) {
	if next, h := r.hopOf(nic, e.Addr); h != nil && h.mac.Load() != nil {
		r.lose(next, h)
	}
}

func (r *Resolver) hopOf(nic tcpip.NICID, a tcpip.Address) (netip.Addr, *nextHop) {
	next, ok := netip.AddrFromSlice(a.AsSlice())
	if !ok || nic != r.nic {
		return next, nil
	}
	return next, (*r.hops.Load())[next]
}

func addressOf(a netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(a.AsSlice()) }

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

// Waiting returns how many packets wait for the address of their next hop.
func (r *Resolver) Waiting() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range *r.hops.Load() {
		n += len(h.waiting.list)
		if h.found != "" {
			n++ // what was taken from the list is perhaps not yet written
		}
	}
	return n
}

// A Learner is a network endpoint that hands its NIC's neighbour cache what somebody else
// knows of a station, as one that is yet to be confirmed (stack.Stale).
type Learner interface {
	LearnNeighbor(a tcpip.Address, mac tcpip.LinkAddress) tcpip.Error
}

// Learn makes a next hop known that somebody else has found, another process or the
// kernel: nobody is asked before the first packet to it goes, and the cache asks the
// station itself later, as of all those in use (RFC 4861 §7.3.3). A static entry stays. The
// NIC is there, and its network endpoint is a Learner.
func (r *Resolver) Learn(next netip.Addr, mac tcpip.LinkAddress) error {
	e, err := r.s.GetNetworkEndpoint(r.nic, protocolOf(next))
	if err != nil {
		return fmt.Errorf("next hop %v: %v", next, err)
	}
	l, ok := e.(Learner)
	if !ok {
		return fmt.Errorf("next hop %v: a %T learns no neighbours", next, e)
	}
	if err := l.LearnNeighbor(addressOf(next), mac); err != nil {
		return fmt.Errorf("next hop %v: %v", next, err)
	}
	mac, ok = r.Peek(next) // what the cache made of it
	r.mu.Lock()
	defer r.mu.Unlock()
	if !ok || (*r.hops.Load())[next] != nil {
		return nil
	}
	h := new(nextHop)
	h.mac.Store(&mac)
	h.touched.Store(r.now() - int64(touchEvery)) // the first packet has the cache watch it
	r.change(func(m map[netip.Addr]*nextHop) { m[next] = h })
	return nil
}

// Known returns the next hops whose addresses are known.
func (r *Resolver) Known() map[netip.Addr]tcpip.LinkAddress {
	m := make(map[netip.Addr]tcpip.LinkAddress)
	for next, h := range *r.hops.Load() {
		if mac := h.mac.Load(); mac != nil {
			m[next] = *mac
		}
	}
	return m
}
