package wire

import (
	"bytes"
	"testing"
)

// The layout is that of RFC 4303 §2, figure 1.
func TestESP(t *testing.T) {
	b := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for n := range len(b) {
		if _, ok := NewESP(b[:n]); ok != (n >= 8) {
			t.Errorf("%d octets: ok = %v", n, ok)
		}
	}
	e, _ := NewESP(b)
	if e.SPI() != 0x01020304 || e.Seq() != 0x05060708 || !bytes.Equal(e.Payload(), []byte{9, 10}) {
		t.Fatalf("SPI %#x, sequence number %#x, payload % x", e.SPI(), e.Seq(), e.Payload())
	}
	e.SetSPI(0xa1a2a3a4)
	e.SetSeq(0xb1b2b3b4)
	if !bytes.Equal(b, []byte{0xa1, 0xa2, 0xa3, 0xa4, 0xb1, 0xb2, 0xb3, 0xb4, 9, 10}) {
		t.Fatalf("% x", b)
	}
}

// The layout is that of RFC 4302 §2, figure 1; §2.2 has the lengths of a 96-bit
// ICV, 4 in IPv4 and with padding in IPv6.
func TestAH(t *testing.T) {
	b := make([]byte, 40)
	a := AH(b)
	b[2], b[3] = 9, 9
	a.SetNextHeader(6)
	a.SetHeaderLen(24)
	a.SetSPI(0x01020304)
	a.SetSeq(0x05060708)
	want := []byte{6, 4, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
	if !bytes.Equal(b[:12], want) {
		t.Fatalf("% x, want % x", b[:12], want)
	}
	v, ok := NewAH(b)
	if !ok || len(v) != 24 || v.NextHeader() != 6 || v.PayloadLen() != 4 || v.HeaderLen() != 24 ||
		v.SPI() != 0x01020304 || v.Seq() != 0x05060708 || len(v.ICV()) != 12 {
		t.Fatalf("ok %v, % x", ok, []byte(v))
	}
	for n := range len(b) {
		if _, ok := NewAH(b[:n]); ok != (n >= 24) {
			t.Errorf("%d octets: ok = %v", n, ok)
		}
	}
	for _, words := range []byte{0, 9, 255} { // shorter than its fixed part, longer than the octets
		b[1] = words
		if _, ok := NewAH(b); ok {
			t.Errorf("payload length %d accepted", words)
		}
	}
}
