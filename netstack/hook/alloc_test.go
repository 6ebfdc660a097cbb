//go:build !race

package hook

// The race detector makes pools forget, so that these numbers mean nothing with it.

import (
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

type nobody struct{}

func (nobody) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}
func (nobody) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer)    {}

// Unicast datagrams pass the hooks, and known next hops are found, without allocation.
func TestAllocations(t *testing.T) {
	b := newBump(t, ClassRule{"dhcp", true})
	b.send(b.kern, datagramTo(peer4))
	b.send(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	if n := testing.AllocsPerRun(200, func() {
		if _, ok := b.resolver.Lookup(peer4); !ok {
			t.Fatal("unknown")
		}
	}); n != 0 {
		t.Errorf("%v allocations to look a next hop up", n)
	}

	capture := b.watch.Wrap(b.left, Left)
	class, err := NewClass(capture, ClassOptions{Rules: []ClassRule{{"dhcp", true}}, Other: new(Relay), Drops: &b.drops})
	if err != nil {
		t.Fatal(err)
	}
	proxy := NewProxyARP(class, ProxyOptions{MAC: macHost, Drops: &b.drops})
	proxy.Attach(nobody{})
	for _, f := range [][]byte{datagramTo(peer4), datagramTo(peer6)} {
		pkt, data := newFrame(macHost, macHost, etherType(f), len(f)-ethernetLen)
		copy(data, f[ethernetLen:])
		if n := testing.AllocsPerRun(200, func() { capture.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt) }); n != 0 {
			t.Errorf("%v allocations through the hooks", n)
		}
		pkt.DecRef()
	}
}

func BenchmarkLookup(b *testing.B) {
	t := new(testing.T)
	r := newBump(t)
	r.send(r.kern, datagramTo(peer4))
	r.send(r.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	b.ReportAllocs()
	for b.Loop() {
		r.resolver.Lookup(peer4)
	}
}

// Who looks makes the packet path allocate nothing: trails come back.
func TestWatchAllocs(t *testing.T) {
	b := newBump(t)
	b.watch.Add(silent{})
	h := b.watch.Wrap(b.left, Left)
	pkt, _ := newFrame(macHost, macPeer, wire.EtherTypeIPv4, 40)
	defer pkt.DecRef()
	if n := testing.AllocsPerRun(200, func() { h.DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt) }); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
