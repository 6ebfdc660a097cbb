package primitive

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"
	"testing"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tagOf(m *MAC, message []byte) []byte {
	d := m.Start()
	defer m.Done(d)
	d.Write(message)
	return bytes.Clone(d.Tag(m))
}

// RFC 2202 §3, RFC 4231 §4 and RFC 4868 §2.7.
func TestMACVectors(t *testing.T) {
	const (
		hiThere = "4869205468657265"
		nothing = "7768617420646f2079612077616e7420666f72206e6f7468696e673f"
	)
	for _, c := range []struct {
		source       string
		newHash      func() hash.Hash
		key, message string
		tag          string // what is there of it
	}{
		{"RFC 2202 case 1", sha1.New, strings.Repeat("0b", 20), hiThere, "b617318655057264e28bc0b6fb378c8ef146be00"},
		{"RFC 2202 case 2", sha1.New, "4a656665", nothing, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"},
		{"RFC 2202 case 3", sha1.New, strings.Repeat("aa", 20), strings.Repeat("dd", 50), "125d7342b9ac11cd91a39af48aa17b4f63f175d3"},
		{"RFC 2202 case 5, 96 bits", sha1.New, strings.Repeat("0c", 20), "546573742057697468205472756e636174696f6e", "4c1a03424b55e07fe7f27be1"},
		{"RFC 4231 case 1", sha256.New, strings.Repeat("0b", 20), hiThere, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{"RFC 4231 case 1", sha512.New384, strings.Repeat("0b", 20), hiThere, "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6"},
		{"RFC 4231 case 1", sha512.New, strings.Repeat("0b", 20), hiThere, "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"},
		{"RFC 4231 case 2", sha256.New, "4a656665", nothing, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{"RFC 4231 case 2", sha512.New384, "4a656665", nothing, "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649"},
		{"RFC 4231 case 2", sha512.New, "4a656665", nothing, "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"},
		{"RFC 4868 §2.7.2 AUTH256-1", sha256.New, strings.Repeat("0b", 32), hiThere, "198a607eb44bfbc69903a0f1cf2bbdc5"},
		{"RFC 4868 §2.7.2 AUTH256-2", sha256.New, strings.Repeat("4a656665", 8), nothing, "167f928588c5cc2eef8e3093caa0e87c"},
		{"RFC 4868 §2.7.2 AUTH384-1", sha512.New384, strings.Repeat("0b", 48), hiThere, "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973"},
		{"RFC 4868 §2.7.2 AUTH384-2", sha512.New384, strings.Repeat("4a656665", 12), nothing, "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d"},
		{"RFC 4868 §2.7.2 AUTH512-1", sha512.New, strings.Repeat("0b", 64), hiThere, "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8"},
		{"RFC 4868 §2.7.2 AUTH512-2", sha512.New, strings.Repeat("4a656665", 16), nothing, "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454"},
	} {
		want := unhex(t, c.tag)
		m := NewHMAC(c.newHash, unhex(t, c.key), len(want))
		for range 2 { // the second time from the saved state
			if got := tagOf(m, unhex(t, c.message)); !bytes.Equal(got, want) {
				t.Errorf("%s: %x, want %x", c.source, got, want)
			}
		}
	}
}

func TestDigestPieces(t *testing.T) {
	m := NewHMAC(sha256.New, []byte("key"), 16)
	d := m.Start()
	d.Write([]byte("a"))
	d.WriteZeros(0)
	d.WriteZeros(200)
	d.WriteUint32(0x01020304)
	got := bytes.Clone(d.Tag(m))
	m.Done(d)
	message := append(append([]byte("a"), make([]byte, 200)...), 1, 2, 3, 4)
	if want := tagOf(m, message); !bytes.Equal(got, want) {
		t.Errorf("in pieces %x, at once %x", got, want)
	}
}

// NIST SP 800-38A F.2.1, F.2.3 and F.2.5, both ways.
func TestCBCVectors(t *testing.T) {
	plaintext := unhex(t, `6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
		30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710`)
	iv := unhex(t, "000102030405060708090a0b0c0d0e0f")
	for _, c := range []struct{ key, ciphertext string }{
		{"2b7e151628aed2a6abf7158809cf4f3c",
			`7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2
			73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7`},
		{"8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
			`4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a
			571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd`},
		{"603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4",
			`f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d
			39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b`},
	} {
		cbc, err := NewCBC(unhex(t, c.key), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			data := bytes.Clone(plaintext)
			cbc.Encrypt(iv, data)
			if !bytes.Equal(data, unhex(t, c.ciphertext)) {
				t.Errorf("key %s encrypts to %x", c.key, data)
			}
			cbc.Decrypt(iv, data)
			if !bytes.Equal(data, plaintext) {
				t.Errorf("key %s decrypts to %x", c.key, data)
			}
		}
	}
}

// RFC 3602 §3: IVs of one SA do not repeat, and another SA with the same key has
// others, since each has a random key for them.
func TestCBCIVs(t *testing.T) {
	seen := make(map[[BlockLen]byte]bool)
	for range 2 {
		cbc, err := NewCBC(make([]byte, 16), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			var iv [BlockLen]byte
			cbc.NextIV(iv[:])
			if seen[iv] {
				t.Fatalf("IV %x came twice", iv)
			}
			seen[iv] = true
		}
	}
	if _, err := NewCBC(make([]byte, 16), strings.NewReader("too little")); err == nil {
		t.Error("no error without randomness")
	}
}

// The GCM specification (McGrew and Viega), Appendix B cases 1 to 4, 7 to 10 and 13
// to 16, with the tag cut to each length.
func TestGCMVectors(t *testing.T) {
	const (
		key = "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308"
		iv  = "cafebabefacedbaddecaf888"
		p   = `d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72
			1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39`
		a = "feedfacedeadbeeffeedfacedeadbeefabaddad2"
	)
	for _, c := range []struct{ key, nonce, plaintext, aad, ciphertext, tag string }{
		{strings.Repeat("00", 16), strings.Repeat("00", 12), "", "", "", "58e2fccefa7e3061367f1d57a4e7455a"},
		{strings.Repeat("00", 16), strings.Repeat("00", 12), strings.Repeat("00", 16), "", "0388dace60b6a392f328c2b971b2fe78", "ab6e47d42cec13bdf53a67b21257bddf"},
		{key[:32], iv, p, a,
			`42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e
			21d514b25466931c7d8f6a5aac84aa051ba30b396a0aac973d58e091`, "5bc94fbc3221a5db94fae95ae7121a47"},
		{strings.Repeat("00", 24), strings.Repeat("00", 12), "", "", "", "cd33b28ac773f74ba00ed1f312572435"},
		{strings.Repeat("00", 24), strings.Repeat("00", 12), strings.Repeat("00", 16), "", "98e7247c07f0fe411c267e4384b0f600", "2ff58d80033927ab8ef4d4587514f0fb"},
		{key[:48], iv, p, a,
			`3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c
			7d773d00c144c525ac619d18c84a3f4718e2448b2fe324d9ccda2710`, "2519498e80f1478f37ba55bd6d27618c"},
		{strings.Repeat("00", 32), strings.Repeat("00", 12), "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"},
		{strings.Repeat("00", 32), strings.Repeat("00", 12), strings.Repeat("00", 16), "", "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919"},
		{key, iv, p, a,
			`522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa
			8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662`, "76fc6ece0f4e1768cddf8853bb2d551b"},
	} {
		for _, n := range []int{8, 12, 16} {
			g, err := NewGCM(unhex(t, c.key), n)
			if err != nil {
				t.Fatal(err)
			}
			if g.Overhead() != n || g.NonceSize() != 12 {
				t.Fatalf("overhead %d and nonce %d, want %d and 12", g.Overhead(), g.NonceSize(), n)
			}
			nonce, plaintext, aad := unhex(t, c.nonce), unhex(t, c.plaintext), unhex(t, c.aad)
			want := append(unhex(t, c.ciphertext), unhex(t, c.tag)[:n]...)
			got := g.Seal([]byte("before"), nonce, plaintext, aad)
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("tag of %d octets: sealed to %x, want %x", n, got, want)
			}
			opened, err := g.Open([]byte("before"), nonce, want, aad)
			if err != nil || !bytes.Equal(opened, append([]byte("before"), plaintext...)) {
				t.Errorf("tag of %d octets: opened to %x, %v", n, opened, err)
			}
			for i := range want {
				bad := bytes.Clone(want)
				bad[i] ^= 0x80
				if _, err := g.Open(nil, nonce, bad, aad); err == nil {
					t.Errorf("tag of %d octets: octet %d changed and opened", n, i)
				}
			}
			if _, err := g.Open(nil, nonce, want[:n-1], aad); err == nil {
				t.Errorf("less than a tag of %d octets opened", n)
			}
		}
	}
	for _, n := range []int{0, 4, 10, 13, 17} {
		if _, err := NewGCM(make([]byte, 16), n); err == nil {
			t.Errorf("a tag of %d octets is no error", n)
		}
	}
}
