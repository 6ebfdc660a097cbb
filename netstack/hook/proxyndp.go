package hook

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// nd handles a neighbour solicitation or advertisement of the kernel; b is pkt's
// datagram.
func (p *ProxyARP) nd(pkt *stack.PacketBuffer, b []byte) {
	var m ndMessage
	if !parseND(b, checksumLeft(pkt), &m) {
		drop(p.o.Drops, pkt, wire.DropMalformed)
		return
	}
	switch {
	case m.typ == icmpNS && m.src.IsUnspecified():
		p.o.Probes.note(m.target)
		p.o.Wire.Send(pkt, p.o.Drops)
	case m.typ == icmpNA || p.o.Own(m.target):
		p.o.Wire.Send(pkt, p.o.Drops)
	default:
		p.answerNS(pkt, &m)
	}
}

// answerNS tells the kernel that m's target is at our address. The router flag is
// set for every target, because the kernel drops the default routes it learned
// through a router whose flag goes away (RFC 4861 §7.2.5), and makes a router of
// nobody who sent no advertisement as one.
func (p *ProxyARP) answerNS(pkt *stack.PacketBuffer, m *ndMessage) {
	from := header.Ethernet(pkt.LinkHeader().Slice()).SourceAddress()
	a, to := m.answer(*p.mac.Load(), from, naRouter)
	r := a.frame(to, *p.mac.Load())
	defer r.DecRef()
	writeOne(p.Child(), r)
}

// frame returns m as a packet between two stations.
func (m *ndMessage) frame(dst, src tcpip.LinkAddress) *stack.PacketBuffer {
	pkt, b := newFrame(dst, src, wire.EtherTypeIPv6, ndLen)
	pkt.Data().CapLength(m.encode(b))
	return pkt
}
