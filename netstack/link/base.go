package link

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// Stats are the frames and octets that crossed a link, by direction as the stack
// sees it. Octets are those of Ethernet frames, without virtio-net headers; a
// superframe is one frame.
type Stats struct {
	FramesIn, OctetsIn   uint64
	FramesOut, OctetsOut uint64
}

// base is what every endpoint of this package has: addresses, dispatcher, counters
// and the way out.
type base struct {
	mtu        atomic.Uint32
	mac        atomic.Pointer[tcpip.LinkAddress]
	dispatcher atomic.Pointer[stack.NetworkDispatcher]
	drops      *wire.DropCounters
	batches    sync.Pool // of *batch

	framesIn, octetsIn, framesOut, octetsOut atomic.Uint64

	closing atomic.Bool
	onClose atomic.Pointer[func()]
	closed  chan struct{}
	wg      sync.WaitGroup
}

func (e *base) init(mac tcpip.LinkAddress, mtu uint32, drops *wire.DropCounters) {
	if drops == nil {
		drops = new(wire.DropCounters)
	}
	e.drops = drops
	e.closed = make(chan struct{})
	e.mtu.Store(mtu)
	e.SetLinkAddress(mac)
	e.batches.New = func() any { return new(batch) }
}

// Stats returns the link's counters.
func (e *base) Stats() Stats {
	return Stats{
		FramesIn: e.framesIn.Load(), OctetsIn: e.octetsIn.Load(),
		FramesOut: e.framesOut.Load(), OctetsOut: e.octetsOut.Load(),
	}
}

// MTU implements stack.LinkEndpoint: the longest IP datagram in octets.
func (e *base) MTU() uint32 { return e.mtu.Load() }

// SetMTU implements stack.LinkEndpoint.
func (e *base) SetMTU(mtu uint32) { e.mtu.Store(mtu) }

// LinkAddress implements stack.LinkEndpoint.
func (e *base) LinkAddress() tcpip.LinkAddress { return *e.mac.Load() }

// SetLinkAddress implements stack.LinkEndpoint.
func (e *base) SetLinkAddress(mac tcpip.LinkAddress) { e.mac.Store(&mac) }

// ARPHardwareType implements stack.LinkEndpoint.
func (*base) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }

// IsAttached implements stack.LinkEndpoint.
func (e *base) IsAttached() bool { return e.dispatcher.Load() != nil }

// ParseHeader implements stack.LinkEndpoint: it reports whether pkt has an Ethernet
// header, taking it from the data if need be.
func (*base) ParseHeader(pkt *stack.PacketBuffer) bool {
	if len(pkt.LinkHeader().Slice()) != 0 {
		return true
	}
	_, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// SetOnCloseAction implements stack.LinkEndpoint.
func (e *base) SetOnCloseAction(f func()) { e.onClose.Store(&f) }

// Wait implements stack.LinkEndpoint: it returns when no reader runs any more.
func (e *base) Wait() { e.wg.Wait() }

// close runs its work once: end the readers, then the on-close action. The action of
// a stack removes the NIC, which closes the endpoint again.
func (e *base) close(devices ...Device) {
	if e.closing.Swap(true) {
		return
	}
	close(e.closed)
	for _, d := range devices {
		d.Close()
	}
	if f := e.onClose.Load(); f != nil && *f != nil {
		(*f)()
	}
}

func (e *base) isClosed() bool {
	select {
	case <-e.closed:
		return true
	default:
		return false
	}
}

// deliver hands a packet to the stack and lets go of it.
func (e *base) deliver(pkt *stack.PacketBuffer) {
	if d := e.dispatcher.Load(); d != nil {
		(*d).DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	} else {
		e.drops.Add(wire.DropEndpointGone)
	}
	pkt.DecRef()
}

func (e *base) countIn(frames ...[]byte) {
	if len(frames) == 0 {
		return
	}
	octets := 0
	for _, f := range frames {
		octets += len(f) - wire.VirtioNetLen
	}
	e.framesIn.Add(uint64(len(frames)))
	e.octetsIn.Add(uint64(octets))
}
