package transform

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"bitw/netstack/wire"
)

// RFC 4303 §2.4: padding is 1, 2, 3, …, no longer than what there is, and every octet
// of it counts. The ICV of each packet here is right.
func TestR39_Padding(t *testing.T) {
	long := pattern(0, 0)
	for i := range 255 {
		long = append(long, byte(i+1))
	}
	for _, c := range []struct {
		name   string
		body   []byte // payload, padding, pad length, next header
		want   wire.DropReason
		octets int // of payload
	}{
		{"no padding", []byte{9, 9, 0, 6}, wire.DropNone, 2},
		{"no payload, no padding", append(pattern(2, 0), 0, 6), wire.DropNone, 2},
		{"only padding", []byte{1, 2, 2, 6}, wire.DropNone, 0},
		{"more than needed", []byte{9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 6, 6}, wire.DropNone, 4},
		{"255 octets", append(append([]byte{9, 9, 9}, long...), 255, 6), wire.DropNone, 3},
		{"first octet", []byte{9, 9, 9, 9, 9, 2, 2, 6}, wire.DropBadPadding, 0},
		{"last octet", []byte{9, 9, 9, 9, 1, 1, 2, 6}, wire.DropBadPadding, 0},
		{"zeros", []byte{9, 9, 9, 9, 0, 0, 2, 6}, wire.DropBadPadding, 0},
		{"longer than the packet", []byte{1, 2, 3, 6}, wire.DropBadPadding, 0},
		{"much longer than the packet", []byte{1, 2, 255, 6}, wire.DropBadPadding, 0},
	} {
		s := Sequence{SPI: 1, Number: 2}
		key := pattern(32, 1)
		x, err := mustLookup(t, ProtoESP, "null-sha256").New(nil, key, Options{})
		if err != nil {
			t.Fatal(err)
		}
		packet := append(header(s), c.body...)
		h := hmac.New(sha256.New, key)
		h.Write(packet)
		packet = h.Sum(packet)[:len(packet)+16]
		p := &Packet{Buf: packet, End: len(packet)}
		r := x.Open(p, s)
		if r != c.want || r == wire.DropNone && (p.End-p.Pay != c.octets || p.NextHeader != 6) {
			t.Errorf("%s: %v with %d octets, want %v with %d", c.name, r, p.End-p.Pay, c.want, c.octets)
		}
	}
}

// What Seal writes, taken apart with the standard library alone: SPI, sequence
// number, IV = sequence number (RFC 4106 §3.1), padding, next header, tag. For the
// 8-octet ICV, the tag is the first half of the whole one.
func TestR37_GCMLayout(t *testing.T) {
	for _, c := range []struct {
		name string
		s    Sequence
		aad  string
	}{
		{"aes128gcm16", Sequence{SPI: 0x11223344, Number: 0x55667788}, "1122334455667788"},
		{"aes192gcm12", Sequence{SPI: 0x11223344, Number: 0x55667788}, "1122334455667788"},
		{"aes256gcm8", Sequence{SPI: 0x11223344, Number: 0x55667788}, "1122334455667788"},
		{"aes256gcm8", Sequence{SPI: 0x11223344, Number: 0xaabbccdd55667788, ESN: true}, "11223344aabbccdd55667788"},
		{"aes128gcm16", Sequence{SPI: 0x11223344, Number: 0xaabbccdd55667788, ESN: true}, "11223344aabbccdd55667788"},
	} {
		a := mustLookup(t, ProtoESP, c.name)
		x := mustNew(t, a, Options{})
		p := sealed(t, x, Options{}, []byte("layou"), 58, c.s)
		got := p.Buf[p.Hdr:p.End]

		key := pattern(a.EncryptionKeyLen, 1)
		block, err := aes.NewCipher(key[:len(key)-4])
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		iv := binary.BigEndian.AppendUint64(nil, c.s.Number)
		nonce := append(bytes.Clone(key[len(key)-4:]), iv...)
		want := append(header(c.s), iv...)
		want = append(want, gcm.Seal(nil, nonce, []byte("layou\x01\x01\x3a"), unhex(t, c.aad))...)
		want = want[:len(want)-16+a.ICVLen]
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n%x, want\n%x", c.name, got, want)
		}
	}
}

// RFC 3602 §3: two packets never share an IV, nor does a second SA with the same keys.
func TestCBCPacketsDiffer(t *testing.T) {
	a := mustLookup(t, ProtoESP, "aes128-sha256")
	x, y := mustNew(t, a, Options{}), mustNew(t, a, Options{})
	s := Sequence{SPI: 1, Number: 1}
	seen := make(map[string]bool)
	for _, tr := range []Transform{x, x, x, y, y, y} {
		p := sealed(t, tr, Options{}, pattern(32, 0), 6, s)
		for _, b := range [][]byte{p.Buf[p.Hdr+8 : p.Hdr+24], p.Buf[p.Pay : p.Pay+16]} {
			if seen[string(b)] {
				t.Errorf("the block %x came twice", b)
			}
			seen[string(b)] = true
		}
	}
}
