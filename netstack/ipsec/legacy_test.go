package ipsec

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

// legacyAlgorithms are those without sequence numbers.
func legacyAlgorithms() []transform.Algorithm {
	return transform.NewRegistry(legacy.Families()...).Algorithms()
}

// reverse is the same pair, seen from the other end.
func (p *pair) reverse() *pair { return &pair{p.b, p.a} }

// Each of the original's transforms carries datagrams and superframes both ways, in every
// mode, and what leaves fits the wire to the last octet.
func TestR38_EveryLegacyTransformBothWays(t *testing.T) {
	for _, alg := range legacyAlgorithms() {
		for _, f := range forms {
			t.Run(alg.Name+"/"+modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
				p := newPair(t, alg.Name, alg.Protocol, f.mode, f.six, f.crossed)
				a, b := addrA4, addrB4
				if f.six {
					a, b = addrA6, addrB6
				}
				for i, way := range []*pair{p, p.reverse()} {
					if i == 1 {
						a, b = b, a
					}
					for _, n := range []int{0, 1, 5, 6, 7, 8, 100, 1300} {
						sent := udpTo(a, b, 7, 8, n)
						way.a.fromHost(sent, nil)
						wired := way.a.right.take(t, way.a.mac, way.b.mac)
						if len(wired) != 1 {
							t.Fatalf("%d octets: %d on the wire: %v", n, len(wired), way.a.drops(hook.Left))
						}
						if alg.EncryptionKeyLen > 0 && n >= 16 && bytes.Contains(wired[0], sent[len(sent)-16:]) {
							t.Errorf("%d octets can be read on the wire", n)
						}
						way.b.fromWire(wired...)
						if got := way.b.left.take(t, way.a.mac, way.b.mac); len(got) != 1 || !bytes.Equal(got[0], sent) {
							t.Fatalf("%d octets: %d at the host: %v", n, len(got), way.b.drops(hook.Right))
						}
					}
					super := tcpTo(a, b, 20000, true)
					way.a.fromHost(super, superframe(super, 1400))
					wired, octets := way.a.right.take(t, way.a.mac, way.b.mac), 0
					for _, d := range wired {
						if len(d) > 1500 {
							t.Errorf("%d octets on a wire that takes 1500", len(d))
						}
					}
					way.b.fromWire(wired...)
					for _, d := range way.b.left.take(t, way.a.mac, way.b.mac) {
						in := parse(t, d)
						octets += len(d) - in.HeaderLen - in.L4HeaderLen
					}
					if octets != 20000 {
						t.Errorf("%d octets of a superframe came, want 20000: %v %v", octets, way.a.drops(hook.Left), way.b.drops(hook.Right))
					}
				}
			})
		}
	}
}

// With DF set, what is told to the host is the largest that fits, and that does.
func TestR38_LegacyPathMTU(t *testing.T) {
	for _, alg := range legacyAlgorithms() {
		for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
			p := newPair(t, alg.Name, alg.Protocol, mode, false, false)
			big := tcpTo(addrA4, addrB4, 1448, false)
			p.a.fromHost(big, nil)
			answer := p.a.left.take(t, "", macA)
			if len(answer) != 1 || len(p.a.right.frames) != 0 {
				t.Fatalf("%s %v: %d answers, %d frames on the wire", alg.Name, mode, len(answer), len(p.a.right.frames))
			}
			in := parse(t, answer[0])
			mtu := int(binary.BigEndian.Uint16(answer[0][in.HeaderLen+6:]))
			fits := tcpTo(addrA4, addrB4, mtu-52, false)
			got, wired := p.cross(fits, nil)
			if len(wired) != 1 || len(wired[0]) > 1500 || len(got) != 1 || !bytes.Equal(got[0], fits) {
				t.Errorf("%s %v: told %d octets, %d came", alg.Name, mode, mtu, len(got))
				continue
			}
			if unit := max(alg.BlockLen, 1); len(wired[0]) <= 1500-unit {
				t.Errorf("%s %v: told %d octets, which make only %d on the wire", alg.Name, mode, mtu, len(wired[0]))
			}
		}
	}
}

// Without sequence numbers a packet may come twice, and an ICMP error about one proves
// nothing.
func TestR38_LegacyHasNoReplayProtection(t *testing.T) {
	for _, alg := range legacyAlgorithms() {
		p := newPair(t, alg.Name, alg.Protocol, sa.Transport, false, false)
		_, wired := p.cross(udpTo(addrA4, addrB4, 7, 8, 90), nil)
		p.b.fromWire(bytes.Clone(wired[0]), bytes.Clone(wired[0]))
		if got := p.b.left.take(t, macA, macB); len(got) != 2 {
			t.Errorf("%s: %d of 2 copies came: %v", alg.Name, len(got), p.b.drops(hook.Right))
		}
		p.a.fromWire(fragNeeded(wired[0], 1000))
		if s := p.a.lineages["ab"].Outbound(); s.PMTU(p.a.now) != 0 {
			t.Errorf("%s: a path MTU of %d was believed", alg.Name, s.PMTU(p.a.now))
		}
		if d := p.a.drops(hook.Right); d[wire.DropICMPPolicy.String()] != 1 {
			t.Errorf("%s: drops %v", alg.Name, d)
		}
	}
}

// fragNeeded is an ICMP error from a router on the way about a datagram.
func fragNeeded(about []byte, mtu int) []byte {
	icmp := append([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, about[:28]...)
	binary.BigEndian.PutUint16(icmp[2:], ^checksum.Checksum(icmp, 0))
	return ip(addrB4, addrA4, wire.ProtoICMP, false, icmp)
}

// The original passed up what failed MD5.
func TestR38_LegacyMD5MismatchIsDropped(t *testing.T) {
	p := newPair(t, "kpdkmd5", transform.ProtoAH, sa.Transport, false, false)
	p.a.fromHost(udpTo(addrA4, addrB4, 7, 8, 90), nil)
	wired := p.a.right.take(t, macA, macB)
	wired[0][len(wired[0])-1] ^= 1
	p.b.fromWire(wired...)
	if got := p.b.left.take(t, macA, macB); len(got) != 0 {
		t.Error("it came to the host")
	}
	p.b.expectDrop(hook.Right, wire.DropICV)
}

// legacyBundle is the original's pair: DES inside, keyed MD5 around.
func legacyBundle(t testing.TB) *pair {
	t.Helper()
	p := &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
	for _, s := range []*station{p.a, p.b} {
		for spi, name := range map[uint32]string{0x1001: "ab", 0x2002: "ba"} {
			dir, from, to := sa.Outbound, addrA4, addrB4
			if name == "ba" {
				dir, from, to = sa.Inbound, addrB4, addrA4
			}
			if s == p.b {
				dir = sa.Inbound - dir
			}
			s.add(name+"-esp", "desiv32", transform.ProtoESP, dir, sa.Transport, spi, from, to)
			s.add(name+"-ah", "kpdkmd5", transform.ProtoAH, dir, sa.Transport, spi, from, to)
		}
		out, in := "ab", "ba"
		local, remote := addrA4, addrB4
		if s == p.b {
			out, in, local, remote = in, out, remote, local
		}
		policy := s.protect("all", local, remote, out+"-esp", in+"-esp")
		policy.Out = append(policy.Out, s.lineages[out+"-ah"])
		policy.In = append(policy.In, s.lineages[in+"-ah"])
		s.policies(policy)
	}
	return p
}

func TestR38_LegacyBundle(t *testing.T) {
	p := legacyBundle(t)
	for _, way := range []*pair{p, p.reverse()} {
		from, to := addrA4, addrB4
		if way.a == p.b {
			from, to = to, from
		}
		sent := udpTo(from, to, 7, 8, 333)
		way.a.fromHost(sent, nil)
		wired := way.a.right.take(t, way.a.mac, way.b.mac)
		if len(wired) != 1 || wired[0][9] != wire.ProtoAH || wired[0][20] != wire.ProtoESP {
			t.Fatalf("on the wire: %x: %v", wired, way.a.drops(hook.Left))
		}
		way.b.fromWire(wired...)
		if got := way.b.left.take(t, way.a.mac, way.b.mac); len(got) != 1 || !bytes.Equal(got[0], sent) {
			t.Errorf("%d came: %v", len(got), way.b.drops(hook.Right))
		}
	}
}

// What does not fit and may be cut is cut after AH, whose IP header is part of what it
// signs, TOS, DF and identification included.
func TestR38_LegacyFragments(t *testing.T) {
	for _, alg := range legacyAlgorithms() {
		for _, f := range forms {
			p := newPair(t, alg.Name, alg.Protocol, f.mode, f.six, f.crossed)
			a, b := addrA4, addrB4
			if f.six {
				a, b = addrA6, addrB6
			}
			sent := udpTo(a, b, 7, 8, 4000)
			list := [][]byte{sent}
			if f.six { // a host cuts IPv6 itself
				list = fragments(t, sent, 1280)
			}
			for _, d := range list {
				p.a.fromHost(d, nil)
			}
			wired := p.a.right.take(t, macA, macB)
			p.b.fromWire(wired...)
			got := p.b.left.take(t, macA, macB)
			if len(wired) < 3 || len(got) != 1 || !bytes.Equal(got[0][len(got[0])-4008:], sent[len(sent)-4008:]) {
				t.Errorf("%s %s: %d fragments on the wire, %d datagrams at the host: %v %v", alg.Name, modeName(f.mode, f.six, f.crossed),
					len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
		}
	}
}
