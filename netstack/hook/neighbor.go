package hook

import (
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// NeighborOptions describe a Neighbor.
type NeighborOptions struct {
	// MAC is the Ethernet address of this side, 6 octets.
	MAC tcpip.LinkAddress
	// Own says whether an address is one of the host's. The answer may change.
	Own func(netip.Addr) bool
	// Host takes what the host itself must see, and Probes are the addresses that the host
	// probes. Both are nil where the host always sees all of ARP and neighbour discovery
	// before it comes here (CrossAndLearn).
	Host   *Relay
	Probes *Probes
	// Announced, if not nil, learns that a station announced an address, not the
	// host's, unasked. Resolver.Announced is the one to give.
	Announced func(netip.Addr, tcpip.LinkAddress)
	// Claims, if not nil, learns what stations say to have.
	Claims *Claims
	// Drops counts; it may be shared.
	Drops *wire.DropCounters
}

// A Neighbor wraps the right link. ARP and neighbour discovery for the host's
// addresses end in the stack, which owns them on this side: gVisor's arp answers and
// learns, HandleND does for IPv6.
//
// Three things are not the stack's. Another station's claim of an address that the host
// owns or probes goes to the host and not to the stack, so that the host's duplicate
// address detection and defence work (RFC 5227 §2.1.1, §2.4, RFC 4862 §5.4). A probe by
// others for an address of the host is answered here, because gVisor would note its
// unspecified sender as a neighbour. And an announcement of another address is told, as is
// each claim of an address.
type Neighbor struct {
	under
	o   NeighborOptions
	mac atomic.Pointer[tcpip.LinkAddress]
	// crossed says that the host has seen what comes here.
	crossed atomic.Bool
}

var _ stack.LinkEndpoint = (*Neighbor)(nil)

// NewNeighbor wraps child.
func NewNeighbor(child stack.LinkEndpoint, o NeighborOptions) *Neighbor {
	n := &Neighbor{o: o}
	n.SetMAC(o.MAC)
	n.Init(child, n)
	return n
}

// SetMAC replaces the address that the options gave, from the next frame on.
func (n *Neighbor) SetMAC(mac tcpip.LinkAddress) { n.mac.Store(&mac) }

// SetCrossed says whether from now on the host sees ARP and neighbour discovery before
// they come here, as while the Class before this has CrossAndLearn.
func (n *Neighbor) SetCrossed(on bool) { n.crossed.Store(on) }

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (n *Neighbor) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	switch proto {
	case header.ARPProtocolNumber:
		if n.arp(pkt) {
			return
		}
	case header.IPv6ProtocolNumber:
		if b := datagram(pkt); isND(b) && n.nd(pkt, b) {
			return
		}
	}
	n.under.DeliverNetworkPacket(proto, pkt)
}

// arp returns true if it dealt with pkt.
func (n *Neighbor) arp(pkt *stack.PacketBuffer) bool {
	a, ok := parseARP(pkt)
	switch {
	case !ok:
		drop(n.o.Drops, pkt, wire.DropBadFrame)
	case a.senderMAC == *n.mac.Load():
		// Our own words come back, or somebody uses our Ethernet address.
		drop(n.o.Drops, pkt, wire.DropOwnAddressSpoof)
	case a.isProbe() && n.o.Probes.Active(a.target), n.claimed(a.sender) && !n.asked(a):
		if n.o.Own(a.sender) {
			n.o.Claims.own(a.sender, a.senderMAC)
		}
		n.toHost(pkt)
	case a.isProbe() && n.o.Own(a.target):
		r := a.answer(*n.mac.Load())
		defer r.DecRef()
		writeOne(n.Child(), r)
	case a.isProbe():
		drop(n.o.Drops, pkt, wire.DropForeignMAC)
	default:
		n.o.Claims.other(a.sender, a.senderMAC, n.asked(a))
		if a.isAnnouncement() && n.o.Announced != nil {
			n.o.Announced(a.sender, a.senderMAC)
		}
		return false
	}
	return true
}

// claimed reports whether nobody but the host may say that it has a.
func (n *Neighbor) claimed(a netip.Addr) bool {
	return !a.IsUnspecified() && (n.o.Own(a) || n.o.Probes.Active(a))
}

// asked reports whether a answers the stack, which asks with an address of the host,
// about a station that is not the host. A probe asks with none and is answered so
// (RFC 5227 §2.1.1), as duplicate address detection is to all nodes (RFC 4861 §7.2.4):
// an address that the host probes in vain stays within reach.
func (n *Neighbor) asked(a arpPacket) bool {
	return a.reply && n.o.Own(a.target) && !n.o.Own(a.sender)
}

// nd returns true if it dealt with pkt.
func (n *Neighbor) nd(pkt *stack.PacketBuffer, b []byte) bool {
	var m ndMessage
	if !parseND(b, checksumLeft(pkt), &m) {
		drop(n.o.Drops, pkt, wire.DropMalformed)
		return true
	}
	switch {
	case m.link == *n.mac.Load() && m.link != "":
		drop(n.o.Drops, pkt, wire.DropOwnAddressSpoof)
		return true
	case m.typ == icmpNA && (n.o.Own(m.target) || m.dst.IsMulticast() && n.o.Probes.Active(m.target)),
		m.typ == icmpNS && m.src.IsUnspecified() && n.o.Probes.Active(m.target):
		if m.typ == icmpNA && m.link != "" && n.o.Own(m.target) {
			n.o.Claims.own(m.target, m.link)
		}
		n.toHost(pkt)
		return true
	case m.typ == icmpNA && m.link != "" && m.flags&naOverride != 0: // without it is an anycast address (RFC 4861 §7.2.7)
		n.o.Claims.other(m.target, m.link, m.flags&naSolicited != 0)
	}
	return false
}

// toHost gives the host what it must see, unless it has seen it.
func (n *Neighbor) toHost(pkt *stack.PacketBuffer) {
	if n.o.Host != nil && !n.crossed.Load() {
		n.o.Host.Send(pkt, n.o.Drops)
	}
}

// HandleND does neighbour discovery on nic (RFC 4861 §7.2) for the IPv6 network
// endpoint that pkt was delivered to. It returns false if pkt is neither a neighbour
// solicitation nor an advertisement. Else it has answered it, taught it to nic's
// neighbour cache, or dropped it and counted that in drops. pkt stays the caller's.
func HandleND(nic stack.NetworkInterface, pkt *stack.PacketBuffer, drops *wire.DropCounters) bool {
	b := datagram(pkt)
	if !isND(b) {
		return false
	}
	var m ndMessage
	if !parseND(b, checksumLeft(pkt), &m) {
		drops.Add(wire.DropMalformed)
		return true
	}
	target := tcpip.AddrFrom16(m.target.As16())
	own := nic.CheckLocalAddress(header.IPv6ProtocolNumber, target)
	switch {
	case m.typ == icmpNS && own:
		solicited(nic, pkt, &m)
	case m.typ == icmpNA && !own:
		// The cache refuses what nobody asked for, and never changes a static entry.
		_ = nic.HandleNeighborConfirmation(header.IPv6ProtocolNumber, target, m.link, stack.ReachabilityConfirmationFlags{
			Solicited: m.flags&naSolicited != 0,
			Override:  m.flags&naOverride != 0,
			IsRouter:  m.flags&naRouter != 0,
		})
	case own:
		drops.Add(wire.DropOwnAddressSpoof)
	default:
		drops.Add(wire.DropForeignMAC) // it asks for another station
	}
	return true
}

// solicited answers a solicitation for an address of nic, also one from nowhere: it
// means that another station is about to take the address (RFC 4862 §5.4.3).
func solicited(nic stack.NetworkInterface, pkt *stack.PacketBuffer, m *ndMessage) {
	if m.link != "" && !m.src.IsUnspecified() {
		_ = nic.HandleNeighborProbe(header.IPv6ProtocolNumber, tcpip.AddrFrom16(m.src.As16()), m.link)
	}
	from := header.Ethernet(pkt.LinkHeader().Slice()).SourceAddress()
	a, to := m.answer(nic.LinkAddress(), from, 0)
	_ = sendND(nic, to, &a)
}

// SendNS asks on nic for the Ethernet address of target, as stack.LinkAddressResolver
// has it: from local or, if that is empty, from nic's primary address; to all that
// may have it, or to the station remote if that is not empty, as reachability probe.
//
// It returns ErrNetworkUnreachable if nic has no IPv6 address, ErrBadLocalAddress if
// local is not nic's, and the link's errors.
func SendNS(nic stack.NetworkInterface, target, local tcpip.Address, remote tcpip.LinkAddress) tcpip.Error {
	if local.BitLen() == 0 {
		a, err := nic.PrimaryAddress(header.IPv6ProtocolNumber)
		if err != nil {
			return err
		}
		if local = a.Address; local.BitLen() == 0 {
			return &tcpip.ErrNetworkUnreachable{}
		}
	} else if !nic.CheckLocalAddress(header.IPv6ProtocolNumber, local) {
		return &tcpip.ErrBadLocalAddress{}
	}
	m := ndMessage{
		typ:    icmpNS,
		src:    netip.AddrFrom16(local.As16()),
		target: netip.AddrFrom16(target.As16()),
		link:   nic.LinkAddress(),
	}
	m.dst = m.target
	if remote == "" {
		m.dst = solicitedNode(m.target)
		remote = multicastMAC(m.dst)
	}
	return sendND(nic, remote, &m)
}

func sendND(nic stack.NetworkInterface, to tcpip.LinkAddress, m *ndMessage) tcpip.Error {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: int(nic.MaxHeaderLength()) + ndLen})
	defer pkt.DecRef()
	m.encode(pkt.NetworkHeader().Push(ndLen))
	pkt.NetworkProtocolNumber = header.IPv6ProtocolNumber
	return nic.WritePacketToRemote(to, pkt)
}
