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

	"bitw/netstack/wire"
)

func udpBytes(src, dst uint16) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint16(b, src)
	binary.BigEndian.PutUint16(b[2:], dst)
	binary.BigEndian.PutUint16(b[4:], 12)
	return b
}

func ipv4To(dst netip.Addr, proto uint8, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	ip := header.IPv4(b)
	ip.Encode(&header.IPv4Fields{TotalLength: uint16(20 + len(payload)), TTL: 64, Protocol: proto,
		SrcAddr: addressOf(host4), DstAddr: addressOf(dst)})
	ip.SetChecksum(^ip.CalculateChecksum())
	return append(b, payload...)
}

func ipv6To(dst netip.Addr, proto uint8, payload []byte) []byte {
	b := make([]byte, 40, 40+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(payload)), HopLimit: 255,
		TransportProtocol: tcpip.TransportProtocolNumber(proto), SrcAddr: addressOf(host6), DstAddr: addressOf(dst)})
	return append(b, payload...)
}

// classFrames are one frame and its class, from either side.
func classFrames() []struct {
	name  string
	class class
	frame []byte
} {
	a := netip.MustParseAddr
	v4 := func(dst tcpip.LinkAddress, ip string, proto uint8, payload []byte) []byte {
		return ethernet(dst, macPeer, 0x0800, ipv4To(a(ip), proto, payload))
	}
	v6 := func(dst tcpip.LinkAddress, ip string, proto uint8, payload []byte) []byte {
		return ethernet(dst, macPeer, 0x86dd, ipv6To(a(ip), proto, payload))
	}
	icmp6 := func(typ byte) []byte { return append([]byte{typ}, make([]byte, 23)...) }
	// RFC 3810 §5: hop-by-hop options with a router alert (RFC 2711) first.
	mld := append(addHex("3a 00 05 02 00 00 01 00"), icmp6(icmpMLDv2)...)
	return []struct {
		name  string
		class class
		frame []byte
	}{
		{"unicast IPv4", classNone, v4(macHost, "10.0.0.7", 6, make([]byte, 20))},
		{"unicast IPv6", classNone, v6(macHost, "fd00::7", 6, make([]byte, 20))},
		{"unicast ICMPv6 echo", classNone, v6(macHost, "fd00::7", 58, icmp6(128))},
		{"unicast UDP from 67 alone", classNone, v4(macHost, "10.0.0.7", 17, udpBytes(67, 4000))},
		{"not IP at all", classNone, ethernet(macHost, macPeer, 0x0800, make([]byte, 40))},
		{"cut short", classNone, ethernet(macAll, macPeer, 0x86dd, make([]byte, 8))},

		{"DHCP discover", classDHCP, v4(macAll, "255.255.255.255", 17, udpBytes(68, 67))},
		{"DHCP unicast", classDHCP, v4(macHost, "10.0.0.7", 17, udpBytes(67, 68))},
		{"DHCPv6 solicit", classDHCP, v6("\x33\x33\x00\x01\x00\x02", "ff02::1:2", 17, udpBytes(546, 547))},
		{"DHCPv6 unicast", classDHCP, v6(macHost, "fd00::7", 17, udpBytes(547, 546))},

		{"router solicitation", classNDPRouter, v6("\x33\x33\x00\x00\x00\x02", "ff02::2", 58, icmp6(icmpRS))},
		{"router advertisement", classNDPRouter, v6("\x33\x33\x00\x00\x00\x01", "ff02::1", 58, icmp6(icmpRA))},
		{"unicast router advertisement", classNDPRouter, v6(macHost, "fd00::7", 58, icmp6(icmpRA))},
		{"redirect", classNDPRouter, v6(macHost, "fd00::7", 58, icmp6(icmpRedirect))},

		{"mDNS", classMDNS, v4("\x01\x00\x5e\x00\x00\xfb", "224.0.0.251", 17, udpBytes(5353, 5353))},
		{"mDNS IPv6", classMDNS, v6("\x33\x33\x00\x00\x00\xfb", "ff02::fb", 17, udpBytes(5353, 5353))},
		{"mDNS port, other group", classMulticast, v4("\x01\x00\x5e\x00\x00\xfc", "224.0.0.252", 17, udpBytes(5353, 5353))},
		{"IGMP", classIGMP, v4("\x01\x00\x5e\x00\x00\x16", "224.0.0.22", 2, make([]byte, 8))},
		{"MLD", classIGMP, v6("\x33\x33\x00\x00\x00\x16", "ff02::16", 0, mld)},
		{"IPv4 multicast", classMulticast, v4("\x01\x00\x5e\x01\x01\x01", "239.1.1.1", 17, udpBytes(1, 2))},
		{"IPv6 multicast", classMulticast, v6("\x33\x33\x00\x00\x00\x01", "ff02::1", 58, icmp6(128))},
		{"multicast IPv6 that cannot be parsed", classMulticast, v6("\x33\x33\x00\x00\x00\x01", "ff02::1", 0, []byte{0, 9, 0, 0})},
		{"unicast IP in a group's frame", classMulticast, v4("\x01\x00\x5e\x01\x01\x01", "10.0.0.7", 17, udpBytes(1, 2))},
		{"limited broadcast", classBroadcast, v4(macAll, "255.255.255.255", 17, udpBytes(1, 2))},
		{"subnet broadcast", classBroadcast, v4(macAll, "10.0.0.255", 17, udpBytes(1, 2))},

		{"LLDP", classLLDP, ethernet("\x01\x80\xc2\x00\x00\x0e", macPeer, 0x88cc, make([]byte, 46))},
		{"EAPOL", classEAPOL, ethernet("\x01\x80\xc2\x00\x00\x03", macPeer, 0x888e, make([]byte, 46))},
		{"spanning tree", classSTP, ethernet("\x01\x80\xc2\x00\x00\x00", macPeer, 38, addHex("42 42 03 00 00 00 00"))},
		{"PVST", classSTP, ethernet("\x01\x00\x0c\xcc\xcc\xcd", macPeer, 50, addHex("aa aa 03 00 00 0c 01 0b"))},
		{"VLAN", classVLAN, ethernet(macHost, macPeer, 0x8100, addHex("0005 0800"), make([]byte, 42))},
		{"provider VLAN", classVLAN, ethernet(macHost, macPeer, 0x88a8, make([]byte, 46))},
		{"other LLC", classOther, ethernet(macHost, macPeer, 38, make([]byte, 46))},
		{"other EtherType", classOther, ethernet(macHost, macPeer, 0x9000, make([]byte, 46))},
		{"EtherType with a rule", classEtherType, ethernet(macHost, macPeer, 0x8899, make([]byte, 46))},
	}
}

// Each class is discarded and counted without a rule, and crosses the bump unchanged,
// both ways, with one.
func TestR19_Classes(t *testing.T) {
	for _, tt := range classFrames() {
		if tt.class == classNone {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			name := classNames[tt.class]
			if tt.class == classEtherType {
				name = "ethertype 0x8899"
			}
			for _, rules := range [][]ClassRule{nil, {{name, false}}, {{name, true}}} {
				b := newBump(t, rules...)
				bypass := len(rules) > 0 && rules[0].Bypass
				if !bypass && tt.class == classDHCP && tt.frame[0]&1 == 0 {
					continue // unicast, so the policies decide
				}
				b.send(b.kern, tt.frame)
				b.send(b.dev, tt.frame)
				left, right := take(&b.fromLeft), take(&b.fromRight)
				want := ClassCount{Name: name, Discarded: 1}
				if tt.class == classEtherType && len(rules) == 0 {
					want.Name = "other"
				}
				if bypass {
					want = ClassCount{Name: name, Bypassed: 1}
					if len(left) != 1 || !bytes.Equal(left[0], tt.frame) || len(right) != 1 || !bytes.Equal(right[0], tt.frame) {
						t.Errorf("%+v: left %x, right %x", rules, left, right)
					}
				} else if len(left)+len(right) != 0 || b.drops.Load(wire.DropClassDiscard) != 2 {
					t.Errorf("%+v: left %x, right %x, drops %v", rules, left, right, b.drops.Snapshot())
				}
				for _, c := range b.classes {
					if got := c.Counts(); !slices.Equal(got, []ClassCount{want}) {
						t.Errorf("%+v: counted %+v", rules, got)
					}
				}
			}
		})
	}
}

func TestR19_Classify(t *testing.T) {
	for _, tt := range classFrames() {
		want := tt.class
		if want == classEtherType {
			want = classOther // until a rule names it
		}
		if got := classify(tt.frame[:14], tt.frame[14:], true); got != want {
			t.Errorf("%s: %s, want %s", tt.name, classNames[got], classNames[want])
		}
	}
}

// What a policy protects goes to the policies in a frame to a group as well, whatever the
// classes say; what is for a group itself does not.
func TestR19_R32_AFrameToAGroup(t *testing.T) {
	for _, tt := range classFrames() {
		if tt.class != classMulticast && tt.class != classBroadcast {
			continue
		}
		_, dst, _ := addresses(tt.frame[14:])
		own := tt.name == "unicast IP in a group's frame" || tt.name == "subnet broadcast"
		asked := 0
		name, bypass, handled := ClassOf(tt.frame, []ClassRule{{"multicast", true}, {"broadcast", true}}, Answer, func(b []byte) bool {
			asked++
			return bytes.Equal(b, tt.frame[14:])
		})
		if own != (name == Policy && handled && !bypass) || own != (asked > 0) {
			t.Errorf("%s, to %v: %s, bypassed %v; the policies were asked %d times", tt.name, dst, name, bypass, asked)
		}
		for _, protected := range []bool{false, true} {
			b := newBump(t, ClassRule{"multicast", true}, ClassRule{"broadcast", true})
			for _, c := range b.classes {
				c.protects = func([]byte) bool { return protected }
			}
			b.send(b.kern, tt.frame)
			b.send(b.dev, tt.frame)
			crossed := 2
			if own && protected {
				crossed = 0 // the one asks for its next hop, the other is dropped
			}
			n := 0
			for _, f := range append(take(&b.fromLeft), take(&b.fromRight)...) {
				if bytes.Equal(f, tt.frame) {
					n++
				}
			}
			if n != crossed {
				t.Errorf("%s, protected %v: %d frames crossed, expected %d", tt.name, protected, n, crossed)
			}
		}
	}
}

// crossing is how a bump deals with ARP and neighbour discovery that are to cross.
var crossing = [2]Neighbors{Left: Cross, Right: CrossAndLearn}

// A kernel that finds its neighbours itself learns the true addresses.
func TestR19_ARPAndNDPCross(t *testing.T) {
	for _, a := range []netip.Addr{peer4, peer6} {
		t.Run(a.String(), func(t *testing.T) {
			b := newBumpWith(t, crossing)
			kernel := b.host(b.kern, macHost, host4, host6)
			peer := b.host(b.dev, macPeer, peer4, peer6)
			b.run(3 * time.Second) // until their IPv6 addresses are theirs
			if mac := b.resolve(kernel, a); mac != macPeer {
				t.Errorf("%s is at %q", a, mac)
			}
			own := host4
			if a.Is6() {
				own = host6
			}
			if mac := b.resolve(peer, own); mac != macHost {
				t.Errorf("%s is at %q", own, mac)
			}
			b.send(b.kern, datagramTo(a)) // the bump finds it too
			b.run(time.Second)
			if mac, ok := b.resolver.Lookup(a); !ok || mac != macPeer {
				t.Errorf("Lookup = %q, %v", mac, ok)
			}
		})
	}
}

// What crosses does so once, also what the stack learns from; a rule discards it.
func TestR19_ARPCrossesOnce(t *testing.T) {
	reply := func(sha, tha tcpip.LinkAddress, spa, tpa netip.Addr) []byte {
		return arpFrame(tha, 2, sha, spa, tha, tpa)
	}
	announce := func(mac tcpip.LinkAddress, a netip.Addr) []byte {
		return arpFrame(macAll, 1, mac, a, "\x00\x00\x00\x00\x00\x00", a)
	}
	for _, tt := range []struct {
		name     string
		fromWire bool
		frame    []byte
	}{
		{"the host's answer", false, reply(macHost, macPeer, host4, peer4)},
		{"the host's announcement", false, announce(macHost, host4)},
		{"an answer", true, reply(macPeer, macHost, peer4, host4)},
		{"an announcement", true, announce(macPeer, peer4)},
		{"a claim of the host's address", true, announce(macPeer, host4)},
		{"a question for the host", true, arpFrame(macAll, 1, macPeer, peer4, "\x00\x00\x00\x00\x00\x00", host4)},
	} {
		for _, discard := range []bool{false, true} {
			var rules []ClassRule
			if discard {
				rules = []ClassRule{{"arp", false}, {"ndp", false}}
			}
			b := newBumpWith(t, crossing, rules...)
			from, near, far := b.kern, &b.fromLeft, &b.fromRight
			if tt.fromWire {
				from, near, far = b.dev, far, near
			}
			take(near)
			take(far)
			b.send(from, tt.frame)
			b.run(time.Second)
			back, over := take(near), take(far)
			want := 1
			if discard {
				want = 0
			}
			if len(back) != 0 || len(over) != want || want == 1 && !bytes.Equal(over[0], tt.frame) {
				t.Errorf("%s, discarded %v: crossed %x, came back %x", tt.name, discard, over, back)
			}
			if n := b.drops.Load(wire.DropClassDiscard); n != uint64(1-want) {
				t.Errorf("%s, discarded %v: drops %v", tt.name, discard, b.drops.Snapshot())
			}
		}
	}
}

func TestClassRules(t *testing.T) {
	for _, tt := range []struct {
		rules []ClassRule
		ok    bool
	}{
		{nil, true},
		{[]ClassRule{{"dhcp", true}, {"ethertype 0x88B5", false}}, true},
		{[]ClassRule{{"policy", true}}, false},
		{[]ClassRule{{"ethertype", true}}, false},
		{[]ClassRule{{"dchp", true}}, false},
		{[]ClassRule{{"ethertype 0x0800", true}}, false},
		{[]ClassRule{{"ethertype 0x0806", true}}, false},
		{[]ClassRule{{"ethertype 0x86dd", true}}, false},
		{[]ClassRule{{"ethertype 0x05ff", true}}, false},
		{[]ClassRule{{"lldp", true}, {"lldp", false}}, false},
		{[]ClassRule{{"ethertype 0x88b5", true}, {"ethertype 0x88B5", false}}, false},
	} {
		_, err := NewClass(nil, ClassOptions{Rules: tt.rules, Drops: new(wire.DropCounters)})
		if (err == nil) != tt.ok {
			t.Errorf("%v: %v", tt.rules, err)
		}
	}
	for _, n := range ClassNames() {
		if _, err := NewClass(nil, ClassOptions{Rules: []ClassRule{{n, true}}}); err != nil {
			t.Error(err)
		}
	}
}

// A frame before the other side is bound is counted.
func TestRelayUnbound(t *testing.T) {
	var r Relay
	var drops wire.DropCounters
	pkt, _ := newFrame(macHost, macPeer, 0x88cc, 40)
	defer pkt.DecRef()
	r.Send(pkt, &drops)
	if drops.Load(wire.DropLinkDown) != 1 {
		t.Error(drops.Snapshot())
	}
}

func FuzzClassify(f *testing.F) {
	for _, tt := range classFrames() {
		f.Add(tt.frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < ethernetLen {
			return
		}
		k := classify(frame[:14], frame[14:], true)
		if without := classify(frame[:14], frame[14:], false); without != k && !(k == classDHCP && without == classNone) {
			t.Errorf("%s or %s", classNames[k], classNames[without])
		}
		if ip := etherType(frame) == wire.EtherTypeIPv4 || etherType(frame) == wire.EtherTypeIPv6; !ip && k == classNone {
			t.Error("a frame that is not IP was left to the policies")
		}
	})
}
