package appliance

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/appliance/hostnet"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
)

// defaultMTU is Ethernet's.
const defaultMTU = 1500

// givenHost is the host that WithLinks describes.
func givenHost(h *Host) *hostState {
	s := &hostState{mac: tcpip.LinkAddress(h.MAC), mtu: h.MTU, addresses: h.Addresses, own: make(map[netip.Addr]struct{})}
	if s.mtu == 0 {
		s.mtu = defaultMTU
	}
	s.routes = slices.Clone(h.Routes)
	for _, p := range h.Addresses {
		s.own[p.Addr()] = struct{}{}
		s.routes = append(s.routes, ipsec.Route{Destination: p.Masked()})
	}
	return s
}

// interfaceHost is the host whose interface was cut. An address that is still
// being probed is not the host's yet: the answer to its probe must reach it.
func interfaceHost(i *hostnet.Interface) *hostState {
	s := &hostState{
		name: i.Name, index: i.Index, carrier: i.Carrier,
		mac: tcpip.LinkAddress(i.MAC), mtu: i.MTU, addresses: i.Addresses, own: make(map[netip.Addr]struct{}),
	}
	if i.Gone {
		s.index = 0
	}
	for _, p := range i.Addresses {
		if !slices.Contains(i.Tentative, p.Addr()) {
			s.own[p.Addr()] = struct{}{}
		}
	}
	for _, r := range i.Routes {
		s.routes = append(s.routes, ipsec.Route{Destination: r.Destination, Via: r.Via, MTU: r.MTU})
	}
	return s
}

// isBroadcast tells whether a datagram goes to all hosts of a network of the host's (RFC
// 922). The networks of those behind a box are not known.
func (h *hostState) isBroadcast(datagram []byte) bool {
	if h.inside.name != "" || len(datagram) < header.IPv4MinimumSize || datagram[0]>>4 != 4 {
		return false
	}
	dst := [4]byte(datagram[16:20])
	return slices.ContainsFunc(h.addresses, func(p netip.Prefix) bool {
		return p.Bits() <= 30 && p.Contains(netip.AddrFrom4(dst)) && binary.BigEndian.Uint32(dst[:])|^uint32(0)<<(32-p.Bits()) == ^uint32(0)
	})
}

// protects says whether a policy protects a datagram from one side, whatever its frame
// is addressed to.
func (b *bump) protects(from hook.Side, datagram []byte) bool {
	return !b.host.Load().isBroadcast(datagram) && b.engine.Protects(from, datagram)
}

// own says whether an address is the host's.
func (b *bump) own(a netip.Addr) bool {
	if b.twoNIC() {
		return b.cfg.IsProtected(a)
	}
	return b.host.Load().has(a)
}

// routes are those of the configuration, which come first, and the host's.
func (b *bump) routes(h *hostState) []ipsec.Route {
	return append(configuredRoutes(b.live.Load()), h.routes...)
}

func configuredRoutes(cfg *Config) (list []ipsec.Route) {
	for _, r := range cfg.Routes {
		list = append(list, ipsec.Route{Destination: r.Destination, Via: r.Via})
	}
	return list
}

// mtu is the largest datagram on the wire.
func (b *bump) mtu(h *hostState) int {
	if mtu := b.live.Load().MTU; mtu != 0 {
		return min(mtu, h.mtu)
	}
	return h.mtu
}

// linkMTU is what the two NICs take, zeros with one.
func (h *hostState) linkMTU() [2]int {
	if h.inside.name == "" {
		return [2]int{}
	}
	return [2]int{h.inside.mtu, h.mtu}
}

// leftMTU is the MTU of the left link.
func (h *hostState) leftMTU() int {
	if h.inside.name == "" {
		return h.mtu
	}
	return h.inside.mtu
}

// apply makes engine and NICs fit the host. b.mu is held.
func (b *bump) apply(now *hostState) {
	old := b.applied
	b.applied = now
	if old.mtu != now.mtu || old.inside.mtu != now.inside.mtu {
		b.engine.SetMTU(b.mtu(now))
		for side, mtu := range now.linkMTU() {
			b.engine.SetLinkMTU(hook.Side(side), mtu)
		}
		b.kern.SetMTU(uint32(now.leftMTU()))
		b.dev.SetMTU(uint32(now.mtu))
	}
	if old.mac != now.mac || old.leftMAC() != now.leftMAC() {
		b.engine.SetMACs(now.leftMAC(), now.mac)
		b.kern.SetLinkAddress(now.leftMAC())
		b.dev.SetLinkAddress(now.mac)
		b.neighbor.SetMAC(now.mac)
		if b.proxy != nil {
			b.proxy.SetMAC(now.mac)
		}
		b.nics.setMACs(now)
	}
	b.engine.SetRoutes(ipsec.NewRoutes(b.routes(now)))
	for a := range now.own {
		if !old.has(a) {
			b.addAddress(a)
		}
	}
	for a := range old.own {
		if !now.has(a) {
			b.logAddress(a, b.stack.RemoveAddress(ipsec.RightNIC, addressOf(a)))
		}
	}
}

// addAddress makes the right NIC answer for an address of the host.
func (b *bump) addAddress(a netip.Addr) {
	err := b.stack.AddProtocolAddress(ipsec.RightNIC, tcpip.ProtocolAddress{
		Protocol:          protocolOf(a),
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: addressOf(a), PrefixLen: a.BitLen()},
	}, stack.AddressProperties{})
	b.logAddress(a, err)
}

// logAddress tells of an address that the stack would not take or give up.
func (b *bump) logAddress(a netip.Addr, err tcpip.Error) {
	if err == nil {
		return
	}
	b.log.WithField("address", a.String()).Warnf("the right NIC cannot follow: %v", err)
}
