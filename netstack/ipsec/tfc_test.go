package ipsec

import (
	"bytes"
	"testing"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

func padding(n int) func(*sa.SAConfig) { return func(c *sa.SAConfig) { c.TFCPadding = n } }

// newPaddedPair is newPair whose SA from a pads, in UDP where encap.
func newPaddedPair(t *testing.T, algorithm string, mode sa.Mode, six, encap bool, change func(*sa.SAConfig)) *encapPair {
	t.Helper()
	return newEncapPair(t, encapCase{mode: mode, six: six, algorithm: algorithm, change: func(c *sa.SAConfig) {
		if !encap {
			c.Encap = nil
		}
		if c.Direction == sa.Outbound {
			change(c)
		}
	}})
}

func TestRFC4303_2_7_TFCPaddingInTunnelMode(t *testing.T) {
	for _, algorithm := range []string{"aes128gcm16", "aes128-sha256"} {
		for _, six := range []bool{false, true} {
			for _, encap := range []bool{false, true} {
				for _, padTo := range []int{600, 9000, sa.PadToMTU} {
					p := newPaddedPair(t, algorithm, sa.Tunnel, six, encap, padding(padTo))
					sizes := map[int]bool{}
					for _, n := range []int{0, 1, 17, 100, 500} {
						for _, datagram := range [][]byte{udpTo(p.a, p.b, 1, 2, n), tcpTo(p.a, p.b, n, false)} {
							got, wired := p.cross(datagram, nil)
							if len(got) != 1 || !bytes.Equal(got[0], datagram) || len(wired) != 1 {
								t.Fatalf("%s, to %d: %d arrived in %d, or not as it was; %v", algorithm, padTo, len(got), len(wired), p.pair.b.drops(hook.Right))
							}
							sizes[len(wired[0])] = true
						}
					}
					if len(sizes) != 1 {
						t.Errorf("%s, to %d: packets on the wire have the lengths %v", algorithm, padTo, sizes)
					}
					for n := range sizes {
						if n > 1500 || padTo == 600 && n < 600 || padTo != 600 && n < 1500-16 {
							t.Errorf("%s, to %d: %d octets on the wire", algorithm, padTo, n)
						}
					}
					// What is longer stays as it is.
					if got, _ := p.cross(udpTo(p.a, p.b, 1, 2, 1200), nil); len(got) != 1 {
						t.Error("a datagram longer than the padding did not arrive")
					}
					// Superframes, whose last segment is shorter.
					big := tcpTo(p.a, p.b, 7001, true)
					got, _ := p.cross(big, superframe(big, 1300))
					octets := 0
					for _, d := range got {
						in := parse(t, d)
						octets += len(d) - in.HeaderLen - in.L4HeaderLen
					}
					if octets != 7001 {
						t.Errorf("%d octets of a superframe arrived", octets)
					}
					// And fragments of what is too large.
					if got, _ := p.cross(udpTo(p.a, p.b, 1, 2, 4000), nil); six != (len(got) == 0) {
						t.Errorf("a large datagram: %d arrived", len(got))
					}
				}
			}
		}
	}
}

func TestRFC4303_2_7_TFCPaddingInTransportMode(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newPaddedPair(t, "aes128gcm16", sa.Transport, six, false, padding(500))
		got, wired := p.cross(udpTo(p.a, p.b, 1, 2, 30), nil)
		if len(wired) != 1 || len(wired[0]) < 500 || len(got) != 1 {
			t.Fatalf("UDP: %d on the wire, %d arrived", len(wired), len(got))
		}
		// UDP says where it ends, and what follows is for the host to ignore.
		in := parse(t, got[0])
		if b, _ := wire.EncapPayload(got[0], &in); !bytes.Equal(b, pattern(30)) {
			t.Error("the payload arrived changed")
		}
		// TCP does not say how long it is (RFC 4303 §2.7).
		datagram := tcpTo(p.a, p.b, 30, false)
		got, wired = p.cross(datagram, nil)
		if len(wired) != 1 || len(wired[0]) > 200 || len(got) != 1 || !bytes.Equal(got[0], datagram) {
			t.Errorf("TCP was padded to %d octets", len(wired[0]))
		}
		// UDP options (RFC 9868) stand where the padding would.
		options := append(rawUDP(p.a, p.b, 1, 2, pattern(10)), pattern(20)...)
		wire.SetLength(options, int(options[0]>>4), len(options))
		got, wired = p.cross(options, nil)
		if len(wired) != 1 || len(wired[0]) > 200 || len(got) != 1 || !bytes.Equal(got[0], options) {
			t.Error("UDP with options did not stay as it was")
		}
	}
}

func TestRFC4303_2_6_DummyPackets(t *testing.T) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, six := range []bool{false, true} {
			for _, encap := range []bool{false, true} {
				for _, padTo := range []int{0, 700, sa.PadToMTU} {
					p := newPaddedPair(t, "aes128gcm16", mode, six, encap, func(c *sa.SAConfig) {
						c.TFCPadding, c.Dummies = padTo, 5
					})
					s := p.pair.a
					s.e.SendDummies()
					if len(s.right.frames) != 0 {
						t.Error("a dummy packet before its time")
					}
					sizes := map[int]bool{}
					for range 10 {
						s.now += int64(200 * time.Millisecond)
						s.e.SendDummies()
						wired := s.right.take(t, macA, macB)
						if len(wired) != 1 || len(wired[0]) > 1500 {
							t.Fatalf("%d dummy packets after 200 ms at 5 a second", len(wired))
						}
						sizes[len(wired[0])] = true
						p.pair.b.fromWire(wired...)
					}
					p.pair.b.expectDrop(hook.Right, wire.DropDummy)
					if n := p.pair.b.drops(hook.Right)["dummy"]; n != 10 {
						t.Errorf("%d dummies counted: %v", n, p.pair.b.drops(hook.Right))
					}
					if len(p.pair.b.left.take(t, "", "")) != 0 {
						t.Error("a dummy packet reached the host")
					}
					if (len(sizes) == 1) != (padTo != 0) {
						t.Errorf("padding to %d: %d lengths among 10 packets", padTo, len(sizes))
					}
					if n := p.outA.DummiesSent.Load(); n != 10 || p.outA.Packets.Load() != 10 {
						t.Errorf("%d sent by count, %d packets", n, p.outA.Packets.Load())
					}
					// They look like others.
					if padTo == sa.PadToMTU && mode == sa.Tunnel {
						_, wired := p.cross(udpTo(p.a, p.b, 1, 2, 3), nil)
						if !sizes[len(wired[0])] {
							t.Errorf("dummy packets have %v octets, a real one %d", sizes, len(wired[0]))
						}
					}
					// Late calls do not make a flood.
					s.now += int64(time.Hour)
					s.e.SendDummies()
					if n := len(s.right.take(t, macA, macB)); n != maxDummyBurst {
						t.Errorf("%d packets at once after an hour", n)
					}
				}
			}
		}
	}
}
