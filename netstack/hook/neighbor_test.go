package hook

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/link"
	"bitw/netstack/wire"
)

// A station on the wire finds the host's addresses and no others, and pings it.
func TestR22_WireFindsTheHost(t *testing.T) {
	b := newBump(t)
	kernel := b.host(b.kern, macHost, host4, host6)
	peer := b.host(b.dev, macPeer, peer4, peer6)
	b.run(3 * time.Second)
	for _, a := range []netip.Addr{host4, host6} {
		if mac := b.resolve(peer, a); mac != macHost {
			t.Errorf("%s is at %q", a, mac)
		}
		if !b.ping(peer, a) {
			t.Errorf("no echo from %s", a)
		}
	}
	for _, a := range []netip.Addr{none4, none6} {
		if mac := b.resolve(peer, a); mac != "" {
			t.Errorf("%s is at %q", a, mac)
		}
	}
	for _, a := range []netip.Addr{peer4, peer6} {
		if !b.ping(kernel, a) {
			t.Errorf("no echo from %s", a)
		}
	}
}

// A host that has asked whether another's address is free, and was told that it is
// not, reaches the one that has it at once.
func TestR21_ProbedInVainIsWithinReach(t *testing.T) {
	b := newBump(t)
	kernel := b.host(b.kern, macHost, host4, host6)
	b.host(b.dev, macPeer, peer4, peer6)
	b.run(3 * time.Second)
	broadcast := header.EthernetBroadcastAddress
	b.send(b.kern, arpFrame(broadcast, 1, macHost, any4, header.UnspecifiedEthernetAddress, peer4))
	b.send(b.kern, ndFrame(multicastMAC(solicitedNode(peer6)), macHost, solicit(any6, peer6, "")))
	for _, a := range []netip.Addr{peer4, peer6} {
		if !b.ping(kernel, a) {
			t.Errorf("no echo from %s", a)
		}
	}
}

// What the wire says to the stack about the host's and other addresses.
func TestR22_Discovery(t *testing.T) {
	answer6 := func(dst netip.Addr, to tcpip.LinkAddress, flags byte) []byte {
		return ndFrame(to, macHost, advert(flags|naOverride, host6, dst, host6, macHost))
	}
	all := netip.IPv6LinkLocalAllNodes()
	group := multicastMAC(solicitedNode(host6))
	bad := func(change func(f []byte)) []byte {
		f := ndFrame(group, macPeer, solicit(peer6, host6, macPeer))
		change(f)
		return f
	}
	for _, tt := range []struct {
		name   string
		frame  []byte
		answer []byte
		drop   wire.DropReason
	}{
		{"ARP request", arpFrame(macAll, 1, macPeer, peer4, header.UnspecifiedEthernetAddress, host4),
			arpFrame(macPeer, 2, macHost, host4, macPeer, peer4), 0},
		{"ARP probe", arpFrame(macAll, 1, macPeer, any4, header.UnspecifiedEthernetAddress, host4),
			arpFrame(macPeer, 2, macHost, host4, macPeer, any4), 0},
		{"ARP probe for another", arpFrame(macAll, 1, macPeer, any4, header.UnspecifiedEthernetAddress, none4), nil, wire.DropForeignMAC},
		{"ARP of our MAC", arpFrame(macAll, 1, macHost, peer4, header.UnspecifiedEthernetAddress, host4), nil, wire.DropOwnAddressSpoof},

		{"solicitation", ndFrame(group, macPeer, solicit(peer6, host6, macPeer)), answer6(peer6, macPeer, naSolicited), 0},
		{"link address differs from frame", ndFrame(group, macEvil, solicit(peer6, host6, macPeer)), answer6(peer6, macPeer, naSolicited), 0},
		{"no link address", ndFrame(macHost, macPeer, ndMessage{typ: icmpNS, src: peer6, dst: host6, target: host6}),
			answer6(peer6, macPeer, naSolicited), 0},
		{"DAD of others", ndFrame(group, macPeer, solicit(any6, host6, "")), answer6(all, multicastMAC(all), 0), 0},
		{"for another", ndFrame(multicastMAC(solicitedNode(none6)), macPeer, solicit(peer6, none6, macPeer)), nil, wire.DropForeignMAC},
		{"our MAC", ndFrame(group, macHost, solicit(peer6, host6, macHost)), nil, wire.DropOwnAddressSpoof},
		// RFC 4861 §7.1.1
		{"hop limit 254", bad(func(f []byte) { f[14+7] = 254 }), nil, wire.DropMalformed},
		{"checksum", bad(func(f []byte) { f[14+42]++ }), nil, wire.DropMalformed},
		{"code", bad(func(f []byte) { f[14+41] = 1; f[14+43]-- }), nil, wire.DropMalformed},
		{"short", bad(func(f []byte) { f[14+5] = 23 }), nil, wire.DropMalformed},
		{"longer than the frame", bad(func(f []byte) { f[14+5] = 200 }), nil, wire.DropClassDiscard}, // cannot be told from any multicast
		{"option of length zero", bad(func(f []byte) { f[14+65] = 0; f[14+43]++ }), nil, wire.DropMalformed},
		{"group as link address", ndFrame(group, macPeer, solicit(peer6, host6, "\x33\x33\x00\x00\x00\x01")), nil, wire.DropMalformed},
		{"DAD with link address", ndFrame(group, macPeer, ndMessage{typ: icmpNS, src: any6, dst: solicitedNode(host6), target: host6, link: macPeer}),
			nil, wire.DropMalformed},
		{"DAD to one node", ndFrame(macHost, macPeer, ndMessage{typ: icmpNS, src: any6, dst: host6, target: host6}), nil, wire.DropMalformed},
		{"solicited to all", ndFrame(multicastMAC(all), macPeer, advert(naSolicited, peer6, all, peer6, macPeer)), nil, wire.DropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBump(t)
			b.send(b.dev, tt.frame)
			out := take(&b.fromRight)
			if tt.answer == nil && len(out) != 0 || tt.answer != nil && (len(out) != 1 || !bytes.Equal(out[0], tt.answer)) {
				t.Errorf("answered %x\nwant     %x", out, tt.answer)
			}
			if tt.drop != 0 && b.drops.Load(tt.drop) != 1 || tt.drop == 0 && len(b.drops.Snapshot()) != 0 {
				t.Errorf("drops %v", b.drops.Snapshot())
			}
			if l := take(&b.fromLeft); len(l) != 0 {
				t.Errorf("the kernel got %x", l)
			}
		})
	}
}

// datagramTo returns a small UDP datagram of the kernel to a, as a frame.
func datagramTo(a netip.Addr) []byte {
	if a.Is4() {
		return ethernet(macHost, macHost, 0x0800, ipv4To(a, wire.ProtoUDP, udpBytes(1000, 2000)))
	}
	return ethernet(macHost, macHost, 0x86dd, ipv6To(a, wire.ProtoUDP, udpBytes(1000, 2000)))
}

// isSolicitationFor reports whether an Ethernet frame asks for a.
func isSolicitationFor(f []byte, a netip.Addr) bool {
	if a.Is4() {
		return etherType(f) == etherTypeARP && f[21] == 1 && bytes.Equal(f[38:42], a.AsSlice())
	}
	return etherType(f) == wire.EtherTypeIPv6 && isND(f[14:]) && f[54] == icmpNS && bytes.Equal(f[62:78], a.AsSlice())
}

// A next hop that does not answer is asked for three times; then all that waited
// fails, with a reason and a word to the caller, and the next packet starts anew.
func TestR22_UnresolvedFails(t *testing.T) {
	for _, a := range []netip.Addr{none4, none6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			for round := range 2 {
				for range DefaultWaiting + 5 {
					b.send(b.kern, datagramTo(a))
				}
				b.run(2900 * time.Millisecond)
				if len(b.failed) != 0 {
					t.Fatal("failed before its time")
				}
				b.run(10 * time.Second)
				asked := 0
				for _, f := range take(&b.fromRight) {
					if !isSolicitationFor(f, a) {
						t.Errorf("on the wire: %x", f)
					}
					asked++
				}
				if asked != 3 || len(b.failed) != DefaultWaiting ||
					b.drops.Load(wire.DropUnresolved) != uint64((round+1)*DefaultWaiting) ||
					b.drops.Load(wire.DropQueueFull) != uint64((round+1)*5) {
					t.Errorf("asked %d times, %d failed, drops %v", asked, len(b.failed), b.drops.Snapshot())
				}
				if b.failed[0] != a || b.resolver.unresolved != 0 || b.resolver.octets != 0 || len(*b.resolver.hops.Load()) != 0 {
					t.Errorf("left over: %+v", b.resolver)
				}
				b.failed = nil
			}
		})
	}
}

// Packets that wait leave in order once the hop answers, and later ones directly.
func TestR22_WaitingPacketsLeave(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			for range 5 {
				b.send(b.kern, datagramTo(a))
			}
			if l := take(&b.fromRight); len(l) != 1 || !isSolicitationFor(l[0], a) {
				t.Fatalf("on the wire: %x", l)
			}
			reply := arpFrame(macHost, 2, macPeer, peer4, macHost, host4)
			if a.Is6() {
				reply = ndFrame(macHost, macPeer, advert(naSolicited|naOverride, peer6, host6, peer6, macPeer))
			}
			b.send(b.dev, reply)
			b.send(b.kern, datagramTo(a))
			want := datagramTo(a)
			copy(want, macPeer)
			l := take(&b.fromRight)
			if len(l) != 6 {
				t.Fatalf("%d frames left", len(l))
			}
			for _, f := range l {
				if !bytes.Equal(f, want) {
					t.Errorf("sent %x", f)
				}
			}
			if mac, ok := b.resolver.Lookup(a); !ok || mac != macPeer {
				t.Errorf("Lookup = %q, %v", mac, ok)
			}
		})
	}
}

// What is taken back does not leave when its next hop answers, and what is left does, in
// its order.
func TestR22_WaitingPacketsTakenBack(t *testing.T) {
	b := newBump(t)
	numbered := func(n uint16) []byte {
		return ethernet(macHost, macHost, 0x0800, ipv4To(peer4, wire.ProtoUDP, udpBytes(n, 2000)))
	}
	number := func(datagram []byte) uint16 { return binary.BigEndian.Uint16(datagram[20:]) }
	for n := range uint16(6) {
		b.send(b.kern, numbered(n))
	}
	var taken []uint16
	for _, pkt := range b.resolver.TakeBack(func(pkt *stack.PacketBuffer) bool { return number(datagram(pkt))%2 == 1 }) {
		taken = append(taken, number(datagram(pkt)))
		pkt.DecRef()
	}
	if want := []uint16{1, 3, 5}; !slices.Equal(taken, want) || b.resolver.Waiting() != 3 {
		t.Errorf("taken back: %d, expected %d; %d wait", taken, want, b.resolver.Waiting())
	}
	take(&b.fromRight)
	b.send(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	var left []uint16
	for _, f := range take(&b.fromRight) {
		left = append(left, number(f[ethernetLen:]))
	}
	if want := []uint16{0, 2, 4}; !slices.Equal(left, want) || b.resolver.octets != 0 {
		t.Errorf("left: %d, expected %d; %d octets wait", left, want, b.resolver.octets)
	}
}

// A next hop in use is probed and kept; when it falls silent it is lost; R24: what
// nobody uses goes with a flush.
func TestR24_ReachabilityGoesOn(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			b.host(b.dev, macPeer, peer4, peer6)
			b.run(2 * time.Second)
			for range 120 {
				b.send(b.kern, datagramTo(a))
				b.run(time.Second)
			}
			probes, data := 0, 0
			for _, f := range take(&b.fromRight) {
				switch {
				case !isSolicitationFor(f, a):
					data++
				case string(f[:6]) == string(macPeer):
					probes++
				}
			}
			if probes < 1 || data < 120 || len(b.failed) != 0 {
				t.Errorf("%d reachability probes, %d datagrams, %d failed", probes, data, len(b.failed))
			}
			if err := b.s.ClearNeighbors(2, protocolOf(a)); err != nil {
				t.Fatal(err)
			}
			if _, ok := b.resolver.Lookup(a); ok {
				t.Error("still known after a flush")
			}
			if l, _ := b.s.Neighbors(2, protocolOf(a)); len(l) != 0 {
				t.Errorf("the cache holds %v", l)
			}

			b.send(b.kern, datagramTo(a)) // found again
			b.run(time.Second)
			if _, ok := b.resolver.Lookup(a); !ok {
				t.Fatal("not found again")
			}
			b.dev.Close() // the peer falls silent
			for range 120 {
				f := append(make([]byte, wire.VirtioNetLen), datagramTo(a)...)
				b.kern.WriteFrames([][]byte{f})
				b.run(time.Second)
			}
			if _, ok := b.resolver.Lookup(a); ok || b.drops.Load(wire.DropUnresolved) == 0 {
				t.Errorf("still known, drops %v", b.drops.Snapshot())
			}
		})
	}
}

// A static neighbour is used at once, never asked for, and changed by no traffic.
func TestR23_StaticNeighbor(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			if err := b.s.AddStaticNeighbor(2, protocolOf(a), addressOf(a), macPeer); err != nil {
				t.Fatal(err)
			}
			b.send(b.kern, datagramTo(a))
			all := netip.IPv6LinkLocalAllNodes()
			for _, f := range [][]byte{
				arpFrame(macHost, 2, macEvil, peer4, macHost, host4),
				arpFrame(macAll, 1, macEvil, peer4, header.UnspecifiedEthernetAddress, peer4),
				arpFrame(macAll, 1, macEvil, peer4, header.UnspecifiedEthernetAddress, host4),
				ndFrame(macHost, macEvil, advert(naSolicited|naOverride, peer6, host6, peer6, macEvil)),
				ndFrame(multicastMAC(all), macEvil, advert(naOverride, peer6, all, peer6, macEvil)),
				ndFrame(multicastMAC(solicitedNode(host6)), macEvil, solicit(peer6, host6, macEvil)),
			} {
				b.send(b.dev, f)
			}
			b.run(2 * time.Minute)
			b.send(b.kern, datagramTo(a))
			n := 0
			for _, f := range take(&b.fromRight) {
				if bytes.Equal(f[6:], datagramTo(a)[6:]) {
					n++
					if string(f[:6]) != string(macPeer) {
						t.Errorf("sent to %x", f[:6])
					}
				}
				if isSolicitationFor(f, a) {
					t.Error("asked for a static neighbour")
				}
			}
			if n != 2 {
				t.Errorf("%d of 2 datagrams sent", n)
			}
			// An operator may change it.
			if err := b.s.AddStaticNeighbor(2, protocolOf(a), addressOf(a), macEvil); err != nil {
				t.Fatal(err)
			}
			if mac, _ := b.resolver.Lookup(a); mac != macEvil {
				t.Errorf("changed to %q", mac)
			}
			if err := b.s.RemoveNeighbor(2, protocolOf(a), addressOf(a)); err != nil {
				t.Fatal(err)
			}
			if _, ok := b.resolver.Lookup(a); ok {
				t.Error("still known after its removal")
			}
		})
	}
}

// What somebody else has found is used at once, by nobody's leave, and confirmed by the
// station itself later; when that is silent it is lost.
func TestR22_LearnedNeighbor(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			b.host(b.dev, macPeer, peer4, peer6)
			b.run(2 * time.Second)
			take(&b.fromRight)
			if err := b.resolver.Learn(a, macPeer); err != nil {
				t.Fatal(err)
			}
			b.send(b.kern, datagramTo(a))
			// What follows answers the station, which asks for the host.
			if l := take(&b.fromRight); len(l) == 0 || !bytes.Equal(l[0][6:], datagramTo(a)[6:]) || string(l[0][:6]) != string(macPeer) {
				t.Errorf("on the wire: %x; expected the datagram first", l)
			}
			toAll, toIt := 0, 0
			for range 20 {
				b.send(b.kern, datagramTo(a))
				b.run(time.Second)
			}
			for _, f := range take(&b.fromRight) {
				switch {
				case !isSolicitationFor(f, a):
				case string(f[:6]) == string(macPeer):
					toIt++
				default:
					toAll++
				}
			}
			if mac, ok := b.resolver.Lookup(a); toIt == 0 || toAll > 0 || mac != macPeer || !ok {
				t.Errorf("asked %d times, all others %d times; %q is known", toIt, toAll, mac)
			}
			if err := b.s.ClearNeighbors(2, protocolOf(a)); err != nil {
				t.Fatal(err)
			}
			if _, ok := b.resolver.Lookup(a); ok {
				t.Error("still known after a flush")
			}
			if err := b.s.AddStaticNeighbor(2, protocolOf(a), addressOf(a), macPeer); err != nil {
				t.Fatal(err)
			}
			if err := b.resolver.Learn(a, macEvil); err != nil {
				t.Fatal(err)
			}
			if mac, _ := b.resolver.Lookup(a); mac != macPeer {
				t.Errorf("a static neighbour was changed to %q", mac)
			}
		})
	}
	b := newBump(t) // nobody else is there
	if err := b.resolver.Learn(none4, macPeer); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		b.send(b.kern, datagramTo(none4))
		b.run(time.Second)
	}
	if _, ok := b.resolver.Lookup(none4); ok {
		t.Error("a silent station is still known")
	}
}

// An announcement with a new Ethernet address makes us ask, not believe.
func TestAnnouncedNeighborIsAskedAgain(t *testing.T) {
	b := newBump(t)
	b.send(b.kern, datagramTo(peer4))
	b.send(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	take(&b.fromRight)
	b.send(b.dev, arpFrame(macAll, 1, macPeer, peer4, header.UnspecifiedEthernetAddress, peer4))
	if _, ok := b.resolver.Lookup(peer4); !ok {
		t.Error("the same address again made it unknown")
	}
	b.send(b.dev, arpFrame(macAll, 1, macEvil, peer4, header.UnspecifiedEthernetAddress, peer4))
	b.send(b.kern, datagramTo(peer4))
	if l := take(&b.fromRight); len(l) != 1 || !isSolicitationFor(l[0], peer4) || string(l[0][:6]) != string(macAll) {
		t.Errorf("on the wire: %x", l)
	}
}

// While it asks, what the queue does not take goes to the address that the next hop had, the
// oldest first: nothing is lost for the sake of an announcement, and nothing overtakes.
func TestR20_R22_NothingIsLostToAnAnnouncement(t *testing.T) {
	b := newBump(t)
	b.send(b.kern, datagramTo(peer4))
	b.send(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	take(&b.fromRight)
	b.send(b.dev, arpFrame(macAll, 1, macEvil, peer4, header.UnspecifiedEthernetAddress, peer4))
	if l := take(&b.fromRight); len(l) != 1 || !isSolicitationFor(l[0], peer4) {
		t.Fatalf("after the announcement: %x", l)
	}
	const more = 7
	numbered := func(i int) []byte { return append(datagramTo(peer4), byte(i)) }
	for i := range DefaultWaiting + more {
		b.send(b.kern, numbered(i))
	}
	early := take(&b.fromRight)
	b.send(b.dev, arpFrame(macHost, 2, macEvil, peer4, macHost, host4))
	late := take(&b.fromRight)
	if len(early) != more || len(late) != DefaultWaiting {
		t.Fatalf("%d frames before the answer and %d after it: %v", len(early), len(late), b.drops.Snapshot())
	}
	for i, f := range append(early, late...) {
		to := macPeer
		if i >= more {
			to = macEvil
		}
		if want := append([]byte(to), numbered(i)[6:]...); !bytes.Equal(f, want) {
			t.Fatalf("frame %d: %x, expected %x", i, f, want)
		}
	}
}

// A next hop that is wanted is asked for before there is a packet to it.
func TestR20_AWantedNextHopIsKnown(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		b := newBump(t)
		b.resolver.Want(a)
		b.resolver.Want(a)
		b.run(0)
		if l := take(&b.fromRight); len(l) != 1 || !isSolicitationFor(l[0], a) || b.resolver.Wanted() != 1 {
			t.Fatalf("%v: on the wire %x, %d wanted", a, l, b.resolver.Wanted())
		}
		reply := arpFrame(macHost, 2, macPeer, peer4, macHost, host4)
		if a.Is6() {
			reply = ndFrame(macHost, macPeer, advert(naSolicited|naOverride, peer6, host6, peer6, macPeer))
		}
		b.send(b.dev, reply)
		if mac, ok := b.resolver.Lookup(a); !ok || mac != macPeer || b.resolver.Wanted() != 0 {
			t.Errorf("%v: at %q, %v, %d wanted", a, mac, ok, b.resolver.Wanted())
		}
	}
}

func TestResolverBounds(t *testing.T) {
	b := newBump(t)
	a := netip.MustParseAddr("10.0.1.0")
	for range maxUnresolved + 3 {
		b.send(b.kern, datagramTo(a))
		a = a.Next()
	}
	if b.resolver.unresolved != maxUnresolved || b.drops.Load(wire.DropQueueFull) != 3 {
		t.Errorf("%d unresolved, drops %v", b.resolver.unresolved, b.drops.Snapshot())
	}
	if mac, ok := b.resolver.Lookup(netip.MustParseAddr("224.0.0.5")); !ok || mac != "\x01\x00\x5e\x00\x00\x05" {
		t.Errorf("group at %q", mac)
	}
	if mac, ok := b.resolver.Lookup(netip.MustParseAddr("ff02::1:ff00:1")); !ok || mac != "\x33\x33\xff\x00\x00\x01" {
		t.Errorf("group at %q", mac)
	}
	b.run(5 * time.Second)
	if b.resolver.unresolved != 0 || b.resolver.octets != 0 {
		t.Errorf("%d unresolved, %d octets", b.resolver.unresolved, b.resolver.octets)
	}
}

// Without an address of its own the stack cannot ask; nothing waits for ever.
func TestResolverWithoutAddress(t *testing.T) {
	b := newBump(t)
	for _, a := range []netip.Addr{host4, host6} {
		if err := b.s.RemoveAddress(2, addressOf(a)); err != nil {
			t.Fatal(err)
		}
	}
	b.send(b.kern, datagramTo(peer4))
	b.send(b.kern, datagramTo(peer6))
	b.run(time.Second)
	if len(b.failed) != 2 || b.drops.Load(wire.DropUnresolved) != 2 {
		t.Errorf("%d failed, drops %v", len(b.failed), b.drops.Snapshot())
	}
	r := NewResolver(ResolverOptions{Clock: b.clock, Drops: &b.drops})
	r.Attach(b.s, 77, b.right) // a NIC that is not there
	pkt, _ := newFrame(macHost, macHost, wire.EtherTypeIPv4, 40)
	defer pkt.DecRef()
	r.Enqueue(peer4, pkt)
	b.run(0)
	if b.drops.Load(wire.DropUnresolved) != 3 || pkt.ReadRefs() != 1 {
		t.Errorf("drops %v, %d references", b.drops.Snapshot(), pkt.ReadRefs())
	}
}

var _ stack.NUDDispatcher = (*Resolver)(nil)

// A packet that comes between the answer of the next hop and the departure of those
// that waited for it does not overtake them.
func TestR11_NothingOvertakesWhatWaits(t *testing.T) {
	b := newBump(t)
	numbered := func(n byte) []byte {
		f := datagramTo(peer4)
		f[len(f)-1] = n
		return f
	}
	put := func(to *link.PipeEnd, frame []byte) {
		if _, err := to.WriteFrames([][]byte{append(make([]byte, wire.VirtioNetLen), frame...)}); err != nil {
			t.Fatal(err)
		}
		link.PumpAll(10000, b.pumps...) // the clock stands still
	}
	b.send(b.kern, numbered(0))
	b.send(b.kern, numbered(1))
	take(&b.fromRight)
	put(b.dev, arpFrame(macHost, 2, macPeer, peer4, macHost, host4))
	put(b.kern, numbered(2))
	b.run(0)
	b.send(b.kern, numbered(3))
	var order []byte
	for _, f := range take(&b.fromRight) {
		order = append(order, f[len(f)-1])
	}
	if !bytes.Equal(order, []byte{0, 1, 2, 3}) {
		t.Errorf("left in the order %v", order)
	}
}
