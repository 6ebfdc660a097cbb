package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// The adversary sits on the wire between a and b: it sees what a's engine sealed,
// and gives b what it likes.

// target is one way in which a protects what it sends to b.
type target struct {
	algorithm string
	proto     uint8
	mode      sa.Mode
	six       bool
	encap     bool // in UDP
	ah        bool // AH over it, in transport mode
}

func (g target) String() string {
	name := fmt.Sprintf("%s/%s/%s", map[uint8]string{transform.ProtoESP: "esp", transform.ProtoAH: "ah"}[g.proto],
		g.algorithm, modeName(g.mode, g.six, false))
	switch {
	case g.mode == sa.BEET:
		return name + "/beet"
	case g.encap:
		return name + "/udp"
	case g.ah:
		return name + "/ah"
	}
	return name
}

// esp says whether the outermost header behind IP, or UDP, is ESP.
func (g target) esp() bool { return g.proto == transform.ProtoESP && !g.ah }

// headAt is where it is.
func (g target) headAt() int {
	if g.encap {
		return g.ipLen() + wire.UDPLen
	}
	return g.ipLen()
}

// pair is two stations that protect so what goes from a to b.
func (g target) pair(t testing.TB) *pair {
	switch {
	case g.mode == sa.BEET:
		p, _, _ := newBEET(t, g.algorithm, g.six, g.six)
		return p
	case g.encap:
		return newEncapPair(t, encapCase{mode: g.mode, six: g.six, algorithm: g.algorithm}).pair
	}
	p := newPair(t, g.algorithm, g.proto, g.mode, g.six, false)
	if g.ah {
		a, b := addrA4, addrB4
		if g.six {
			a, b = addrA6, addrB6
		}
		p.a.add("ah", "sha256", transform.ProtoAH, sa.Outbound, sa.Transport, 0x1003, a, b)
		p.b.add("ah", "sha256", transform.ProtoAH, sa.Inbound, sa.Transport, 0x1003, a, b)
		out, in := p.a.protect("to-b", a, b, "ab", "ba"), p.b.protect("to-a", b, a, "ba", "ab")
		out.Out, in.In = append(out.Out, p.a.lineages["ah"]), append(in.In, p.b.lineages["ah"])
		p.a.policies(out)
		p.b.policies(in)
	}
	return p
}

func (g target) ipLen() int {
	if g.six {
		return 40
	}
	return 20
}

func targets() (list []target) {
	for _, six := range []bool{false, true} {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			for _, alg := range []string{"aes128gcm16", "aes256-sha256", "chacha20poly1305", "null-sha256"} {
				list = append(list, target{algorithm: alg, proto: transform.ProtoESP, mode: mode, six: six})
			}
			for _, alg := range []string{"sha256", "aes128gmac"} {
				list = append(list, target{algorithm: alg, proto: transform.ProtoAH, mode: mode, six: six})
			}
			list = append(list, target{algorithm: "aes128gcm16", proto: transform.ProtoESP, mode: mode, six: six, encap: true},
				target{algorithm: "aes256-sha256", proto: transform.ProtoESP, mode: mode, six: six, ah: true})
		}
		list = append(list, target{algorithm: "aes128gcm16", proto: transform.ProtoESP, mode: sa.BEET, six: six})
	}
	return list
}

// payload is what a's host sends: n octets of UDP.
func (g target) payload(n int) []byte {
	switch {
	case g.mode == sa.BEET && g.six:
		return udpTo(innerA6, innerB6, 1, 2, n)
	case g.mode == sa.BEET:
		return udpTo(innerA4, innerB4, 1, 2, n)
	case g.six:
		return udpTo(addrA6, addrB6, 1, 2, n)
	}
	return udpTo(addrA4, addrB4, 1, 2, n)
}

// mutation is one thing the adversary does to a sealed packet.
type mutation struct {
	name   string
	change func(g target, b []byte) []byte
	// want gives the reasons of which b's drop must be one; none means that the
	// packet passes, since nothing protects what was changed.
	want func(g target) []wire.DropReason
}

func always(r ...wire.DropReason) func(target) []wire.DropReason {
	return func(target) []wire.DropReason { return r }
}

// inUDP adds reasons where the packet, as ESP in UDP, is no longer told from UDP in the
// clear.
func inUDP(r ...wire.DropReason) func(target) []wire.DropReason {
	return func(g target) []wire.DropReason {
		if g.encap {
			return append(slices.Clip(r), wire.DropClearNotProtected, wire.DropNoPolicy)
		}
		return r
	}
}

// unlessAH: ESP leaves the IP header alone, AH does not.
func unlessAH(g target) []wire.DropReason {
	if g.esp() {
		return nil
	}
	return []wire.DropReason{wire.DropICV}
}

// at flips bits of one octet of the outer IP header, and puts the IPv4 checksum
// right.
func at(four, six int, mask byte) func(target, []byte) []byte {
	return func(g target, b []byte) []byte {
		if g.six {
			b[six] ^= mask
		} else {
			b[four] ^= mask
			wire.UpdateIPv4Checksum(b)
		}
		return b
	}
}

// in flips a bit of an octet counted from the start of the ESP or AH header, or,
// where negative, from the end of the packet.
func in(offset int, mask byte) func(target, []byte) []byte {
	return func(g target, b []byte) []byte {
		if offset < 0 {
			b[len(b)+offset] ^= mask
		} else {
			b[g.headAt()+offset] ^= mask
		}
		return b
	}
}

// udp changes the UDP header, if there is one.
func udp(change func(u []byte)) func(target, []byte) []byte {
	return func(g target, b []byte) []byte {
		if g.encap {
			change(b[g.ipLen():])
		}
		return b
	}
}

// onlyUDP are reasons for packets in UDP; the others are as they were.
func onlyUDP(r ...wire.DropReason) func(target) []wire.DropReason {
	return func(g target) []wire.DropReason {
		if g.encap {
			return r
		}
		return nil
	}
}

// resized cuts or extends a packet by n octets; its IP and UDP headers say so.
func resized(n int) func(target, []byte) []byte {
	return func(g target, b []byte) []byte {
		if n < 0 {
			b = b[:len(b)+n]
		} else {
			b = append(b, make([]byte, n)...)
		}
		wire.SetLength(b, int(b[0]>>4), len(b))
		if n := len(b) - g.ipLen(); g.encap && n >= wire.UDPLen {
			binary.BigEndian.PutUint16(b[g.ipLen()+4:], uint16(n))
		}
		return b
	}
}

func mutations() []mutation {
	malformed := always(wire.DropMalformed)
	icv := always(wire.DropICV)
	list := []mutation{
		{"nothing", func(g target, b []byte) []byte { return b }, always()},
		{"ethernet padding", func(g target, b []byte) []byte { return append(b, 1, 2, 3, 4, 5) }, always()},

		{"ip version", func(g target, b []byte) []byte { b[0] ^= 0x30; return b }, malformed},
		{"ip header length", func(g target, b []byte) []byte {
			if g.six {
				b[6] = 255 // a next header that is none
				return b
			}
			b[0] = 0x44
			return b
		}, func(g target) []wire.DropReason {
			if g.six {
				return []wire.DropReason{wire.DropClearNotProtected, wire.DropNoPolicy}
			}
			return []wire.DropReason{wire.DropMalformed}
		}},
		{"ip header longer than it is", func(g target, b []byte) []byte {
			if !g.six {
				b[0] = 0x4f
				wire.UpdateIPv4Checksum(b)
			} else {
				b[6] = 0 // hop-by-hop options, which ESP and AH are not
			}
			return b
		}, func(g target) []wire.DropReason {
			return []wire.DropReason{wire.DropUnknownSPI, wire.DropMalformed, wire.DropExtensionHeader, wire.DropBadLength,
				wire.DropClearNotProtected, wire.DropNoPolicy}
		}},
		{"ip length beyond the frame", func(g target, b []byte) []byte {
			wire.SetLength(b, int(b[0]>>4), len(b)+1)
			return b
		}, malformed},
		{"ip header checksum", func(g target, b []byte) []byte {
			if g.six {
				b[0] = 0x70 // IPv6 has none
			} else {
				b[11] ^= 1
			}
			return b
		}, malformed},
		{"traffic class", at(1, 1, 0x40), always()},
		{"ttl", at(8, 7, 0x07), always()},
		{"identification or flow label", at(5, 3, 0x01), func(g target) []wire.DropReason {
			if g.six {
				return nil // mutable (RFC 4302 §3.3.3.1.2.1)
			}
			return unlessAH(g)
		}},
		{"protocol", at(9, 6, 0x40), always(wire.DropClearNotProtected, wire.DropNoPolicy)},
		{"protocol: the other of ESP and AH", at(9, 6, wire.ProtoESP^wire.ProtoAH), inUDP(wire.DropUnknownSPI, wire.DropBadLength, wire.DropMalformed, wire.DropExtensionHeader)},
		{"destination", at(19, 39, 0x40), inUDP(wire.DropUnknownSPI)},
		{"source", at(15, 23, 0x40), func(g target) []wire.DropReason {
			switch {
			case !g.esp():
				return []wire.DropReason{wire.DropICV}
			case g.mode == sa.Transport && !g.encap: // then it is the source that the rules see
				return []wire.DropReason{wire.DropSelectorMismatch, wire.DropNoPolicy}
			}
			return nil // nothing is said of whom a tunnel, or what a NAT changes, comes from but what the key says
		}},
		{"source: b itself", func(g target, b []byte) []byte {
			if g.six {
				copy(b[8:24], b[24:40])
			} else {
				copy(b[12:16], b[16:20])
				wire.UpdateIPv4Checksum(b)
			}
			return b
		}, always(wire.DropOwnAddressSpoof)},
		{"trailing octets in the IP length", resized(1), always(wire.DropICV, wire.DropBadLength)},
		{"sixteen octets more", resized(16), icv},
		{"a maximal packet", func(g target, b []byte) []byte { return resized(65535-len(b))(g, b) }, always(wire.DropICV, wire.DropBadLength)},
		{"one octet less", resized(-1), always(wire.DropICV, wire.DropBadLength)},
		{"sixteen octets less", resized(-16), icv},
		{"the header alone", func(g target, b []byte) []byte { return resized(g.headAt()+8-len(b))(g, b) }, inUDP(wire.DropBadLength, wire.DropMalformed, wire.DropExtensionHeader)},
		{"less than the header", func(g target, b []byte) []byte { return resized(g.headAt()+3-len(b))(g, b) }, inUDP(wire.DropBadLength, wire.DropMalformed, wire.DropExtensionHeader)},
		{"no payload", func(g target, b []byte) []byte { return resized(g.headAt()-len(b))(g, b) }, inUDP(wire.DropBadLength, wire.DropMalformed, wire.DropExtensionHeader)},
		{"udp source port", udp(func(u []byte) { u[1] ^= 0x40 }), always()},
		{"udp destination port", udp(func(u []byte) { u[3] ^= 0x40 }), onlyUDP(wire.DropClearNotProtected, wire.DropNoPolicy)},
		{"udp checksum", udp(func(u []byte) { u[6] ^= 0x40 }), always()},
		{"udp length: shorter", udp(func(u []byte) { u[5] -= 4 }), onlyUDP(wire.DropICV, wire.DropBadLength)},
		{"udp length: beyond the datagram", udp(func(u []byte) { u[4] ^= 0x40 }), onlyUDP(wire.DropClearNotProtected, wire.DropNoPolicy, wire.DropMalformed)},
		{"udp length: less than the header", udp(func(u []byte) { u[4], u[5] = 0, 7 }), onlyUDP(wire.DropClearNotProtected, wire.DropNoPolicy, wire.DropMalformed)},
		{"last octet of the ICV or the payload", in(-1, 0x80), icv},
	}
	// The fields of ESP and AH.
	for bit := range 32 {
		field := func(espAt, ahAt int) func(target, []byte) []byte {
			return func(g target, b []byte) []byte {
				offset := espAt
				if !g.esp() {
					offset = ahAt
				}
				return in(offset+bit/8, 1<<(bit%8))(g, b)
			}
		}
		list = append(list,
			mutation{fmt.Sprintf("spi bit %d", bit), field(0, 4), always(wire.DropUnknownSPI)},
			mutation{fmt.Sprintf("sequence number bit %d", bit), field(4, 8), always(wire.DropICV, wire.DropReplay, wire.DropReplayOld)},
			mutation{fmt.Sprintf("first word behind, bit %d", bit), field(8, 12), icv})
	}
	list = append(list, mutation{"ah next header", func(g target, b []byte) []byte {
		if g.esp() {
			return in(9, 1)(g, b)
		}
		return in(0, 1)(g, b)
	}, icv}, mutation{"ah length", func(g target, b []byte) []byte {
		if g.esp() {
			return in(10, 1)(g, b)
		}
		return in(1, 2)(g, b)
	}, always(wire.DropICV, wire.DropBadLength, wire.DropExtensionHeader, wire.DropMalformed)}, mutation{"ah reserved", func(g target, b []byte) []byte {
		if g.esp() {
			return in(11, 1)(g, b)
		}
		return in(3, 1)(g, b)
	}, always(wire.DropICV, wire.DropBadLength)})
	return list
}

// dropped is how many packets s has dropped on the side of the wire.
func (s *station) dropped() (n uint64) {
	for _, v := range s.drops(hook.Right) {
		n += v
	}
	return n
}

// TestR39_AdversaryChangesEachField changes every field of real packets, one at a
// time. Where something protects the field the packet is dropped, once, for the
// right reason, and the true one is still accepted afterwards; where nothing does
// it passes as it should.
func TestR39_AdversaryChangesEachField(t *testing.T) {
	for _, g := range targets() {
		t.Run(g.String(), func(t *testing.T) {
			p := g.pair(t)
			for _, m := range mutations() {
				p.a.fromHost(g.payload(90), nil)
				sealed := p.a.right.take(t, "", "")[0]
				before := p.b.drops(hook.Right)
				p.b.fromWire(m.change(g, bytes.Clone(sealed)))
				got, drops, want := p.b.left.take(t, "", ""), p.b.drops(hook.Right), m.want(g)
				for reason, n := range before {
					if drops[reason] -= n; drops[reason] == 0 {
						delete(drops, reason)
					}
				}
				if len(want) == 0 {
					if len(got) != 1 || len(drops) != 0 {
						t.Errorf("%s: %d delivered, drops %v; nothing protects this field", m.name, len(got), drops)
					}
					continue
				}
				if len(got) != 0 {
					t.Errorf("%s: reached the host", m.name)
					continue
				}
				if len(drops) != 1 || !slices.ContainsFunc(want, func(r wire.DropReason) bool { return drops[r.String()] == 1 }) {
					t.Errorf("%s: drops %v, expected one of %v", m.name, drops, want)
				}
				if drops[wire.DropSelectorMismatch.String()] == 1 {
					continue // authentic, so its number is used up
				}
				p.b.fromWire(bytes.Clone(sealed))
				if got := p.b.left.take(t, "", ""); len(got) != 1 || !bytes.Equal(got[0], g.payload(90)) {
					t.Errorf("%s: the true packet is refused afterwards: %v", m.name, p.b.drops(hook.Right))
				}
			}
		})
	}
}

// TestR39_AdversarySplices puts parts of one true packet into another.
func TestR39_AdversarySplices(t *testing.T) {
	for _, g := range targets() {
		p := g.pair(t)
		for range 2 {
			p.a.fromHost(g.payload(90), nil)
		}
		sealed := p.a.right.take(t, "", "")
		one, two := sealed[0], sealed[1]
		fed := uint64(0)
		for cut := g.headAt() + 8; cut < len(one); cut++ {
			for _, b := range [][]byte{slices.Concat(one[:cut], two[cut:]), slices.Concat(two[:cut], one[cut:])} {
				if bytes.Equal(b, one) || bytes.Equal(b, two) {
					continue
				}
				p.b.fromWire(b)
				fed++
			}
		}
		if got := p.b.left.take(t, "", ""); len(got) != 0 {
			t.Errorf("%v: %d spliced packets reached the host", g, len(got))
		}
		if got := p.b.drops(hook.Right); got[wire.DropICV.String()]+got[wire.DropBadLength.String()] != fed || p.b.dropped() != fed {
			t.Errorf("%v: drops %v of %d", g, got, fed)
		}
	}
}

// TestR40_AdversaryReordersAndRepeats shuffles and repeats true packets: each
// arrives once, the others are counted.
func TestR40_AdversaryReordersAndRepeats(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, g := range targets() {
		const window = 64 // of a test SA
		p := g.pair(t)
		const n = 500
		for range n {
			p.a.fromHost(g.payload(20), nil)
		}
		sealed := p.a.right.take(t, "", "")
		// Within the window any order will do.
		for i := 0; i < n; i += window {
			part := sealed[i:min(i+window, n)]
			rng.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		}
		for _, b := range sealed {
			for range 1 + rng.IntN(3) {
				p.b.fromWire(bytes.Clone(b))
			}
		}
		for _, b := range sealed {
			p.b.fromWire(bytes.Clone(b))
		}
		got, drops := len(p.b.left.take(t, "", "")), p.b.drops(hook.Right)
		if got != n {
			t.Errorf("%v: %d of %d arrived", g, got, n)
		}
		if r := drops["replay"] + drops["replay_old"]; r != p.b.dropped() || drops["replay_old"] < n-window || drops["replay"] == 0 {
			t.Errorf("%v: drops %v", g, drops)
		}
	}
}

// TestR27_AdversaryRefragments cuts sealed packets anew, in sizes and orders of its
// choice, with pieces twice, missing and overlapping.
func TestR27_AdversaryRefragments(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, g := range targets() {
		p := g.pair(t)
		for round := range 20 {
			p.a.fromHost(g.payload(1200), nil)
			sealed := p.a.right.take(t, "", "")[0]
			if !g.six {
				sealed[6] &^= 0x40
				if g.esp() { // AH covers the identification
					binary.BigEndian.PutUint16(sealed[4:], uint16(round+1))
				}
				wire.UpdateIPv4Checksum(sealed)
			}
			pieces := fragments(t, sealed, 300+8*rng.IntN(60))
			rng.Shuffle(len(pieces), func(i, j int) { pieces[i], pieces[j] = pieces[j], pieces[i] })
			before := p.b.dropped()
			twice := pieces[0]
			p.b.fromWire(bytes.Clone(twice))
			for _, f := range pieces {
				p.b.fromWire(bytes.Clone(f))
			}
			if got := p.b.left.take(t, "", ""); len(got) != 1 || !bytes.Equal(got[0][g.ipLen():], g.payload(1200)[g.ipLen():]) {
				t.Fatalf("%v: %d delivered of %d fragments: %v", g, len(got), len(pieces), p.b.drops(hook.Right))
			}
			if d := p.b.dropped() - before; d != 1 || p.b.drops(hook.Right)["frag_duplicate"] != uint64(round+1) {
				t.Fatalf("%v: a fragment that came twice: %v", g, p.b.drops(hook.Right))
			}
		}
		// One is missing: nothing arrives, and all is freed after the time limit.
		p.a.fromHost(g.payload(1200), nil)
		sealed := p.a.right.take(t, "", "")[0]
		if !g.six {
			sealed[6] &^= 0x40
			wire.UpdateIPv4Checksum(sealed)
		}
		pieces := fragments(t, sealed, 400)
		p.b.fromWire(pieces[:len(pieces)-1]...)
		p.b.now += int64(61 * time.Second)
		p.b.e.Tick()
		if got := p.b.left.take(t, "", ""); len(got) != 0 || p.b.drops(hook.Right)["frag_timeout"] == 0 {
			t.Errorf("%v: %d delivered, drops %v", g, len(got), p.b.drops(hook.Right))
		}
		if m := p.b.e.sides[hook.Right].fragments.memory; m != 0 {
			t.Errorf("%v: %d octets of fragments stay", g, m)
		}
	}
}

// TestR39_AdversaryAtRandom composes mutations at random: whatever comes, each
// packet is either delivered as it was sent or dropped for one reason.
func TestR39_AdversaryAtRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	list := mutations()
	for _, g := range targets() {
		p := g.pair(t)
		true90 := g.payload(90)
		fed, delivered := uint64(0), uint64(0)
		for range 2000 {
			p.a.fromHost(true90, nil)
			sealed := p.a.right.take(t, "", "")[0]
			b := bytes.Clone(sealed)
			for range 1 + rng.IntN(3) {
				if len(b) < g.ipLen()+20 {
					break
				}
				if rng.IntN(2) == 0 {
					b = list[rng.IntN(len(list))].change(g, b)
				} else {
					b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
				}
			}
			if !g.six && len(b) >= 20 && (b[6]&0x3f != 0 || b[7] != 0) || len(b) == 0 {
				continue // a fragment, or nothing: neither delivered nor dropped at once
			}
			if g.six && len(b) > 6 && b[6] == 44 {
				continue
			}
			fed++
			p.b.fromWire(b)
			for _, d := range p.b.left.take(t, "", "") {
				delivered++
				if g.mode == sa.Tunnel && !bytes.Equal(d, true90) || !bytes.Equal(d[g.ipLen():], true90[g.ipLen():]) {
					t.Fatalf("%v: the host got %x for %x", g, d, b)
				}
			}
		}
		if delivered+p.b.dropped() != fed {
			t.Errorf("%v: %d packets, %d delivered, drops %v", g, fed, delivered, p.b.drops(hook.Right))
		}
		if delivered == 0 || delivered > fed/2 {
			t.Errorf("%v: %d of %d delivered: the mutations are not what they should be", g, delivered, fed)
		}
	}
}
