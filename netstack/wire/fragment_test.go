package wire

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// fragments cuts b with a Fragmenter, and gives it exactly mtu octets each time.
func fragments(t rapid.TB, f *Fragmenter, mtu int) [][]byte {
	var all [][]byte
	for {
		dst := bytes.Repeat([]byte{0xee}, mtu)
		n := f.Next(dst)
		if n == 0 {
			break
		}
		if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xee}, mtu-n)) {
			t.Fatalf("fragment %d of %d octets: written behind its end", len(all), n)
		}
		all = append(all, dst[:n])
	}
	if f.Next(nil) != 0 || len(all) != f.Fragments() {
		t.Fatalf("%d fragments, Fragments() is %d", len(all), f.Fragments())
	}
	return all
}

// reassemble is the obvious model: it puts every fragment's payload where the
// fragment says, insists that each octet comes once, and has the header made by
// WholeFromFirst.
func reassemble(t rapid.TB, all [][]byte) []byte {
	var first []byte
	var firstIn Info
	payload := make([]byte, 1<<16)
	seen := make([]bool, 1<<16)
	total := -1
	for i, b := range all {
		var in Info
		if r := Parse(b, &in); r != DropNone || in.TotalLen != len(b) {
			t.Fatalf("fragment %d: %v", i, r)
		}
		p := FragmentPayload(b, &in)
		for j := range p {
			if seen[in.FragOffset+j] {
				t.Fatalf("octet %d comes twice", in.FragOffset+j)
			}
			seen[in.FragOffset+j] = true
		}
		copy(payload[in.FragOffset:], p)
		if in.FragOffset == 0 {
			first, firstIn = b, in
		} else if firstIn.ID != in.ID && first != nil {
			t.Fatalf("identification %#x, the first has %#x", in.ID, firstIn.ID)
		}
		if !in.MoreFragments {
			if total >= 0 {
				t.Fatal("two last fragments")
			}
			total = in.FragOffset + len(p)
		}
	}
	if first == nil || total < 0 {
		t.Fatal("no first or no last fragment")
	}
	for i := range total {
		if !seen[i] {
			t.Fatalf("octet %d is missing", i)
		}
	}
	dst := bytes.Clone(first)
	n, r := WholeFromFirst(first, &firstIn, total, dst)
	if r != DropNone {
		t.Fatal(r)
	}
	inPlace := bytes.Clone(first)
	if m, _ := WholeFromFirst(inPlace, &firstIn, total, inPlace); m != n || !bytes.Equal(inPlace[:n], dst[:n]) {
		t.Fatal("WholeFromFirst in place differs")
	}
	return append(dst[:n:n], payload[:total]...)
}

// IPv4 options with the bits of RFC 791 §3.1: security, loose source route, router
// alert (RFC 2113) and an experimental one are copied; record route and timestamp not.
func optionPool() [][]byte {
	return [][]byte{
		{1},
		{130, 3, 9},
		{131, 7, 4, 1, 2, 3, 4},
		{148, 4, 0, 0},
		{158, 2},
		{7, 7, 4, 0, 0, 0, 0},
		{68, 8, 5, 0, 1, 2, 3, 4},
	}
}

// pad4 pads options as RFC 791 §3.1 does.
func pad4(o []byte) []byte {
	for len(o)%4 != 0 {
		o = append(o, 0)
	}
	return o
}

func TestR26_FragmenterIPv4Property(t *testing.T) {
	var f Fragmenter // used again and again
	rapid.Check(t, func(t *rapid.T) {
		var options, copied []byte
		for _, o := range rapid.SliceOfN(rapid.SampledFrom(optionPool()), 0, 6).Draw(t, "options") {
			if len(options)+len(o) > 40 {
				continue
			}
			options = append(options, o...)
			if o[0] >= 128 {
				copied = append(copied, o...)
			}
		}
		options, copied = pad4(options), pad4(copied)
		n := rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 65535-20-len(options))).Draw(t, "payload")
		whole := build4(options, ProtoESP, count(n))
		in := Info{}
		Parse(whole, &in)
		mtu := rapid.OneOf(rapid.IntRange(68, 1500), rapid.IntRange(68, 65535)).Draw(t, "mtu")
		if len(whole)/mtu > 100 {
			mtu = len(whole)/100 + 68
		}
		if r := f.Init(whole, &in, mtu, 0); r != DropNone {
			t.Fatal(r)
		}
		all := fragments(t, &f, mtu)
		if (len(all) == 1) != (len(whole) <= mtu) {
			t.Fatalf("%d fragments of %d octets at %d", len(all), len(whole), mtu)
		}
		for i, b := range all {
			want := options
			if i > 0 {
				want = copied
			}
			if hl := int(b[0]&15) * 4; !bytes.Equal(b[20:hl], want) || sum(b[:hl]) != 0xffff {
				t.Fatalf("fragment %d: header % x, want options % x", i, b[:hl], want)
			}
		}
		// Each fragment again, as a narrower link would.
		var again [][]byte
		narrow := rapid.IntRange(68, mtu).Draw(t, "narrow")
		if len(whole)/narrow > 200 {
			narrow = mtu
		}
		for _, b := range rapid.Permutation(all).Draw(t, "order") {
			var bi Info
			Parse(b, &bi)
			var g Fragmenter
			if r := g.Init(b, &bi, narrow, 0); r != DropNone {
				t.Fatal(r)
			}
			again = append(again, fragments(t, &g, narrow)...)
		}
		if got := reassemble(t, all); !bytes.Equal(got, whole) {
			t.Fatalf("reassembled\n% x\nwant\n% x", got[:60], whole[:60])
		}
		if got := reassemble(t, again); !bytes.Equal(got, whole) {
			t.Fatal("reassembled differs after the second cut")
		}
	})
}

func TestR26_FragmenterIPv6Property(t *testing.T) {
	var f Fragmenter
	rapid.Check(t, func(t *rapid.T) {
		var chain []ext
		unfragmentable := 40
		for _, e := range []ext{hopByHop(), destOpts(), routing(1, src6), destOpts()} {
			if rapid.Bool().Draw(t, "header") {
				chain = append(chain, e)
			}
		}
		at := 40
		for _, e := range chain {
			at += len(e.b)
			if e.proto != ProtoDestOpts {
				unfragmentable = at
			}
		}
		n := rapid.OneOf(rapid.IntRange(0, 4000), rapid.IntRange(0, 65535-at+40)).Draw(t, "payload")
		proto := rapid.SampledFrom([]uint8{ProtoESP, ProtoUDP, ProtoIPv6}).Draw(t, "proto")
		whole := build6(chain, proto, count(n))
		id := rapid.Uint32().Draw(t, "id")
		in := Info{}
		Parse(whole, &in)
		mtu := rapid.IntRange(1280, 9000).Draw(t, "mtu")
		if r := f.Init(whole, &in, mtu, id); r != DropNone {
			t.Fatal(r)
		}
		all := fragments(t, &f, mtu)
		if len(whole) <= mtu {
			if len(all) != 1 || !bytes.Equal(all[0], whole) {
				t.Fatal("a datagram that fits was changed")
			}
			return
		}
		var again [][]byte
		for i, b := range all {
			var bi Info
			if r := Parse(b, &bi); r != DropNone || bi.FragHeaderAt != unfragmentable || bi.ID != id || !bi.IsFragment {
				t.Fatalf("fragment %d: %v, %+v", i, r, bi)
			}
			var g Fragmenter
			if r := g.Init(b, &bi, 1280, ^id); r != DropNone {
				t.Fatal(r)
			}
			again = append(again, fragments(t, &g, 1280)...)
		}
		for _, set := range [][][]byte{all, again} {
			if got := reassemble(t, set); !bytes.Equal(got, whole) {
				t.Fatalf("reassembled\n% x\nwant\n% x", got[:100], whole[:100])
			}
		}
	})
}

// Flags, offsets, options and payload of one small case, by hand.
func TestFragmenterExact(t *testing.T) {
	b := build4([]byte{7, 3, 4, 148, 4, 0, 0, 0}, ProtoUDP, count(20))
	b[6] = 0x80 // the reserved bit stays
	fix4(b)
	in := mustParse(t, b)
	var f Fragmenter
	if r := f.Init(b, &in, 36, 0); r != DropNone {
		t.Fatal(r)
	}
	all := fragments(t, &f, 36)
	if len(all) != 3 {
		t.Fatalf("%d fragments", len(all))
	}
	for i, want := range []struct {
		flags   uint16
		options []byte
		payload []byte
	}{
		{0xa000, []byte{7, 3, 4, 148, 4, 0, 0, 0}, count(20)[:8]},
		{0xa001, []byte{148, 4, 0, 0}, count(20)[8:16]},
		{0x8002, []byte{148, 4, 0, 0}, count(20)[16:]},
	} {
		g := all[i]
		hl := 20 + len(want.options)
		if binary.BigEndian.Uint16(g[6:]) != want.flags || int(g[0]&15)*4 != hl ||
			!bytes.Equal(g[20:hl], want.options) || !bytes.Equal(g[hl:], want.payload) ||
			binary.BigEndian.Uint16(g[4:]) != 0x1234 {
			t.Errorf("fragment %d: % x, want %+v", i, g, want)
		}
	}
}

func TestFragmenterRefuses(t *testing.T) {
	big := func(options []byte) []byte { return build4(options, ProtoUDP, count(2000)) }
	df := big(nil)
	setFrag4(df, 2, 0)
	longChain := []ext{hopByHop()}
	for range 2 {
		d := ext{ProtoDestOpts, make([]byte, 1024)}
		d.b[1] = 127
		longChain = append(longChain, d)
	}
	for _, c := range []struct {
		name string
		b    []byte
		mtu  int
		want DropReason
	}{
		{"DF", df, 1500, DropTooBig},
		{"DF that fits", df, 2020, DropNone},
		{"eight octets of room", big(nil), 28, DropNone},
		{"seven octets of room", big(nil), 27, DropTooBig},
		{"header does not fit", big(nil), 10, DropTooBig},
		{"negative", big(nil), -1, DropTooBig},
		{"option without length", big([]byte{1, 1, 1, 148}), 1500, DropMalformed},
		{"option of length 1", big([]byte{148, 1, 0, 0}), 1500, DropMalformed},
		{"option overruns header", big([]byte{148, 5, 0, 0}), 1500, DropMalformed},
		{"bad option, but it fits", big([]byte{148, 5, 0, 0}), 2024, DropNone},
		{"behind the end of options nothing counts", big([]byte{0, 148, 5, 0}), 1500, DropNone},
		{"IPv6, eight octets of room", build6(nil, ProtoESP, count(2000)), 56, DropNone},
		{"IPv6, seven octets of room", build6(nil, ProtoESP, count(2000)), 55, DropTooBig},
		{"IPv6, chain longer than a fragment", build6(longChain, ProtoESP, count(2000)), 1280, DropTooBig},
		{"IPv6, chain fits", build6(longChain, ProtoESP, count(2000)), 2200, DropNone},
	} {
		in := mustParse(t, c.b)
		was := bytes.Clone(c.b)
		var f Fragmenter
		if r := f.Init(c.b, &in, c.mtu, 1); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
			continue
		}
		if c.want == DropNone {
			fragments(t, &f, c.mtu)
		} else if f.Fragments() != 0 || f.Next(make([]byte, 2100)) != 0 {
			t.Errorf("%s: fragments of a dropped datagram", c.name)
		}
		if !bytes.Equal(c.b, was) {
			t.Errorf("%s: the datagram was changed", c.name)
		}
	}
}

func TestWholeFromFirstRefuses(t *testing.T) {
	later := build4(nil, ProtoUDP, count(16))
	setFrag4(later, 0, 8)
	first4 := build4(nil, ProtoUDP, count(16))
	setFrag4(first4, 3, 0)
	first6 := build6([]ext{hopByHop(), fragHdr(0, true, 1)}, ProtoUDP, count(16))
	for _, c := range []struct {
		name string
		b    []byte
		n    int
		want DropReason
		len  int
	}{
		{"not the first", later, 100, DropMalformed, 0},
		{"IPv4, largest", first4, 65515, DropNone, 20},
		{"IPv4, too long", first4, 65516, DropMalformed, 0},
		{"IPv6, largest", first6, 65527, DropNone, 48},
		{"IPv6, too long", first6, 65528, DropMalformed, 0},
		{"IPv6, no fragment header", build6(nil, ProtoUDP, count(16)), 16, DropMalformed, 0},
		{"negative", first4, -1, DropMalformed, 0},
	} {
		in := mustParse(t, c.b)
		dst := make([]byte, 100)
		n, r := WholeFromFirst(c.b, &in, c.n, dst)
		if r != c.want || n != c.len {
			t.Errorf("%s: %d octets, %v", c.name, n, r)
		}
		if r != DropNone {
			continue
		}
		whole := append(dst[:n], make([]byte, c.n)...)
		if in := mustParse(t, whole); in.IsFragment || in.FragHeaderAt != 0 || in.TotalLen != n+c.n || in.Proto != ProtoUDP || in.Version == 4 && in.DF {
			t.Errorf("%s: %+v", c.name, in)
		}
	}
}

func FuzzFragmenter(f *testing.F) {
	for _, b := range samples() {
		f.Add(b, 60, uint32(1))
		f.Add(append(b, count(300)...), 200, uint32(2))
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu int, id uint32) {
		if len(b) >= 60 {
			SetLength(b, int(b[0]>>4), len(b)) // so that more of it comes through
		}
		var in Info
		if Parse(b, &in) != DropNone {
			return
		}
		mtu = min(mtu, 1<<16)
		was := bytes.Clone(b)
		var fr Fragmenter
		if fr.Init(b, &in, mtu, id) != DropNone {
			return
		}
		all := fragments(t, &fr, mtu)
		if !bytes.Equal(b, was) {
			t.Fatal("the datagram was changed")
		}
		if in.IsFragment || fr.Fragments() == 1 {
			return
		}
		if in.FragHeaderAt != 0 || in.Version == 4 {
			// An atomic fragment loses its fragment header, an IPv4 datagram its flags.
			if got := reassemble(t, all); in.Version == 4 && !bytes.Equal(got[in.HeaderLen:], b[in.HeaderLen:in.TotalLen]) {
				t.Fatal("reassembled payload differs")
			}
			return
		}
		if got := reassemble(t, all); !bytes.Equal(got, b[:in.TotalLen]) {
			t.Fatal("reassembled differs")
		}
	})
}

func TestFragmenterAllocs(t *testing.T) {
	d4 := build4([]byte{148, 4, 0, 0}, ProtoESP, count(9000))
	d6 := build6([]ext{hopByHop()}, ProtoESP, count(9000))
	in4, in6 := mustParse(t, d4), mustParse(t, d6)
	dst := make([]byte, 1500)
	if n := testing.AllocsPerRun(20, func() {
		var f Fragmenter
		f.Init(d4, &in4, 1500, 0)
		for f.Next(dst) > 0 {
		}
		f.Init(d6, &in6, 1500, 1)
		for f.Next(dst) > 0 {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
