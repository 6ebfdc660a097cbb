package hook

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// InsideOptions describe an Inside.
type InsideOptions struct {
	// MAC is the Ethernet address of the inside NIC, and WireMAC that of the outside, 6
	// octets each.
	MAC, WireMAC tcpip.LinkAddress
	// Own says whether an address is that of a host on the inside.
	Own func(netip.Addr) bool
	// Cross lets ARP and neighbour discovery go on; without it they are answered here. It
	// holds until SetCross.
	Cross bool
	// Hosts learns who is there.
	Hosts *Hosts
	// Wire takes what is not answered here: probes and announcements.
	Wire *Relay
	// Probes notes which addresses the hosts probe; Neighbor reads it.
	Probes *Probes
	// Drops counts; it may be shared.
	Drops *wire.DropCounters
}

// An Inside wraps the link of a NIC with the protected hosts on it. It is what ProxyARP
// is to the one host of the other form: it answers ARP requests and neighbour
// solicitations for any address but the hosts' own with the NIC's Ethernet address.
//
// What the hosts ask each other is theirs, and so are frames that they send each other
// and the NIC, being promiscuous, hands over. What they say about their own addresses
// goes to the wire in the outside NIC's name: probes, announcements, and advertisements
// that nobody asked for.
type Inside struct {
	under
	o     InsideOptions
	macs  atomic.Pointer[insideMACs]
	cross atomic.Bool
	// stations are the Ethernet addresses on the inside, as far as seen; replaced, never
	// changed, under mu.
	stations atomic.Pointer[map[[6]byte]struct{}]
	mu       sync.Mutex
}

var _ stack.LinkEndpoint = (*Inside)(nil)

// NewInside wraps child.
func NewInside(child stack.LinkEndpoint, o InsideOptions) *Inside {
	i := &Inside{o: o}
	i.SetMACs(o.MAC, o.WireMAC)
	i.SetCross(o.Cross)
	i.stations.Store(&map[[6]byte]struct{}{})
	i.Init(child, i)
	return i
}

// insideMACs are InsideOptions.MAC and WireMAC.
type insideMACs struct{ inside, wire tcpip.LinkAddress }

// SetMACs replaces InsideOptions.MAC and WireMAC, from the next frame on.
func (i *Inside) SetMACs(inside, wire tcpip.LinkAddress) { i.macs.Store(&insideMACs{inside, wire}) }

func (i *Inside) mac() tcpip.LinkAddress     { return i.macs.Load().inside }
func (i *Inside) wireMAC() tcpip.LinkAddress { return i.macs.Load().wire }

// SetCross replaces InsideOptions.Cross, from the next frame on.
func (i *Inside) SetCross(on bool) { i.cross.Store(on) }

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (i *Inside) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	on := true
	switch proto {
	case header.ARPProtocolNumber:
		on = i.arp(pkt)
	case header.IPv4ProtocolNumber, header.IPv6ProtocolNumber:
		if b := datagram(pkt); isND(b) {
			on = i.nd(pkt, b)
		} else {
			on = i.data(pkt, b)
		}
	}
	if on {
		i.under.DeliverNetworkPacket(proto, pkt)
	}
}

// data hears a datagram and returns true if it is to go on.
func (i *Inside) data(pkt *stack.PacketBuffer, b []byte) bool {
	eth := header.Ethernet(pkt.LinkHeader().Slice())
	src, dst, ok := addresses(b)
	if !ok || len(eth) < ethernetLen {
		return true // the next one counts it
	}
	if mac := eth[6:12]; isStation(mac) {
		i.Note([6]byte(mac))
		if i.o.Own(src) {
			i.o.Hosts.Seen(src, mac)
		}
	}
	if eth[0]&1 != 0 {
		return true
	}
	if i.o.Own(dst) || !i.cross.Load() && string(eth[:6]) != string(i.mac()) && i.seen([6]byte(eth)) {
		drop(i.o.Drops, pkt, wire.DropForeignMAC)
		return false
	}
	return true
}

// seen tells whether a station is on the inside. As for a bridge, one that was never
// heard there is on the other side: hosts know the true address of a station on the
// outside from a time in which nobody answered in its place.
func (i *Inside) seen(mac [6]byte) bool {
	_, ok := (*i.stations.Load())[mac]
	return ok
}

// Stations are the Ethernet addresses that were heard on the inside.
func (i *Inside) Stations() [][6]byte { return slices.Collect(maps.Keys(*i.stations.Load())) }

// Note adds one of them.
func (i *Inside) Note(mac [6]byte) {
	if i.seen(mac) {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	m := maps.Clone(*i.stations.Load())
	if len(m) >= maxHosts {
		clear(m) // they are heard again
	}
	m[mac] = struct{}{}
	i.stations.Store(&m)
}

// addresses reads source and destination of a datagram.
func addresses(b []byte) (src, dst netip.Addr, ok bool) {
	switch {
	case len(b) >= header.IPv4MinimumSize && b[0]>>4 == 4:
		return netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), true
	case len(b) >= header.IPv6MinimumSize && b[0]>>4 == 6:
		return netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), true
	}
	return src, dst, false
}

// toMe says that a frame is for the NIC itself: the answer to a question of Hosts.
func (i *Inside) toMe(pkt *stack.PacketBuffer) bool {
	eth := pkt.LinkHeader().Slice()
	return len(eth) >= 6 && string(eth[:6]) == string(i.mac())
}

// arp returns true if the packet is to go on.
func (i *Inside) arp(pkt *stack.PacketBuffer) bool {
	a, ok := parseARP(pkt)
	if !ok {
		drop(i.o.Drops, pkt, wire.DropBadFrame)
		return false
	}
	own := i.o.Own(a.target)
	if i.o.Own(a.sender) {
		i.o.Hosts.Heard(a.sender, a.senderMAC)
	}
	if a.isProbe() {
		i.o.Probes.note(a.target)
	}
	switch {
	case a.reply && i.toMe(pkt):
	case i.cross.Load():
		return true
	case a.isProbe(), (a.reply || a.isAnnouncement()) && i.o.Own(a.sender):
		to := header.Ethernet(pkt.LinkHeader().Slice()).DestinationAddress()
		a.senderMAC = i.wireMAC()
		r := a.frame(to)
		defer r.DecRef()
		i.o.Wire.Send(r, i.o.Drops)
	case a.reply || a.isAnnouncement() || own:
		drop(i.o.Drops, pkt, wire.DropForeignMAC) // among themselves
	default:
		r := a.answer(i.mac())
		defer r.DecRef()
		writeOne(i.Child(), r)
	}
	return false
}

// frame returns a as a packet to dst.
func (a *arpPacket) frame(dst tcpip.LinkAddress) *stack.PacketBuffer {
	pkt, b := newFrame(dst, a.senderMAC, uint16(header.ARPProtocolNumber), header.ARPSize)
	h := header.ARP(b)
	h.SetIPv4OverEthernet()
	h.SetOp(header.ARPRequest)
	if a.reply {
		h.SetOp(header.ARPReply)
		copy(h.HardwareAddressTarget(), dst)
	}
	copy(h.HardwareAddressSender(), a.senderMAC)
	copy(h.ProtocolAddressSender(), a.sender.AsSlice())
	copy(h.ProtocolAddressTarget(), a.target.AsSlice())
	return pkt
}

// nd is arp for neighbour discovery; b is pkt's datagram.
func (i *Inside) nd(pkt *stack.PacketBuffer, b []byte) bool {
	var m ndMessage
	if !parseND(b, checksumLeft(pkt), &m) {
		drop(i.o.Drops, pkt, wire.DropMalformed)
		return false
	}
	own := i.o.Own(m.target)
	switch {
	case m.link == "":
	case m.typ == icmpNA && own:
		i.o.Hosts.Heard(m.target, m.link)
	case m.typ == icmpNS && i.o.Own(m.src):
		i.o.Hosts.Heard(m.src, m.link)
	}
	probe := m.typ == icmpNS && m.src.IsUnspecified()
	if probe {
		i.o.Probes.note(m.target)
	}
	eth := header.Ethernet(pkt.LinkHeader().Slice())
	switch {
	case m.typ == icmpNA && i.toMe(pkt):
	case i.cross.Load():
		return true
	case probe, m.typ == icmpNA && own:
		if m.link != "" {
			m.link = i.wireMAC()
		}
		r := m.frame(eth.DestinationAddress(), i.wireMAC())
		defer r.DecRef()
		i.o.Wire.Send(r, i.o.Drops)
	case m.typ == icmpNA || own:
		drop(i.o.Drops, pkt, wire.DropForeignMAC)
	default:
		a, to := m.answer(i.mac(), eth.SourceAddress(), naRouter)
		r := a.frame(to, i.mac())
		defer r.DecRef()
		writeOne(i.Child(), r)
	}
	return false
}

// OutsideOptions describe an Outside.
type OutsideOptions struct {
	// MAC is the Ethernet address of the outside NIC, 6 octets.
	MAC tcpip.LinkAddress
	// Answers says whether an address is to be answered for with it: those of the box
	// and, unless they are asked themselves, those of the hosts.
	Answers func(netip.Addr) bool
	// Probes are the addresses that a host on the inside probes.
	Probes *Probes
}

// An Outside wraps the link of the NIC towards the wire and answers there for any number
// of addresses, of which the stack needs to know none.
type Outside struct {
	under
	o   OutsideOptions
	mac atomic.Pointer[tcpip.LinkAddress]
}

var _ stack.LinkEndpoint = (*Outside)(nil)

// NewOutside wraps child.
func NewOutside(child stack.LinkEndpoint, o OutsideOptions) *Outside {
	out := &Outside{o: o}
	out.SetMAC(o.MAC)
	out.Init(child, out)
	return out
}

// SetMAC replaces OutsideOptions.MAC, from the next frame on.
func (out *Outside) SetMAC(mac tcpip.LinkAddress) { out.mac.Store(&mac) }

// DeliverNetworkPacket implements stack.NetworkDispatcher.
func (out *Outside) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	var r *stack.PacketBuffer
	mac := *out.mac.Load()
	switch proto {
	case header.ARPProtocolNumber:
		a, ok := parseARP(pkt)
		if ok && !a.reply && !a.isAnnouncement() && a.senderMAC != mac && out.answers(a.target, a.isProbe()) {
			r = a.answer(mac)
		}
	case header.IPv6ProtocolNumber:
		var m ndMessage
		b := datagram(pkt)
		if isND(b) && parseND(b, checksumLeft(pkt), &m) && m.typ == icmpNS && m.link != mac &&
			out.answers(m.target, m.src.IsUnspecified()) {
			from := header.Ethernet(pkt.LinkHeader().Slice()).SourceAddress()
			a, to := m.answer(mac, from, 0)
			r = a.frame(to, mac)
		}
	}
	if r == nil {
		out.under.DeliverNetworkPacket(proto, pkt)
		return
	}
	defer r.DecRef()
	writeOne(out.Child(), r)
}

// answers says whether a question for an address is answered here. A probe of an address
// that a host on the inside probes as well is for that host.
func (out *Outside) answers(a netip.Addr, probe bool) bool {
	return out.o.Answers(a) && !(probe && out.o.Probes.Active(a))
}
