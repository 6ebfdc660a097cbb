package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// between makes the station a box with hosts behind it and NICs with these MTUs.
func (s *station) between(inside, outside int) {
	s.e.hosts = fixedNeighbors{s.mac}
	s.e.SetLinkMTU(hook.Left, inside)
	s.e.SetLinkMTU(hook.Right, outside)
	s.e.SetMTU(outside)
}

// tooBigIn reads the MTU that an ICMP error tells, and checks whom it goes to.
func tooBigIn(t *testing.T, b, about []byte) int {
	t.Helper()
	in, of := parse(t, b), parse(t, about)
	if in.Src != of.Dst || in.Dst != of.Src {
		t.Errorf("the error goes from %v to %v", in.Src, in.Dst)
	}
	icmp := b[in.HeaderLen:]
	switch {
	case in.Proto == wire.ProtoICMP && icmp[0] == 3 && icmp[1] == 4:
		return int(binary.BigEndian.Uint16(icmp[6:]))
	case in.Proto == wire.ProtoICMPv6 && icmp[0] == 2 && icmp[1] == 0:
		return int(binary.BigEndian.Uint32(icmp[4:]))
	}
	t.Errorf("no packet too big: %x", icmp[:8])
	return 0
}

// whole puts fragments together.
func whole(t *testing.T, list [][]byte) []byte {
	t.Helper()
	s := newStation(t, macA, macB, addrA4, addrA6)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	r := &s.e.sides[hook.Right].fragments
	for _, b := range list {
		d := &hook.Datagram{Bytes: b, Info: parse(t, b)}
		pkt := link.NewPacket(frame(macB, macA, b, nil), macA)
		set, reason := r.add(s.now, d, pkt, nil)
		pkt.DecRef()
		if reason != wire.DropNone {
			t.Fatal(reason)
		}
		if set != nil {
			defer set.release()
			out, reason := set.join(&d.Info)
			if reason != wire.DropNone {
				t.Fatal(reason)
			}
			return out
		}
	}
	t.Fatalf("%d fragments are no datagram", len(list))
	return nil
}

// What comes opened fits the inside: whole, in fragments, or its sender is told the exact
// MTU through the protection, and no other way.
func TestR13_R29_WhatIsOpenedFitsTheInside(t *testing.T) {
	df := func(b []byte) []byte {
		b[6] |= 0x40
		wire.UpdateIPv4Checksum(b)
		return b
	}
	const inside = 1400
	for _, x := range []struct {
		name   string
		six    bool
		b      []byte
		got    int // datagrams or fragments at the host
		told   int
		reason wire.DropReason
	}{
		{"IPv4 that fits", false, df(udpTo(addrA4, addrB4, 1, 2, inside-28)), 1, 0, wire.DropNone},
		{"IPv4 without DF", false, udpTo(addrA4, addrB4, 1, 2, 3000), 3, 0, wire.DropNone},
		{"IPv4 with DF", false, df(udpTo(addrA4, addrB4, 1, 2, inside-27)), 0, inside, wire.DropTooBig},
		{"IPv4 TCP", false, tcpTo(addrA4, addrB4, inside-51, false), 0, inside, wire.DropTooBig},
		{"IPv6 that fits", true, udpTo(addrA6, addrB6, 1, 2, inside-48), 1, 0, wire.DropNone},
		// A sender that has made fragments of it makes no shorter ones for the asking.
		{"IPv6 UDP", true, udpTo(addrA6, addrB6, 1, 2, 3000), 3, inside, wire.DropNone},
		{"IPv6 TCP", true, tcpTo(addrA6, addrB6, 2000, false), 0, inside, wire.DropTooBig},
	} {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			t.Run(fmt.Sprint(x.name, " ", modeName(mode, x.six, false)), func(t *testing.T) {
				p := newPair(t, "aes128gcm16", transform.ProtoESP, mode, x.six, false)
				p.a.e.SetMTU(9000)
				p.b.between(inside, 9000)
				if mode == sa.Transport {
					p.b.e.SetHostResolves(true)
					p.b.e.SetRoutes(NewRoutes(nil)) // an error goes back to the station that brought what it is about
				}
				p.a.fromHost(bytes.Clone(x.b), nil)
				p.b.fromWire(p.a.right.take(t, macA, macB)...)
				got := p.b.left.take(t, "", macB)
				for _, b := range got {
					if len(b) > inside {
						t.Errorf("a datagram of %d octets at the host", len(b))
					}
				}
				if len(got) != x.got || x.got == 1 && !bytes.Equal(got[0], x.b) {
					t.Fatalf("%d datagrams at the host, expected %d", len(got), x.got)
				}
				if x.got > 1 {
					if all := whole(t, got); !bytes.Equal(all[len(all)-1400:], x.b[len(x.b)-1400:]) || len(all) != len(x.b) {
						t.Errorf("the fragments are %d octets that differ", len(all))
					}
				}
				if x.reason == wire.DropNone && len(p.b.drops(hook.Right)) > 0 {
					t.Errorf("drops %v", p.b.drops(hook.Right))
				} else if x.reason != wire.DropNone {
					p.b.expectDrop(hook.Right, x.reason)
				}
				back := p.b.right.take(t, macB, macA)
				if n := p.b.e.ICMPErrors(hook.Right); x.told == 0 && n+uint64(len(back)) > 0 || x.told != 0 && n != 1 {
					t.Fatalf("%d errors, %d frames back", n, len(back))
				}
				if x.told == 0 {
					return
				}
				if len(back) != 1 || parse(t, back[0]).Proto != wire.ProtoESP {
					t.Fatalf("%d frames back, expected one protected", len(back))
				}
				p.a.fromWire(back...)
				errors := p.a.left.take(t, "", macA)
				if len(errors) != 1 {
					t.Fatalf("%d datagrams at the sender: %v", len(errors), p.a.drops(hook.Right))
				}
				if mtu := tooBigIn(t, errors[0], x.b); mtu != x.told {
					t.Errorf("the sender was told %d, expected %d", mtu, x.told)
				}
			})
		}
	}
}

// What came in fragments goes on in fragments, DF or not: protected as a whole and cut, or
// cut and protected.
func TestR13_R29_WhatCameInFragmentsIsFragmented(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, six, false)
		p.b.between(1400, 1500)
		src, dst := addrA4, addrB4
		if six {
			src, dst = addrA6, addrB6
		}
		b := udpTo(src, dst, 1, 2, 3000)
		p.a.e.SetMTU(9000)
		p.a.fromHost(b, nil)
		sealed := p.a.right.take(t, "", "")
		if !six {
			sealed[0][6] &^= 0x40
			wire.UpdateIPv4Checksum(sealed[0])
		}
		in := parse(t, sealed[0])
		var f wire.Fragmenter
		if reason := f.Init(sealed[0], &in, 1500, 7); reason != wire.DropNone {
			t.Fatal(reason)
		}
		for {
			piece := make([]byte, 1500)
			n := f.Next(piece)
			if n == 0 {
				break
			}
			p.b.fromWire(piece[:n])
		}
		got := p.b.left.take(t, "", "")
		if all := whole(t, got); len(all) != len(b) || len(got) != 3 || len(p.b.right.take(t, "", "")) > 0 {
			t.Errorf("%d octets in %d fragments, and an error: %v", len(all), len(got), p.b.drops(hook.Right))
		}
	}
}

// An error to a remote sender that no policy covers is not sent, and counted.
func TestR13_R29_NoErrorWithoutAPolicy(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	p.a.e.SetMTU(9000)
	p.b.between(1400, 9000)
	in := p.b.protect("in", addrB4, addrA4, "ba", "ab")
	in.Directions, in.Out = sa.OnlyInbound, nil
	ssh := p.b.protect("out", addrB4, addrA4, "ba", "ab")
	ssh.Directions, ssh.In, ssh.Selector.Proto = sa.OnlyOutbound, nil, wire.ProtoUDP
	p.b.policies(in, ssh)
	p.a.fromHost(tcpTo(addrA4, addrB4, 2000, false), nil)
	p.b.fromWire(p.a.right.take(t, macA, macB)...)
	if back := p.b.right.take(t, "", ""); len(back) > 0 {
		t.Errorf("%d frames back", len(back))
	}
	p.b.expectDrop(hook.Right, wire.DropTooBig)
	p.b.expectDrop(hook.Left, wire.DropNoPolicy)
}

// Where a policy bypasses ICMP, an error that quotes what came protected goes back by the SA.
func TestR13_R29_NoErrorInTheClear(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, six, false)
		a, b := addrA4, addrB4
		if six {
			a, b = addrA6, addrB6
		}
		p.a.e.SetMTU(9000)
		p.b.between(1400, 9000)
		icmp := &sa.Policy{Name: "icmp", Action: sa.Bypass, Selector: sa.Selector{Proto: wire.ProtoICMP}}
		icmp6 := &sa.Policy{Name: "icmp6", Action: sa.Bypass, Selector: sa.Selector{Proto: wire.ProtoICMPv6}}
		p.b.policies(icmp, icmp6, p.b.protect("all", b, a, "ba", "ab"))
		sent := tcpTo(a, b, 2000, false)
		p.a.fromHost(bytes.Clone(sent), nil)
		p.b.fromWire(p.a.right.take(t, macA, macB)...)
		back := p.b.right.take(t, "", "")
		if len(back) != 1 || parse(t, back[0]).Proto != wire.ProtoESP {
			t.Fatalf("%d frames back, expected the error by the SA: %x", len(back), back)
		}
		p.b.expectDrop(hook.Right, wire.DropTooBig)
		p.a.fromWire(back...)
		if got := p.a.left.take(t, "", ""); len(got) != 1 || tooBigIn(t, got[0], sent) != 1400 {
			t.Errorf("the sender is told %x", got)
		}
	}
}

// What no SA is for fits the link that it goes to as well, either way.
func TestR13_R29_WhatIsBypassedFits(t *testing.T) {
	for _, to := range []hook.Side{hook.Left, hook.Right} {
		for _, x := range []struct {
			name string
			b    []byte
			vn   func([]byte) func(wire.VirtioNet)
			got  int // frames
			told int
			mss  int // of a superframe
		}{
			{"fits", ip(addrB4, addrA4, 47, true, pattern(1380)), nil, 1, 0, 0},
			{"IPv4 without DF", udpTo(addrB4, addrA4, 1, 2, 3000), nil, 3, 0, 0},
			{"IPv4 with DF", ip(addrB4, addrA4, 47, true, pattern(1381)), nil, 0, 1400, 0},
			{"IPv6", udpTo(addrB6, addrA6, 1, 2, 1400), nil, 0, 1400, 0},
			{"TCP superframe that fits", tcpTo(addrB4, addrA4, 20000, true), mssOf(1348), 1, 0, 1348},
			{"TCP superframe", tcpTo(addrB6, addrA6, 20000, true), mssOf(1428), 1, 0, 1328},
		} {
			t.Run(fmt.Sprint(x.name, " to the ", to), func(t *testing.T) {
				s := newStation(t, macA, macB, addrA4, addrA6)
				s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
				s.between(1400, 9000)
				if to == hook.Right {
					s.between(9000, 1400)
					s.e.isLocal = func(a netip.Addr) bool { return a == addrB4 || a == addrB6 }
				}
				var vn func(wire.VirtioNet)
				if x.vn != nil {
					vn = x.vn(x.b)
				}
				pkt := link.NewPacket(frame(macB, macA, x.b, vn), macA)
				if to == hook.Right {
					s.e.outbound(pkt)
				} else {
					s.e.inbound(pkt)
				}
				pkt.DecRef()
				on, back := s.left, s.right
				if to == hook.Right {
					on, back = back, on
				}
				frames := on.frames
				got := on.take(t, "", "")
				if len(got) != x.got {
					t.Fatalf("%d frames, expected %d: %v", len(got), x.got, s.drops(to.Other()))
				}
				if x.got > 1 && !bytes.Equal(whole(t, got), x.b) {
					t.Error("the fragments are another datagram")
				}
				if x.mss != 0 {
					if n := int(wire.VirtioNet(frames[0]).GSOSize()); n != x.mss {
						t.Errorf("segments of %d octets, expected %d", n, x.mss)
					}
				}
				errors := back.take(t, "", "")
				if x.told == 0 {
					if len(errors)+len(s.drops(to.Other())) > 0 {
						t.Errorf("%d errors, drops %v", len(errors), s.drops(to.Other()))
					}
					return
				}
				s.expectDrop(to.Other(), wire.DropTooBig)
				if len(errors) != 1 {
					t.Fatalf("%d errors", len(errors))
				}
				if mtu := tooBigIn(t, errors[0], x.b); mtu != x.told {
					t.Errorf("told %d, expected %d", mtu, x.told)
				}
			})
		}
	}
}

// A superframe for the inside is of segments as they came; one that is longer than the
// inside takes does not become part of one.
func TestR13_R29_SuperframesForTheInside(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	p.b.e.coalescers = make([]coalescer, 1)
	p.a.e.SetMTU(9000)
	p.b.between(1400, 9000)
	segments := func(mss, n int) [][]byte {
		b := tcpTo(addrA4, addrB4, n*mss, true)
		p.a.fromHost(b, superframe(b, mss))
		return p.a.right.take(t, macA, macB)
	}
	short, long := segments(1000, 5), segments(2000, 3)
	p.b.trainFromWire(append(short, long...)...)
	p.b.e.EndBatch(0)
	frames := p.b.left.frames
	got := p.b.left.take(t, "", "")
	if len(got) != 1 {
		t.Fatalf("%d frames at the host, expected one superframe", len(got))
	}
	if vn := wire.VirtioNet(frames[0]); vn.GSOSize() != 1000 || len(got[0]) != 5052 {
		t.Errorf("a superframe of %d octets in segments of %d", len(got[0]), vn.GSOSize())
	}
	if n := p.b.drops(hook.Right)["too_big"]; n != 3 {
		t.Errorf("drops %v, expected 3 segments too big", p.b.drops(hook.Right))
	}
}

func mssOf(mss int) func([]byte) func(wire.VirtioNet) {
	return func(b []byte) func(wire.VirtioNet) { return superframe(b, mss) }
}

// In IPv6 nobody is told less than 1280 octets, and what has no more is fragmented.
func TestR13_R29_InsideBelowTheLeastOfIPv6(t *testing.T) {
	for n, told := range map[int]uint64{1280: 0, 1281: 1} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, true, false)
		p.a.e.SetMTU(9000)
		p.b.between(1100, 9000)
		p.a.fromHost(tcpTo(addrA6, addrB6, n-72, false), nil)
		p.b.fromWire(p.a.right.take(t, macA, macB)...)
		if got := len(p.b.left.take(t, "", "")); got != 2*int(1-told) || p.b.e.ICMPErrors(hook.Right) != told {
			t.Errorf("%d octets: %d fragments at the host, %d errors", n, got, p.b.e.ICMPErrors(hook.Right))
		}
		if told == 0 {
			continue
		}
		p.a.fromWire(p.b.right.take(t, macB, macA)...)
		if mtu := tooBigIn(t, p.a.left.take(t, "", "")[0], tcpTo(addrA6, addrB6, n-72, false)); mtu != 1280 {
			t.Errorf("told %d", mtu)
		}
	}
}

// mss_clamp: pmtu lowers what is announced to what both sides take.
func TestR13_R29_MSSClampKnowsTheInside(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	p.b.between(1400, 9000)
	pol := p.b.protect("to-a", addrB4, addrA4, "ba", "ab")
	pol.MSSClamp = sa.ClampToPMTU
	p.b.policies(pol)
	p.b.fromHost(synTo(addrB4, addrA4, header.TCPFlagSyn, 8960, 0, false), nil)
	p.a.fromWire(p.b.right.take(t, macB, macA)...)
	p.a.fromHost(synTo(addrA4, addrB4, header.TCPFlagSyn|header.TCPFlagAck, 8960, 0, false), nil)
	p.b.fromWire(p.a.right.take(t, macA, macB)...)
	for _, got := range [][][]byte{p.a.left.take(t, "", ""), p.b.left.take(t, "", "")} {
		if len(got) != 1 {
			t.Fatalf("%d datagrams", len(got))
		}
		if mss := binary.BigEndian.Uint16(got[0][42:]); mss != 1360 {
			t.Errorf("MSS %d, expected 1360", mss)
		}
	}
}
