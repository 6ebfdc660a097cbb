package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// natAddr is where a NAT has b appear.
func natAddr(six bool, n byte) netip.Addr {
	if six {
		a := netip.MustParseAddr("2001:db8:ffff::").As16()
		a[15] = n
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{203, 0, 113, n})
}

// goesTo sends a datagram from a and says where it went.
func (p *encapPair) goesTo(t testing.TB) netip.AddrPort {
	t.Helper()
	in := parse(t, udpEncap(t, p))
	return netip.AddrPortFrom(in.Dst, in.DstPort)
}

func TestR42_PeerFollowsAuthenticatedPackets(t *testing.T) {
	for _, c := range encapCases() {
		t.Run(modeName(c.mode, c.six, c.crossed), func(t *testing.T) {
			p := newEncapPair(t, c)
			outerSix := c.six != c.crossed
			if at := p.goesTo(t); at != netip.AddrPortFrom(p.outA.Key.Dst, portB) {
				t.Fatalf("at first packets go to %v", at)
			}
			places := []netip.AddrPort{
				netip.AddrPortFrom(p.outA.Key.Dst, 40000), netip.AddrPortFrom(natAddr(outerSix, 9), 40000),
				netip.AddrPortFrom(natAddr(outerSix, 10), 1), netip.AddrPortFrom(p.outA.Key.Dst, portB),
			}
			for i, place := range places {
				got, _ := p.answer(t, 60, place)
				if want := udpTo(p.b, p.a, 53, 5000, 60); len(got) != 1 || !bytes.Equal(got[0], want) {
					t.Fatalf("from %v: %d datagrams reached the host, or with another address; %v", place, len(got), p.pair.a.drops(hook.Right))
				}
				if at := p.goesTo(t); at != place {
					t.Errorf("peer moved to %v, and packets go to %v", place, at)
				}
				if len(p.events) != i+1 || p.events[i].Kind != sa.PeerMoved || p.events[i].Peer != place || p.events[i].SA != p.outA {
					t.Errorf("events %v after the move to %v", p.events, place)
				}
			}
			if n := p.pair.a.lineages["ab"].Moves(); n != uint64(len(places)) {
				t.Errorf("%d moves counted", n)
			}
		})
	}
}

func TestR42_NothingElseMovesThePeer(t *testing.T) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		home := netip.AddrPortFrom(addrB4, portB)
		evil := netip.AddrPortFrom(natAddr(false, 66), 666)
		tests := []struct {
			name   string
			change func(*sa.SAConfig)
			// attack gives b's packets with the numbers 1 to 3 to a.
			attack func(t *testing.T, p *encapPair, d [3][]byte)
			want   netip.AddrPort
		}{
			{"forged", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				b := translated(d[0], evil)
				b[len(b)-1] ^= 1
				p.pair.a.fromWire(b)
			}, home},
			{"made up", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				head := ipHeaderLen(addrA4) + wire.UDPLen
				b := translated(d[0], evil)
				clear(b[head+4:])
				binary.BigEndian.PutUint32(b[head+4:], 1000)
				p.pair.a.fromWire(b)
			}, home},
			{"replayed", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(bytes.Clone(d[0]))
				p.pair.a.fromWire(translated(d[0], evil))
			}, home},
			{"late", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(d[2])
				p.pair.a.fromWire(translated(d[1], evil)) // new, but not the newest
			}, home},
			{"keepalive", nil, func(_ *testing.T, p *encapPair, _ [3][]byte) {
				p.pair.a.fromWire(rawUDP(evil.Addr(), addrA4, evil.Port(), portA, []byte{0xff}))
			}, home},
			{"no policy", nil, func(t *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.policies(p.pair.a.protect("other", addrA4, natAddr(false, 200), "ab", "ba"))
				p.pair.a.fromWire(translated(d[0], evil))
				p.pair.a.policies(p.pair.a.protect("to-b", addrA4, addrB4, "ab", "ba"))
			}, home},
			{"float off", func(c *sa.SAConfig) { c.Encap.Float = false }, func(t *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(translated(d[0], evil))
				if len(p.pair.a.left.take(t, "", "")) != 1 {
					t.Error("the packet itself did not pass")
				}
			}, home},
			{"multicast source", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(translated(d[0], netip.MustParseAddrPort("224.0.0.1:4500")))
			}, home},
			{"port 0", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(translated(d[0], netip.AddrPortFrom(natAddr(false, 1), 0)))
			}, home},
			{"own address", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(translated(d[0], netip.AddrPortFrom(addrA4, 7)))
			}, home},
			{"the newest wins", nil, func(_ *testing.T, p *encapPair, d [3][]byte) {
				p.pair.a.fromWire(translated(d[1], netip.AddrPortFrom(natAddr(false, 2), 2)))
				p.pair.a.fromWire(translated(d[0], evil))
				p.pair.a.fromWire(translated(d[2], netip.AddrPortFrom(natAddr(false, 3), 3)))
			}, netip.AddrPortFrom(natAddr(false, 3), 3)},
		}
		for _, tt := range tests {
			t.Run(mode.String()+"/"+tt.name, func(t *testing.T) {
				p := newEncapPair(t, encapCase{mode: mode, change: tt.change})
				var d [3][]byte
				for i := range d {
					p.pair.b.fromHost(udpTo(p.b, p.a, 53, 5000, 60), nil)
					d[i] = p.pair.b.right.take(t, macB, macA)[0]
				}
				tt.attack(t, p, d)
				if at := p.goesTo(t); at != tt.want {
					t.Errorf("packets go to %v now, expected %v", at, tt.want)
				}
			})
		}
	}
}

// TestR42_MoveOutlivesRollover: the successor of the outbound SA goes where the peer
// is, unless it was configured for another place.
func TestR42_MoveOutlivesRollover(t *testing.T) {
	p := newEncapPair(t, encapCase{mode: sa.Tunnel})
	moved := netip.AddrPortFrom(natAddr(false, 9), 4000)
	p.answer(t, 10, moved)

	alg, err := transform.Lookup(wire.ProtoESP, "null-sha256")
	if err != nil {
		t.Fatal(err)
	}
	rollover := func(dst netip.Addr) {
		t.Helper()
		x, err := sa.New(sa.SAConfig{
			Name: "ab-2", Key: sa.Key{SPI: 0x1111, Dst: dst, Proto: wire.ProtoESP}, Src: addrA4, Direction: sa.Outbound, Mode: sa.Tunnel,
			Algorithm: alg, IntegrityKey: sa.NewSecret(bytes.Repeat([]byte{7}, 32)), Lineage: p.pair.a.lineages["ab"],
			Encap: &sa.Encap{LocalPort: portA, RemotePort: portB},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.pair.a.lineages["ab"].Switch(x); err != nil {
			t.Fatal(err)
		}
	}
	rollover(addrB4)
	if at := p.goesTo(t); at != moved {
		t.Errorf("after the rollover packets go to %v, expected %v", at, moved)
	}
	elsewhere := natAddr(false, 77)
	rollover(elsewhere)
	if at := p.goesTo(t); at != netip.AddrPortFrom(elsewhere, portB) {
		t.Errorf("an SA configured for %v sends to %v", elsewhere, at)
	}
}

// TestR42_PathMTUOfAMovedPeer: the router on the new path quotes the new address.
func TestR42_PathMTUOfAMovedPeer(t *testing.T) {
	for _, moved := range []bool{false, true} {
		p := newEncapPair(t, encapCase{mode: sa.Tunnel})
		place := netip.AddrPortFrom(addrB4, portB)
		if moved {
			place = netip.AddrPortFrom(natAddr(false, 9), 4000)
		}
		p.answer(t, 10, place)
		sent := udpEncap(t, p)
		in := parse(t, sent)
		tooBig := func(quoted []byte) {
			quotedInfo := parse(t, quoted)
			b, ok := wire.AppendTooBig(nil, quoted, &quotedInfo, 1000)
			if !ok {
				t.Fatal("no error made")
			}
			wire.SetSrc(b, natAddr(false, 254)) // a router
			wire.SetDst(b, addrA4)
			wire.SetLength(b, 4, len(b))
			p.pair.a.fromWire(b)
		}
		for name, spoil := range map[string]func(b []byte){
			"another SPI":    func(b []byte) { b[in.HeaderLen+8] ^= 1 },
			"another port":   func(b []byte) { b[in.HeaderLen] ^= 1 },
			"another number": func(b []byte) { b[in.HeaderLen+12] ^= 1 },
		} {
			b := bytes.Clone(sent)
			spoil(b)
			tooBig(b)
			if n := p.outA.PMTU(p.pair.a.now); n != 0 {
				t.Errorf("%s: path MTU %d was believed", name, n)
			}
		}
		tooBig(sent)
		if n := p.outA.PMTU(p.pair.a.now); n != 1000 {
			t.Errorf("moved %v: path MTU is %d, expected 1000", moved, n)
		}
	}
}

// TestRFC3948_3_1_2_ChecksumRepair: a NAT changed the outer source, and the peer's host
// has made its checksum for the address that it knows.
func TestRFC3948_3_1_2_ChecksumRepair(t *testing.T) {
	for _, six := range []bool{false, true} {
		private := netip.MustParseAddr("10.1.2.3")
		if six {
			private = netip.MustParseAddr("fd00::123")
		}
		for _, configured := range []bool{false, true} {
			p := newEncapPair(t, encapCase{mode: sa.Transport, six: six, change: func(c *sa.SAConfig) {
				if configured && c.Direction == sa.Inbound {
					c.Encap.OriginalRemote = private
				}
			}})
			// b sends by its own address; what its engine protects is what a host at the
			// private address would send.
			send := func(datagram []byte) []byte {
				t.Helper()
				wire.SetSrc(datagram, p.b)
				wire.SetLength(datagram, int(datagram[0]>>4), len(datagram))
				p.pair.b.fromHost(datagram, nil)
				p.pair.a.fromWire(p.pair.b.right.take(t, macB, macA)...)
				got := p.pair.a.left.take(t, macB, macA)
				if len(got) != 1 {
					t.Fatalf("%d arrived: %v", len(got), p.pair.a.drops(hook.Right))
				}
				if in := parse(t, got[0]); in.Src != p.b || in.Dst != p.a {
					t.Errorf("the host sees %v to %v", in.Src, in.Dst)
				}
				return got[0]
			}
			for name, datagram := range map[string][]byte{
				"tcp": tcpTo(private, p.a, 99, false), "udp": udpTo(private, p.a, 1, 2, 99),
				"right already": tcpTo(p.b, p.a, 99, false),
			} {
				if configured && name == "right already" {
					continue
				}
				got := send(datagram)
				in := parse(t, got)
				if !wire.VerifyL4(got, &in) {
					t.Errorf("IPv6 %v, original address configured %v: checksum of %s is wrong", six, configured, name)
				}
				if name == "udp" {
					sum := header.UDP(got[in.HeaderLen:]).Checksum()
					if wantZero := !six && !configured; (sum == 0) != wantZero {
						t.Errorf("IPv6 %v, configured %v: UDP checksum %#x", six, configured, sum)
					}
				}
			}
			if configured {
				// What was wrong stays wrong: the original address tells all that changed.
				bad := tcpTo(private, p.a, 99, false)
				bad[len(bad)-1] ^= 0x10
				got := send(bad)
				if in := parse(t, got); wire.VerifyL4(got, &in) {
					t.Error("a wrong checksum was made right")
				}
			}
			if !six {
				none := rawUDP(private, p.a, 1, 2, pattern(20))
				got := send(none)
				if in := parse(t, got); header.UDP(got[in.HeaderLen:]).Checksum() != 0 {
					t.Error("a UDP datagram without checksum got one")
				}
			}
		}
	}
}
