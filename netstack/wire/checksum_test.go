package wire

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

// rightL4 reports whether an upper-layer packet's checksum is right, by the sum of
// the tests and the pseudo header of the RFC.
func rightL4(src, dst netip.Addr, proto uint8, u []byte) bool {
	if proto == ProtoICMP {
		return sum(u) == 0xffff
	}
	return sum(pseudo(src, dst, proto, len(u)), u) == 0xffff
}

// leaveL4 puts the sum of the pseudo header into the checksum field at offset field of
// u, as a kernel does that leaves the rest to the device.
func leaveL4(src, dst netip.Addr, proto uint8, u []byte, field int) {
	binary.BigEndian.PutUint16(u[field:], sum(pseudo(src, dst, proto, len(u))))
}

func TestPseudoChecksum(t *testing.T) {
	for _, n := range []int{0, 8, 0xffff, 0x12345} {
		if n <= 0xffff {
			if got, want := PseudoChecksum(src4, dst4, ProtoTCP, n), sum(pseudo(src4, dst4, ProtoTCP, n)); got != want {
				t.Errorf("IPv4, %d: %#04x, want %#04x", n, got, want)
			}
		}
		p := pseudo(src6, dst6, ProtoUDP, n)
		binary.BigEndian.PutUint32(p[32:], uint32(n))
		if got, want := PseudoChecksum(src6, dst6, ProtoUDP, n), sum(p); got != want {
			t.Errorf("IPv6, %d: %#04x, want %#04x", n, got, want)
		}
	}
}

func TestFinishChecksum(t *testing.T) {
	tcp := func() []byte { return tcpSegment(1, 0x10, nil, count(101)) }
	udp := func() []byte { return udpDatagram(count(33)) }
	for _, c := range []struct {
		name     string
		build    func(u []byte) []byte
		src, dst netip.Addr
		proto    uint8
		u        []byte
		field    int
		l2       int
	}{
		{"TCP in IPv4", func(u []byte) []byte { return build4(nil, ProtoTCP, u) }, src4, dst4, ProtoTCP, tcp(), 16, 14},
		{"UDP in IPv4 with options", func(u []byte) []byte { return build4([]byte{1, 1, 1, 0}, ProtoUDP, u) }, src4, dst4, ProtoUDP, udp(), 6, 14},
		{"TCP in IPv6, VLAN", func(u []byte) []byte { return build6(nil, ProtoTCP, u) }, src6, dst6, ProtoTCP, tcp(), 16, 18},
		{"UDP in IPv6 with extension headers", func(u []byte) []byte { return build6([]ext{hopByHop(), destOpts()}, ProtoUDP, u) }, src6, dst6, ProtoUDP, udp(), 6, 14},
		{"TCP in IPv6, segments left", func(u []byte) []byte { return build6([]ext{routing(1, src6)}, ProtoTCP, u) }, src6, src6, ProtoTCP, tcp(), 16, 14},
		{"TCP in IPv6, no segments left", func(u []byte) []byte { return build6([]ext{destOpts(), routing(0, src6)}, ProtoTCP, u) }, src6, dst6, ProtoTCP, tcp(), 16, 14},
	} {
		leaveL4(c.src, c.dst, c.proto, c.u, c.field)
		b := append(c.build(c.u), 0xaa, 0xbb, 0xcc) // link padding takes no part
		in := mustParse(t, b)
		if VerifyL4(b, &in) {
			t.Errorf("%s: right before it was finished", c.name)
		}
		off := virtio(VirtioNetNeedsCsum|VirtioNetDataValid, 0, 0, 0, uint16(c.l2+in.HeaderLen), uint16(c.field))
		if r := FinishChecksum(b, &in, off, c.l2); r != DropNone {
			t.Errorf("%s: %v", c.name, r)
			continue
		}
		if u := b[in.HeaderLen:in.TotalLen]; !rightL4(c.src, c.dst, c.proto, u) {
			t.Errorf("%s: checksum %#x is wrong", c.name, u[c.field:c.field+2])
		}
		if !VerifyL4(b, &in) {
			t.Errorf("%s: VerifyL4 is false", c.name)
		}
		if off.Flags() != VirtioNetDataValid {
			t.Errorf("%s: flags %#x", c.name, off.Flags())
		}
		was := bytes.Clone(b)
		if r := FinishChecksum(b, &in, off, c.l2); r != DropNone || !bytes.Equal(b, was) {
			t.Errorf("%s: finished twice", c.name)
		}
		if b[in.HeaderLen+c.field+2]++; VerifyL4(b, &in) {
			t.Errorf("%s: VerifyL4 is true for a changed octet", c.name)
		}
	}
}

// A UDP checksum that comes out as zero is sent as all ones (RFC 768).
func TestFinishChecksumZero(t *testing.T) {
	u := udpDatagram([]byte{0, 0})
	leaveL4(src4, dst4, ProtoUDP, u, 6)
	binary.BigEndian.PutUint16(u[8:], ^sum(u))
	b := build4(nil, ProtoUDP, u)
	in := mustParse(t, b)
	if r := FinishChecksum(b, &in, virtio(1, 0, 0, 0, 34, 6), 14); r != DropNone {
		t.Fatal(r)
	}
	if got := binary.BigEndian.Uint16(b[26:]); got != 0xffff {
		t.Errorf("%#04x, want 0xffff", got)
	}
	if !VerifyL4(b, &in) {
		t.Error("VerifyL4 is false")
	}
}

func TestFinishChecksumBad(t *testing.T) {
	whole := build4(nil, ProtoUDP, udpDatagram(count(8))) // 36 octets
	frag := bytes.Clone(whole)
	setFrag4(frag, 1, 0)
	for _, c := range []struct {
		name string
		b    []byte
		off  VirtioNet
		want DropReason
	}{
		{"nil", whole, nil, DropNone},
		{"not asked for", whole, virtio(0, 0, 0, 0, 1, 1), DropNone},
		{"cut short", whole, virtio(1, 0, 0, 0, 34, 6)[:10], DropBadOffload},
		{"in the Ethernet header", whole, virtio(1, 0, 0, 0, 2, 6), DropBadOffload},
		{"in the IP header", whole, virtio(1, 0, 0, 0, 24, 6), DropBadOffload},
		{"last octets", whole, virtio(1, 0, 0, 0, 34, 14), DropNone},
		{"behind the datagram", whole, virtio(1, 0, 0, 0, 34, 15), DropBadOffload},
		{"fragment", frag, virtio(1, 0, 0, 0, 34, 6), DropBadOffload},
	} {
		in := mustParse(t, c.b)
		b := append(bytes.Clone(c.b), make([]byte, 20)...)
		was := bytes.Clone(b)
		if r := FinishChecksum(b, &in, c.off, 14); r != c.want {
			t.Errorf("%s: %v, want %v", c.name, r, c.want)
		} else if r != DropNone && !bytes.Equal(b, was) {
			t.Errorf("%s: octets changed", c.name)
		}
	}
}

func TestVerifyL4(t *testing.T) {
	right := func(u []byte, proto uint8, field int, v6 bool) []byte {
		s, d := src4, dst4
		if v6 {
			s, d = src6, dst6
		}
		p := pseudo(s, d, proto, len(u))
		if proto == ProtoICMP {
			p = nil
		}
		binary.BigEndian.PutUint16(u[field:], ^sum(p, u))
		if v6 {
			return build6(nil, proto, u)
		}
		return build4(nil, proto, u)
	}
	udpShort := udpDatagram(count(4)) // UDP length less than the datagram has
	binary.BigEndian.PutUint16(udpShort[6:], ^sum(pseudo(src4, dst4, ProtoUDP, 12), udpShort))
	udpLong := udpDatagram(count(4))
	udpLong[5]++
	udpTiny := udpDatagram(nil)
	udpTiny[5], udpTiny[7] = 7, 1
	frag := right(udpDatagram(count(16)), ProtoUDP, 6, false)
	setFrag4(frag, 1, 0)
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"ICMP", right([]byte{8, 0, 0, 0, 1, 2, 3}, ProtoICMP, 2, false), true},
		{"ICMP wrong", build4(nil, ProtoICMP, []byte{8, 0, 0, 0, 1, 2, 3, 4}), false},
		{"ICMP cut short", build4(nil, ProtoICMP, []byte{0xff, 0xff}), false},
		{"ICMPv6", right([]byte{128, 0, 0, 0, 1, 2, 3}, ProtoICMPv6, 2, true), true},
		{"ICMPv6 wrong", build6(nil, ProtoICMPv6, []byte{128, 0, 0, 0, 1, 2, 3, 4}), false},
		{"UDP without checksum in IPv4", build4(nil, ProtoUDP, udpDatagram(count(4))), true},
		{"UDP without checksum in IPv6", build6(nil, ProtoUDP, udpDatagram(count(4))), false},
		{"UDP with octets behind it", build4(nil, ProtoUDP, append(udpShort, 1, 2)), true},
		{"UDP length too long", build4(nil, ProtoUDP, udpLong), false},
		{"UDP length less than its header", build4(nil, ProtoUDP, udpTiny), false},
		{"UDP cut short", build4(nil, ProtoUDP, udpTiny[:7]), false},
		{"TCP cut short", build4(nil, ProtoTCP, make([]byte, 19)), false},
		{"fragment", frag, false},
		{"ESP", build4(nil, ProtoESP, make([]byte, 16)), false},
	} {
		in := mustParse(t, c.b)
		if got := VerifyL4(c.b, &in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestFinalDst(t *testing.T) {
	a, z := netip.MustParseAddr("2001:db8::a"), netip.MustParseAddr("2001:db8::f")
	list := append(a.AsSlice(), z.AsSlice()...)
	rh := func(kind, left uint8, addrs []byte) ext {
		return ext{ProtoRouting, append([]byte{0, uint8(len(addrs) / 8), kind, left, 0, 0, 0, 0}, addrs...)}
	}
	for _, c := range []struct {
		name  string
		chain []ext
		want  netip.Addr
	}{
		{"none", nil, dst6},
		{"other headers", []ext{hopByHop(), destOpts()}, dst6},
		{"type 4", []ext{rh(4, 1, list)}, a},
		{"type 4, none left", []ext{rh(4, 0, list)}, dst6},
		{"type 2", []ext{destOpts(), rh(2, 1, list[:16]), fragHdr(0, false, 1)}, a},
		{"type 0", []ext{hopByHop(), rh(0, 2, list)}, z},
		{"type 0 without addresses", []ext{rh(0, 1, nil)}, dst6},
		{"type 4 without addresses", []ext{rh(4, 1, nil)}, dst6},
		{"type 3", []ext{rh(3, 1, list)}, dst6},
		{"the second", []ext{rh(4, 0, list), rh(0, 2, list)}, z},
	} {
		b := build6(c.chain, ProtoUDP, udpDatagram(nil))
		in := mustParse(t, b)
		if got := FinalDst(b, &in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// SetLength, SetTOS and the header checksum against the sum of the tests.
func TestIPv4ChecksumProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := rapid.SliceOfN(rapid.Byte(), 0, 10).Draw(t, "options")
		b := build4(bytes.Repeat(options, 4), ProtoUDP, make([]byte, 100))
		hl := int(b[0]&15) * 4
		SetLength(b, 4, rapid.IntRange(hl, 65535).Draw(t, "total"))
		SetTOS(b, rapid.Byte().Draw(t, "tos"))
		if sum(b[:hl]) != 0xffff {
			t.Fatalf("sum %#x", sum(b[:hl]))
		}
	})
}

func BenchmarkFinishChecksum(b *testing.B) {
	d := build4(nil, ProtoTCP, tcpSegment(1, 0x10, nil, count(1448)))
	var in Info
	Parse(d, &in)
	off := virtio(1, 0, 0, 0, 34, 16)
	b.SetBytes(int64(len(d)))
	b.ReportAllocs()
	for b.Loop() {
		off.SetFlags(VirtioNetNeedsCsum)
		FinishChecksum(d, &in, off, 14)
	}
}
