package wire

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

func encapDatagram(payload []byte, extra int) []byte {
	u := append(make([]byte, UDPLen), payload...)
	PutUDPHeader(u, 4500, 4500)
	b := make([]byte, ipv4MinLen, ipv4MinLen+len(u)+extra)
	b[0], b[8], b[9] = 0x45, 64, ProtoUDP
	copy(b[12:], []byte{192, 0, 2, 1, 192, 0, 2, 2})
	b = append(append(b, u...), make([]byte, extra)...)
	SetIPv4TotalLen(b, len(b))
	return b
}

func TestRFC3948_2_EncapPayload(t *testing.T) {
	tests := []struct {
		payload string
		want    EncapKind
	}{
		{"", EncapOther}, {"ff", EncapKeepalive}, {"fe", EncapOther}, {"ffff", EncapOther}, {"00", EncapOther},
		{"000000", EncapOther}, {"00000000", EncapIKE}, {"00000000ff", EncapIKE}, {"0000000001020304", EncapIKE},
		{"00000001", EncapOther}, {"00000001000000", EncapOther}, {"0000000100000000", EncapESP}, {"ffffffff00000001ab", EncapESP},
	}
	for _, tt := range tests {
		payload, _ := hex.DecodeString(tt.payload)
		for _, extra := range []int{0, 9} { // octets behind the end that UDP tells
			b := encapDatagram(payload, extra)
			var in Info
			if r := Parse(b, &in); r != DropNone {
				t.Fatal(r)
			}
			if got, kind := EncapPayload(b, &in); kind != tt.want || !bytes.Equal(got, payload) {
				t.Errorf("%s: kind %d, payload %x", tt.payload, kind, got)
			}
		}
	}
}

// FuzzEncapPayload: no octets from outside may break it, and what it returns lies
// inside the datagram.
func FuzzEncapPayload(f *testing.F) {
	f.Add(encapDatagram([]byte{0xff}, 0))
	f.Add(encapDatagram(make([]byte, 32), 3))
	f.Add(encapDatagram(bytes.Repeat([]byte{1}, 40), 0))
	f.Add(encapDatagram(bytes.Repeat([]byte{1}, 40), 0)[:25])
	f.Fuzz(func(t *testing.T, b []byte) {
		var in Info
		if Parse(b, &in) != DropNone {
			return
		}
		payload, kind := EncapPayload(b, &in)
		if kind == EncapESP && len(payload) < ESPMinLen || len(payload) > in.TotalLen-in.HeaderLen {
			t.Errorf("kind %d with %d octets", kind, len(payload))
		}
		was := bytes.Clone(b)
		right := VerifyL4(b, &in)
		MoveL4Checksum(b, &in, in.Src, FinalDst(b, &in)) // from where it is to where it is
		if VerifyL4(b, &in) != right {
			t.Errorf("a checksum changed its truth: %x to %x", was, b)
		}
		RenewL4Checksum(b, &in)
	})
}

func TestRFC3948_3_1_2_MoveAndRenewChecksum(t *testing.T) {
	for _, pair := range [][4]string{
		{"10.0.0.5", "10.9.0.1", "203.0.113.1", "198.51.100.2"}, {"fd00::5", "fd00::1", "2001:db8::1", "2001:db8::2"},
	} {
		var a [4]netip.Addr
		for i, s := range pair {
			a[i] = netip.MustParseAddr(s)
		}
		for proto, at := range map[uint8]int{ProtoTCP: tcpChecksumAt, ProtoUDP: udpChecksumAt, ProtoICMPv6: icmpChecksumAt} {
			if proto == ProtoICMPv6 && a[0].Is4() {
				continue
			}
			for seed := range 200 {
				u := make([]byte, 41)
				for i := range u {
					u[i] = byte(i*seed + seed>>3)
				}
				if proto == ProtoTCP {
					u[12] = 5 << 4
				}
				u[at], u[at+1] = 0, 0
				if proto == ProtoUDP {
					PutUDPHeader(u, 1, 2)
				}
				putChecksum(u[at:], ^checksum.Checksum(u, PseudoChecksum(a[0], a[1], proto, len(u))))
				head := ipv6Len
				if a[0].Is4() {
					head = ipv4MinLen
				}
				b := append(make([]byte, head), u...)
				if head == ipv4MinLen {
					b[0], b[8], b[9] = 0x45, 64, proto
				} else {
					b[0], b[6], b[7] = 0x60, proto, 64
				}
				SetSrc(b, a[2])
				SetDst(b, a[3])
				SetLength(b, int(b[0]>>4), len(b))
				var in Info
				if r := Parse(b, &in); r != DropNone {
					t.Fatal(r)
				}
				renewed := bytes.Clone(b)
				MoveL4Checksum(b, &in, a[0], a[1])
				if !VerifyL4(b, &in) {
					t.Fatalf("protocol %d, %v: moved checksum is wrong", proto, pair)
				}
				RenewL4Checksum(renewed, &in)
				if !VerifyL4(renewed, &in) {
					t.Fatalf("protocol %d, %v: renewed checksum is wrong", proto, pair)
				}
			}
		}
	}
}
