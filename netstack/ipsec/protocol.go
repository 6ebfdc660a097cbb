package ipsec

import (
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// The NICs of the bump's stack.
const (
	LeftNIC  tcpip.NICID = 1 // arp/0, eth/0, ethkern
	RightNIC tcpip.NICID = 2 // arp/1, eth/1, ethdev
)

// Protocols returns what the bump's stack registers as IPv4 and IPv6: the
// engine, under both EtherTypes.
func (e *Engine) Protocols() []stack.NetworkProtocolFactory {
	return []stack.NetworkProtocolFactory{
		func(*stack.Stack) stack.NetworkProtocol {
			return &protocol{engine: e, number: header.IPv4ProtocolNumber}
		},
		func(*stack.Stack) stack.NetworkProtocol {
			return &protocol{engine: e, number: header.IPv6ProtocolNumber}
		},
	}
}

// protocol is the engine as a stack.NetworkProtocol.
type protocol struct {
	engine *Engine
	number tcpip.NetworkProtocolNumber
}

func (p *protocol) Number() tcpip.NetworkProtocolNumber { return p.number }

func (p *protocol) MinimumPacketSize() int {
	if p.number == header.IPv4ProtocolNumber {
		return header.IPv4MinimumSize
	}
	return header.IPv6MinimumSize
}

func (p *protocol) ParseAddresses(b []byte) (src, dst tcpip.Address) {
	if p.number == header.IPv4ProtocolNumber {
		h := header.IPv4(b)
		return h.SourceAddress(), h.DestinationAddress()
	}
	h := header.IPv6(b)
	return h.SourceAddress(), h.DestinationAddress()
}

func (p *protocol) NewEndpoint(nic stack.NetworkInterface, _ stack.TransportDispatcher) stack.NetworkEndpoint {
	e := &endpoint{protocol: p, nic: nic}
	e.Init(e, stack.AddressableEndpointStateOptions{})
	if p.number == header.IPv6ProtocolNumber && nic.ID() == RightNIC {
		// IPv6 resolves link addresses by its own messages, IPv4 by ARP.
		return &resolvingEndpoint{endpoint: e}
	}
	return e
}

func (*protocol) SetOption(tcpip.SettableNetworkProtocolOption) tcpip.Error {
	return &tcpip.ErrUnknownProtocolOption{}
}

func (*protocol) Option(tcpip.GettableNetworkProtocolOption) tcpip.Error {
	return &tcpip.ErrUnknownProtocolOption{}
}

func (*protocol) Close() {}
func (*protocol) Wait()  {}

// Parse is for packets of transport endpoints, of which the bump has none.
func (*protocol) Parse(*stack.PacketBuffer) (tcpip.TransportProtocolNumber, bool, bool) {
	return 0, false, false
}

// endpoint is the engine on one NIC. Its addresses are the protected host's, on
// the right, so that neighbours are answered; nothing ends here.
type endpoint struct {
	stack.AddressableEndpointState
	protocol *protocol
	nic      stack.NetworkInterface
	enabled  atomic.Bool
	stats    endpointStats
}

var _ stack.NetworkEndpoint = (*endpoint)(nil)
var _ stack.AddressableEndpoint = (*endpoint)(nil)
var _ hook.Learner = (*endpoint)(nil)

// HandlePacket implements stack.NetworkEndpoint.
func (e *endpoint) HandlePacket(pkt *stack.PacketBuffer) {
	engine, from := e.protocol.engine, hook.Right
	if e.nic.ID() == LeftNIC {
		from = hook.Left
	}
	switch {
	case !e.enabled.Load():
		engine.drop(nil, from, wire.DropEndpointGone, nil, nil)
	case from == hook.Left:
		engine.outbound(pkt)
	default:
		engine.inbound(pkt)
	}
}

func (e *endpoint) Enable() tcpip.Error {
	e.enabled.Store(true)
	return nil
}

func (e *endpoint) Enabled() bool      { return e.enabled.Load() }
func (e *endpoint) Disable()           { e.enabled.Store(false) }
func (*endpoint) DefaultTTL() uint8    { return sa.DefaultTTL }
func (e *endpoint) MTU() uint32        { return e.nic.MTU() }
func (e *endpoint) Close()             { e.Cleanup() }
func (e *endpoint) headerSize() uint32 { return uint32(e.protocol.MinimumPacketSize()) }

func (e *endpoint) EndpointHeaderSize() uint32 { return e.headerSize() }

func (e *endpoint) MaxHeaderLength() uint16 {
	return e.nic.MaxHeaderLength() + uint16(e.headerSize())
}

func (e *endpoint) NetworkProtocolNumber() tcpip.NetworkProtocolNumber { return e.protocol.number }

// WritePacket implements stack.NetworkEndpoint. No transport protocol is above
// the bump, so nothing may be sent by it.
func (*endpoint) WritePacket(*stack.Route, stack.NetworkHeaderParams, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}

// WriteHeaderIncludedPacket implements stack.NetworkEndpoint, as WritePacket does.
func (*endpoint) WriteHeaderIncludedPacket(*stack.Route, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}

func (e *endpoint) Stats() stack.NetworkEndpointStats { return &e.stats }

// LearnNeighbor implements hook.Learner.
func (e *endpoint) LearnNeighbor(a tcpip.Address, mac tcpip.LinkAddress) tcpip.Error {
	return e.nic.HandleNeighborProbe(e.protocol.number, a, mac)
}

// endpointStats is empty: the engine counts by its own list of reasons.
type endpointStats struct{}

func (*endpointStats) IsNetworkEndpointStats() {}

// resolvingEndpoint is the IPv6 endpoint on the right, with neighbour discovery
// (RFC 4861 §7).
type resolvingEndpoint struct {
	*endpoint
}

var _ stack.LinkAddressResolver = (*resolvingEndpoint)(nil)

// HandlePacket implements stack.NetworkEndpoint.
func (e *resolvingEndpoint) HandlePacket(pkt *stack.PacketBuffer) {
	if hook.HandleND(e.nic, pkt, e.protocol.engine.Drops(hook.Right)) {
		return
	}
	e.endpoint.HandlePacket(pkt)
}

// LinkAddressRequest implements stack.LinkAddressResolver.
func (e *resolvingEndpoint) LinkAddressRequest(target, local tcpip.Address, remote tcpip.LinkAddress) tcpip.Error {
	return hook.SendNS(e.nic, target, local, remote)
}

// ResolveStaticAddress implements stack.LinkAddressResolver.
func (*resolvingEndpoint) ResolveStaticAddress(a tcpip.Address) (tcpip.LinkAddress, bool) {
	if header.IsV6MulticastAddress(a) {
		return header.EthernetAddressFromMulticastIPv6Address(a), true
	}
	return "", false
}

// LinkAddressProtocol implements stack.LinkAddressResolver.
func (*resolvingEndpoint) LinkAddressProtocol() tcpip.NetworkProtocolNumber {
	return header.IPv6ProtocolNumber
}
