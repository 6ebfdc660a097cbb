package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// forms are all ways in which a datagram can be enclosed.
var forms = []struct {
	mode         sa.Mode
	six, crossed bool
}{
	{sa.Transport, false, false}, {sa.Transport, true, false},
	{sa.Tunnel, false, false}, {sa.Tunnel, true, false}, {sa.Tunnel, false, true}, {sa.Tunnel, true, true},
}

func TestR35_ModesAndAlgorithms(t *testing.T) {
	for _, alg := range transform.Algorithms() {
		for _, f := range forms {
			t.Run(alg.Name+"/"+modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
				p := newPair(t, alg.Name, alg.Protocol, f.mode, f.six, f.crossed)
				a, b := addrA4, addrB4
				if f.six {
					a, b = addrA6, addrB6
				}
				for _, n := range []int{0, 1, 2, 3, 64, 1000, 1300} {
					d := udpTo(a, b, 1000, 2000, n)
					got, wired := p.cross(d, nil)
					if len(wired) != 1 || len(got) != 1 || !bytes.Equal(got[0], d) {
						t.Fatalf("%d octets: %d frames on the wire, %d at the host (drops %v %v)", n, len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
					}
					in := parse(t, wired[0])
					if in.Proto != alg.Protocol {
						t.Errorf("protocol %d on the wire", in.Proto)
					}
					if alg.Protocol == transform.ProtoESP && alg.EncryptionKeyLen > 0 && n > 16 && bytes.Contains(wired[0], pattern(16)) {
						t.Error("payload in the clear on the wire")
					}
				}
			})
		}
	}
}

func TestR14_BothDirectionsAndCounters(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.cross(udpTo(addrA4, addrB4, 1, 2, 100), nil)
	d := udpTo(addrB4, addrA4, 2, 1, 50)
	p.b.fromHost(d, nil)
	p.a.fromWire(p.b.right.take(t, macB, macA)...)
	if got := p.a.left.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], d) {
		t.Fatalf("no answer came back: %v", p.a.drops(hook.Right))
	}
	pol := p.a.e.SPD().Policies()[0]
	if out, in := pol.Counters[sa.Outbound].Packets.Load(), pol.Counters[sa.Inbound].Bytes.Load(); out != 1 || in != uint64(len(d)) {
		t.Errorf("policy counted %d packets out and %d octets in", out, in)
	}
	for name, want := range map[string]int{"ab": len(udpTo(addrA4, addrB4, 1, 2, 100)), "ba": len(d)} {
		for _, x := range p.a.sad.All() {
			if x.Name == name && (x.Packets.Load() != 1 || x.Bytes.Load() != uint64(want)) {
				t.Errorf("SA %s counted %d packets, %d octets; expected one of %d", name, x.Packets.Load(), x.Bytes.Load(), want)
			}
		}
	}
	if c := p.a.e.Forwarders().Carried()["udp"]; c[hook.Right].Packets != 1 || c[hook.Left].Packets != 1 {
		t.Errorf("udp forwarder carried %+v", c)
	}
}

func TestR28_SuperframeIsCutAfterOverhead(t *testing.T) {
	for _, f := range forms {
		t.Run(modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
			p := newPair(t, "aes256-sha256", transform.ProtoESP, f.mode, f.six, f.crossed)
			a, b := addrA4, addrB4
			if f.six {
				a, b = addrA6, addrB6
			}
			const octets = 60000
			super := tcpTo(a, b, octets, true)
			got, wired := p.cross(super, superframe(super, 1448))
			var payload []byte
			for i, d := range wired {
				if len(d) > 1500 {
					t.Errorf("packet %d on the wire has %d octets", i, len(d))
				}
				if in := parse(t, d); in.IsFragment {
					t.Errorf("packet %d is a fragment", i)
				}
			}
			for _, d := range got {
				in := parse(t, d)
				if !wire.VerifyL4(d, &in) {
					t.Fatal("wrong checksum at the host")
				}
				if seq := header.TCP(d[in.HeaderLen:]).SequenceNumber(); seq != uint32(1000+len(payload)) {
					t.Fatalf("sequence number %d after %d octets", seq, len(payload))
				}
				payload = append(payload, d[in.HeaderLen+32:]...)
			}
			if !bytes.Equal(payload, pattern(octets)) {
				t.Fatalf("%d octets of %d came, or others", len(payload), octets)
			}
		})
	}
}

func TestR27_HostFragmentsAreWholeBeforePolicyAndR26_WireFragments(t *testing.T) {
	for _, six := range []bool{false, true} {
		a, b := addrA4, addrB4
		if six {
			a, b = addrA6, addrB6
		}
		p := newPair(t, "chacha20poly1305", transform.ProtoESP, sa.Transport, six, false)
		for _, n := range []int{3000, 20000, 65000} {
			d := udpTo(a, b, 5, 6, n)
			parts := fragments(t, d, 1500)
			parts[0], parts[1] = parts[1], parts[0] // in any order
			for _, part := range parts {
				p.a.fromHost(part, nil)
			}
			wired := p.a.right.take(t, macA, macB)
			if len(wired) == 0 {
				t.Fatalf("%d octets: nothing left, drops %v", n, p.a.drops(hook.Left))
			}
			for _, w := range wired {
				if len(w) > 1500 {
					t.Errorf("%d octets on the wire", len(w))
				}
				if in := parse(t, w); in.Proto != transform.ProtoESP || !in.IsFragment {
					t.Errorf("on the wire: %+v", in)
				}
			}
			wired = append(wired[1:], wired[0])
			p.b.fromWire(wired...)
			got := p.b.left.take(t, macA, macB)
			if len(got) != 1 || !bytes.Equal(got[0], d) {
				t.Fatalf("%d octets: host got %d datagrams, drops %v %v", n, len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
		}
	}
}

// fragments cuts a datagram as a host would.
func fragments(t testing.TB, d []byte, mtu int) (parts [][]byte) {
	t.Helper()
	in := parse(t, d)
	var f wire.Fragmenter
	if r := f.Init(d, &in, mtu, 7); r != wire.DropNone {
		t.Fatal(r)
	}
	for buf := make([]byte, mtu); ; {
		m := f.Next(buf)
		if m == 0 {
			return parts
		}
		parts = append(parts, bytes.Clone(buf[:m]))
	}
}

func TestR16_BypassLeavesFramesAlone(t *testing.T) {
	s := newStation(t, macA, macB, addrA4)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	super := tcpTo(addrA4, addrB4, 30000, true)
	s.fromHost(super, superframe(super, 1448))
	got := s.right.frames
	want := frame(macA, macB, super, superframe(super, 1448))
	if len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Fatalf("superframe came out as %d frames or changed", len(got))
	}
	s.right.frames = nil
	// Fragments go on as they came.
	d := udpTo(addrA4, addrB4, 5, 6, 4000)
	parts := fragments(t, d, 1500)
	for _, part := range parts {
		s.fromHost(part, nil)
	}
	out := s.right.take(t, macA, macB)
	if len(out) != len(parts) {
		t.Fatalf("%d fragments of %d", len(out), len(parts))
	}
	for i := range out {
		if !bytes.Equal(out[i], parts[i]) {
			t.Errorf("fragment %d changed", i)
		}
	}
	// And the other way.
	back := udpTo(addrB4, addrA4, 6, 5, 100)
	s.fromWire(back)
	if got := s.left.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], back) {
		t.Error("bypassed datagram from the wire changed or did not come")
	}
}

func TestR29_PacketTooBigNamesTheExactSize(t *testing.T) {
	for _, f := range forms {
		for _, name := range []string{"aes128gcm16", "aes256-sha256"} {
			t.Run(name+"/"+modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
				p := newPair(t, name, transform.ProtoESP, f.mode, f.six, f.crossed)
				a, b := addrA4, addrB4
				if f.six {
					a, b = addrA6, addrB6
				}
				p.a.fromHost(tcpTo(a, b, 1420, false), nil)
				answers := p.a.left.take(t, "", macA)
				if len(answers) != 1 || len(p.a.right.frames) != 0 {
					t.Fatalf("%d answers, %d frames on the wire", len(answers), len(p.a.right.frames))
				}
				p.a.expectDrop(hook.Left, wire.DropTooBig)
				in := parse(t, answers[0])
				if in.Dst != a || in.Src != b {
					t.Errorf("ICMP error from %v to %v", in.Src, in.Dst)
				}
				icmp := answers[0][in.HeaderLen:]
				mtu := int(binary.BigEndian.Uint16(icmp[6:]))
				if f.six && in.ICMPType != 2 || !f.six && (in.ICMPType != 3 || in.ICMPCode != 4) {
					t.Errorf("ICMP type %d code %d", in.ICMPType, in.ICMPCode)
				}
				// A datagram of exactly that size fits the wire; one octet more does not.
				empty := len(tcpTo(a, b, 0, false))
				got, wired := p.cross(tcpTo(a, b, mtu-empty, false), nil)
				if len(got) != 1 || len(wired) != 1 || len(wired[0]) > 1500 {
					t.Errorf("a datagram of the MTU told, %d, does not cross", mtu)
				}
				p.a.fromHost(tcpTo(a, b, mtu-empty+1, false), nil)
				if len(p.a.right.frames) != 0 {
					t.Errorf("a datagram of %d octets crossed, though %d was told", mtu+1, mtu)
				}
			})
		}
	}
}

func TestR29_PathMTUFromTheWire(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	_, wired := p.cross(udpTo(addrA4, addrB4, 1, 2, 1000), nil)
	in := parse(t, wired[0])
	tooBig := func(quoted []byte) []byte {
		b, ok := wire.AppendTooBig(nil, quoted, &in, 1000)
		if !ok {
			t.Fatal("no error")
		}
		return b
	}
	// A forger who never saw a packet of ours cannot name the sequence number.
	forged := bytes.Clone(wired[0])
	binary.BigEndian.PutUint32(forged[24:], 0x7fffffff)
	p.a.fromWire(tooBig(forged))
	p.a.expectDrop(hook.Right, wire.DropICMPPolicy)
	if p.a.lineages["ab"].Outbound().PMTU(p.a.now) != 0 {
		t.Fatal("a forged message lowered the path MTU")
	}
	p.a.fromWire(tooBig(wired[0]))
	if got := p.a.lineages["ab"].Outbound().PMTU(p.a.now); got != 1000 || p.a.e.PathMTUsLearned() != 1 {
		t.Fatalf("path MTU is %d", got)
	}
	if len(p.a.left.frames) != 0 {
		t.Error("the message about our ESP reached the host")
	}
	super := tcpTo(addrA4, addrB4, 5000, true)
	_, wired = p.cross(super, superframe(super, 1448))
	for _, w := range wired {
		if len(w) > 1000 {
			t.Errorf("%d octets on a path of 1000", len(w))
		}
	}
}

func TestR33_ClearTrafficThatMustBeProtected(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.b.fromWire(udpTo(addrA4, addrB4, 1, 2, 10))
	p.b.expectDrop(hook.Right, wire.DropClearNotProtected)
	if len(p.b.left.frames) != 0 {
		t.Error("reached the host")
	}
}

func TestR33_SelectorsOfTheSA(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	// b's policy is narrower than what a sends through the tunnel.
	narrow := p.b.protect("to-a", addrB4, addrA4, "ba", "ab")
	narrow.Selector.Proto = wire.ProtoTCP
	p.b.policies(narrow, &sa.Policy{Name: "rest", Action: sa.Bypass})
	got, _ := p.cross(udpTo(addrA4, addrB4, 1, 2, 10), nil)
	if len(got) != 0 {
		t.Error("reached the host")
	}
	p.b.expectDrop(hook.Right, wire.DropSelectorMismatch)
}

func TestR31_R39_R40_WrongPackets(t *testing.T) {
	d := udpTo(addrA4, addrB4, 1, 2, 200)
	cases := []struct {
		name   string
		change func([]byte) []byte
		reason wire.DropReason
	}{
		{"spi", func(b []byte) []byte { b[20] ^= 0x80; return b }, wire.DropUnknownSPI},
		{"flipped", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, wire.DropICV},
		{"payload", func(b []byte) []byte { b[60] ^= 0x10; return b }, wire.DropICV},
		{"cut", func(b []byte) []byte {
			b = b[:len(b)-4]
			wire.SetIPv4TotalLen(b, len(b))
			return b
		}, wire.DropICV},
		{"stub", func(b []byte) []byte {
			b = b[:30]
			wire.SetIPv4TotalLen(b, len(b))
			return b
		}, wire.DropBadLength},
		{"header only", func(b []byte) []byte {
			b = b[:24]
			wire.SetIPv4TotalLen(b, len(b))
			return b
		}, wire.DropBadLength},
		{"ip checksum", func(b []byte) []byte { b[10] ^= 1; return b }, wire.DropMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
			p.a.fromHost(d, nil)
			w := p.a.right.take(t, macA, macB)
			p.b.fromWire(c.change(bytes.Clone(w[0])))
			if len(p.b.left.frames) != 0 {
				t.Fatal("reached the host")
			}
			p.b.expectDrop(hook.Right, c.reason)
			// The window did not move: the true packet still passes.
			p.b.fromWire(bytes.Clone(w[0]))
			if got := p.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], d) {
				t.Error("the true packet is refused afterwards")
			}
		})
	}
	t.Run("replay", func(t *testing.T) {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
		_, w := p.cross(d, nil)
		p.b.fromWire(bytes.Clone(w[0]))
		p.b.expectDrop(hook.Right, wire.DropReplay)
	})
	t.Run("wrong key", func(t *testing.T) {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
		q := newPair(t, "chacha20poly1305", transform.ProtoESP, sa.Transport, false, false)
		p.a.fromHost(d, nil)
		q.b.fromWire(p.a.right.take(t, macA, macB)...)
		q.b.expectDrop(hook.Right, wire.DropICV)
	})
	t.Run("foreign station", func(t *testing.T) {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
		p.a.fromHost(d, nil)
		w := p.a.right.take(t, macA, macB)
		p.a.fromWire(w[0]) // addressed to b by IP, but handed to a's NIC under a's address
		p.a.expectDrop(hook.Right, wire.DropOwnAddressSpoof)
	})
}

func TestR32_NoMatchIsDiscard(t *testing.T) {
	s := newStation(t, macA, macB, addrA4)
	s.fromHost(udpTo(addrA4, addrB4, 1, 2, 10), nil)
	s.fromWire(udpTo(addrB4, addrA4, 1, 2, 10))
	s.expectDrop(hook.Left, wire.DropNoPolicy)
	s.expectDrop(hook.Right, wire.DropNoPolicy)
	if len(s.right.frames)+len(s.left.frames) != 0 {
		t.Error("something passed")
	}
}

func TestR34_BundleInOrder(t *testing.T) {
	build := func(swap bool) *pair {
		p := &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
		for _, s := range []*station{p.a, p.b} {
			out, in := sa.Outbound, sa.Inbound
			if s == p.b {
				out, in = in, out
			}
			s.add("esp-ab", "aes128gcm16", transform.ProtoESP, out, sa.Transport, 0x1001, addrA4, addrB4)
			s.add("ah-ab", "sha256", transform.ProtoAH, out, sa.Transport, 0x1002, addrA4, addrB4)
			s.add("esp-ba", "aes128gcm16", transform.ProtoESP, in, sa.Transport, 0x2001, addrB4, addrA4)
			s.add("ah-ba", "sha256", transform.ProtoAH, in, sa.Transport, 0x2002, addrB4, addrA4)
		}
		both := func(s *station, first, second string) []*sa.Lineage {
			return []*sa.Lineage{s.lineages[first], s.lineages[second]}
		}
		pa := p.a.protect("to-b", addrA4, addrB4, "esp-ab", "esp-ba")
		pa.Out, pa.In = both(p.a, "esp-ab", "ah-ab"), both(p.a, "esp-ba", "ah-ba")
		if swap {
			pa.Out = both(p.a, "ah-ab", "esp-ab")
		}
		pb := p.b.protect("to-a", addrB4, addrA4, "esp-ba", "esp-ab")
		pb.Out, pb.In = both(p.b, "esp-ba", "ah-ba"), both(p.b, "esp-ab", "ah-ab")
		p.a.policies(pa)
		p.b.policies(pb)
		return p
	}
	d := udpTo(addrA4, addrB4, 1, 2, 333)
	p := build(false)
	got, wired := p.cross(d, nil)
	if len(got) != 1 || !bytes.Equal(got[0], d) {
		t.Fatalf("AH over ESP did not cross: %v %v", p.a.drops(hook.Left), p.b.drops(hook.Right))
	}
	if in := parse(t, wired[0]); in.Proto != transform.ProtoAH {
		t.Errorf("outermost is protocol %d", in.Proto)
	}
	p = build(true)
	if got, _ := p.cross(d, nil); len(got) != 0 {
		t.Error("ESP over AH passed where AH over ESP is demanded")
	}
	p.b.expectDrop(hook.Right, wire.DropWrongTransform)
}

func TestR43_ICMPErrorByTheEnclosedDatagram(t *testing.T) {
	// The policy names UDP alone; the port unreachable about it must come back by the
	// same SAs.
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	for _, s := range []*station{p.a, p.b} {
		pol := s.e.SPD().Policies()[0]
		q := *s.protect(pol.Name, pol.Selector.Local[0].From, pol.Selector.Remote[0].From, "ab", "ba")
		q.Selector.Proto = wire.ProtoUDP
		q.Out, q.In = pol.Out, pol.In
		s.policies(&q)
	}
	d := udpTo(addrA4, addrB4, 1111, 2222, 40)
	p.cross(d, nil)
	in := parse(t, d)
	unreachable, _ := wire.AppendUnreachable(nil, d, &in, 3)
	p.b.fromHost(unreachable, nil)
	wired := p.b.right.take(t, macB, macA)
	if len(wired) != 1 || parse(t, wired[0]).Proto != transform.ProtoESP {
		t.Fatalf("error left as %d frames: %v", len(wired), p.b.drops(hook.Left))
	}
	p.a.fromWire(wired...)
	if got := p.a.left.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], unreachable) {
		t.Errorf("error did not arrive: %v", p.a.drops(hook.Right))
	}
	// In the clear it does not pass.
	p.a.fromWire(unreachable)
	p.a.expectDrop(hook.Right, wire.DropICMPPolicy)
}

// What quotes something that came protected goes back protected, whatever policy lets ICMP
// pass in the clear, or not at all.
func TestR43_WhatQuotesProtectedIsProtected(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, six, false)
		a, b, proto, code := addrA4, addrB4, uint8(wire.ProtoICMP), uint8(3)
		if six {
			a, b, proto, code = addrA6, addrB6, wire.ProtoICMPv6, 4
		}
		clear := &sa.Policy{Name: "icmp", Action: sa.Bypass, Selector: sa.Selector{Proto: proto}}
		dns := &sa.Policy{Name: "dns", Action: sa.Bypass, Selector: sa.Selector{Proto: wire.ProtoUDP, RemotePorts: []sa.PortRange{{From: 53, To: 53}}}}
		p.a.policies(clear, p.a.protect("all", a, b, "ab", "ba"))
		p.b.policies(clear, dns, p.b.protect("all", b, a, "ba", "ab"))
		errorAbout := func(d []byte) []byte {
			in := parse(t, d)
			e, ok := wire.AppendUnreachable(nil, d, &in, code)
			if !ok {
				t.Fatal("no error about it")
			}
			return e
		}
		sent := errorAbout(udpTo(a, b, 4000, 5000, 100))
		p.b.fromHost(sent, nil)
		wired := p.b.right.take(t, macB, macA)
		if len(wired) != 1 || parse(t, wired[0]).Proto != transform.ProtoESP {
			t.Fatalf("the error left as %x", wired)
		}
		p.a.fromWire(wired...)
		if got := p.a.left.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], sent) {
			t.Errorf("the error did not arrive: %v", p.a.drops(hook.Right))
		}
		// About what came in the clear it goes in the clear.
		sent = errorAbout(udpTo(a, b, 53, 5000, 100))
		p.b.fromHost(sent, nil)
		if got := p.b.right.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], sent) {
			t.Errorf("about what came in the clear: %x", got)
		}
		// To another than who sent what it is about it does not go.
		stray := errorAbout(udpTo(a, b, 4000, 5000, 100))
		wire.SetDst(stray, map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.9"), true: netip.MustParseAddr("2001:db8::9")}[six])
		if !six {
			wire.UpdateIPv4Checksum(stray)
		}
		p.b.fromHost(stray, nil)
		if got := p.b.right.take(t, "", ""); len(got) > 0 {
			t.Errorf("to another station: %x", got)
		}
		p.b.expectDrop(hook.Left, wire.DropICMPPolicy)
		// Where nothing goes back by an SA it does not go either.
		only := p.b.protect("in", b, a, "ba", "ab")
		only.Directions, only.Out = sa.OnlyInbound, nil
		p.b.policies(clear, dns, only, &sa.Policy{Name: "out", Action: sa.Bypass, Directions: sa.OnlyOutbound})
		p.b.fromHost(errorAbout(udpTo(a, b, 4000, 5000, 100)), nil)
		if got := p.b.right.take(t, "", ""); len(got) > 0 {
			t.Errorf("without a way back: %x", got)
		}
	}
}

// What frames to a group must not take past the engine.
func TestR19_R32_Protects(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	http := p.a.protect("http", addrA4, addrB4, "ab", "ba")
	http.Selector.Proto, http.Selector.RemotePorts = wire.ProtoUDP, []sa.PortRange{{From: 80, To: 80}}
	p.a.policies(http, &sa.Policy{Name: "dns", Action: sa.Bypass, Selector: sa.Selector{Proto: wire.ProtoUDP, RemotePorts: []sa.PortRange{{From: 53, To: 53}}}})
	web, dns := udpTo(addrA4, addrB4, 4000, 80, 100), udpTo(addrA4, addrB4, 4000, 53, 100)
	for _, x := range []struct {
		name string
		from hook.Side
		b    []byte
		want bool
	}{
		{"protected", hook.Left, web, true},
		{"with link padding", hook.Left, append(bytes.Clone(web), 0, 0), true},
		{"bypassed", hook.Left, dns, false},
		{"no policy", hook.Left, udpTo(addrA4, addrB4, 4000, 81, 100), false},
		{"the other direction", hook.Right, udpTo(addrB4, addrA4, 80, 4000, 100), true},
		{"from the wrong side", hook.Right, web, false},
		{"a later fragment", hook.Left, fragments(t, udpTo(addrA4, addrB4, 4000, 53, 3000), 1500)[1], true},
		{"cut short", hook.Left, web[:60], true},
	} {
		if got := p.a.e.Protects(x.from, x.b); got != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}

func TestR27_OverlapAndTimeout(t *testing.T) {
	s := newStation(t, macA, macB, addrA4)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	d := udpTo(addrB4, addrA4, 5, 6, 4000)
	parts := fragments(t, d, 1500)
	s.fromWire(parts[0], parts[0])
	if s.drops(hook.Right)["frag_duplicate"] != 1 {
		t.Errorf("duplicate: %v", s.drops(hook.Right))
	}
	evil := bytes.Clone(parts[1])
	binary.BigEndian.PutUint16(evil[6:], binary.BigEndian.Uint16(evil[6:])-2) // 16 octets earlier
	wire.UpdateIPv4Checksum(evil)
	s.fromWire(evil, parts[1], parts[2])
	if s.drops(hook.Right)["frag_overlap"] != 4 || len(s.left.frames) != 0 {
		t.Errorf("overlap: %v, %d frames passed", s.drops(hook.Right), len(s.left.frames))
	}
	s.now += int64(DefaultFragmentTimeout)
	s.e.Tick()
	s.fromWire(parts[0])
	s.now += int64(DefaultFragmentTimeout)
	s.e.Tick()
	if s.drops(hook.Right)["frag_timeout"] != 1 {
		t.Errorf("timeout: %v", s.drops(hook.Right))
	}
	if m := s.e.sides[hook.Right].fragments.memory; m != 0 {
		t.Errorf("%d octets still held", m)
	}
}

func TestR27_MemoryIsCapped(t *testing.T) {
	s := newStation(t, macA, macB, addrA4)
	d := udpTo(addrB4, addrA4, 5, 6, 1400)
	binary.BigEndian.PutUint16(d[6:], 0x2000) // more fragments
	d = d[:20+1400]
	for i := range 10000 {
		binary.BigEndian.PutUint16(d[4:], uint16(i))
		wire.SetIPv4TotalLen(d, len(d))
		s.fromWire(d)
		if m := s.e.sides[hook.Right].fragments.memory; m > DefaultFragmentMemory {
			t.Fatalf("%d octets held", m)
		}
	}
	if s.drops(hook.Right)["frag_memory"] == 0 {
		t.Error("nothing was counted")
	}
	s.e.Close()
}

func TestR22_NoRouteIsToldToTheHost(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.a.e.SetRoutes(NewRoutes(nil))
	p.a.fromHost(udpTo(addrA4, addrB4, 1, 2, 100), nil)
	p.a.expectDrop(hook.Left, wire.DropNoRoute)
	got := p.a.left.take(t, "", macA)
	if len(got) != 1 {
		t.Fatal("host was told nothing")
	}
	if in := parse(t, got[0]); in.ICMPType != 3 || in.ICMPCode != 1 {
		t.Errorf("ICMP type %d code %d", in.ICMPType, in.ICMPCode)
	}
}

// TestR22_HostResolves has the host find its next hops: its choice holds for what keeps
// its destination, with a route or without, and for nothing else.
func TestR22_HostResolves(t *testing.T) {
	const chosen, lookedUp = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x77"), macB
	for _, tt := range []struct {
		name     string
		mode     sa.Mode // of ESP
		bypass   bool
		noRoutes bool
		to, want tcpip.LinkAddress
	}{
		{"bypass", 0, true, false, chosen, chosen},
		{"bypass, no route", 0, true, true, chosen, chosen},
		{"transport", sa.Transport, false, false, chosen, chosen},
		{"transport, to the host's own address", sa.Transport, false, false, macA, lookedUp},
		{"bypass, to the host's own address", 0, true, false, macA, lookedUp},
		{"bypass, to a group", 0, true, false, "\xff\xff\xff\xff\xff\xff", lookedUp},
		{"bypass, to the host's own address, no route", 0, true, true, macA, ""},
		{"tunnel to the destination itself", sa.Tunnel, false, false, chosen, chosen},
		{"tunnel to another end", sa.Tunnel, false, false, chosen, lookedUp},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, tt.mode, false, tt.name == "tunnel to another end")
			s := p.a
			s.e.SetHostResolves(true)
			if tt.bypass {
				s.policies(&sa.Policy{Name: "all", Selector: sa.Selector{Proto: sa.AnyProto}, Action: sa.Bypass})
			}
			if tt.noRoutes {
				s.e.SetRoutes(NewRoutes(nil))
			}
			pkt := link.NewPacket(frame(s.mac, tt.to, udpTo(addrA4, addrB4, 1, 2, 100), nil), s.mac)
			s.e.outbound(pkt)
			pkt.DecRef()
			if tt.want == "" {
				s.expectDrop(hook.Left, wire.DropNoRoute)
				return
			}
			if n := len(s.right.take(t, macA, tt.want)); n != 1 {
				t.Errorf("%d frames left", n)
			}
		})
	}
}

// wantingNeighbors note who is wanted.
type wantingNeighbors struct {
	fixedNeighbors
	wanted *[]netip.Addr
}

func (n wantingNeighbors) Want(a netip.Addr) { *n.wanted = append(*n.wanted, a) }

// The next hops of frames whose stations the host names are looked for ahead of the change
// to looking them up, of single datagrams and of superframes.
func TestR20_LookAhead(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
		var wanted []netip.Addr
		p.a.e.Bind(p.a.left, p.a.right, wantingNeighbors{wanted: &wanted})
		p.a.e.SetHostResolves(true)
		p.a.e.SetLookAhead(ahead)
		for _, b := range [][]byte{udpTo(addrA4, addrB4, 1, 2, 100), tcpTo(addrA4, addrB4, 10000, true)} {
			var vn func(wire.VirtioNet)
			if len(b) > 1500 {
				vn = superframe(b, 1400)
			}
			wanted = nil
			pkt := link.NewPacket(frame(macA, macB, b, vn), macA)
			p.a.e.outbound(pkt)
			pkt.DecRef()
			if ahead != (len(wanted) == 1 && wanted[0] == addrB4) || len(p.a.right.take(t, macA, macB)) == 0 {
				t.Errorf("ahead %v: %v is wanted of a datagram of %d octets", ahead, wanted, len(b))
			}
		}
	}
}

func TestR22_NextHopThatDoesNotAnswer(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.a.e.Bind(p.a.left, p.a.right, fixedNeighbors{}) // nobody is known
	d := udpTo(addrA4, addrB4, 1, 2, 1400)
	p.a.fromHost(d, nil)
	if len(p.a.right.frames) != 0 {
		t.Fatal("something left without an Ethernet address")
	}
	p.a.e.Unresolved(addrB4, nil)
	p.a.e.Unresolved(addrB4, nil) // once is enough
	got := p.a.left.take(t, "", macA)
	if len(got) != 1 {
		t.Fatalf("%d ICMP errors", len(got))
	}
	in := parse(t, got[0])
	if in.ICMPType != 3 || in.ICMPCode != 1 || in.Dst != addrA4 {
		t.Errorf("ICMP type %d code %d to %v", in.ICMPType, in.ICMPCode, in.Dst)
	}
	var inner wire.Info
	quoted, reason := wire.Enclosed(got[0], &in, &inner)
	if reason != wire.DropNone || inner.Proto != wire.ProtoUDP || !bytes.Equal(quoted[12:28], d[12:28]) {
		t.Errorf("it quotes %x, not what the host sent", quoted)
	}
}
