package primitive

import (
	"bytes"
	"crypto/des"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// FIPS 81 Appendix C: DES-CBC of "Now is the time for all ".
func TestR38_DESCBC(t *testing.T) {
	c, err := NewDESCBC(unhex(t, "0123456789abcdef"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	iv, b := unhex(t, "1234567890abcdef"), []byte("Now is the time for all ")
	clear := bytes.Clone(b)
	c.Encrypt(iv, b)
	if want := unhex(t, "e5c7cdde872bf27c 43e934008c389c0f 683788499a7c05f6"); !bytes.Equal(b, want) {
		t.Errorf("%x, want %x", b, want)
	}
	if c.Decrypt(iv, b); !bytes.Equal(b, clear) {
		t.Errorf("decrypted to %x", b)
	}
}

// NIST SP 800-20: triple DES of one block, with two keys and with three.
func TestR38_TripleDES(t *testing.T) {
	const k1, k2, k3 = "0123456789abcdef", "23456789abcdef01", "456789abcdef0123"
	block := unhex(t, "5468652071756663") // "The qufc", SP 800-67 Appendix B
	for key, want := range map[string]string{k1 + k2 + k3: "a826fd8ce53b855f"} {
		c, err := NewDESCBC(unhex(t, key), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(block)
		if c.EncryptBlock(b); !bytes.Equal(b, unhex(t, want)) {
			t.Errorf("%x, want %s", b, want)
		}
		if c.DecryptBlock(b); !bytes.Equal(b, block) {
			t.Errorf("decrypted to %x", b)
		}
	}
	two, err := NewDESCBC(unhex(t, k1+k2), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	three, err := NewDESCBC(unhex(t, k1+k2+k1), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a, b := bytes.Clone(block), bytes.Clone(block)
	two.EncryptBlock(a)
	if three.EncryptBlock(b); !bytes.Equal(a, b) {
		t.Errorf("with two keys %x, with the first again as third %x", a, b)
	}
}

// The table of weak keys is one: each has a partner, itself or another, that decrypts
// what it encrypts by encrypting it again.
func TestR38_WeakDESKeys(t *testing.T) {
	var weak []uint64
	for _, high := range []uint64{0x01, 0x1f, 0xe0, 0xfe} {
		for _, low := range []uint64{0x01, 0x1f, 0xe0, 0xfe} {
			// A half of the schedule is filled from the upper bits of all octets, the other from
			// the lower ones, of which the second four octets hold one bit more.
			second := map[uint64]uint64{0x01: 0x01, 0x1f: 0x0e, 0xe0: 0xf1, 0xfe: 0xfe}
			pair := high<<8 | low
			last := second[high]<<8 | second[low]
			weak = append(weak, pair<<48|pair<<32|last<<16|last)
		}
	}
	text := []byte("any text")
	for _, k := range weak {
		key := binary.BigEndian.AppendUint64(nil, k)
		if _, err := NewDESCBC(key, rand.Reader); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%x: %v", key, err)
		}
		key[3] ^= 1 // parity
		if _, err := NewDESCBC(key, rand.Reader); !errors.Is(err, ErrWeakKey) {
			t.Errorf("%x with another parity: %v", key, err)
		}
		c, err := des.NewCipher(key)
		if err != nil {
			t.Fatal(err)
		}
		b := bytes.Clone(text)
		c.Encrypt(b, b)
		found := false
		for _, k := range weak {
			partner, err := des.NewCipher(binary.BigEndian.AppendUint64(nil, k))
			if err != nil {
				t.Fatal(err)
			}
			again := make([]byte, len(b))
			partner.Encrypt(again, b)
			found = found || bytes.Equal(again, text)
		}
		if !found {
			t.Errorf("%x has no partner, so it is not weak", key)
		}
	}
	if len(weak) != 16 {
		t.Errorf("%d keys", len(weak))
	}
}

func TestR38_BadDESKeys(t *testing.T) {
	const k1, k2 = "0123456789abcdef", "23456789abcdef01"
	for name, c := range map[string]struct {
		key, want string
		weak      bool
	}{
		"too short":       {"01234567", "DES key is 4 octets, want 8, 16 or 24", false},
		"too long":        {k1 + k2 + k1 + k2, "DES key is 32 octets", false},
		"twice the same":  {k1 + k1, "keys 1 and 2 are the same", true},
		"but for parity":  {k1 + "0022446688aaccee" + k2, "keys 1 and 2 are the same", true},
		"second is third": {k1 + k2 + k2, "keys 2 and 3 are the same", true},
		"second is weak":  {k1 + "0101010101010101", "key 2 of 2: weak DES key", true},
	} {
		_, err := NewDESCBC(unhex(t, c.key), rand.Reader)
		if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, ErrWeakKey) != c.weak {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewDESCBC(unhex(t, k1), strings.NewReader("too little")); err == nil {
		t.Error("no randomness and no error")
	}
}

// IVs of DES do not repeat.
func TestR38_DESIVs(t *testing.T) {
	c, err := NewDESCBC(unhex(t, "0123456789abcdef"), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[[DESBlockLen]byte]bool)
	for range 10000 {
		var iv [DESBlockLen]byte
		c.NextIV(iv[:])
		if seen[iv] {
			t.Fatalf("IV %x came twice", iv)
		}
		seen[iv] = true
	}
}
