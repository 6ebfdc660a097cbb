package ipsec

import (
	"bytes"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// TestRFC4302_A1_IPv4Options has options cross in transport mode, where routers change
// those that they may, and in tunnel mode, where nobody sees them. Of those that AH
// protects, a change is found out (Appendix A1).
func TestRFC4302_A1_IPv4Options(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []byte
		mutable bool // to AH
	}{
		{"security", []byte{130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9}, false},
		{"router alert", []byte{148, 4, 0, 0}, false},
		{"commercial security", []byte{134, 6, 0, 0, 0, 1}, false},
		{"record route", []byte{7, 7, 4, 0, 0, 0, 0}, true},
		{"timestamp", []byte{68, 8, 5, 0, 0, 0, 0, 0}, true},
		{"unknown", []byte{0x9e, 4, 1, 2}, true},
	} {
		for _, x := range []struct {
			algorithm string
			proto     uint8
			mode      sa.Mode
		}{
			{"aes128gcm16", transform.ProtoESP, sa.Transport}, {"sha256", transform.ProtoAH, sa.Transport},
			{"aes128gcm16", transform.ProtoESP, sa.Tunnel}, {"sha256", transform.ProtoAH, sa.Tunnel},
		} {
			for _, change := range []bool{false, true} {
				p := newPair(t, x.algorithm, x.proto, x.mode, false, false)
				d := withOptions(udpTo(addrA4, addrB4, 1, 2, 40), c.options...)
				p.a.fromHost(d, nil)
				wired := p.a.right.take(t, macA, macB)
				if len(wired) != 1 {
					t.Fatalf("%s: %v", c.name, p.a.drops(hook.Left))
				}
				in := parse(t, wired[0])
				if (in.HeaderLen > 20) != (x.mode == sa.Transport) {
					t.Errorf("%s, %v: header of %d octets", c.name, x.mode, in.HeaderLen)
				}
				want, found := bytes.Clone(d), false
				if change && x.mode == sa.Transport {
					found = x.proto == transform.ProtoAH && !c.mutable
					for _, b := range [][]byte{wired[0], want} {
						b[8]--     // TTL
						b[23] ^= 1 // the first octet behind type and length, and one more
						wire.UpdateIPv4Checksum(b)
					}
				}
				p.b.fromWire(wired...)
				got := p.b.left.take(t, macA, macB)
				if found {
					if len(got) != 0 {
						t.Errorf("%s, %s: a change was not found out", c.name, x.algorithm)
					}
					p.b.expectDrop(hook.Right, wire.DropICV)
					continue
				}
				if len(got) != 1 || !bytes.Equal(got[0], want) {
					t.Errorf("%s, %s %v, changed: %v: %d at the host, drops %v", c.name, x.algorithm, x.mode, change, len(got), p.b.drops(hook.Right))
				}
			}
		}
	}
}

// TestR34_RFC4301_4_3_Bundles applies two SAs and wants them removed in reverse; one alone,
// or the other way round, does not pass (R34).
func TestR34_RFC4301_4_3_Bundles(t *testing.T) {
	type layer struct {
		algorithm string
		proto     uint8
		mode      sa.Mode
	}
	esp, ah := layer{"aes128gcm16", transform.ProtoESP, sa.Transport}, layer{"sha256", transform.ProtoAH, sa.Transport}
	espTunnel, ahTunnel := esp, ah
	espTunnel.mode, ahTunnel.mode = sa.Tunnel, sa.Tunnel
	for _, c := range []struct {
		name   string
		layers []layer
	}{
		{"AH over ESP", []layer{esp, ah}}, {"ESP over AH", []layer{ah, esp}},
		{"transport in tunnel", []layer{esp, espTunnel}}, {"tunnel in transport", []layer{espTunnel, ah}},
		{"tunnel in tunnel", []layer{espTunnel, ahTunnel}}, {"AH over ESP in a tunnel", []layer{esp, ah, espTunnel}},
	} {
		for _, six := range []bool{false, true} {
			a, b := addrA4, addrB4
			if six {
				a, b = addrA6, addrB6
			}
			build := func(out func(*pair) []string) *pair {
				p := &pair{newStation(t, macA, macB, addrA4, addrA6), newStation(t, macB, macA, addrB4, addrB6)}
				var there, back []string
				for i, l := range c.layers {
					for _, s := range []*station{p.a, p.b} {
						dirs := [2]sa.Direction{sa.Outbound, sa.Inbound}
						if s == p.b {
							dirs = [2]sa.Direction{sa.Inbound, sa.Outbound}
						}
						name := string(rune('0' + i))
						s.add("ab"+name, l.algorithm, l.proto, dirs[0], l.mode, 0x1001+uint32(i), a, b)
						s.add("ba"+name, l.algorithm, l.proto, dirs[1], l.mode, 0x2001+uint32(i), b, a)
					}
					there, back = append(there, "ab"+string(rune('0'+i))), append(back, "ba"+string(rune('0'+i)))
				}
				list := func(s *station, names []string) (ls []*sa.Lineage) {
					for _, n := range names {
						ls = append(ls, s.lineages[n])
					}
					return ls
				}
				sent := there
				if out != nil {
					sent = out(p)
				}
				p.a.policies(&sa.Policy{Name: "x", Action: sa.Protect, Out: list(p.a, sent), In: list(p.a, back)})
				p.b.policies(&sa.Policy{Name: "x", Action: sa.Protect, Out: list(p.b, back), In: list(p.b, there)})
				return p
			}
			d := udpTo(a, b, 1, 2, 100)
			p := build(nil)
			got, wired := p.cross(d, nil)
			if len(wired) != 1 || len(got) != 1 || !bytes.Equal(got[0], d) {
				t.Errorf("%s: %d on the wire, %d at the host, drops %v %v", c.name, len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
			// A datagram of exactly the size that fits.
			p.a.fromHost(tcpTo(a, b, 1440, false), nil)
			if told := p.a.left.take(t, "", macA); len(told) != 1 {
				t.Errorf("%s: %d answers", c.name, len(told))
			}
			for wrong, names := range map[string][]string{"only the inner": {"ab0"}, "reversed": {"ab1", "ab0"}} {
				if wrong == "reversed" && len(c.layers) != 2 {
					continue
				}
				p := build(func(*pair) []string { return names })
				if got, wired := p.cross(d, nil); len(wired) != 1 || len(got) != 0 {
					t.Errorf("%s, %s: %d on the wire, %d at the host", c.name, wrong, len(wired), len(got))
				}
				p.b.expectDrop(hook.Right, wire.DropWrongTransform)
			}
		}
	}
}
