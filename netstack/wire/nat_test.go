package wire

import (
	"bytes"
	"net/netip"
	"testing"
)

// FuzzL4Checksums has any datagram's checksum moved and renewed, as for a peer behind a
// NAT (RFC 3948 §3.1.2): nothing but the checksum changes, what was right stays right, and
// a renewed one is right.
func FuzzL4Checksums(f *testing.F) {
	for _, proto := range []uint8{ProtoTCP, ProtoUDP, ProtoUDPLite, ProtoDCCP, ProtoICMP, ProtoICMPv6, 132} {
		for _, head := range [][]byte{
			{0x45, 0, 0, 60, 0, 1, 0, 0, 64, proto, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2},
			append([]byte{0x60, 0, 0, 0, 0, 40, proto, 64}, make([]byte, 32)...),
		} {
			d := append(head, make([]byte, 40)...)
			u := d[len(head):]
			u[12] = 5 << 4 // TCP's data offset
			if proto == ProtoUDP {
				u[5], u[6] = 40, 1
			}
			if d[0]>>4 == 4 {
				UpdateIPv4Checksum(d)
			}
			f.Add(d)
		}
	}
	old4, old6 := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00::5")
	f.Fuzz(func(t *testing.T, d []byte) {
		var in Info
		if Parse(d, &in) != DropNone {
			return
		}
		d = d[:in.TotalLen]
		old := old4
		if in.Version == 6 {
			old = old6
		}
		u, at, whole, ok := l4Checksum(d, &in)
		same := func(what string, b []byte) {
			t.Helper()
			if !ok {
				if !bytes.Equal(b, d) {
					t.Fatalf("%s changes %x to %x", what, d, b)
				}
				return
			}
			from := len(d) - len(d[in.HeaderLen:]) + at
			if !bytes.Equal(b[:from], d[:from]) || !bytes.Equal(b[from+2:], d[from+2:]) {
				t.Fatalf("%s changes %x to %x", what, d, b)
			}
		}
		right := VerifyL4(d, &in)
		moved := bytes.Clone(d)
		MoveL4Checksum(moved, &in, old, old)
		same("MoveL4Checksum", moved)
		// Back: as if the datagram had been made for other addresses.
		back := in
		back.Src, back.Dst = old, old
		MoveL4Checksum(moved, &back, in.Src, in.Dst)
		same("MoveL4Checksum back", moved)
		if right && FinalDst(d, &in) == in.Dst && !VerifyL4(moved, &in) {
			t.Fatalf("a right checksum moved there and back is wrong: %x, %x", d, moved)
		}
		renewed := bytes.Clone(d)
		RenewL4Checksum(renewed, &in)
		same("RenewL4Checksum", renewed)
		none := ok && in.Proto == ProtoUDP && u[at] == 0 && u[at+1] == 0 // UDP without a checksum
		if ok && whole && !none && !VerifyL4(renewed, &in) {
			t.Fatalf("a renewed checksum is wrong: %x, upper layer %x", renewed, u)
		}
	})
}
