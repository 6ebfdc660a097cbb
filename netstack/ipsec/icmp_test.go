package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// TestRFC4301_6_1_1_UnprotectedErrors has errors come from the wire about a datagram in
// the clear, about nothing that was sent, and about ESP of ours.
func TestRFC4301_6_1_1_UnprotectedErrors(t *testing.T) {
	clear := netip.MustParseAddr("192.0.2.77")
	for _, c := range []struct {
		rule                     ICMPErrorRule
		real, forged, learnsPMTU bool
	}{
		{ICMPErrorsAccept, true, true, true},
		{ICMPErrorsVerify, true, false, true},
		{ICMPErrorsDiscard, false, false, false},
	} {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
		p.a.e.SetICMPErrors(c.rule)
		bypass := &sa.Policy{Name: "clear", Action: sa.Bypass, Selector: sa.Selector{Remote: []sa.AddrRange{sa.AddrRangeFrom(clear)}}}
		p.a.policies(p.a.protect("to-b", addrA4, addrB4, "ab", "ba"), bypass)
		about := func(d []byte) []byte {
			in := parse(t, d)
			b, ok := wire.AppendUnreachable(nil, d, &in, 1)
			if !ok {
				t.Fatal("no error")
			}
			return b
		}
		check := func(what string, d []byte, want bool) {
			t.Helper()
			before := p.a.drops(hook.Right)["icmp_policy"]
			p.a.fromWire(d)
			if got := len(p.a.left.take(t, "", macA)) == 1; got != want {
				t.Errorf("rule %d: %s reached the host: %v", c.rule, what, got)
			}
			if dropped := p.a.drops(hook.Right)["icmp_policy"] - before; (dropped == 1) == want {
				t.Errorf("rule %d: %s: %d counted as icmp_policy", c.rule, what, dropped)
			}
		}
		check("an error about a datagram in the clear", about(udpTo(addrA4, clear, 1, 2, 10)), c.real)
		// A router that policy lets talk, about a flow that is protected.
		forged := about(udpTo(addrA4, addrB4, 1, 2, 10))
		wire.SetSrc(forged, clear)
		wire.UpdateIPv4Checksum(forged)
		check("an error about a protected flow", forged, c.forged)

		_, wired := p.cross(udpTo(addrA4, addrB4, 1, 2, 1000), nil)
		in := parse(t, wired[0])
		tooBig, _ := wire.AppendTooBig(nil, wired[0], &in, 1000)
		p.a.fromWire(tooBig)
		if got := p.a.lineages["ab"].Outbound().PMTU(p.a.now) == 1000; got != c.learnsPMTU {
			t.Errorf("rule %d: path MTU learned: %v", c.rule, got)
		}
	}
}

func TestRFC4443_2_4_ErrorsAreLimited(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, true, false)
	send := func(n int) int {
		for range n {
			p.a.fromHost(tcpTo(addrA6, addrB6, 1420, false), nil)
		}
		return len(p.a.left.take(t, "", macA))
	}
	if got := send(1200); got != 1000 || p.a.e.ICMPErrorsLimited() != 200 {
		t.Errorf("%d of 1200 at once, %d counted", got, p.a.e.ICMPErrorsLimited())
	}
	if p.a.drops(hook.Left)["too_big"] != 1200 {
		t.Error("not all drops are counted")
	}
	p.a.now += 5e6
	if got := send(20); got != 5 {
		t.Errorf("%d within 5 ms", got)
	}
}

// What comes out of a tunnel is not passed on with a source that cannot be one, as from
// the host itself, or with a route in it.
func TestRFC4301_5_2_WhatASAMustNotBring(t *testing.T) {
	lsrr := []byte{131, 7, 4, 10, 0, 0, 9, 0}
	done := []byte{131, 7, 8, 10, 0, 0, 9, 0}
	ssrr := []byte{137, 7, 4, 10, 0, 0, 9, 0}
	cut := []byte{131, 2, 0, 0}
	route := func(kind, left byte) []byte {
		return append([]byte{wire.ProtoRouting, 2, kind, left, 0, 0, 0, 0}, bytes.Repeat([]byte{0xfd}, 16)...)
	}
	plain4, plain6 := udpTo(addrA4, addrB4, 1, 2, 30), udpTo(addrA6, addrB6, 1, 2, 30)
	from := func(d []byte, src string) []byte {
		d = bytes.Clone(d)
		wire.SetSrc(d, netip.MustParseAddr(src))
		if d[0]>>4 == 4 {
			wire.UpdateIPv4Checksum(d)
		}
		return d
	}
	for _, c := range []struct {
		name string
		d    []byte
		want wire.DropReason
	}{
		{"plain", plain4, wire.DropNone}, {"plain IPv6", plain6, wire.DropNone},
		{"loose source route", withOptions(plain4, lsrr...), wire.DropSourceRoute},
		{"strict source route", withOptions(plain4, ssrr...), wire.DropSourceRoute},
		{"source route at its end", withOptions(plain4, done...), wire.DropNone},
		{"source route cut short", withOptions(plain4, cut...), wire.DropSourceRoute},
		{"option behind the header", withOptions(plain4, 7, 40, 4, 0), wire.DropMalformed},
		{"record route", withOptions(plain4, 7, 7, 4, 0, 0, 0, 0), wire.DropNone},
		{"routing type 0", withExtensions(plain6, route(0, 1)), wire.DropSourceRoute},
		{"routing type 0 at its end", withExtensions(plain6, route(0, 0)), wire.DropNone},
		{"routing type 2", withExtensions(plain6, route(2, 1)), wire.DropNone},
		{"multicast source", from(plain4, "224.0.0.1"), wire.DropMartian},
		{"broadcast source", from(plain4, "255.255.255.255"), wire.DropMartian},
		{"loopback source", from(plain4, "127.0.0.1"), wire.DropMartian},
		{"unspecified source", from(plain4, "0.0.0.0"), wire.DropMartian},
		{"IPv6 multicast source", from(plain6, "ff02::1"), wire.DropMartian},
		{"IPv6 loopback source", from(plain6, "::1"), wire.DropMartian},
		{"own source", from(plain4, "192.0.2.2"), wire.DropOwnAddressSpoof},
		{"own IPv6 source", from(plain6, "2001:db8::2"), wire.DropOwnAddressSpoof},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
			p.a.policies(&sa.Policy{Name: "all", Action: sa.Protect, Out: []*sa.Lineage{p.a.lineages["ab"]}, In: []*sa.Lineage{p.a.lineages["ba"]}})
			p.b.policies(&sa.Policy{Name: "all", Action: sa.Protect, Out: []*sa.Lineage{p.b.lineages["ba"]}, In: []*sa.Lineage{p.b.lineages["ab"]}})
			got, wired := p.cross(c.d, nil)
			if len(wired) != 1 {
				t.Fatal(p.a.drops(hook.Left))
			}
			if c.want == wire.DropNone {
				if len(got) != 1 || !bytes.Equal(got[0], c.d) {
					t.Errorf("%d at the host, drops %v", len(got), p.b.drops(hook.Right))
				}
				return
			}
			if len(got) != 0 {
				t.Error("reached the host")
			}
			p.b.expectDrop(hook.Right, c.want)
		})
	}
}

// TestRFC4303_3_1_1_RFC4302_3_1_1_ExtensionHeaders has ESP and AH stand behind the
// headers that routers look at, and the destination options behind where they were.
func TestRFC4303_3_1_1_RFC4302_3_1_1_ExtensionHeaders(t *testing.T) {
	hop := []byte{wire.ProtoHopByHop, 0, 5, 2, 0, 0, 1, 0}
	dest := []byte{wire.ProtoDestOpts, 0, 1, 4, 0, 0, 0, 0}
	mutable := []byte{wire.ProtoHopByHop, 0, 0x3e, 4, 1, 2, 3, 4}
	routing := append([]byte{wire.ProtoRouting, 2, 4, 1, 0, 0, 0, 0}, addrB6.AsSlice()...) // RFC 8754
	plain := udpTo(addrA6, addrB6, 1, 2, 50)
	for _, c := range []struct {
		name string
		d    []byte
		at   int // where ESP or AH starts
	}{
		{"none", plain, 40},
		{"hop-by-hop", withExtensions(plain, hop), 48},
		{"mutable option", withExtensions(plain, mutable), 48},
		{"destination behind", withExtensions(plain, dest), 40},
		{"all", withExtensions(plain, hop, dest, routing, dest), 40 + 8 + 8 + 24},
	} {
		for _, x := range []struct {
			algorithm string
			proto     uint8
		}{{"aes128gcm16", transform.ProtoESP}, {"sha256", transform.ProtoAH}} {
			t.Run(c.name+"/"+x.algorithm, func(t *testing.T) {
				p := newPair(t, x.algorithm, x.proto, sa.Transport, true, false)
				p.a.fromHost(c.d, nil)
				wired := p.a.right.take(t, macA, macB)
				if len(wired) != 1 {
					t.Fatal(p.a.drops(hook.Left))
				}
				if in := parse(t, wired[0]); in.Proto != x.proto || in.HeaderLen != c.at {
					t.Errorf("protocol %d at %d, want it at %d", in.Proto, in.HeaderLen, c.at)
				}
				if spi := binary.BigEndian.Uint32(wired[0][c.at+map[uint8]int{50: 0, 51: 4}[x.proto]:]); spi != 0x1001 {
					t.Errorf("SPI %#x", spi)
				}
				// What routers may change does not matter to AH (RFC 4302 §3.3.3.1.2).
				want := bytes.Clone(c.d)
				for _, d := range [][]byte{wired[0], want} {
					d[7]--
					if c.name == "mutable option" {
						d[40+4] ^= 0xff
					}
				}
				p.b.fromWire(wired...)
				if got := p.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], want) {
					t.Errorf("%d at the host, drops %v", len(got), p.b.drops(hook.Right))
				}
			})
		}
	}
}
