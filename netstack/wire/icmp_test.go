package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Octets by hand from RFC 791, RFC 792, RFC 1191 §4, RFC 8200 and RFC 4443 §3, with
// the checksums added by the sum of the tests.
func TestR29_ICMPErrorExact(t *testing.T) {
	udp4 := build4(nil, ProtoUDP, udpDatagram([]byte("ping")))
	udp6 := build6(nil, ProtoUDP, udpDatagram([]byte("ping")))
	for _, c := range []struct {
		name      string
		offending []byte
		mtu       int
		code      int // -1 for AppendTooBig
		want      string
	}{
		{"IPv4 too big", udp4, 1400, -1, `
			45c0 003c 0000 4000 4001 SUM1 c6336402 c0000201
			0304 SUM2 0000 0578`},
		{"IPv4 host unreachable", udp4, 0, ICMPv4HostUnreachable, `
			45c0 003c 0000 4000 4001 SUM1 c6336402 c0000201
			0301 SUM2 0000 0000`},
		{"IPv6 too big", udp6, 1400, -1, `
			6000 0000 003c 3a40 20010db8000100000000000000000002 20010db8000000000000000000000001
			0200 SUM2 0000 0578`},
		{"IPv6 address unreachable", udp6, 0, ICMPv6AddressUnreachable, `
			6000 0000 003c 3a40 20010db8000100000000000000000002 20010db8000000000000000000000001
			0103 SUM2 0000 0000`},
	} {
		want := append(unhex(t, strings.NewReplacer("SUM1", "0000", "SUM2", "0000").Replace(c.want)), c.offending...)
		u := want[20:]
		if want[0] == 0x45 {
			fix4(want)
			s := ^sum(u)
			u[2], u[3] = byte(s>>8), byte(s)
		} else {
			u = want[40:]
			s := ^sum(pseudo(dst6, src6, ProtoICMPv6, len(u)), u)
			u[2], u[3] = byte(s>>8), byte(s)
		}
		in := mustParse(t, c.offending)
		padded := append(bytes.Clone(c.offending), 0xaa, 0xbb) // link padding is not quoted
		var got []byte
		var ok bool
		if c.code < 0 {
			got, ok = AppendTooBig([]byte("before"), padded, &in, c.mtu)
		} else {
			got, ok = AppendUnreachable([]byte("before"), padded, &in, uint8(c.code))
		}
		if !ok || !bytes.Equal(got, append([]byte("before"), want...)) {
			t.Errorf("%s: ok %v\n got % x\nwant % x", c.name, ok, got, want)
			continue
		}
		e := mustParse(t, got[6:])
		if !VerifyL4(got[6:], &e) || !IsICMPError(&e) {
			t.Errorf("%s: %+v", c.name, e)
		}
		var inner Info
		if quote, r := Enclosed(got[6:], &e, &inner); r != DropNone || inner != in || !bytes.Equal(quote, c.offending) {
			t.Errorf("%s: Enclosed does not give the offending packet back: %v, %+v", c.name, r, inner)
		}
	}
	if UnreachableHost(4) != 1 || UnreachableHost(6) != 3 {
		t.Error("UnreachableHost")
	}
}

func TestICMPErrorLength(t *testing.T) {
	for _, c := range []struct {
		b    []byte
		want int
	}{
		{build4(nil, ProtoUDP, udpDatagram(count(511))), 20 + 8 + 20 + 8 + 511},
		{build4(nil, ProtoUDP, udpDatagram(count(520))), 576},
		{build4(nil, ProtoUDP, udpDatagram(count(9000))), 576},
		{build4(make([]byte, 40), ProtoUDP, udpDatagram(count(9000))), 576},
		{build6(nil, ProtoUDP, udpDatagram(count(1183))), 1279},
		{build6(nil, ProtoUDP, udpDatagram(count(1184))), 1280},
		{build6(nil, ProtoUDP, udpDatagram(count(9000))), 1280},
	} {
		in := mustParse(t, c.b)
		got, ok := AppendTooBig(nil, c.b, &in, 1<<40)
		if !ok || len(got) != c.want {
			t.Errorf("about %d octets: ok %v, %d octets, want %d", len(c.b), ok, len(got), c.want)
			continue
		}
		e := mustParse(t, got)
		if e.TotalLen != c.want || !VerifyL4(got, &e) {
			t.Errorf("about %d octets: %+v", len(c.b), e)
		}
		// The MTU is capped where its field ends.
		mtu := got[e.HeaderLen+4 : e.HeaderLen+8]
		if want := map[uint8]string{4: "0000ffff", 6: "ffffffff"}[e.Version]; hex.EncodeToString(mtu) != want {
			t.Errorf("IPv%d: MTU % x, want %s", e.Version, mtu, want)
		}
		var inner Info
		quote, r := Enclosed(got, &e, &inner)
		if r != DropNone || inner.TotalLen != len(c.b) || !bytes.HasPrefix(c.b, quote) || inner.SrcPort != in.SrcPort || !inner.HasPorts {
			t.Errorf("about %d octets: %v, %+v", len(c.b), r, inner)
		}
	}
}

// RFC 1122 §3.2.2, RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e).
func TestICMPErrorNotSent(t *testing.T) {
	at4 := func(src, dst string) []byte {
		b := build4(nil, ProtoUDP, udpDatagram(count(8)))
		copy(b[12:], netip.MustParseAddr(src).AsSlice())
		copy(b[16:], netip.MustParseAddr(dst).AsSlice())
		fix4(b)
		return b
	}
	at6 := func(src, dst string) []byte {
		b := build6(nil, ProtoUDP, udpDatagram(count(8)))
		copy(b[8:], netip.MustParseAddr(src).AsSlice())
		copy(b[24:], netip.MustParseAddr(dst).AsSlice())
		return b
	}
	frag := func(offset int) []byte {
		b := build4(nil, ProtoUDP, udpDatagram(count(8)))
		setFrag4(b, 1, offset)
		return b
	}
	icmp4 := func(kind byte) []byte { return build4(nil, ProtoICMP, []byte{kind, 0, 0, 0, 0, 0, 0, 0}) }
	icmp6 := func(kind byte) []byte { return build6(nil, ProtoICMPv6, []byte{kind, 0, 0, 0, 0, 0, 0, 0}) }
	for _, c := range []struct {
		name string
		b    []byte
		ok   bool
	}{
		{"first fragment", frag(0), true},
		{"later fragment", frag(8), false},
		{"IPv6 first fragment", build6([]ext{fragHdr(0, true, 1)}, ProtoUDP, count(8)), true},
		{"IPv6 later fragment", build6([]ext{fragHdr(8, true, 1)}, ProtoUDP, count(8)), false},
		{"echo request", icmp4(8), true},
		{"echo reply", icmp4(0), true},
		{"unreachable", icmp4(3), false},
		{"source quench", icmp4(4), false},
		{"redirect", icmp4(5), false},
		{"time exceeded", icmp4(11), false},
		{"parameter problem", icmp4(12), false},
		{"ICMP cut short", build4(nil, ProtoICMP, []byte{8}), false},
		{"ICMPv6 unreachable", icmp6(1), false},
		{"ICMPv6 too big", icmp6(2), false},
		{"ICMPv6 unknown error", icmp6(127), false},
		{"ICMPv6 echo request", icmp6(128), true},
		{"ICMPv6 redirect", icmp6(137), false},
		{"to broadcast", at4("192.0.2.1", "255.255.255.255"), false},
		{"to multicast", at4("192.0.2.1", "224.0.0.251"), false},
		{"from unspecified", at4("0.0.0.0", "192.0.2.1"), false},
		{"from multicast", at4("224.0.0.1", "192.0.2.1"), false},
		{"from loopback", at4("127.0.0.1", "192.0.2.1"), false},
		{"from class E", at4("240.0.0.1", "192.0.2.1"), false},
		{"IPv6 to multicast", at6("2001:db8::1", "ff02::1"), false},
		{"IPv6 from unspecified", at6("::", "2001:db8::1"), false},
		{"IPv6", at6("fe80::1", "2001:db8::1"), true},
	} {
		in := mustParse(t, c.b)
		if b, ok := AppendTooBig([]byte{1}, c.b, &in, 1280); ok != c.ok || !ok && !bytes.Equal(b, []byte{1}) {
			t.Errorf("too big, %s: ok = %v", c.name, ok)
		}
		if b, ok := AppendUnreachable([]byte{1}, c.b, &in, 1); ok != c.ok || !ok && !bytes.Equal(b, []byte{1}) {
			t.Errorf("unreachable, %s: ok = %v", c.name, ok)
		}
	}
}

func TestEnclosed(t *testing.T) {
	inner4 := build4(nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(200)))
	inner6 := build6([]ext{destOpts()}, ProtoUDP, udpDatagram(count(200)))
	esp6 := build6(nil, ProtoESP, count(100))
	err4 := func(kind, lengthWords byte, quote []byte) []byte {
		return build4(nil, ProtoICMP, append([]byte{kind, 0, 0, 0, 0, lengthWords, 0, 0}, quote...))
	}
	err6 := func(kind, lengthWords byte, quote []byte) []byte {
		return build6(nil, ProtoICMPv6, append([]byte{kind, 0, 0, 0, lengthWords, 0, 0, 0}, quote...))
	}
	edited := func(b []byte, f func(b []byte)) []byte {
		b = bytes.Clone(b)
		f(b)
		return b
	}
	extended := append(append(bytes.Clone(inner4[:128]), 0x20, 0, 0, 0), count(12)...) // RFC 4884 §7
	small := build4(nil, ProtoUDP, udpDatagram(count(4)))
	padded := append(bytes.Clone(small), make([]byte, 128-len(small))...)
	for _, c := range []struct {
		name     string
		b        []byte
		want     DropReason
		quote    int
		hasPorts bool
	}{
		{"whole", err4(3, 0, inner4), DropNone, len(inner4), true},
		{"eight octets of payload", err4(11, 0, inner4[:28]), DropNone, 28, true},
		{"three octets of payload", err4(3, 0, inner4[:23]), DropNone, 23, false},
		{"header only", err4(3, 0, inner4[:20]), DropNone, 20, false},
		{"header cut short", err4(3, 0, inner4[:19]), DropMalformed, 0, false},
		{"nothing", err4(3, 0, nil), DropMalformed, 0, false},
		{"checksum of a router that changed the TTL", err4(3, 0, edited(inner4[:28], func(b []byte) { b[8] = 1 })), DropNone, 28, true},
		{"total length 0", err4(3, 0, edited(inner4[:28], func(b []byte) { b[2], b[3] = 0, 0 })), DropNone, 28, true},
		{"extensions", err4(3, 32, extended), DropNone, 128, true},
		{"extensions, redirect has none", err4(5, 32, extended), DropNone, len(extended), true},
		{"length of more than there is", err4(3, 200, inner4[:28]), DropNone, 28, true},
		{"padding behind a small packet", err4(3, 32, append(padded, count(8)...)), DropNone, len(small), true},
		{"other version", err4(3, 0, inner6), DropMalformed, 0, false},
		{"no error", err4(8, 0, inner4), DropMalformed, 0, false},
		{"IPv6 whole", err6(2, 5, inner6), DropNone, len(inner6), true}, // the octet is the MTU's in type 2
		{"IPv6 cut short", err6(1, 0, inner6[:60]), DropNone, 60, true},
		{"IPv6 chain cut short", err6(1, 0, inner6[:50]), DropMalformed, 0, false},
		{"IPv6 extensions", err6(1, 10, inner6), DropNone, 80, true},
		{"IPv6 ESP", err6(2, 0, esp6[:48]), DropNone, 48, false},
		{"IPv6 hop-by-hop out of place", err6(2, 0, build6([]ext{destOpts(), hopByHop()}, ProtoUDP, nil)), DropExtensionHeader, 0, false},
	} {
		in := mustParse(t, c.b)
		var inner Info
		quote, r := Enclosed(c.b, &in, &inner)
		if r != c.want || len(quote) != c.quote || r == DropNone && inner.HasPorts != c.hasPorts {
			t.Errorf("%s: %v, %d octets, %+v; want %v, %d octets", c.name, r, len(quote), inner, c.want, c.quote)
		}
		if r == DropNone && (inner.Src != in.Src || inner.Dst != in.Dst) {
			t.Errorf("%s: %v > %v", c.name, inner.Src, inner.Dst)
		}
	}
}

func FuzzEnclosed(f *testing.F) {
	for _, b := range samples() {
		in := mustParse(f, b)
		if e, ok := AppendTooBig(nil, b, &in, 1400); ok {
			f.Add(e)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 60 {
			SetLength(b, int(b[0]>>4), len(b)) // so that more of it comes through
		}
		var in, inner Info
		if Parse(b, &in) != DropNone {
			return
		}
		quote, r := Enclosed(b, &in, &inner)
		if r == DropNone && (len(quote) > inner.TotalLen || inner.HeaderLen > len(quote) || inner.InsertAt > inner.HeaderLen ||
			quote[inner.ProtoAt] != inner.Proto || inner.HeaderLen+inner.L4HeaderLen > len(quote)) {
			t.Fatalf("%d octets quoted, %+v", len(quote), inner)
		}
		if e, ok := AppendTooBig(nil, b, &in, 1400); ok {
			ei := mustParse(t, e)
			if _, r := Enclosed(e, &ei, &inner); !VerifyL4(e, &ei) || r != DropNone && r != DropMalformed || r == DropNone && inner.Src != in.Src {
				t.Fatalf("our own error: %v, %+v", r, ei)
			}
		}
	})
}

func TestICMPErrorAllocs(t *testing.T) {
	b := build6(nil, ProtoUDP, udpDatagram(count(9000)))
	in := mustParse(t, b)
	buf := make([]byte, 0, 1280)
	if n := testing.AllocsPerRun(20, func() {
		var e, inner Info
		d, _ := AppendTooBig(buf, b, &in, 1400)
		Parse(d, &e)
		Enclosed(d, &e, &inner)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
