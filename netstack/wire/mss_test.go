package wire

import (
	"bytes"
	"testing"
)

func FuzzClampMSS(f *testing.F) {
	syn := append(make([]byte, 40), 2, 4, 5, 0xb4, 1, 1, 1, 0)
	syn[0], syn[9], syn[32], syn[33] = 0x45, ProtoTCP, 7<<4, 2
	SetIPv4TotalLen(syn, len(syn))
	f.Add(syn, 1000)
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 28, ProtoTCP, 1}, make([]byte, 60)...), 1)
	f.Fuzz(func(t *testing.T, b []byte, mss int) {
		var in Info
		if mss < 1 || mss > maxDatagram || Parse(b, &in) != DropNone || in.FragOffset != 0 {
			return
		}
		b = b[:in.TotalLen]
		RenewL4Checksum(b, &in)
		right := VerifyL4(b, &in)
		was := bytes.Clone(b)
		if !ClampMSS(b, &in, mss) {
			if !bytes.Equal(b, was) {
				t.Error("changed, and says not")
			}
			return
		}
		if right && !VerifyL4(b, &in) {
			t.Error("the checksum is wrong now")
		}
		if ClampMSS(b, &in, mss) {
			t.Error("clamped twice")
		}
		_ = Forbidden(b, &in)
	})
}

func FuzzForbidden(f *testing.F) {
	f.Add([]byte{0x46, 0, 0, 24, 0, 0, 0, 0, 1, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 131, 4, 1, 0})
	f.Add(append([]byte{0x60, 0, 0, 0, 0, 24, ProtoRouting, 1}, append(make([]byte, 32), ProtoNone, 2, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 20 && b[0]>>4 == 4 && int(b[0]&15) >= 5 && int(b[0]&15)*4 <= len(b) {
			UpdateIPv4Checksum(b)
		}
		var in Info
		if Parse(b, &in) != DropNone {
			return
		}
		switch r := Forbidden(b, &in); r {
		case DropNone, DropMartian, DropSourceRoute, DropMalformed:
		default:
			t.Errorf("%v", r)
		}
	})
}
