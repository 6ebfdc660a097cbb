package hook

import (
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
	// maxHosts bounds the table of hosts; the longest silent one goes first.
	maxHosts = 4096
	// hostStale is how long after it was last heard a host is asked whether it is
	// still there, and hostFresh how often being heard is noted.
	hostStale = 30 * time.Second
	hostFresh = time.Second
	// hostQuestions are asked, a second apart, before a host is taken for gone.
	hostQuestions = 3
)

// HostsOptions describe Hosts.
type HostsOptions struct {
	// MAC is the Ethernet address that asks, 6 octets.
	MAC   tcpip.LinkAddress
	Clock tcpip.Clock
	// Probes are the addresses that a host on the inside is about to take; nobody is asked
	// about those, because the question would look like a claim (RFC 5227 §2.1.1).
	Probes *Probes
	// Drops counts; it may be shared.
	Drops *wire.DropCounters
}

// Hosts are the Ethernet addresses of the hosts on the inside, of which there may be
// many. They are heard from what the hosts send, and else asked for: by an ARP probe,
// and by neighbour solicitation from a link-local address of the box. A probe names no
// sender, so that no host takes the box for anybody.
//
// Looking one up takes no lock and does not allocate. Any number of goroutines may use
// it.
type Hosts struct {
	o    HostsOptions
	self atomic.Pointer[asker]
	to   stack.LinkWriter

	mu         sync.Mutex
	table      atomic.Pointer[map[netip.Addr]*insideHost] // replaced, never changed, under mu
	unresolved int
	octets     int // of packets that wait
}

// insideHost is one host. It is in the table while it is known or asked for.
type insideHost struct {
	mac    atomic.Pointer[tcpip.LinkAddress] // nil while unknown
	heard  atomic.Int64                      // tcpip.MonotonicTime in nanoseconds
	asked  atomic.Int64                      // when it was last asked whether it is still there
	missed atomic.Int32                      // questions without an answer
	fixed  bool
	// Under Hosts.mu.
	waiting   queue
	questions int
}

// NewHosts returns Hosts that know nobody yet.
func NewHosts(o HostsOptions) *Hosts {
	h := &Hosts{o: o}
	h.SetMAC(o.MAC)
	h.table.Store(&map[netip.Addr]*insideHost{})
	return h
}

// asker is the box on the inside, as it asks.
type asker struct {
	mac       tcpip.LinkAddress
	linkLocal netip.Addr
}

// SetMAC replaces the address that the options gave, from the next question on.
func (h *Hosts) SetMAC(mac tcpip.LinkAddress) { h.self.Store(&asker{mac, linkLocal(mac)}) }

// linkLocal is the IPv6 address made of an Ethernet address (RFC 4291 §2.5.6, appendix A).
func linkLocal(mac tcpip.LinkAddress) netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]})
}

// Bind names the link to write to. It must come before the first packet.
func (h *Hosts) Bind(to stack.LinkWriter) { h.to = to }

// Fix sets the Ethernet address of a host for good.
func (h *Hosts) Fix(a netip.Addr, mac tcpip.LinkAddress) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := &insideHost{fixed: true}
	x.mac.Store(&mac)
	h.change(func(m map[netip.Addr]*insideHost) { m[a] = x })
}

// Lookup returns the Ethernet address of a host if it is known now.
func (h *Hosts) Lookup(a netip.Addr) (tcpip.LinkAddress, bool) {
	x := (*h.table.Load())[a]
	if x == nil {
		return "", false
	}
	mac := x.mac.Load()
	if mac == nil {
		return "", false
	}
	now := h.now()
	if t := x.asked.Load(); !x.fixed && now-x.heard.Load() > int64(hostStale) && now-t >= int64(time.Second) && x.asked.CompareAndSwap(t, now) {
		if x.missed.Add(1) > hostQuestions {
			h.forget(a, x)
			return "", false
		}
		h.ask(a, *mac)
	}
	return *mac, true
}

// Peek is Lookup, but asks no host.
func (h *Hosts) Peek(a netip.Addr) (tcpip.LinkAddress, bool) {
	x := (*h.table.Load())[a]
	if x == nil || x.mac.Load() == nil {
		return "", false
	}
	return *x.mac.Load(), true
}

func (h *Hosts) now() int64 { return h.o.Clock.NowMonotonic().Sub(tcpip.MonotonicTime{}).Nanoseconds() }

// Heard notes that a host said, by ARP or neighbour discovery, that it has a.
func (h *Hosts) Heard(a netip.Addr, mac tcpip.LinkAddress) { h.hear(a, mac, true) }

// Seen notes that a datagram with the source a came from mac, which may be a router's.
// It tells something new only of a host that nothing is known of.
func (h *Hosts) Seen(a netip.Addr, mac []byte) {
	x := (*h.table.Load())[a]
	if x != nil {
		if known := x.mac.Load(); known != nil {
			if string(*known) == string(mac) {
				h.refresh(x)
			}
			return
		}
	}
	h.hear(a, tcpip.LinkAddress(mac), false)
}

func (h *Hosts) refresh(x *insideHost) {
	if now := h.now(); now-x.heard.Load() >= int64(hostFresh) {
		x.heard.Store(now)
		x.missed.Store(0)
	}
}

func (h *Hosts) hear(a netip.Addr, mac tcpip.LinkAddress, sure bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := (*h.table.Load())[a]
	switch {
	case x == nil:
		x = new(insideHost)
		h.change(func(m map[netip.Addr]*insideHost) {
			h.makeRoom(m)
			m[a] = x
		})
	case x.fixed:
		return
	case x.mac.Load() == nil:
		h.unresolved--
	case *x.mac.Load() == mac:
		h.refresh(x)
		return
	case !sure:
		return
	}
	x.heard.Store(h.now())
	x.missed.Store(0)
	// What waited goes first, and nobody overtakes it: the address is not known yet.
	for _, pkt := range h.takeWaiting(x) {
		h.output(pkt, mac)
		pkt.DecRef()
	}
	x.mac.Store(&mac)
}

// makeRoom takes the host out of m that has been silent for longest, if m is full.
func (h *Hosts) makeRoom(m map[netip.Addr]*insideHost) {
	if len(m) < maxHosts {
		return
	}
	var oldest netip.Addr
	for a, x := range m {
		if x.fixed || x.mac.Load() == nil {
			continue
		}
		if !oldest.IsValid() || x.heard.Load() < m[oldest].heard.Load() {
			oldest = a
		}
	}
	delete(m, oldest)
}

// change replaces the table by a changed copy, with h.mu held.
func (h *Hosts) change(f func(map[netip.Addr]*insideHost)) {
	m := maps.Clone(*h.table.Load())
	f(m)
	h.table.Store(&m)
}

func (h *Hosts) forget(a netip.Addr, x *insideHost) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if (*h.table.Load())[a] == x {
		h.change(func(m map[netip.Addr]*insideHost) { delete(m, a) })
	}
}

// Forget has all hosts that are not fixed asked for anew.
func (h *Hosts) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.change(func(m map[netip.Addr]*insideHost) {
		maps.DeleteFunc(m, func(_ netip.Addr, x *insideHost) bool { return !x.fixed && x.mac.Load() != nil })
	})
}

// Enqueue sends pkt to the host a as soon as its Ethernet address is found, for which
// it takes a reference; nobody may change the packet any more. If it does not answer,
// all packets for it are dropped as wire.DropUnresolved.
func (h *Hosts) Enqueue(a netip.Addr, pkt *stack.PacketBuffer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := (*h.table.Load())[a]
	switch {
	case x != nil && x.mac.Load() != nil:
		h.output(pkt, *x.mac.Load())
		return
	case x == nil && h.unresolved >= maxUnresolved, h.octets+pkt.MemSize() > maxWaitingOctets:
		h.o.Drops.Add(wire.DropQueueFull)
		return
	case x == nil:
		x = new(insideHost)
		h.change(func(m map[netip.Addr]*insideHost) { m[a] = x })
		h.unresolved++
		h.question(a, x)
	}
	for !x.waiting.fits(pkt, DefaultWaiting) {
		oldest := x.waiting.shift()
		h.octets -= oldest.MemSize()
		oldest.DecRef()
		h.o.Drops.Add(wire.DropQueueFull)
	}
	x.waiting.put(pkt)
	h.octets += pkt.MemSize()
}

// question asks for a, and again a second later, with h.mu held.
func (h *Hosts) question(a netip.Addr, x *insideHost) {
	x.questions++
	if !h.o.Probes.Active(a) {
		h.ask(a, "")
	}
	h.o.Clock.AfterFunc(time.Second, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if (*h.table.Load())[a] != x || x.mac.Load() != nil {
			return
		}
		if x.questions < hostQuestions {
			h.question(a, x)
			return
		}
		h.unresolved--
		h.change(func(m map[netip.Addr]*insideHost) { delete(m, a) })
		for _, pkt := range h.takeWaiting(x) {
			h.o.Drops.Add(wire.DropUnresolved)
			pkt.DecRef()
		}
	})
}

// takeWaiting empties x's queue, with h.mu held.
func (h *Hosts) takeWaiting(x *insideHost) []*stack.PacketBuffer {
	list := x.waiting.list
	h.octets -= x.waiting.octets
	x.waiting = queue{}
	return list
}

func (h *Hosts) output(pkt *stack.PacketBuffer, mac tcpip.LinkAddress) {
	copy(pkt.LinkHeader().Slice(), mac)
	writeOne(h.to, pkt)
}

// ask sends one question for a, to mac alone if that is not empty.
func (h *Hosts) ask(a netip.Addr, mac tcpip.LinkAddress) {
	var pkt *stack.PacketBuffer
	self := h.self.Load()
	if a.Is4() {
		if mac == "" {
			mac = header.EthernetBroadcastAddress
		}
		probe := arpPacket{sender: netip.IPv4Unspecified(), target: a, senderMAC: self.mac}
		pkt = probe.frame(mac)
	} else {
		m := ndMessage{typ: icmpNS, src: self.linkLocal, dst: a, target: a, link: self.mac}
		if mac == "" {
			m.dst = solicitedNode(a)
			mac = multicastMAC(m.dst)
		}
		pkt = m.frame(mac, self.mac)
	}
	defer pkt.DecRef()
	writeOne(h.to, pkt)
}

// Waiting returns how many packets wait for the address of their host.
func (h *Hosts) Waiting() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range *h.table.Load() {
		n += len(x.waiting.list)
	}
	return n
}

// A Host is one entry of a List.
type Host struct {
	Address netip.Addr
	MAC     tcpip.LinkAddress // empty while it is asked for
}

// List returns all that are known or asked for, in no order.
func (h *Hosts) List() []Host {
	var list []Host
	for a, x := range *h.table.Load() {
		e := Host{Address: a}
		if mac := x.mac.Load(); mac != nil {
			e.MAC = *mac
		}
		list = append(list, e)
	}
	return list
}
