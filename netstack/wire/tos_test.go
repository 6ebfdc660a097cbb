package wire

import "testing"

// RFC 6040 §4.2, figure 4: rows are the inner codepoint, columns the outer one.
func TestR30_DecapECN(t *testing.T) {
	const (
		not  = ECNNotECT
		ect0 = ECNECT0
		ect1 = ECNECT1
		ce   = ECNCE
		drop = 0xff
	)
	columns := []uint8{not, ect0, ect1, ce}
	for _, row := range []struct {
		inner uint8
		want  [4]uint8
	}{
		{not, [4]uint8{not, not, not, drop}},
		{ect0, [4]uint8{ect0, ect0, ect1, ce}},
		{ect1, [4]uint8{ect1, ect1, ect1, ce}},
		{ce, [4]uint8{ce, ce, ce, ce}},
	} {
		for i, outer := range columns {
			for _, dscp := range []uint8{0, 0xfc} {
				ecn, dropped := DecapECN(outer|dscp, row.inner|dscp)
				if dropped != (row.want[i] == drop) || !dropped && ecn != row.want[i] {
					t.Errorf("outer %d, inner %d: %d, drop %v; want %d", outer, row.inner, ecn, dropped, row.want[i])
				}
			}
		}
	}
}

// RFC 6040 §4.1, figure 3, normal mode.
func TestR30_EncapECN(t *testing.T) {
	for ecn := range uint8(4) {
		if got := EncapECN(0xb8 | ecn); got != ecn {
			t.Errorf("inner %d: outer %d", ecn, got)
		}
	}
}

func TestSetTOS(t *testing.T) {
	for _, b := range [][]byte{
		build4([]byte{1, 1, 1, 0}, ProtoUDP, udpDatagram(nil)),
		build6(nil, ProtoUDP, udpDatagram(nil)),
	} {
		b[len(b)-1] = 0x55
		if b[0]>>4 == 6 {
			b[1], b[2], b[3] = 0x0c, 0xde, 0xf1 // flow label
		}
		want := mustParse(t, b)
		for _, tos := range []uint8{0, 1, 0x0f, 0xf0, 0xb9, 0xff} {
			SetTOS(b, tos)
			want.TOS = tos
			if got := mustParse(t, b); got != want {
				t.Errorf("%#x: %+v", tos, got)
			}
		}
		if b[0]>>4 == 6 && (b[1]&15 != 0x0c || b[2] != 0xde || b[3] != 0xf1) {
			t.Errorf("flow label changed: % x", b[:4])
		}
	}
}
