package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// A super is a superframe as a kernel hands it over, with what the model needs.
type super struct {
	b    []byte
	off  VirtioNet
	dst  netip.Addr // of the pseudo header
	l4At int
	hdr  int // up to the payload
	mss  int
}

// makeSuper makes a superframe of an upper-layer packet u.
func makeSuper(v6 bool, options []byte, chain []ext, proto uint8, u []byte, hdrLen, mss int) super {
	s := super{dst: dst4, mss: mss}
	src, field, gso := src4, 16, uint8(GSOTCPv4)
	if v6 {
		src, s.dst, gso = src6, dst6, GSOTCPv6
		for _, e := range chain {
			if e.proto == ProtoRouting && e.b[3] > 0 {
				s.dst = netip.AddrFrom16([16]byte(e.b[8:24]))
			}
		}
	}
	if proto == ProtoUDP {
		field, gso = 6, GSOUDPL4
	} else if u[13]&0x80 != 0 {
		gso |= GSOECN
	}
	leaveL4(src, s.dst, proto, u, field)
	if v6 {
		s.b = build6(chain, proto, u)
	} else {
		s.b = build4(options, proto, u)
	}
	s.l4At = len(s.b) - len(u)
	s.hdr = s.l4At + hdrLen
	s.off = virtio(VirtioNetNeedsCsum, gso, uint16(14+s.hdr), uint16(mss), uint16(14+s.l4At), uint16(field))
	return s
}

// segment is the obvious model: segment i of n with the payload that starts at octets
// into the superframe's, every field set by hand and every sum made anew.
func (s super) segment(i, n, at int, payload []byte) []byte {
	b := append(bytes.Clone(s.b[:s.hdr]), payload...)
	src, proto := src4, b[9]
	if b[0]>>4 == 4 {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		binary.BigEndian.PutUint16(b[4:], binary.BigEndian.Uint16(s.b[4:])+uint16(i))
		fix4(b)
	} else {
		src = src6
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)-40))
		proto = ProtoUDP
		if s.hdr-s.l4At >= 20 {
			proto = ProtoTCP
		}
	}
	u := b[s.l4At:]
	if proto == ProtoUDP {
		binary.BigEndian.PutUint16(u[4:], uint16(len(u)))
		binary.BigEndian.PutUint16(u[6:], 0)
		c := ^sum(pseudo(src, s.dst, proto, len(u)), u)
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(u[6:], c)
		return b
	}
	binary.BigEndian.PutUint32(u[4:], binary.BigEndian.Uint32(u[4:])+uint32(at))
	if i < n-1 {
		u[13] &^= 0x01 | 0x08
	}
	if i > 0 {
		u[13] &^= 0x80
	}
	urgent := int(binary.BigEndian.Uint16(u[18:])) - at
	if i > 0 && (urgent <= 0 || u[13]&0x20 == 0) {
		u[13] &^= 0x20
		urgent = 0
	}
	binary.BigEndian.PutUint16(u[18:], uint16(urgent))
	binary.BigEndian.PutUint16(u[16:], 0)
	binary.BigEndian.PutUint16(u[16:], ^sum(pseudo(src, s.dst, proto, len(u)), u))
	return b
}

// model cuts the whole superframe.
func (s super) model(maxLen int) [][]byte {
	payload := s.b[s.hdr:]
	size := min(s.mss, maxLen-s.hdr)
	n := max(1, (len(payload)+size-1)/size)
	var all [][]byte
	for i := range n {
		at := i * size
		all = append(all, s.segment(i, n, at, payload[at:min(at+size, len(payload))]))
	}
	return all
}

// cut cuts with a Cutter, and gives it exactly the room it asks for.
func cut(t rapid.TB, c *Cutter, maxLen int) [][]byte {
	var all [][]byte
	for {
		dst := bytes.Repeat([]byte{0xee}, maxLen)
		n := c.Next(dst)
		if n == 0 {
			break
		}
		if !bytes.Equal(dst[n:], bytes.Repeat([]byte{0xee}, maxLen-n)) {
			t.Fatalf("segment %d of %d octets: written behind its end", len(all), n)
		}
		all = append(all, dst[:n])
	}
	if c.Next(nil) != 0 {
		t.Fatal("a segment after the last")
	}
	if len(all) != c.Segments() {
		t.Fatalf("%d segments, Segments() is %d", len(all), c.Segments())
	}
	return all
}

func drawSuper(t *rapid.T) super {
	v6 := rapid.Bool().Draw(t, "v6")
	n := rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(0, 64000)).Draw(t, "payload")
	payload := count(n)
	mss := rapid.OneOf(rapid.IntRange(1, 1500), rapid.IntRange(1000, 65000)).Draw(t, "mss")
	if n/mss > 400 {
		mss = n/400 + 1
	}
	chain := rapid.SampledFrom([][]ext{nil, {hopByHop()}, {destOpts()}, {hopByHop(), routing(1, src6), destOpts()}, {fragHdr(0, false, 3)}}).Draw(t, "chain")
	options := rapid.SampledFrom([][]byte{nil, {148, 4, 0, 0}, {7, 7, 4, 0, 0, 0, 0, 0}}).Draw(t, "options")
	if rapid.Bool().Draw(t, "udp") {
		return makeSuper(v6, options, chain, ProtoUDP, udpDatagram(payload), 8, mss)
	}
	flags := rapid.Byte().Draw(t, "flags") &^ 0x06 // SYN and RST are no superframes
	o := rapid.SampledFrom([][]byte{nil, {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, bytes.Repeat([]byte{1}, 40)}).Draw(t, "tcpOptions")
	u := tcpSegment(rapid.Uint32().Draw(t, "seq"), flags, o, payload)
	u[12] |= rapid.Byte().Draw(t, "reserved") & 15
	binary.BigEndian.PutUint16(u[18:], rapid.Uint16().Draw(t, "urgent"))
	return makeSuper(v6, options, chain, ProtoTCP, u, 20+len(o), mss)
}

func TestCutterModel(t *testing.T) {
	var c Cutter // used again and again
	rapid.Check(t, func(t *rapid.T) {
		s := drawSuper(t)
		maxLen := s.hdr + rapid.IntRange(max(1, len(s.b)/400), 65535-s.hdr).Draw(t, "room")
		was := bytes.Clone(s.b)
		in := Info{}
		if r := Parse(s.b, &in); r != DropNone {
			t.Fatal(r)
		}
		r := c.Init(s.b, &in, s.off, maxLen)
		if in.Proto == ProtoUDP && min(s.mss, len(s.b)-s.hdr)+s.hdr > maxLen {
			if r != DropTooBig {
				t.Fatalf("UDP boundaries would move: %v", r)
			}
			return
		}
		if r != DropNone {
			t.Fatal(r)
		}
		got, want := cut(t, &c, maxLen), s.model(maxLen)
		if len(got) != len(want) {
			t.Fatalf("%d segments, want %d", len(got), len(want))
		}
		var payload []byte
		for i, b := range got {
			if !bytes.Equal(b, want[i]) {
				t.Fatalf("segment %d:\n got % x\nwant % x", i, b[:s.hdr], want[i][:s.hdr])
			}
			var si Info
			if r := Parse(b, &si); r != DropNone || si.TotalLen != len(b) || !VerifyL4(b, &si) {
				t.Fatalf("segment %d is not whole: %v", i, r)
			}
			payload = append(payload, b[s.hdr:]...)
		}
		if !bytes.Equal(payload, s.b[s.hdr:]) {
			t.Fatal("the payload is not the superframe's, octet by octet")
		}
		if !bytes.Equal(s.b, was) {
			t.Fatal("the superframe was changed")
		}
	})
}

// Flags, by hand: CWR on the first only (RFC 3168 §6.1.2), FIN and PSH on the last.
func TestCutterFlags(t *testing.T) {
	u := tcpSegment(0xfffffff0, 0xf9, nil, count(30)) // CWR ECE URG ACK PSH FIN
	binary.BigEndian.PutUint16(u[18:], 12)
	s := makeSuper(false, nil, nil, ProtoTCP, u, 20, 10)
	in := mustParse(t, s.b)
	var c Cutter
	if r := c.Init(s.b, &in, s.off, 1500); r != DropNone {
		t.Fatal(r)
	}
	want := []struct {
		flags  byte
		seq    uint32
		urgent uint16
		id     uint16
	}{{0xf0, 0xfffffff0, 12, 0x1234}, {0x70, 0xfffffffa, 2, 0x1235}, {0x59, 4, 0, 0x1236}}
	for i, b := range cut(t, &c, 1500) {
		w := want[i]
		if b[33] != w.flags || binary.BigEndian.Uint32(b[24:]) != w.seq ||
			binary.BigEndian.Uint16(b[38:]) != w.urgent || binary.BigEndian.Uint16(b[4:]) != w.id {
			t.Errorf("segment %d: % x, want %+v", i, b, w)
		}
	}
}

func TestCutterWhole(t *testing.T) {
	udp := udpDatagram(count(100))
	leaveL4(src4, dst4, ProtoUDP, udp, 6)
	b := build4(nil, ProtoUDP, udp) // 128 octets
	frag := bytes.Clone(b)
	setFrag4(frag, 0, 64)
	done := bytes.Clone(b)
	in := mustParse(t, b)
	if r := FinishChecksum(done, &in, virtio(1, 0, 0, 0, 34, 6), 14); r != DropNone {
		t.Fatal(r)
	}
	for _, c := range []struct {
		name   string
		b      []byte
		off    VirtioNet
		l2Len  int
		maxLen int
		reason DropReason
		want   []byte
	}{
		{"no metadata", b, nil, 0, 128, DropNone, b},
		{"no offload", b, virtio(0, 0, 0, 0, 0, 0), 0, 128, DropNone, b},
		{"too big", b, virtio(0, 0, 0, 0, 0, 0), 0, 127, DropTooBig, nil},
		{"checksum", b, virtio(1, 0, 0, 0, 34, 6), 0, 128, DropNone, done},
		{"checksum, VLAN", b, virtio(1, 0, 0, 0, 38, 6), 18, 128, DropNone, done},
		{"UFO", b, virtio(1, GSOUDP, 42, 64, 34, 6), 0, 200, DropNone, done},
		{"UFO too big", b, virtio(1, GSOUDP, 42, 64, 34, 6), 0, 100, DropTooBig, nil},
		{"fragment", frag, virtio(0, 0, 0, 0, 0, 0), 0, 128, DropNone, frag},
		{"fragment with checksum", frag, virtio(1, 0, 0, 0, 34, 6), 0, 128, DropBadOffload, nil},
		{"checksum in the IP header", b, virtio(1, 0, 0, 0, 24, 6), 0, 128, DropBadOffload, nil},
	} {
		in := mustParse(t, c.b)
		padded := append(bytes.Clone(c.b), 1, 2, 3)
		k := Cutter{L2Len: c.l2Len}
		if r := k.Init(padded, &in, c.off, c.maxLen); r != c.reason {
			t.Errorf("%s: %v, want %v", c.name, r, c.reason)
			continue
		}
		if got := cut(t, &k, c.maxLen); c.want != nil && (len(got) != 1 || !bytes.Equal(got[0], c.want)) {
			t.Errorf("%s: % x, want % x", c.name, got, c.want)
		}
	}
}

func TestCutterBadOffload(t *testing.T) {
	tcp := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(100)), 20, 40)
	tcp6 := makeSuper(true, nil, nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(100)), 20, 40)
	syn := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x12, nil, count(100)), 20, 40)
	udp := makeSuper(false, nil, nil, ProtoUDP, udpDatagram(count(100)), 8, 40)
	udpLen := makeSuper(false, nil, nil, ProtoUDP, udpDatagram(count(100)), 8, 40)
	udpLen.b[25]--
	frag := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(100)), 20, 40)
	setFrag4(frag.b, 1, 0)
	cutHeader := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(100)), 20, 40)
	cutHeader.b[32] = 0x40
	with := func(v VirtioNet, f func(v VirtioNet)) VirtioNet {
		v = bytes.Clone(v)
		f(v)
		return v
	}
	for _, c := range []struct {
		name   string
		b      []byte
		off    VirtioNet
		maxLen int
		want   DropReason
	}{
		{"TSOv4", tcp.b, tcp.off, 80, DropNone},
		{"TSOv4 without checksum flag", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetFlags(0) }), 80, DropNone},
		{"TSOv4 for IPv6", tcp6.b, with(tcp6.off, func(v VirtioNet) { v.SetGSOType(GSOTCPv4) }), 80, DropBadOffload},
		{"TSOv6 for IPv4", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetGSOType(GSOTCPv6) }), 80, DropBadOffload},
		{"TSO for UDP", udp.b, with(udp.off, func(v VirtioNet) { v.SetGSOType(GSOTCPv4) }), 80, DropBadOffload},
		{"USO for TCP", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetGSOType(GSOUDPL4) }), 80, DropBadOffload},
		{"checksum starts elsewhere", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetCsumStart(36) }), 80, DropBadOffload},
		{"checksum stands elsewhere", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetCsumOffset(14) }), 80, DropBadOffload},
		{"USO checksum stands elsewhere", udp.b, with(udp.off, func(v VirtioNet) { v.SetCsumOffset(16) }), 80, DropBadOffload},
		{"no size", tcp.b, with(tcp.off, func(v VirtioNet) { v.SetGSOSize(0) }), 80, DropBadOffload},
		{"fragment", frag.b, frag.off, 80, DropBadOffload},
		{"TCP header of 16", cutHeader.b, cutHeader.off, 80, DropBadOffload},
		{"SYN", syn.b, syn.off, 80, DropBadOffload},
		{"SYN that fits", syn.b, with(syn.off, func(v VirtioNet) { v.SetGSOSize(100) }), 140, DropNone},
		{"UDP length", udpLen.b, udpLen.off, 80, DropBadOffload},
		{"USO, too big", udp.b, udp.off, 67, DropTooBig},
		{"USO, exact", udp.b, udp.off, 68, DropNone},
		{"TSO, one octet of room", tcp.b, tcp.off, 41, DropNone},
		{"TSO, no room", tcp.b, tcp.off, 40, DropTooBig},
		{"TSO, no room at all", tcp.b, tcp.off, -5, DropTooBig},
	} {
		in := mustParse(t, c.b)
		var k Cutter
		if r := k.Init(c.b, &in, c.off, c.maxLen); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		}
		if c.want != DropNone && (k.Segments() != 0 || k.Next(make([]byte, 200)) != 0) {
			t.Errorf("%s: segments of a dropped superframe", c.name)
		}
	}
}

func FuzzCutter(f *testing.F) {
	tcp := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(100)), 20, 40)
	udp := makeSuper(true, nil, []ext{hopByHop()}, ProtoUDP, udpDatagram(count(100)), 8, 40)
	f.Add(tcp.b, []byte(tcp.off), 80)
	f.Add(udp.b, []byte(udp.off), 200)
	f.Add(tcp.b, []byte(virtio(1, 0, 0, 0, 34, 16)), 1500)
	f.Add(udp.b, []byte(virtio(0, 0, 0, 0, 0, 0)), 1500)
	f.Fuzz(func(t *testing.T, b, off []byte, maxLen int) {
		VirtioNet(off).Check(len(b))
		VirtioNet(off).Check(maxLen)
		if len(b) >= 20 && b[0]>>4 == 4 && b[0]&15 >= 5 && int(b[0]&15)*4 <= len(b) {
			UpdateIPv4Checksum(b)
		}
		var in Info
		if Parse(b, &in) != DropNone {
			return
		}
		maxLen = min(maxLen, 1<<16)
		was := bytes.Clone(b)
		var c Cutter
		if c.Init(b, &in, off, maxLen) == DropNone {
			dst := make([]byte, max(maxLen, 0))
			segments := 0
			for n := c.Next(dst); n > 0; n = c.Next(dst) {
				var si Info
				segments++
				if r := Parse(dst[:n], &si); r != DropNone || si.TotalLen != n {
					t.Fatalf("segment of %d octets: %v", n, r)
				}
			}
			if segments != c.Segments() || !bytes.Equal(b, was) {
				t.Fatalf("%d segments of %d", segments, c.Segments())
			}
		}
		FinishChecksum(b, &in, off, 14)
		VerifyL4(b, &in)
		FinalDst(b, &in)
	})
}

func TestCutterAllocs(t *testing.T) {
	s := makeSuper(true, nil, []ext{routing(1, src6)}, ProtoTCP, tcpSegment(1, 0x10, nil, count(60000)), 20, 1400)
	in := mustParse(t, s.b)
	dst := make([]byte, 1500)
	if n := testing.AllocsPerRun(20, func() {
		var c Cutter
		c.Init(s.b, &in, s.off, 1500)
		for c.Next(dst) > 0 {
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCutter(b *testing.B) {
	s := makeSuper(false, nil, nil, ProtoTCP, tcpSegment(1, 0x10, []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}, count(64000)), 32, 1448)
	var in Info
	Parse(s.b, &in)
	dst := make([]byte, 1500)
	var c Cutter
	b.SetBytes(int64(len(s.b)))
	b.ReportAllocs()
	for b.Loop() {
		c.Init(s.b, &in, s.off, 1500)
		for c.Next(dst) > 0 {
		}
	}
}
