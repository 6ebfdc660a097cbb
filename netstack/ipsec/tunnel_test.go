package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// newTunnel is newPair in tunnel mode with the same change to all SAs.
func newTunnel(t testing.TB, six, crossed bool, h sa.Headers) *pair {
	t.Helper()
	p := &pair{newStation(t, macA, macB, addrA4, addrA6), newStation(t, macB, macA, addrB4, addrB6)}
	a, b := addrA4, addrB4
	if six {
		a, b = addrA6, addrB6
	}
	endA, endB := addrA4, addrB4
	if six != crossed {
		endA, endB = addrA6, addrB6
	}
	with := func(c *sa.SAConfig) { c.Headers = h }
	p.a.add("ab", "aes128gcm16", transform.ProtoESP, sa.Outbound, sa.Tunnel, 0x1001, endA, endB, with)
	p.a.add("ba", "aes128gcm16", transform.ProtoESP, sa.Inbound, sa.Tunnel, 0x2002, endB, endA, with)
	p.b.add("ab", "aes128gcm16", transform.ProtoESP, sa.Inbound, sa.Tunnel, 0x1001, endA, endB, with)
	p.b.add("ba", "aes128gcm16", transform.ProtoESP, sa.Outbound, sa.Tunnel, 0x2002, endB, endA, with)
	p.a.policies(p.a.protect("to-b", a, b, "ab", "ba"))
	p.b.policies(p.b.protect("to-a", b, a, "ba", "ab"))
	return p
}

// TestRFC4301_5_1_2_OuterHeaderTables goes through the rows of §5.1.2.1 and §5.1.2.2,
// each option in all four combinations of families.
func TestRFC4301_5_1_2_OuterHeaderTables(t *testing.T) {
	var mapped [64]uint8
	mapped[10] = 34
	for _, c := range []struct {
		name     string
		h        sa.Headers
		tos      uint8   // of the outer header; 0x2a inside: DSCP 10, ECT(0)
		df       [2]bool // of an outer IPv4 header, without and with DF inside
		ttl      uint8
		flow     [2]uint32 // of an outer IPv6 header, IPv4 and IPv6 inside
		innerTOS uint8     // that leaves the tunnel when the wire marked CE
	}{
		{"default", sa.Headers{}, 0x2a, [2]bool{false, true}, 64, [2]uint32{}, 0x2b},
		{"copy_df set", sa.Headers{DF: sa.SetDF}, 0x2a, [2]bool{true, true}, 64, [2]uint32{}, 0x2b},
		{"copy_df no", sa.Headers{DF: sa.ClearDF}, 0x2a, [2]bool{false, false}, 64, [2]uint32{}, 0x2b},
		{"copy_ecn no", sa.Headers{NoECN: true}, 0x28, [2]bool{false, true}, 64, [2]uint32{}, 0x2a},
		{"copy_dscp no", sa.Headers{DSCP: sa.CopyDSCPNone}, 0x02, [2]bool{false, true}, 64, [2]uint32{}, 0x2b},
		{"copy_dscp in", sa.Headers{DSCP: sa.CopyDSCPIn}, 0x02, [2]bool{false, true}, 64, [2]uint32{}, 0x03},
		{"dscp map", sa.Headers{DSCPMap: &mapped}, 34<<2 | 2, [2]bool{false, true}, 64, [2]uint32{}, 0x2b},
		{"ttl", sa.Headers{TTL: 7}, 0x2a, [2]bool{false, true}, 7, [2]uint32{}, 0x2b},
		{"flow_label copy", sa.Headers{CopyFlowLabel: true}, 0x2a, [2]bool{false, true}, 64, [2]uint32{0, 0xabcde}, 0x2b},
		{"flow_label", sa.Headers{FlowLabel: 0x12345}, 0x2a, [2]bool{false, true}, 64, [2]uint32{0x12345, 0x12345}, 0x2b},
	} {
		for _, f := range forms[2:] {
			for i, df := range []bool{false, true} {
				if f.six && !df {
					continue // counts as DF
				}
				t.Run(fmt.Sprintf("%s/%s/df=%v", c.name, modeName(f.mode, f.six, f.crossed), df), func(t *testing.T) {
					p := newTunnel(t, f.six, f.crossed, c.h)
					a, b := addrA4, addrB4
					if f.six {
						a, b = addrA6, addrB6
					}
					d := udpTo(a, b, 1, 2, 100)
					wire.SetTOS(d, 0x2a)
					family := 0
					if f.six {
						binary.BigEndian.PutUint32(d, binary.BigEndian.Uint32(d)|0xabcde)
						family = 1
					} else {
						d = withOptions(d, 148, 4, 0, 0)
						if df {
							d[6] |= 0x40
						}
						wire.UpdateIPv4Checksum(d)
					}
					p.a.fromHost(d, nil)
					wired := p.a.right.take(t, macA, macB)
					if len(wired) != 1 {
						t.Fatal(p.a.drops(hook.Left))
					}
					o, in := wired[0], parse(t, wired[0])
					if in.TOS != c.tos || in.TTL != c.ttl || in.Proto != wire.ProtoESP || in.MoreFragments {
						t.Errorf("outer header %+v", in)
					}
					if in.Version == 4 && in.DF != c.df[i] {
						t.Errorf("outer DF is %v", in.DF)
					}
					if in.Version == 6 && wire.FlowLabel(o) != c.flow[family] {
						t.Errorf("outer flow label is %#x", wire.FlowLabel(o))
					}
					if in.HeaderLen != 20 && in.HeaderLen != 40 {
						t.Errorf("options or extension headers were copied: %d octets", in.HeaderLen)
					}
					ce := bytes.Clone(o)
					wire.SetTOS(ce, in.TOS|wire.ECNCE)
					p.b.fromWire(ce)
					got := p.b.left.take(t, macA, macB)
					if len(got) != 1 {
						t.Fatal(p.b.drops(hook.Right))
					}
					// All else of the inner header is as it was, TTL and options among it.
					wire.SetTOS(d, c.innerTOS)
					if !bytes.Equal(got[0], d) {
						t.Errorf("inner header\ngot  %x\nwant %x", got[0][:40], d[:40])
					}
				})
			}
		}
	}
}

// RFC 4301 §8.2.1: with DF the sender is told; without, fragments go before or after
// the tunnel as it is set.
func TestRFC4301_8_2_1_FragmentBeforeAndAfter(t *testing.T) {
	for _, c := range []struct {
		name   string
		h      sa.Headers
		before bool
	}{
		{"after", sa.Headers{}, false}, {"before", sa.Headers{FragmentBefore: true}, true},
		{"outer DF", sa.Headers{DF: sa.SetDF}, true}, {"clear", sa.Headers{DF: sa.ClearDF}, false},
	} {
		for _, f := range forms[2:] {
			t.Run(c.name+"/"+modeName(f.mode, f.six, f.crossed), func(t *testing.T) {
				p := newTunnel(t, f.six, f.crossed, c.h)
				a, b := addrA4, addrB4
				if f.six {
					a, b = addrA6, addrB6
				}
				for _, n := range []int{1480, 5000, 60000} {
					d := udpTo(a, b, 5, 6, n)
					if f.six || n > 1472 {
						for _, part := range fragments(t, d, 1500) {
							p.a.fromHost(part, nil)
						}
					} else {
						p.a.fromHost(d, nil)
					}
					wired := p.a.right.take(t, macA, macB)
					if len(wired) < 2 {
						t.Fatalf("%d octets: %d on the wire, drops %v", n, len(wired), p.a.drops(hook.Left))
					}
					for _, w := range wired {
						if in := parse(t, w); in.IsFragment == c.before || len(w) > 1500 {
							t.Errorf("%d octets on the wire, fragment: %v", len(w), in.IsFragment)
						}
					}
					p.b.fromWire(wired...)
					if got := p.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], d) {
						t.Fatalf("%d octets: %d at the host, drops %v", n, len(got), p.b.drops(hook.Right))
					}
				}
			})
		}
	}
}

// A superframe or datagram with DF is never cut before; who sent it is told.
func TestRFC4301_8_2_1_DFIsNeverCut(t *testing.T) {
	for _, h := range []sa.Headers{{FragmentBefore: true}, {DF: sa.ClearDF}, {DF: sa.SetDF}} {
		p := newTunnel(t, false, false, h)
		p.a.fromHost(tcpTo(addrA4, addrB4, 1450, false), nil)
		p.a.expectDrop(hook.Left, wire.DropTooBig)
		if got := p.a.left.take(t, "", macA); len(got) != 1 {
			t.Errorf("%+v: %d answers", h, len(got))
		}
	}
}

// An IPv6 datagram of 1280 octets that the tunnel's path does not take whole is
// fragmented behind the tunnel, and then an outer IPv4 header must not have DF.
func TestRFC8200_5_1280InsideASmallPath(t *testing.T) {
	p := newTunnel(t, true, true, sa.Headers{})
	p.a.e.SetMTU(1200)
	d := udpTo(addrA6, addrB6, 1, 2, 1280-48)
	got, wired := p.cross(d, nil)
	if len(wired) != 2 || len(got) != 1 || !bytes.Equal(got[0], d) {
		t.Fatalf("%d on the wire, %d at the host, drops %v %v", len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
	}
}

// What would be longer than any datagram once it is sealed goes in pieces where a tunnel
// can, and is told about in transport mode (RFC 4303 §3.3.4 has nothing shorter).
func TestRFC4303_3_3_4_LongestDatagram(t *testing.T) {
	for _, six := range []bool{false, true} {
		a, b, n := addrA4, addrB4, 65535-28
		if six {
			a, b, n = addrA6, addrB6, 65535-8
		}
		d := udpTo(a, b, 5, 6, n)
		for _, mode := range []sa.Mode{sa.Tunnel, sa.Transport} {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, mode, six, false)
			for _, part := range fragments(t, d, 1500) {
				p.a.fromHost(part, nil)
			}
			wired := p.a.right.take(t, macA, macB)
			p.b.fromWire(wired...)
			got := p.b.left.take(t, macA, macB)
			if mode == sa.Tunnel {
				if len(got) != 1 || !bytes.Equal(got[0], d) {
					t.Errorf("tunnel: %d at the host, drops %v %v", len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
				}
				continue
			}
			p.a.expectDrop(hook.Left, wire.DropTooBig)
			told := p.a.left.take(t, "", macA)
			if len(told) != 1 || len(wired) != 0 {
				t.Fatalf("transport: %d answers, %d on the wire", len(told), len(wired))
			}
			in := parse(t, told[0])
			mtu := int(binary.BigEndian.Uint16(told[0][in.HeaderLen+6:]))
			longest := udpTo(a, b, 5, 6, mtu-len(d)+n)
			for _, part := range fragments(t, longest, 1500) {
				p.a.fromHost(part, nil)
			}
			p.b.fromWire(p.a.right.take(t, macA, macB)...)
			if got := p.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], longest) {
				t.Errorf("the size that was told, %d, does not cross: %v %v", mtu, p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
		}
	}
}
