package hook

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const macAll = header.EthernetBroadcastAddress

var any4, any6 = netip.IPv4Unspecified(), netip.IPv6Unspecified()

// A kernel resolves any address to the host's own Ethernet address, whether or not
// somebody has it, and the wire is silent.
func TestR20_AnyAddressResolvesLocally(t *testing.T) {
	for _, a := range []netip.Addr{peer4, none4, peer6, none6, netip.MustParseAddr("fe80::7")} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBump(t)
			kernel := b.host(b.kern, macHost, host4, host6)
			b.host(b.dev, macPeer, peer4, peer6)
			b.run(3 * time.Second) // the hosts' own start-up messages
			take(&b.fromRight)
			if mac := b.resolve(kernel, a); mac != macHost {
				t.Errorf("%s is at %s", a, mac)
			}
			if l := take(&b.fromRight); len(l) != 0 {
				t.Errorf("on the wire: %x", l)
			}
		})
	}
}

func solicit(src, target netip.Addr, link tcpip.LinkAddress) ndMessage {
	m := ndMessage{typ: icmpNS, src: src, dst: solicitedNode(target), target: target, link: link}
	if src.IsUnspecified() {
		m.link = ""
	}
	return m
}

func advert(flags byte, src, dst, target netip.Addr, link tcpip.LinkAddress) ndMessage {
	return ndMessage{typ: icmpNA, flags: flags, src: src, dst: dst, target: target, link: link}
}

// What the kernel says, and what comes of it.
func TestR21_KernelsOwnAddresses(t *testing.T) {
	new4, new6 := netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("fd00::50")
	allNodes := netip.IPv6LinkLocalAllNodes()
	answer6 := func(target netip.Addr) []byte {
		return ndFrame(macHost, macHost, advert(naRouter|naSolicited|naOverride, target, host6, target, macHost))
	}
	ns := func(src, target netip.Addr) []byte {
		return ndFrame(multicastMAC(solicitedNode(target)), macHost, solicit(src, target, macHost))
	}
	for _, tt := range []struct {
		name   string
		frame  []byte
		answer []byte // nil: none
		onWire bool   // the frame itself
		drop   wire.DropReason
	}{
		{"request", arpFrame(macAll, 1, macHost, host4, header.UnspecifiedEthernetAddress, peer4),
			arpFrame(macHost, 2, macHost, peer4, macHost, host4), false, 0},
		{"unicast request", arpFrame(macHost, 1, macHost, host4, macHost, none4),
			arpFrame(macHost, 2, macHost, none4, macHost, host4), false, 0},
		{"probe of own", arpFrame(macAll, 1, macHost, any4, header.UnspecifiedEthernetAddress, host4), nil, true, 0},
		{"probe before it is own", arpFrame(macAll, 1, macHost, any4, header.UnspecifiedEthernetAddress, new4), nil, true, 0},
		{"announcement", arpFrame(macAll, 1, macHost, host4, header.UnspecifiedEthernetAddress, host4), nil, true, 0},
		{"gratuitous reply", arpFrame(macAll, 2, macHost, host4, macAll, host4), nil, true, 0},
		{"reply", arpFrame(macPeer, 2, macHost, host4, macPeer, peer4), nil, true, 0},
		{"RARP operation", arpFrame(macAll, 3, macHost, host4, macHost, host4), nil, false, wire.DropBadFrame},
		{"short ARP", ethernet(macAll, macHost, 0x0806, []byte{0, 1, 8, 0}), nil, false, wire.DropBadFrame},
		{"group as sender", arpFrame(macAll, 1, "\x01\x00\x5e\x00\x00\x01", host4, macHost, peer4), nil, false, wire.DropBadFrame},

		{"solicitation", ns(host6, peer6), answer6(peer6), false, 0},
		{"unicast solicitation without link address",
			ndFrame(macHost, macHost, ndMessage{typ: icmpNS, src: host6, dst: none6, target: none6}), answer6(none6), false, 0},
		{"DAD of own", ns(any6, host6), nil, true, 0},
		{"DAD before it is own", ns(any6, new6), nil, true, 0},
		{"solicitation of own", ns(netip.MustParseAddr("fe80::1"), host6), nil, true, 0},
		{"unsolicited advertisement", ndFrame(multicastMAC(allNodes), macHost, advert(naOverride, host6, allNodes, host6, macHost)), nil, true, 0},
		{"solicitation of a group", ns(host6, allNodes), nil, false, wire.DropMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBump(t)
			b.send(b.kern, tt.frame)
			left, right := take(&b.fromLeft), take(&b.fromRight)
			if tt.answer == nil && len(left) != 0 || tt.answer != nil && (len(left) != 1 || !bytes.Equal(left[0], tt.answer)) {
				t.Errorf("answered %x\nwant     %x", left, tt.answer)
			}
			if !tt.onWire && len(right) != 0 || tt.onWire && (len(right) != 1 || !bytes.Equal(right[0], tt.frame)) {
				t.Errorf("on the wire %x", right)
			}
			if tt.drop != 0 && b.drops.Load(tt.drop) != 1 || tt.drop == 0 && len(b.drops.Snapshot()) != 0 {
				t.Errorf("drops %v", b.drops.Snapshot())
			}
		})
	}
}

// What others on the wire say about an address that the kernel probes or owns.
func TestR21_ClaimsReachTheKernel(t *testing.T) {
	new4, new6 := netip.MustParseAddr("10.0.0.50"), netip.MustParseAddr("fd00::50")
	probe4 := arpFrame(macAll, 1, macHost, any4, header.UnspecifiedEthernetAddress, new4)
	probe6 := ndFrame(multicastMAC(solicitedNode(new6)), macHost, solicit(any6, new6, ""))
	allNodes := netip.IPv6LinkLocalAllNodes()
	foreign6 := ndFrame(multicastMAC(solicitedNode(new6)), macEvil, solicit(any6, new6, ""))
	defend6 := ndFrame(multicastMAC(allNodes), macEvil, advert(naOverride, new6, allNodes, new6, macEvil))
	for _, tt := range []struct {
		name  string
		first []byte // from the kernel
		wait  time.Duration
		claim []byte // from the wire
		want  bool   // the kernel gets the claim
	}{
		{"defence of a probed address", probe4, 0, arpFrame(macHost, 2, macEvil, new4, macHost, any4), true},
		{"use of a probed address", probe4, 0, arpFrame(macAll, 1, macEvil, new4, macHost, peer4), true},
		{"probe of the same address", probe4, 0, arpFrame(macAll, 1, macEvil, any4, header.UnspecifiedEthernetAddress, new4), true},
		{"too late", probe4, 11 * time.Second, arpFrame(macHost, 2, macEvil, new4, macHost, any4), false},
		{"not probed", nil, 0, arpFrame(macHost, 2, macEvil, new4, macHost, any4), false},
		{"announcement of an own address", nil, 0, arpFrame(macAll, 1, macEvil, host4, header.UnspecifiedEthernetAddress, host4), true},
		{"our own echo", probe4, 0, probe4, false},

		{"advertisement for a probed address", probe6, 0, defend6, true},
		{"DAD of the same address", probe6, 0, foreign6, true},
		{"IPv6 too late", probe6, 11 * time.Second, defend6, false},
		{"IPv6 not probed", nil, 0, defend6, false},
		{"advertisement for an own address", nil, 0,
			ndFrame(multicastMAC(allNodes), macEvil, advert(naOverride, host6, allNodes, host6, macEvil)), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBump(t)
			if tt.first != nil {
				b.send(b.kern, tt.first)
			}
			b.run(tt.wait)
			take(&b.fromLeft)
			b.send(b.dev, tt.claim)
			l := take(&b.fromLeft)
			if tt.want != (len(l) == 1 && bytes.Equal(l[0], tt.claim)) || !tt.want && len(l) != 0 {
				t.Errorf("the kernel got %x", l)
			}
		})
	}
}

// Duplicate address detection of a real stack through the bump.
func TestR21_DuplicateAddressDetection(t *testing.T) {
	for _, tt := range []struct {
		name  string
		addr  netip.Addr
		taken bool
	}{
		{"IPv4 taken", peer4, true},
		{"IPv4 free", none4, false},
		{"IPv6 taken", peer6, true},
		{"IPv6 free", none6, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBump(t)
			kernel := b.host(b.kern, macHost, host4, host6)
			b.host(b.dev, macPeer, peer4, peer6)
			b.run(3 * time.Second)
			var got stack.DADResult
			if d, err := kernel.CheckDuplicateAddress(1, protocolOf(tt.addr), addressOf(tt.addr),
				func(r stack.DADResult) { got = r }); err != nil || d != stack.DADStarting {
				t.Fatal(d, err)
			}
			b.run(3 * time.Second)
			dup, taken := got.(*stack.DADDupAddrDetected)
			if got == nil || taken != tt.taken || taken && dup.HolderLinkAddress != macPeer {
				t.Errorf("result %#v", got)
			}
		})
	}
}

func TestProbesBounded(t *testing.T) {
	b := newBump(t)
	p := NewProbes(b.clock)
	a := netip.MustParseAddr("10.1.0.0")
	first := a
	for range maxProbes + 1 {
		p.note(a)
		b.clock.Advance(time.Millisecond)
		a = a.Next()
	}
	if len(p.until) != maxProbes || p.Active(first) || !p.Active(first.Next()) {
		t.Errorf("%d probes", len(p.until))
	}
}

func FuzzProxyARP(f *testing.F) {
	f.Add(arpFrame(macAll, 1, macHost, host4, header.UnspecifiedEthernetAddress, peer4))
	f.Add(arpFrame(macAll, 1, macHost, any4, header.UnspecifiedEthernetAddress, host4))
	f.Add(ndFrame(macHost, macHost, solicit(host6, peer6, macHost)))
	f.Add(ndFrame(macHost, macHost, solicit(any6, host6, "")))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) > 3000 {
			return
		}
		b := newBump(t)
		b.send(b.kern, frame)
		b.send(b.dev, frame)
		// Nothing is both dropped and passed on, and nothing vanishes on the left but what
		// the other side of the test's own bump holds back.
		if len(frame) >= ethernetLen && etherType(frame) == etherTypeARP {
			n := len(b.fromLeft) + len(b.fromRight)
			for _, v := range b.drops.Snapshot() {
				n += int(v)
			}
			if n == 0 {
				t.Error("an ARP packet vanished on both sides")
			}
		}
	})
}

func FuzzND(f *testing.F) {
	for _, m := range []ndMessage{
		solicit(host6, peer6, macHost),
		solicit(any6, peer6, ""),
		advert(naSolicited|naOverride, peer6, host6, peer6, macPeer),
	} {
		b := make([]byte, ndLen)
		f.Add(b[:m.encode(b)], false)
		f.Add(b[:m.encode(b)], true)
	}
	f.Fuzz(func(t *testing.T, b []byte, noChecksum bool) {
		if !isND(b) {
			return
		}
		var m, again ndMessage
		if !parseND(b, noChecksum, &m) {
			return
		}
		out := make([]byte, ndLen)
		out = out[:m.encode(out)]
		if !isND(out) || !parseND(out, false, &again) {
			t.Fatalf("%+v does not come back", m)
		}
		m.flags &= 0xff
		if again != m {
			t.Errorf("%+v became %+v", m, again)
		}
	})
}
