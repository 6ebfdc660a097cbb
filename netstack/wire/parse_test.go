package wire

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var infoCmp = cmpopts.EquateComparable(src4)

func TestParseIPv4(t *testing.T) {
	base := Info{
		Src: src4, Dst: dst4, Version: 4, TTL: 64, ID: 0x1234, HeaderLen: 20, ProtoAt: 9,
		InsertAt: 20, InsertProtoAt: 9,
	}
	with := func(f func(*Info)) Info {
		in := base
		f(&in)
		in.InsertAt, in.InsertProto = in.HeaderLen, in.Proto
		return in
	}
	edit := func(b []byte, f func(b []byte)) []byte {
		f(b)
		fix4(b)
		return b
	}
	tcp := tcpSegment(1, 0x18, nil, []byte("data"))
	for _, c := range []struct {
		name string
		b    []byte
		want Info
	}{
		{"TCP", build4(nil, ProtoTCP, tcp), with(func(in *Info) {
			in.TotalLen, in.Proto = 44, ProtoTCP
			in.SrcPort, in.DstPort, in.HasPorts, in.L4HeaderLen = 40000, 443, true, 20
		})},
		{"link padding", append(build4(nil, ProtoUDP, udpDatagram(nil)), make([]byte, 18)...), with(func(in *Info) {
			in.TotalLen, in.Proto = 28, ProtoUDP
			in.SrcPort, in.DstPort, in.HasPorts, in.L4HeaderLen = 40000, 53, true, 8
		})},
		{"options", build4([]byte{148, 4, 0, 0, 1, 1, 1, 0}, ProtoTCP, tcp), with(func(in *Info) {
			in.HeaderLen, in.TotalLen, in.Proto = 28, 52, ProtoTCP
			in.SrcPort, in.DstPort, in.HasPorts, in.L4HeaderLen = 40000, 443, true, 20
		})},
		{"longest options", build4(make([]byte, 40), ProtoNone, nil), with(func(in *Info) {
			in.HeaderLen, in.TotalLen, in.Proto = 60, 60, ProtoNone
		})},
		{"DF, TOS, TTL", edit(build4(nil, ProtoESP, make([]byte, 8)), func(b []byte) { b[1], b[6], b[8] = 0xb9, 0x40, 1 }), with(func(in *Info) {
			in.DF, in.TOS, in.TTL, in.TotalLen, in.Proto = true, 0xb9, 1, 28, ProtoESP
		})},
		{"first fragment", edit(build4(nil, ProtoUDP, udpDatagram(make([]byte, 8))), func(b []byte) { b[6] = 0x20 }), with(func(in *Info) {
			in.IsFragment, in.MoreFragments, in.TotalLen, in.Proto = true, true, 36, ProtoUDP
			in.SrcPort, in.DstPort, in.HasPorts, in.L4HeaderLen = 40000, 53, true, 8
		})},
		{"later fragment", edit(build4(nil, ProtoUDP, make([]byte, 5)), func(b []byte) { b[6], b[7] = 0x01, 0x02 }), with(func(in *Info) {
			in.IsFragment, in.FragOffset, in.TotalLen, in.Proto = true, 0x102*8, 25, ProtoUDP
		})},
		{"ICMP", build4(nil, ProtoICMP, []byte{3, 4}), with(func(in *Info) {
			in.TotalLen, in.Proto, in.ICMPType, in.ICMPCode, in.HasPorts = 22, ProtoICMP, 3, 4, true
		})},
		{"ICMPv6 in IPv4", build4(nil, ProtoICMPv6, []byte{3, 4}), with(func(in *Info) {
			in.TotalLen, in.Proto = 22, ProtoICMPv6
		})},
		{"ports only", build4(nil, ProtoTCP, tcp[:4]), with(func(in *Info) {
			in.TotalLen, in.Proto = 24, ProtoTCP
			in.SrcPort, in.DstPort, in.HasPorts = 40000, 443, true
		})},
		{"ports cut short", build4(nil, ProtoTCP, tcp[:3]), with(func(in *Info) {
			in.TotalLen, in.Proto = 23, ProtoTCP
		})},
		{"TCP data offset out of bounds", build4(nil, ProtoTCP, append(append([]byte{}, tcp[:12]...), 0xf0, 0, 0, 0, 0, 0, 0, 0)), with(func(in *Info) {
			in.TotalLen, in.Proto = 40, ProtoTCP
			in.SrcPort, in.DstPort, in.HasPorts = 40000, 443, true
		})},
		{"SCTP", build4(nil, ProtoSCTP, tcp[:12]), with(func(in *Info) {
			in.TotalLen, in.Proto = 32, ProtoSCTP
			in.SrcPort, in.DstPort, in.HasPorts = 40000, 443, true
		})},
	} {
		if d := cmp.Diff(c.want, mustParse(t, c.b), infoCmp); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestParseIPv4Malformed(t *testing.T) {
	good := func() []byte { return build4([]byte{1, 1, 1, 0}, ProtoUDP, udpDatagram(make([]byte, 8))) }
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
	}{
		{"empty", func(b []byte) []byte { return nil }},
		{"version 5", func(b []byte) []byte { b[0] = 0x56; fix4(b); return b }},
		{"header of 16", func(b []byte) []byte { b[0] = 0x44; fix4(b); return b }},
		{"header longer than datagram", func(b []byte) []byte { b[3] = 23; fix4(b); return b }},
		{"datagram longer than octets", func(b []byte) []byte { b[3]++; fix4(b); return b }},
		{"length 0", func(b []byte) []byte { b[2], b[3] = 0, 0; fix4(b); return b }},
		{"checksum", func(b []byte) []byte { b[10] ^= 1; return b }},
		{"more fragments, odd length", func(b []byte) []byte { b[3]--; setFrag4(b, 1, 0); return b }},
		{"more fragments, no payload", func(b []byte) []byte { b[3] = 24; setFrag4(b, 1, 0); return b }},
		{"last fragment, no payload", func(b []byte) []byte { b[3] = 24; setFrag4(b, 0, 8); return b }},
		{"fragment behind 65,535", func(b []byte) []byte { setFrag4(b, 0, 65504); return b }},
	} {
		var in Info
		if r := Parse(c.edit(good()), &in); r != DropMalformed {
			t.Errorf("%s: %v, want %v", c.name, r, DropMalformed)
		}
	}
	// The last fragment that a datagram of 65,535 octets can have: 24 + 65,496 + 15.
	b := good()
	b[3] = 39
	setFrag4(b, 0, 65496)
	mustParse(t, b)
}

// chainModel says what Parse must find, from the chain as it was built.
type chainModel struct {
	reason                                                    DropReason
	headerLen, protoAt, insertAt, insertProtoAt, fragHeaderAt int
	proto, insertProto                                        uint8
}

func modelChain(chain []ext, proto uint8, fragOffset int) chainModel {
	m := chainModel{proto: proto, insertAt: 40, insertProtoAt: 6}
	names := []int{6} // where header i is named
	starts := []int{40}
	for _, e := range chain {
		names = append(names, starts[len(starts)-1])
		starts = append(starts, starts[len(starts)-1]+len(e.b))
	}
	kind := func(i int) uint8 {
		if i < len(chain) {
			return chain[i].proto
		}
		return proto
	}
	m.insertProto = kind(0)
	end := len(chain)
	for i, e := range chain {
		if i == end {
			break
		}
		switch {
		case e.proto == ProtoHopByHop && i > 0, e.proto == ProtoFragment && m.fragHeaderAt > 0, i == 8:
			m.reason = DropExtensionHeader
			return m
		}
		if e.proto != ProtoDestOpts {
			m.insertAt, m.insertProtoAt, m.insertProto = starts[i+1], names[i+1], kind(i+1)
		}
		if e.proto == ProtoFragment {
			m.fragHeaderAt = starts[i]
			if fragOffset > 0 {
				end = i + 1
			}
		}
	}
	m.headerLen, m.protoAt, m.proto = starts[end], names[end], kind(end)
	return m
}

// Every chain of up to four headers in every order, each with every kind of
// fragment header, and chains of one kind at and over the limit.
func TestParseIPv6Chains(t *testing.T) {
	kinds := []func(offset int, more bool) ext{
		func(int, bool) ext { return hopByHop() },
		func(int, bool) ext { return destOpts() },
		func(int, bool) ext { return routing(0, dst6) },
		func(o int, m bool) ext { return fragHdr(o, m, 0xdeadbeef) },
	}
	type frag struct {
		offset int
		more   bool
	}
	check := func(chain []ext, f frag) {
		payload := tcpSegment(1, 2, []byte{2, 4, 5, 0xb4}, nil)
		b := build6(chain, ProtoTCP, payload)
		want := modelChain(chain, ProtoTCP, f.offset)
		var in Info
		r := Parse(b, &in)
		name := fmt.Sprint(f)
		for _, e := range chain {
			name += fmt.Sprint(" ", e.proto)
		}
		if r != want.reason {
			t.Fatalf("%s: %v, want %v", name, r, want.reason)
		}
		if r != DropNone {
			return
		}
		got := chainModel{DropNone, in.HeaderLen, in.ProtoAt, in.InsertAt, in.InsertProtoAt, in.FragHeaderAt, in.Proto, in.InsertProto}
		if got != want {
			t.Fatalf("%s:\n got %+v\nwant %+v", name, got, want)
		}
		if !in.DF || in.TotalLen != len(b) || in.Version != 6 || in.Src != src6 || in.Dst != dst6 {
			t.Fatalf("%s: %+v", name, in)
		}
		hasFrag := in.FragHeaderAt > 0
		if in.IsFragment != (hasFrag && f != frag{}) || hasFrag && (in.FragOffset != f.offset || in.MoreFragments != f.more || in.ID != 0xdeadbeef) {
			t.Fatalf("%s: fragment fields %+v", name, in)
		}
		if whole := !hasFrag || f.offset == 0; in.HasPorts != whole || whole && (in.DstPort != 443 || in.L4HeaderLen != 24) {
			t.Fatalf("%s: upper layer %+v", name, in)
		}
	}
	for _, f := range []frag{{0, false}, {0, true}, {1448, true}, {1448, false}} {
		var walk func(chain []ext, depth int)
		walk = func(chain []ext, depth int) {
			check(chain, f)
			if depth == 0 {
				return
			}
			for _, k := range kinds {
				walk(append(chain[:len(chain):len(chain)], k(f.offset, f.more)), depth-1)
			}
		}
		walk(nil, 4)
		for n := 7; n <= 10; n++ {
			var d, r []ext
			for range n {
				d, r = append(d, destOpts()), append(r, routing(0, dst6))
			}
			check(d, f)
			check(r, f)
			check(append([]ext{hopByHop()}, d...), f)
		}
	}
}

// ESP, AH, mobility and unknown protocols end the chain (RFC 4303 §3.1.1: what
// follows is theirs).
func TestParseIPv6ChainEnds(t *testing.T) {
	for _, proto := range []uint8{ProtoESP, ProtoAH, ProtoNone, ProtoMobility, ProtoIPv4, ProtoIPv6, 139, 140, 253, 255} {
		in := mustParse(t, build6([]ext{hopByHop(), destOpts()}, proto, make([]byte, 24)))
		if in.Proto != proto || in.HeaderLen != 64 || in.InsertAt != 48 || in.InsertProto != ProtoDestOpts || in.InsertProtoAt != 40 {
			t.Errorf("%d: %+v", proto, in)
		}
	}
	in := mustParse(t, build6(nil, ProtoMobility, []byte{59, 1, 5, 0, 0, 0, 0, 0}))
	if in.MHType != 5 || !in.HasPorts {
		t.Errorf("mobility: %+v", in)
	}
	in = mustParse(t, build6(nil, ProtoICMPv6, []byte{2, 7, 0, 0}))
	if in.ICMPType != 2 || in.ICMPCode != 7 || !in.HasPorts {
		t.Errorf("ICMPv6: %+v", in)
	}
	b := build6(nil, ProtoUDP, udpDatagram(nil))
	b[0], b[1], b[7] = 0x6a, 0xbc, 3
	if in = mustParse(t, b); in.TOS != 0xab || in.TTL != 3 {
		t.Errorf("traffic class %#x, hop limit %d", in.TOS, in.TTL)
	}
}

func TestParseIPv6Malformed(t *testing.T) {
	frag := func(offset int, more bool, n int) []byte {
		return build6([]ext{fragHdr(offset, more, 1)}, ProtoUDP, make([]byte, n))
	}
	long := build6([]ext{destOpts()}, ProtoUDP, nil)
	long[41] = 2
	jumbo := build6([]ext{hopByHop()}, ProtoUDP, nil)
	jumbo[4], jumbo[5] = 0, 0
	short := build6(nil, ProtoUDP, nil)
	short[5] = 1
	for _, c := range []struct {
		name string
		b    []byte
		want DropReason
	}{
		{"header of 39", build6(nil, ProtoUDP, nil)[:39], DropMalformed},
		{"payload longer than octets", short, DropMalformed},
		{"extension header longer than datagram", long, DropMalformed},
		{"jumbogram", jumbo, DropMalformed},
		{"extension header missing", build6(nil, ProtoRouting, nil), DropMalformed},
		{"fragment header cut short", build6(nil, ProtoFragment, make([]byte, 7)), DropMalformed},
		{"more fragments, odd length", frag(0, true, 15), DropMalformed},
		{"more fragments, no payload", frag(8, true, 0), DropMalformed},
		{"last fragment, no payload", frag(8, false, 0), DropMalformed},
		{"fragment behind 65,535", frag(65528, false, 8), DropMalformed},
		{"fragment up to 65,535", frag(65528, false, 7), DropNone},
		{"atomic fragment", frag(0, false, 8), DropNone},
		{"no next header", build6(nil, ProtoNone, nil), DropNone},
	} {
		var in Info
		if r := Parse(c.b, &in); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
	}
}

// samples are datagrams of all kinds, for truncation tests and fuzz seeds.
func samples() [][]byte {
	tcp := tcpSegment(7, 0x19, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, count(30))
	all := []ext{hopByHop(), destOpts(), routing(1, src6), fragHdr(0, true, 9), destOpts()}
	frag4 := build4([]byte{148, 4, 0, 0}, ProtoUDP, udpDatagram(count(24)))
	setFrag4(frag4, 1, 0)
	return [][]byte{
		build4(nil, ProtoTCP, tcp),
		build4([]byte{148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 0}, ProtoUDP, udpDatagram(count(24))),
		build4(nil, ProtoICMP, append([]byte{3, 1, 0, 0, 0, 0, 0, 0}, build4(nil, ProtoUDP, udpDatagram(nil))...)),
		build4(nil, ProtoESP, count(40)),
		frag4,
		build6(nil, ProtoTCP, tcp),
		build6(all, ProtoTCP, count(32)),
		build6([]ext{destOpts()}, ProtoAH, []byte{6, 4, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 23: 0}),
		build6(nil, ProtoICMPv6, append([]byte{2, 0, 0, 0, 0, 0, 5, 0}, build6(all[:3], ProtoUDP, udpDatagram(nil))...)),
		build6(nil, ProtoMobility, count(16)),
	}
}

// A datagram cut at any octet, and one whose length field says so, must not panic,
// and must not be read behind its end.
func TestParseTruncated(t *testing.T) {
	for i, whole := range samples() {
		mustParse(t, whole)
		for n := range len(whole) {
			var in Info
			if r := Parse(whole[:n], &in); r != DropMalformed {
				t.Errorf("sample %d cut to %d: %v", i, n, r)
			}
			b := bytes.Clone(whole[:n])
			if n < 40 && whole[0]>>4 == 6 || n < int(whole[0]&15)*4 {
				continue
			}
			SetLength(b, int(b[0]>>4), n)
			if Parse(b, &in) == DropNone {
				checkInfo(t, b, &in)
			}
		}
	}
}

// checkInfo checks what Parse promises of every Info.
func checkInfo(t *testing.T, b []byte, in *Info) {
	t.Helper()
	if in.Version != b[0]>>4 || in.HeaderLen > in.TotalLen || in.TotalLen > len(b) ||
		in.ProtoAt >= in.HeaderLen || b[in.ProtoAt] != in.Proto ||
		in.InsertAt > in.HeaderLen || in.InsertProtoAt >= in.InsertAt || b[in.InsertProtoAt] != in.InsertProto ||
		in.HeaderLen+in.L4HeaderLen > in.TotalLen || in.L4HeaderLen > 0 && !in.HasPorts ||
		in.IsFragment != (in.MoreFragments || in.FragOffset > 0) || in.FragOffset%8 != 0 ||
		in.FragHeaderAt > 0 && in.FragHeaderAt+8 > in.InsertAt {
		t.Fatalf("%+v\nof % x", *in, b)
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var in Info
		if Parse(b, &in) == DropNone {
			checkInfo(t, b, &in)
			checkInfo(t, b[:in.TotalLen], &in)
		}
		if len(b) >= 20 && b[0]>>4 == 4 && int(b[0]&15)*4 <= len(b) && b[0]&15 >= 5 {
			UpdateIPv4Checksum(b) // so that more than the checksum is tried
			if Parse(b, &in) == DropNone {
				checkInfo(t, b, &in)
			}
		}
	})
}

func TestParseAllocs(t *testing.T) {
	all := samples()
	if n := testing.AllocsPerRun(100, func() {
		var in Info
		for _, b := range all {
			Parse(b, &in)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkParse(b *testing.B) {
	for i, name := range []string{"IPv4TCP", 5: "IPv6TCP", 6: "IPv6Chain"} {
		if name == "" {
			continue
		}
		d := samples()[i]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var in Info
			for b.Loop() {
				Parse(d, &in)
			}
		})
	}
}
