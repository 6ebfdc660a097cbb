package hook

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

// ProxyOptions describe a ProxyARP.
type ProxyOptions struct {
	// MAC is the Ethernet address that every other address resolves to, 6 octets: the
	// host's own.
	MAC tcpip.LinkAddress
	// Own says whether an address is one of the host's. The answer may change.
	Own func(netip.Addr) bool
	// Wire takes what is not answered here: probes, announcements, advertisements.
	Wire *Relay
	// Probes notes which addresses the host probes; Neighbor reads it.
	Probes *Probes
	// Drops counts; it may be shared.
	Drops *wire.DropCounters
}

// A ProxyARP wraps the left link. It answers the kernel's ARP requests and neighbour
// solicitations for any address but the kernel's own with one Ethernet address, so
// that all its packets come to us, and nothing of that reaches the wire.
//
// What the kernel says about its own addresses goes to the wire unanswered: the probe
// before it uses one and the announcement after (RFC 5227 §2.1, §2.3), the solicitation
// of duplicate address detection (RFC 4862 §5.4.2), advertisements. A probe is known by
// its unspecified sender, whether or not the address is the kernel's yet.
type ProxyARP struct {
	under
	o   ProxyOptions
	mac atomic.Pointer[tcpip.LinkAddress]
}

var _ stack.LinkEndpoint = (*ProxyARP)(nil)

// NewProxyARP wraps child.
func NewProxyARP(child stack.LinkEndpoint, o ProxyOptions) *ProxyARP {
	p := &ProxyARP{o: o}
	p.SetMAC(o.MAC)
	p.Init(child, p)
	return p
}

// SetMAC replaces the address that the options gave, from the next frame on.
func (p *ProxyARP) SetMAC(mac tcpip.LinkAddress) { p.mac.Store(&mac) }

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (p *ProxyARP) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	switch proto {
	case header.ARPProtocolNumber:
		p.arp(pkt)
		return
	case header.IPv6ProtocolNumber:
		if b := datagram(pkt); isND(b) {
			p.nd(pkt, b)
			return
		}
	}
	p.under.DeliverNetworkPacket(proto, pkt)
}

// arp handles an ARP packet of the kernel.
func (p *ProxyARP) arp(pkt *stack.PacketBuffer) {
	a, ok := parseARP(pkt)
	if !ok {
		drop(p.o.Drops, pkt, wire.DropBadFrame)
		return
	}
	switch {
	case a.isProbe():
		p.o.Probes.note(a.target)
		p.o.Wire.Send(pkt, p.o.Drops)
	case a.reply || a.isAnnouncement() || p.o.Own(a.target):
		p.o.Wire.Send(pkt, p.o.Drops)
	default:
		TrailOf(pkt).Add(trace.Step{Station: trace.Hook, Verdict: "answered", Name: "arp", Address: a.target, Left: true})
		r := a.answer(*p.mac.Load())
		defer r.DecRef()
		writeOne(p.Child(), r)
	}
}

// arpPacket is an ARP request or reply for IPv4 over Ethernet.
type arpPacket struct {
	reply          bool
	sender, target netip.Addr
	senderMAC      tcpip.LinkAddress
}

func parseARP(pkt *stack.PacketBuffer) (a arpPacket, ok bool) {
	b, ok := pkt.Data().PullUp(header.ARPSize)
	h := header.ARP(b)
	if !ok || !h.IsValid() || h.Op() != header.ARPRequest && h.Op() != header.ARPReply ||
		!isStation(h.HardwareAddressSender()) {
		return a, false
	}
	return arpPacket{
		reply:     h.Op() == header.ARPReply,
		sender:    netip.AddrFrom4([4]byte(h.ProtocolAddressSender())),
		target:    netip.AddrFrom4([4]byte(h.ProtocolAddressTarget())),
		senderMAC: tcpip.LinkAddress(h.HardwareAddressSender()),
	}, true
}

// isProbe reports whether a asks if its target is free (RFC 5227 §1.1).
func (a *arpPacket) isProbe() bool { return !a.reply && a.sender.IsUnspecified() }

// isAnnouncement reports whether a says that the sender uses its address
// (RFC 5227 §1.1; gratuitous ARP).
func (a *arpPacket) isAnnouncement() bool { return a.sender == a.target }

// answer returns the reply to the request a that says that its target is at mac.
func (a *arpPacket) answer(mac tcpip.LinkAddress) *stack.PacketBuffer {
	pkt, b := newFrame(a.senderMAC, mac, uint16(header.ARPProtocolNumber), header.ARPSize)
	h := header.ARP(b)
	h.SetIPv4OverEthernet()
	h.SetOp(header.ARPReply)
	copy(h.HardwareAddressSender(), mac)
	copy(h.ProtocolAddressSender(), a.target.AsSlice())
	copy(h.HardwareAddressTarget(), a.senderMAC)
	copy(h.ProtocolAddressTarget(), a.sender.AsSlice())
	return pkt
}

const (
	// probeTime is how long after its last probe a host may still be told that an
	// address is in use: RFC 5227 §1.1 has PROBE_MAX and ANNOUNCE_WAIT of 2 s each
	// and two announcements 2 s apart.
	probeTime = 10 * time.Second
	// maxProbes bounds the table; a host has few addresses.
	maxProbes = 64
)

// Probes are the addresses that the host asked about before it takes them, for the
// time in which it waits for objections. Any number of goroutines may use it.
type Probes struct {
	clock tcpip.Clock
	mu    sync.Mutex
	until map[netip.Addr]tcpip.MonotonicTime
}

// NewProbes returns an empty table.
func NewProbes(clock tcpip.Clock) *Probes {
	return &Probes{clock: clock, until: make(map[netip.Addr]tcpip.MonotonicTime)}
}

// Active reports whether the host waits for objections to its use of a. It never does
// so if p is nil.
func (p *Probes) Active(a netip.Addr) bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.until[a]
	if ok && p.clock.NowMonotonic().After(until) {
		delete(p.until, a)
		ok = false
	}
	return ok
}

func (p *Probes) note(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.until[a]; !ok && len(p.until) >= maxProbes {
		var oldest netip.Addr
		for x, t := range p.until {
			if !oldest.IsValid() || t.Before(p.until[oldest]) {
				oldest = x
			}
		}
		delete(p.until, oldest)
	}
	p.until[a] = p.clock.NowMonotonic().Add(probeTime)
}
