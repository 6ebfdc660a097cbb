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

var (
	innerA4, innerB4 = netip.MustParseAddr("10.7.0.1"), netip.MustParseAddr("10.7.0.2")
	innerA6, innerB6 = netip.MustParseAddr("fd07::1"), netip.MustParseAddr("fd07::2")
)

// withOptions puts options into the IPv4 header of a datagram.
func withOptions(d []byte, options ...byte) []byte {
	for len(options)%4 != 0 {
		options = append(options, 0)
	}
	b := append(bytes.Clone(d[:20]), options...)
	b = append(b, d[20:]...)
	b[0] = 0x40 | uint8(5+len(options)/4)
	wire.SetIPv4TotalLen(b, len(b))
	return b
}

// withExtensions puts extension headers behind an IPv6 header: each is its protocol
// number and what follows its next header field.
func withExtensions(d []byte, headers ...[]byte) []byte {
	b := bytes.Clone(d[:40])
	named, proto := 6, d[6]
	for _, h := range headers {
		b[named] = h[0]
		named = len(b)
		b = append(b, append([]byte{0}, h[1:]...)...)
	}
	b[named] = proto
	b = append(b, d[40:]...)
	wire.SetLength(b, 6, len(b))
	return b
}

// newBEET protects everything between the inner addresses of one family.
func newBEET(t testing.TB, algorithm string, innerSix, outerSix bool, change ...func(*sa.SAConfig)) (p *pair, a, b netip.Addr) {
	t.Helper()
	p = &pair{newStation(t, macA, macB, addrA4, addrA6, innerA4, innerA6), newStation(t, macB, macA, addrB4, addrB6, innerB4, innerB6)}
	a, b = innerA4, innerB4
	if innerSix {
		a, b = innerA6, innerB6
	}
	endA, endB := addrA4, addrB4
	if outerSix {
		endA, endB = addrA6, addrB6
	}
	for _, s := range []*station{p.a, p.b} {
		for _, x := range []struct {
			name               string
			spi                uint32
			src, dst, in, into netip.Addr
			from               *station
		}{{"ab", 0x1001, endA, endB, a, b, p.a}, {"ba", 0x2002, endB, endA, b, a, p.b}} {
			dir := sa.Inbound
			if s == x.from {
				dir = sa.Outbound
			}
			s.add(x.name, algorithm, transform.ProtoESP, dir, sa.BEET, x.spi, x.src, x.dst,
				append(change, func(c *sa.SAConfig) { c.InnerSrc, c.InnerDst = x.in, x.into })...)
		}
	}
	p.a.policies(p.a.protect("to-b", a, b, "ab", "ba"))
	p.b.policies(p.b.protect("to-a", b, a, "ba", "ab"))
	return p, a, b
}

func TestR35_BEETModeCarriesTheDatagramUnchanged(t *testing.T) {
	routerAlert := []byte{148, 4, 0, 0}
	record := []byte{7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0}
	full := append([]byte{130, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9}, bytes.Repeat([]byte{1}, 29)...)
	hopByHop := []byte{wire.ProtoHopByHop, 0, 5, 2, 0, 0, 1, 0}
	destination := []byte{wire.ProtoDestOpts, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, algorithm := range []string{"aes128gcm16", "aes256-sha256", "null-sha256", "null-aescmac"} {
		for _, outerSix := range []bool{false, true} {
			for _, innerSix := range []bool{false, true} {
				p, a, b := newBEET(t, algorithm, innerSix, outerSix)
				plain := udpTo(a, b, 1000, 2000, 300)
				datagrams := map[string][]byte{"plain": plain, "empty": udpTo(a, b, 1, 2, 0)}
				if innerSix {
					datagrams["hop-by-hop"] = withExtensions(plain, hopByHop)
					datagrams["both"] = withExtensions(plain, hopByHop, destination)
				} else {
					for name, o := range map[string][]byte{"router alert": routerAlert, "record route": record, "40 octets": full} {
						datagrams[name] = withOptions(plain, o...)
					}
				}
				for name, d := range datagrams {
					got, wired := p.cross(d, nil)
					if len(wired) != 1 || len(got) != 1 {
						t.Fatalf("%s %v in %v, %s: %d on the wire, %d at the host, drops %v %v", algorithm, innerSix, outerSix, name,
							len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
					}
					in, out := parse(t, wired[0]), parse(t, got[0])
					if in.Proto != wire.ProtoESP || in.TTL != 61 || in.TOS != 0x28 || len(wired[0]) > len(d)+20+60 {
						t.Errorf("on the wire: %+v", in)
					}
					if bytes.Contains(wired[0][:in.HeaderLen], a.AsSlice()) {
						t.Error("the inner address is in the outer header")
					}
					want := bytes.Clone(d)
					if !innerSix && outerSix {
						// The outer header has neither identification nor a place for DF.
						copy(want[4:], []byte{0, 0, 0x40, 0})
						wire.UpdateIPv4Checksum(want)
					}
					if !bytes.Equal(got[0], want) || out.Src != a || out.Dst != b {
						t.Errorf("%s, %s:\ngot  %x\nwant %x", algorithm, name, got[0][:60], want[:min(60, len(want))])
					}
				}
			}
		}
	}
}

// The pseudo header of draft-nikander-esp-beet-mode-09 §5.4 has a length of eight times
// the field and one, and the padding stands in front of the options.
func TestBEETPseudoHeader(t *testing.T) {
	for n := 4; n <= 40; n += 4 {
		length, padding := beetOptions(n)
		if length%8 != 0 || length != 4+padding+n || padding != 0 && padding != 4 {
			t.Errorf("%d octets of options: %d with %d of padding", n, length, padding)
		}
	}
	p, a, b := newBEET(t, "null-sha256", false, false)
	p.a.fromHost(withOptions(udpTo(a, b, 1, 2, 10), 148, 4, 0, 0, 148, 4, 0, 0), nil)
	wired := p.a.right.take(t, macA, macB)
	if len(wired) != 1 {
		t.Fatal(p.a.drops(hook.Left))
	}
	esp := wired[0][20+wire.ESPMinLen:]
	if want := []byte{wire.ProtoUDP, 1, 4, 0, 1, 1, 1, 1, 148, 4, 0, 0, 148, 4, 0, 0}; !bytes.Equal(esp[:16], want) {
		t.Errorf("pseudo header % x, want % x", esp[:16], want)
	}
}

func TestR35_BEETModeSuperframesFragmentsAndPathMTU(t *testing.T) {
	for _, innerSix := range []bool{false, true} {
		for _, outerSix := range []bool{false, true} {
			p, a, b := newBEET(t, "aes128gcm16", innerSix, outerSix)
			super := tcpTo(a, b, 30000, true)
			got, _ := p.cross(super, superframe(super, 1400))
			octets := 0
			for _, d := range got {
				in := parse(t, d)
				if !wire.VerifyL4(d, &in) {
					t.Fatal("wrong checksum at the host")
				}
				octets += len(d) - in.HeaderLen - 32
			}
			if octets != 30000 {
				t.Errorf("%v in %v: %d octets of the superframe came, drops %v %v", innerSix, outerSix, octets, p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
			d := udpTo(a, b, 5, 6, 9000)
			for _, part := range fragments(t, d, 1500) {
				p.a.fromHost(part, nil)
			}
			p.b.fromWire(p.a.right.take(t, macA, macB)...)
			if got := p.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0][len(got[0])-9008:], d[len(d)-9008:]) {
				t.Errorf("%v in %v: %d datagrams of the host's fragments, drops %v %v", innerSix, outerSix, len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
			}
			// What does not fit is told the exact size.
			p.a.fromHost(tcpTo(a, b, 1440, false), nil)
			told := p.a.left.take(t, "", macA)
			if len(told) != 1 {
				t.Fatalf("%d answers", len(told))
			}
			in := parse(t, told[0])
			mtu := int(binary.BigEndian.Uint16(told[0][in.HeaderLen+6:]))
			empty := len(tcpTo(a, b, 0, false))
			if _, wired := p.cross(tcpTo(a, b, mtu-empty, false), nil); len(wired) != 1 || len(wired[0]) > 1500 || len(wired[0]) < 1496 {
				t.Errorf("told %d, and %d frames went", mtu, len(wired))
			}
		}
	}
}

func TestR35_BEETModeOnlyForItsAddresses(t *testing.T) {
	p, _, b := newBEET(t, "aes128gcm16", false, false)
	other := netip.MustParseAddr("10.7.0.9")
	p.a.policies(p.a.protect("to-b", other, b, "ab", "ba"))
	p.a.fromHost(udpTo(other, b, 1, 2, 3), nil)
	p.a.expectDrop(hook.Left, wire.DropSelectorMismatch)
}

func TestR34_BEETInBundles(t *testing.T) {
	// BEET inside a tunnel: the tunnel's inner header is the one that BEET made.
	p, a, b := newBEET(t, "aes128gcm16", true, false)
	endA, endB := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	for _, s := range []*station{p.a, p.b} {
		out, in := sa.Outbound, sa.Inbound
		if s == p.b {
			out, in = in, out
		}
		s.add("tab", "aes128gcm16", transform.ProtoESP, out, sa.Tunnel, 0x3001, endA, endB)
		s.add("tba", "aes128gcm16", transform.ProtoESP, in, sa.Tunnel, 0x3002, endB, endA)
	}
	p.a.policies(&sa.Policy{Name: "all", Action: sa.Protect,
		Out: []*sa.Lineage{p.a.lineages["ab"], p.a.lineages["tab"]}, In: []*sa.Lineage{p.a.lineages["ba"], p.a.lineages["tba"]}})
	p.b.policies(&sa.Policy{Name: "all", Action: sa.Protect,
		Out: []*sa.Lineage{p.b.lineages["ba"], p.b.lineages["tba"]}, In: []*sa.Lineage{p.b.lineages["ab"], p.b.lineages["tab"]}})
	d := udpTo(a, b, 1, 2, 400)
	got, wired := p.cross(d, nil)
	if len(wired) != 1 || len(got) != 1 || !bytes.Equal(got[0], d) {
		t.Fatalf("%d on the wire, %d at the host, drops %v %v", len(wired), len(got), p.a.drops(hook.Left), p.b.drops(hook.Right))
	}
}

func FuzzBEETPseudoHeader(f *testing.F) {
	f.Add([]byte{wire.ProtoUDP, 1, 4, 0, 1, 1, 1, 1, 148, 4, 0, 0, 148, 4, 0, 0, 1, 2, 3, 4})
	f.Add([]byte{wire.ProtoUDP, 0, 0, 0, 148, 4, 0, 0})
	f.Add([]byte{wire.ProtoBEETPH, 255, 255, 0})
	f.Fuzz(func(t *testing.T, payload []byte) {
		outer := ip(addrB4, addrA4, wire.ProtoESP, true, append(make([]byte, wire.ESPMinLen), payload...))
		for _, inner := range [][2]netip.Addr{{innerB4, innerA4}, {innerB6, innerA6}} {
			var w work
			w.d.Bytes = bytes.Clone(outer)
			if wire.Parse(w.d.Bytes, &w.d.Info) != wire.DropNone {
				return // longer than a datagram
			}
			w.open.pkt = transform.Packet{Buf: w.d.Bytes, Hdr: 20, Pay: 28, End: len(w.d.Bytes), NextHeader: wire.ProtoBEETPH}
			s := &sa.SA{Mode: sa.BEET, InnerSrc: inner[0], InnerDst: inner[1]}
			if w.leaveBEET(s) == wire.DropNone && (w.d.Info.Src != inner[0] || w.d.Info.Dst != inner[1] || w.d.Info.TotalLen != len(w.d.Bytes)) {
				t.Errorf("%+v", w.d.Info)
			}
		}
	})
}
