package wire

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// leftUDP is a UDP datagram whose checksum is left to the device, and what says so.
func leftUDP(v6 bool, id uint16, df bool, payload []byte) ([]byte, VirtioNet) {
	b, at := build6(nil, ProtoUDP, udpDatagram(payload)), ipv6Len
	if !v6 {
		b, at = build4(nil, ProtoUDP, udpDatagram(payload)), ipv4MinLen
		binary.BigEndian.PutUint16(b[4:], id)
		if df {
			b[6] = 0x40
		}
		fix4(b)
	}
	off := make(VirtioNet, VirtioNetLen)
	LeaveUDPChecksum(b, at, off)
	return b, off
}

// joinUDP gives datagrams to a UDPMerger until it refuses, and returns how many it took
// and the superframe.
func joinUDP(t rapid.TB, parts [][]byte, offs []VirtioNet, segments int) (int, []byte, VirtioNet) {
	var m UDPMerger
	for i, p := range parts {
		if i == 0 && !m.Start(p, offs[i]) || i > 0 && !m.Add(p, offs[i], segments) {
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
	b, off := make([]byte, m.HeaderLen(), m.Len()), make(VirtioNet, VirtioNetLen)
	m.WriteHeaders(b, off)
	for _, p := range parts {
		b = append(b, p[m.HeaderLen():]...)
	}
	if len(b) != m.Len() {
		t.Fatalf("%d octets, told %d", len(b), m.Len())
	}
	return len(parts), b, off
}

// TestUDPMergerIsCutterReversed: what is joined and cut is what it was.
func TestUDPMergerIsCutterReversed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v6, df := rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "df")
		n := rapid.IntRange(1, 40).Draw(t, "n")
		size := rapid.IntRange(1, 1500).Draw(t, "size")
		last := rapid.IntRange(1, size).Draw(t, "last")
		var parts [][]byte
		var offs []VirtioNet
		for i := range n {
			payload := count(size)
			if i == n-1 {
				payload = payload[:last]
			}
			payload[0] = byte(i)
			b, off := leftUDP(v6, uint16(0xfff0+i), df, payload)
			parts, offs = append(parts, b), append(offs, off)
		}
		took, super, off := joinUDP(t, parts, offs, 128)
		if took != n {
			t.Fatalf("%d of %d joined", took, n)
		}
		in := mustParseRapid(t, super)
		if r := off.Check(ethernetLen + len(super)); r != DropNone || in.TotalLen != len(super) {
			t.Fatalf("the superframe is %d octets of %d: %v", in.TotalLen, len(super), r)
		}
		for _, leave := range []bool{false, true} {
			c := Cutter{LeaveUDP: leave}
			if r := c.Init(super, &in, off, 65535); r != DropNone || c.Segments() != n {
				t.Fatalf("%d segments: %v", c.Segments(), r)
			}
			for i, b := range cut(t, &c, 65535) {
				at := mustParseRapid(t, b).HeaderLen
				want := bytes.Clone(parts[i])
				if leave && n > 1 {
					LeaveUDPChecksum(b, at, make(VirtioNet, VirtioNetLen))
				} else {
					finishChecksum(want[at:], udpChecksumAt)
				}
				if !bytes.Equal(b, want) {
					t.Fatalf("segment %d of %d:\n got % x\nwant % x", i, n, b[:at+8], want[:at+8])
				}
			}
		}
	})
}

func mustParseRapid(t rapid.TB, b []byte) Info {
	var in Info
	if r := Parse(b, &in); r != DropNone {
		t.Fatal(r)
	}
	return in
}

// TestUDPMergerRefuses changes one thing in the second of two datagrams.
func TestUDPMergerRefuses(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		h := 20
		if v6 {
			h = 40
		}
		for name, change := range map[string]func(b []byte, off VirtioNet) []byte{
			"tos":         func(b []byte, _ VirtioNet) []byte { SetTOS(b, 0x08); return b },
			"ttl":         func(b []byte, _ VirtioNet) []byte { b[map[bool]int{false: 8, true: 7}[v6]] = 9; return b },
			"source":      func(b []byte, _ VirtioNet) []byte { b[15]++; return b },
			"port":        func(b []byte, _ VirtioNet) []byte { b[h+1]++; return b },
			"longer":      func([]byte, VirtioNet) []byte { b, _ := leftUDP(v6, 0x1235, false, count(101)); return b },
			"empty":       func([]byte, VirtioNet) []byte { b, _ := leftUDP(v6, 0x1235, false, nil); return b },
			"UDP length":  func(b []byte, _ VirtioNet) []byte { b[h+5]--; return b },
			"padding":     func(b []byte, _ VirtioNet) []byte { return append(b, 0) },
			"protocol":    func(b []byte, _ VirtioNet) []byte { b[map[bool]int{false: 9, true: 6}[v6]] = ProtoUDPLite; return b },
			"finished":    func(b []byte, off VirtioNet) []byte { off.Clear(); return b },
			"superframe":  func(b []byte, off VirtioNet) []byte { off.SetGSOType(GSOUDPL4); return b },
			"csum_start":  func(b []byte, off VirtioNet) []byte { off.SetCsumStart(off.CsumStart() + 2); return b },
			"csum_offset": func(b []byte, off VirtioNet) []byte { off.SetCsumOffset(tcpChecksumAt); return b },
			"identification, no DF": func(b []byte, _ VirtioNet) []byte {
				if v6 {
					b[3]++ // flow label
				} else {
					b[5]++
				}
				return b
			},
			"fragment": func(b []byte, _ VirtioNet) []byte {
				if v6 {
					return build6([]ext{fragHdr(0, true, 9)}, ProtoUDP, udpDatagram(count(100)))
				}
				b[6] = 0x20
				return b
			},
		} {
			a, ao := leftUDP(v6, 0x1234, false, count(100))
			b, bo := leftUDP(v6, 0x1235, false, count(100))
			if n, _, _ := joinUDP(t, [][]byte{a, b}, []VirtioNet{ao, bo}, 128); n != 2 {
				t.Fatalf("v6 %v: %d joined before anything is changed", v6, n)
			}
			b = change(b, bo)
			n, one, off := joinUDP(t, [][]byte{a, b}, []VirtioNet{ao, bo}, 128)
			if n != 1 || !bytes.Equal(one, a) || off.GSOType() != GSONone || off.Flags() != VirtioNetNeedsCsum {
				t.Errorf("v6 %v, %s: %d joined", v6, name, n)
			}
		}
	}
	var parts [][]byte
	var offs []VirtioNet
	for i := range 60 {
		b, off := leftUDP(false, uint16(i), false, count(1440))
		parts, offs = append(parts, b), append(offs, off)
	}
	if n, _, _ := joinUDP(t, parts, offs, 128); n != 45 {
		t.Errorf("%d of 1,440 octets joined, 65,535 octets take 45", n)
	}
	if n, _, _ := joinUDP(t, parts, offs, 7); n != 7 {
		t.Errorf("%d joined of at most 7", n)
	}
	if n, _, _ := joinUDP(t, parts[:1], []VirtioNet{nil}, 7); n != 0 {
		t.Error("a datagram without metadata was taken")
	}
}

// FuzzUDPMerger joins any two datagrams: never a panic, and what was joined cuts into two
// again.
func FuzzUDPMerger(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		a, off := leftUDP(v6, 1, true, count(60))
		b, _ := leftUDP(v6, 1, true, count(30))
		f.Add(a, b, []byte(off), []byte(off))
	}
	f.Fuzz(func(t *testing.T, a, b, aOff, bOff []byte) {
		var m UDPMerger
		if !m.Start(a, aOff) || !m.Add(b, bOff, 128) {
			return
		}
		super, off := make([]byte, m.HeaderLen(), m.Len()), make(VirtioNet, VirtioNetLen)
		m.WriteHeaders(super, off)
		super = append(append(super, a[m.HeaderLen():]...), b[m.HeaderLen():]...)
		var in Info
		var c Cutter
		if r := Parse(super, &in); r != DropNone {
			t.Fatalf("joined to something that does not parse: %v", r)
		}
		if r := c.Init(super, &in, off, 65535); r != DropNone || c.Segments() != 2 {
			t.Fatalf("cut into %d: %v", c.Segments(), r)
		}
	})
}

func BenchmarkUDPMerger(b *testing.B) {
	var parts [][]byte
	var offs []VirtioNet
	for i := range 45 {
		p, off := leftUDP(false, uint16(i), true, count(1440))
		parts, offs = append(parts, p), append(offs, off)
	}
	head, off := make([]byte, 28), make(VirtioNet, VirtioNetLen)
	var m UDPMerger
	for b.Loop() {
		m.Start(parts[0], offs[0])
		for i := range parts[1:] {
			m.Add(parts[i+1], offs[i+1], 128)
		}
		m.WriteHeaders(head, off)
	}
	if m.Segments() != 45 {
		b.Fatal(m.Segments())
	}
}
