package wire

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"
)

// segments cuts a TCP superframe, made like those of TestCutterModel, with flags
// that let it be joined again.
func segments(t rapid.TB, v6 bool, payload []byte, mss int, options []byte, flags uint8) [][]byte {
	s := makeSuper(v6, nil, nil, ProtoTCP, tcpSegment(0xfffff000, flags, options, payload), 20+len(options), mss)
	var in Info
	if r := Parse(s.b, &in); r != DropNone {
		t.Fatal(r)
	}
	var c Cutter
	if r := c.Init(s.b, &in, s.off, 65535); r != DropNone {
		t.Fatal(r)
	}
	return cut(t, &c, 65535)
}

// merge gives the parts to a Merger until it refuses, and returns how many it took
// and the superframe with its virtio-net header.
func merge(t rapid.TB, parts [][]byte, limit int) (int, []byte, VirtioNet) {
	var m Merger
	off := make(VirtioNet, VirtioNetLen)
	dst := make([]byte, limit)
	for i, p := range parts {
		var in Info
		if r := Parse(p, &in); r != DropNone {
			t.Fatal(r)
		}
		if i == 0 && !m.Start(p, &in, dst) || i > 0 && !m.Add(p, &in) {
			parts = parts[:i]
			break
		}
	}
	if m.Segments() != len(parts) {
		t.Fatalf("%d segments, took %d", m.Segments(), len(parts))
	}
	if len(parts) == 0 {
		return 0, nil, nil
	}
	return len(parts), m.Finish(off), off
}

// TestMergerIsCutterReversed cuts superframes, joins the segments, and cuts again.
func TestMergerIsCutterReversed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		payload := count(rapid.IntRange(1, 60000).Draw(t, "payload"))
		mss := rapid.IntRange(max(1, len(payload)/40), 9000).Draw(t, "mss")
		options := rapid.SampledFrom([][]byte{nil, {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}}).Draw(t, "options")
		flags := tcpACK
		if rapid.Bool().Draw(t, "push") {
			flags |= tcpPSH
		}
		parts := segments(t, v6, payload, mss, options, flags)
		n, super, off := merge(t, parts, 65535)
		if n != len(parts) {
			t.Fatalf("%d of %d segments joined", n, len(parts))
		}
		var in Info
		if r := Parse(super, &in); r != DropNone || in.TotalLen != len(super) {
			t.Fatalf("the superframe does not parse: %v", r)
		}
		if r := off.Check(ethernetLen + len(super)); r != DropNone {
			t.Fatalf("its metadata: %v", r)
		}
		var c Cutter
		if r := c.Init(super, &in, off, 65535); r != DropNone {
			t.Fatal(r)
		}
		for i, b := range cut(t, &c, 65535) {
			want := bytes.Clone(parts[i])
			if !v6 && len(parts) > 1 {
				copy(b[4:6], want[4:6]) // identification
				UpdateIPv4Checksum(b)
			}
			if !bytes.Equal(b, want) {
				t.Fatalf("segment %d of %d:\n got % x\nwant % x", i, len(parts), b[:60], want[:60])
			}
		}
	})
}

// TestMergerRefuses changes one thing in the second of two segments.
func TestMergerRefuses(t *testing.T) {
	resum := func(b []byte) {
		var in Info
		if Parse(b, &in) != DropNone {
			return
		}
		u := b[in.HeaderLen:]
		binary.BigEndian.PutUint16(u[16:], 0)
		binary.BigEndian.PutUint16(u[16:], ^sum(pseudo(in.Src, in.Dst, ProtoTCP, len(u)), u))
	}
	for _, v6 := range []bool{false, true} {
		h := 20
		if v6 {
			h = 40
		}
		for name, change := range map[string]func(b []byte){
			"tos":            func(b []byte) { SetTOS(b, 0x08) },
			"ttl":            func(b []byte) { b[map[bool]int{false: 8, true: 7}[v6]] = 9 },
			"port":           func(b []byte) { b[h+1]++ },
			"sequence":       func(b []byte) { b[h+7]++ },
			"acknowledgment": func(b []byte) { b[h+11]++ },
			"reserved":       func(b []byte) { b[h+12] |= 1 },
			"window":         func(b []byte) { b[h+15]++ },
			"urgent":         func(b []byte) { b[h+19]++ },
			"option":         func(b []byte) { b[h+31]++ },
			"fin":            func(b []byte) { b[h+13] |= uint8(header.TCPFlagFin) },
			"ece":            func(b []byte) { b[h+13] |= uint8(header.TCPFlagEce) },
			"checksum":       nil,
		} {
			parts := segments(t, v6, count(2000), 1000, []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, tcpACK)
			if change != nil {
				change(parts[1])
				if !v6 {
					UpdateIPv4Checksum(parts[1])
				}
				resum(parts[1])
			} else {
				parts[1][h+16]++
			}
			n, b, off := merge(t, parts, 65535)
			if n != 1 || !bytes.Equal(b, parts[0]) || !bytes.Equal(off, make([]byte, VirtioNetLen)) {
				t.Errorf("v6 %v, %s: %d joined", v6, name, n)
			}
		}
	}
	for name, parts := range map[string][][]byte{
		"first with a wrong checksum": func() [][]byte {
			p := segments(t, false, count(2000), 1000, nil, tcpACK)
			p[0][36]++
			return p
		}(),
		"behind PSH": func() [][]byte {
			p := segments(t, false, count(1000), 1000, nil, tcpACK|tcpPSH)
			return append(p, segments(t, false, count(1000), 1000, nil, tcpACK)...)
		}(),
	} {
		if n, _, _ := merge(t, parts, 65535); n != 1 {
			t.Errorf("%s: %d joined", name, n)
		}
	}
	short := segments(t, false, count(2500), 1000, nil, tcpACK)
	if n, _, _ := merge(t, append(short, short[0]), 65535); n != 3 {
		t.Errorf("%d joined, the third is short and the last", n)
	}
	if n, _, _ := merge(t, short, 2100); n != 2 {
		t.Errorf("%d joined, the limit allows two", n)
	}
	// What has no data, or flags of its own, does not even start.
	for _, u := range [][]byte{tcpSegment(1, tcpACK, nil, nil), tcpSegment(1, uint8(header.TCPFlagSyn), nil, nil),
		tcpSegment(1, tcpACK|uint8(header.TCPFlagFin), nil, count(9)), tcpSegment(1, tcpACK|uint8(header.TCPFlagUrg), nil, count(9))} {
		if n, _, _ := merge(t, [][]byte{build4(nil, ProtoTCP, u)}, 65535); n != 0 {
			t.Errorf("% x was taken", u)
		}
	}
}

func TestMergerAllocs(t *testing.T) {
	parts := segments(t, false, count(60000), 1448, nil, tcpACK)
	infos := make([]Info, len(parts))
	for i, p := range parts {
		if Parse(p, &infos[i]) != DropNone {
			t.Fatal("does not parse")
		}
	}
	dst, off := make([]byte, 65535), make(VirtioNet, VirtioNetLen)
	var m Merger
	if n := testing.AllocsPerRun(100, func() {
		m.Start(parts[0], &infos[0], dst)
		for i := range parts[1:] {
			m.Add(parts[i+1], &infos[i+1])
		}
		m.Finish(off)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzMerger joins any two datagrams: never a panic, and what was joined cuts into
// what it was.
func FuzzMerger(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		p := segments(f, v6, count(300), 200, nil, tcpACK)
		f.Add(p[0], p[1])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var m Merger
		var ai, bi Info
		if Parse(a, &ai) != DropNone || Parse(b, &bi) != DropNone || !m.Start(a, &ai, make([]byte, 65535)) || !m.Add(b[:bi.TotalLen], &bi) {
			return
		}
		off := make(VirtioNet, VirtioNetLen)
		dst := m.Finish(off)
		var in Info
		if r := Parse(dst, &in); r != DropNone || off.Check(ethernetLen+len(dst)) != DropNone {
			t.Fatalf("joined to something wrong: %v", r)
		}
	})
}

func BenchmarkMerger(b *testing.B) {
	parts := segments(b, false, count(60000), 1448, []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, tcpACK)
	infos := make([]Info, len(parts))
	for i, p := range parts {
		Parse(p, &infos[i])
	}
	dst, off := make([]byte, 65535), make(VirtioNet, VirtioNetLen)
	b.SetBytes(60000)
	b.ReportAllocs()
	var m Merger
	for b.Loop() {
		m.Start(parts[0], &infos[0], dst)
		for i := range parts[1:] {
			m.Add(parts[i+1], &infos[i+1])
		}
		m.Finish(off)
	}
}

// TestMergerUDP cuts UDP superframes, joins the datagrams, and cuts again.
func TestMergerUDP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6 := rapid.Bool().Draw(t, "v6")
		payload := count(rapid.IntRange(1, 60000).Draw(t, "payload"))
		size := rapid.IntRange(max(1, len(payload)/40), 9000).Draw(t, "size")
		parts := datagrams(t, v6, payload, size)
		n, super, off := merge(t, parts, 65535)
		if n != len(parts) {
			t.Fatalf("%d of %d datagrams joined", n, len(parts))
		}
		if n == 1 {
			if !bytes.Equal(super, parts[0]) || !bytes.Equal(off, make([]byte, VirtioNetLen)) {
				t.Fatal("one alone was changed")
			}
			return
		}
		if r := off.Check(ethernetLen + len(super)); r != DropNone {
			t.Fatalf("its metadata: %v", r)
		}
		var in Info
		if r := Parse(super, &in); r != DropNone || in.TotalLen != len(super) {
			t.Fatalf("the superframe does not parse: %v", r)
		}
		var c Cutter
		if r := c.Init(super, &in, off, 65535); r != DropNone {
			t.Fatal(r)
		}
		again := cut(t, &c, 65535)
		if len(again) != len(parts) {
			t.Fatalf("cut again to %d datagrams, were %d", len(again), len(parts))
		}
		for i, b := range again {
			want := bytes.Clone(parts[i])
			if !v6 {
				copy(b[4:6], want[4:6]) // identification
				UpdateIPv4Checksum(b)
			}
			if !bytes.Equal(b, want) {
				t.Fatalf("datagram %d of %d:\n got % x\nwant % x", i, len(parts), b, want)
			}
		}
	})
}

// datagrams cuts payload to UDP datagrams of that size.
func datagrams(t rapid.TB, v6 bool, payload []byte, size int) [][]byte {
	s := makeSuper(v6, nil, nil, ProtoUDP, udpDatagram(payload), udpLen, size)
	var in Info
	if r := Parse(s.b, &in); r != DropNone {
		t.Fatal(r)
	}
	var c Cutter
	if r := c.Init(s.b, &in, s.off, 65535); r != DropNone {
		t.Fatal(r)
	}
	return cut(t, &c, 65535)
}

// TestMergerUDPRefuses changes one thing in the second of two datagrams.
func TestMergerUDPRefuses(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		h := 20
		if v6 {
			h = 40
		}
		for name, change := range map[string]func(b []byte) []byte{
			"tos":         func(b []byte) []byte { SetTOS(b, 0x08); return b },
			"ttl":         func(b []byte) []byte { b[map[bool]int{false: 8, true: 7}[v6]] = 9; return b },
			"port":        func(b []byte) []byte { b[h+1]++; b[h+3]--; return b },
			"checksum":    func(b []byte) []byte { b[h+6]++; return b },
			"no checksum": func(b []byte) []byte { b[h+6], b[h+7] = 0, 0; return b },
			"length":      func(b []byte) []byte { b[h+5]--; return b },
			"longer":      func(b []byte) []byte { return datagrams(t, v6, count(1001), 2000)[0] },
			"tcp":         func(b []byte) []byte { b[map[bool]int{false: 9, true: 6}[v6]] = ProtoTCP; return b },
		} {
			parts := datagrams(t, v6, count(2000), 1000)
			parts[1] = change(parts[1])
			if !v6 {
				UpdateIPv4Checksum(parts[1])
			}
			var in [2]Info
			for i := range in {
				Parse(parts[i], &in[i])
			}
			var m Merger
			dst := make([]byte, 65535)
			if !m.Start(parts[0], &in[0], dst) || m.Add(parts[1], &in[1]) {
				t.Errorf("v6 %v, %s: joined", v6, name)
			}
		}
		short := datagrams(t, v6, count(2500), 1000)
		if n, _, _ := merge(t, append(short, short[0]), 65535); n != 3 {
			t.Errorf("%d joined, the third is short and the last", n)
		}
	}
	// What comes after TCP with PSH starts afresh.
	var m Merger
	var in Info
	dst := make([]byte, 65535)
	push := segments(t, false, count(100), 1000, nil, tcpACK|tcpPSH)[0]
	Parse(push, &in)
	m.Start(push, &in, dst)
	parts := datagrams(t, false, count(2000), 1000)
	for i, p := range parts {
		Parse(p, &in)
		if i == 0 && !m.Start(p, &in, dst) || i > 0 && !m.Add(p, &in) {
			t.Fatal("not joined")
		}
	}
	m.Finish(make(VirtioNet, VirtioNetLen))
	if !bytes.Equal(dst[28:2028], count(2000)) {
		t.Error("the flags of TCP were put into UDP data")
	}
}
