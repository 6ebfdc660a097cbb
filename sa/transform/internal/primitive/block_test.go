package primitive

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"strings"
	"testing"
)

// RFC 3566 §4, cases 1 to 7, and RFC 4493 §4 (whose cases are also NIST SP 800-38B
// D.1's), the latter with the keys of D.2 and D.3 too.
func TestBlockMACVectors(t *testing.T) {
	const (
		counting = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021"
		key128   = "2b7e151628aed2a6abf7158809cf4f3c"
		key192   = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b"
		key256   = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
		nist     = "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51" +
			"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
	)
	for _, c := range []struct {
		source            string
		newMAC            func(key []byte, tagLen int) (*MAC, error)
		key, message, tag string
	}{
		{"RFC 3566 case 1", NewXCBC, counting[:32], "", "75f0251d528ac01c4573dfd584d79f29"},
		{"RFC 3566 case 2", NewXCBC, counting[:32], counting[:6], "5b376580ae2f19afe7219ceef172756f"},
		{"RFC 3566 case 3", NewXCBC, counting[:32], counting[:32], "d2a246fa349b68a79998a4394ff7a263"},
		{"RFC 3566 case 4", NewXCBC, counting[:32], counting[:40], "47f51b4564966215b8985c63055ed308"},
		{"RFC 3566 case 5", NewXCBC, counting[:32], counting[:64], "f54f0ec8d2b9f3d36807734bd5283fd4"},
		{"RFC 3566 case 6", NewXCBC, counting[:32], counting, "becbb3bccdb518a30677d5481fb6b4d8"},
		{"RFC 3566 case 7", NewXCBC, counting[:32], strings.Repeat("00", 1000), "f0dafee895db30253761103b5d84528f"},
		{"RFC 4493 example 1", NewCMAC, key128, "", "bb1d6929e95937287fa37d129b756746"},
		{"RFC 4493 example 2", NewCMAC, key128, nist[:32], "070a16b46b4d4144f79bdd9dd04a287c"},
		{"RFC 4493 example 3", NewCMAC, key128, nist[:80], "dfa66747de9ae63030ca32611497c827"},
		{"RFC 4493 example 4", NewCMAC, key128, nist, "51f0bebf7e3b9d92fc49741779363cfe"},
		{"SP 800-38B D.2 example 5", NewCMAC, key192, "", "d17ddf46adaacde531cac483de7a9367"},
		{"SP 800-38B D.2 example 6", NewCMAC, key192, nist[:32], "9e99a7bf31e710900662f65e617c5184"},
		{"SP 800-38B D.3 example 9", NewCMAC, key256, "", "028962f61b7bf89efc6b551f4667d983"},
		{"SP 800-38B D.3 example 12", NewCMAC, key256, nist, "e1992190549f6ed5696a2c056c315410"},
	} {
		message, want := unhex(t, c.message), unhex(t, c.tag)
		for _, n := range []int{12, 16} { // RFC 3566 §4.3 and RFC 4494 §2 cut to 96 bits
			m, err := c.newMAC(unhex(t, c.key), n)
			if err != nil {
				t.Fatal(err)
			}
			if m.TagLen() != n || m.IVLen() != 0 {
				t.Fatalf("%s: tag of %d octets, IV of %d", c.source, m.TagLen(), m.IVLen())
			}
			for range 2 {
				if got := tagOf(m, message); !bytes.Equal(got, want[:n]) {
					t.Errorf("%s: %x, want %x", c.source, got, want[:n])
				}
			}
			for cut := range message { // in two pieces, and asked in between
				d := m.Start()
				d.Write(message[:cut])
				d.Tag(m)
				d.Write(message[cut:])
				if got := d.Tag(m); !bytes.Equal(got, want[:n]) {
					t.Fatalf("%s: cut at %d: %x, want %x", c.source, cut, got, want[:n])
				}
				m.Done(d)
			}
		}
	}
	for _, n := range []int{0, 8, 15, 24, 32} {
		if _, err := NewXCBC(make([]byte, n), 12); err == nil {
			t.Errorf("AES-XCBC takes a key of %d octets", n)
		}
	}
	if _, err := NewCMAC(make([]byte, 15), 12); err == nil {
		t.Error("AES-CMAC takes a key of 15 octets")
	}
}

// The GCM specification, Appendix B cases 1, 7 and 13 (no data at all); and the
// additional data of draft-mcgrew-gcm-test-01's packet with AES-GMAC.
func TestGMACVectors(t *testing.T) {
	for _, c := range []struct{ key, salt, iv, message, tag string }{
		{strings.Repeat("00", 16), "00000000", "0000000000000000", "", "58e2fccefa7e3061367f1d57a4e7455a"},
		{strings.Repeat("00", 24), "00000000", "0000000000000000", "", "cd33b28ac773f74ba00ed1f312572435"},
		{strings.Repeat("00", 32), "00000000", "0000000000000000", "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{"4c80cdefbb5d10da906ac73c3613a634", "22433c64", "0000000000000000",
			`00004321 00000007 0000000000000000 45000030da3a00008001df3bc0a80005c0a800010800c6cd02000700
			6162636465666768696a6b6c6d6e6f707172737401020201`, "f2a9a836e155106aa8dcd618e4099aaa"},
	} {
		m, err := NewGMAC(unhex(t, c.key), unhex(t, c.salt))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			d := m.Start()
			d.Write(unhex(t, c.message))
			d.SetIV(unhex(t, c.iv))
			if got, want := d.Tag(m), unhex(t, c.tag); !bytes.Equal(got, want) {
				t.Errorf("key %s: %x, want %x", c.key, got, want)
			}
			m.Done(d)
		}
		d := m.Start()
		d.Write(unhex(t, c.message))
		d.SetIV([]byte{0, 0, 0, 0, 0, 0, 0, 1})
		if bytes.Equal(d.Tag(m), unhex(t, c.tag)) {
			t.Errorf("key %s: the IV does not matter", c.key)
		}
		m.Done(d)
	}
	if _, err := NewGMAC(make([]byte, 15), make([]byte, 4)); err == nil {
		t.Error("AES-GMAC takes a key of 15 octets")
	}
}

// Against the standard library, for every length around the block.
func TestCTR(t *testing.T) {
	for _, keyLen := range []int{16, 24, 32} {
		key := bytes.Repeat([]byte{7}, keyLen)
		block, err := aes.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCTR(key)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 100 {
			data, want := bytes.Repeat([]byte{3}, n), bytes.Repeat([]byte{3}, n)
			c.XOR([]byte("salt"), []byte("sequence"), data)
			cipher.NewCTR(block, []byte("saltsequence\x00\x00\x00\x01")).XORKeyStream(want, want)
			if !bytes.Equal(data, want) {
				t.Fatalf("%d octets: %x, want %x", n, data, want)
			}
		}
	}
	if _, err := NewCTR(make([]byte, 15)); err == nil {
		t.Error("AES-CTR takes a key of 15 octets")
	}
}
