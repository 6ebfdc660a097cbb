package primitive

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"testing"
)

// referenceCCM is RFC 3610 in its own words, for any length of nonce, sealed.
func referenceCCM(t *testing.T, key, nonce, plaintext, additional []byte, tagLen int) []byte {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	lengthLen := 15 - len(nonce) // L
	flags := byte(lengthLen - 1)
	first := append([]byte{flags}, nonce...)
	counter := append(bytes.Clone(first), make([]byte, lengthLen)...)
	first[0] |= byte((tagLen - 2) / 2 << 3)
	first = append(first, binary.BigEndian.AppendUint64(nil, uint64(len(plaintext)))[8-lengthLen:]...)
	pad := func(b []byte) []byte { return append(b, make([]byte, (16-len(b)%16)%16)...) }
	blocks := first
	if len(additional) > 0 {
		first[0] |= 0x40
		blocks = append(blocks, pad(append(binary.BigEndian.AppendUint16(nil, uint16(len(additional))), additional...))...)
	}
	blocks = append(blocks, pad(bytes.Clone(plaintext))...)
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(blocks, blocks)
	mac := bytes.Clone(blocks[len(blocks)-16:])
	stream := cipher.NewCTR(block, counter)
	stream.XORKeyStream(mac, mac)
	sealed := bytes.Clone(plaintext)
	stream.XORKeyStream(sealed, sealed)
	return append(sealed, mac[:tagLen]...)
}

// RFC 3610 §8, packet vectors 1, 3, 6, 7, 12 and 13. Their nonces of 13 octets are not
// those of ESP, so what they prove is the reference of the test below.
func TestCCMReference(t *testing.T) {
	const key = "c0c1c2c3c4c5c6c7c8c9cacbcccdcecf"
	for _, c := range []struct {
		number                            int
		key, nonce, additional, plaintext string
		sealed                            string
		tagLen                            int
	}{
		{1, key, "00000003020100a0a1a2a3a4a5", "0001020304050607", "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e",
			"588c979a61c663d2f066d0c2c0f989806d5f6b61dac38417e8d12cfdf926e0", 8},
		{3, key, "00000005040302a0a1a2a3a4a5", "0001020304050607", "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
			"51b1e5f44a197d1da46b0f8e2d282ae871e838bb64da8596574adaa76fbd9fb0c5", 8},
		{6, key, "00000008070605a0a1a2a3a4a5", "000102030405060708090a0b", "0c0d0e0f101112131415161718191a1b1c1d1e1f20",
			"6fc1b011f006568b5171a42d953d469b2570a4bd87405a0443ac91cb94", 8},
		{7, key, "00000009080706a0a1a2a3a4a5", "0001020304050607", "08090a0b0c0d0e0f101112131415161718191a1b1c1d1e",
			"0135d1b2c95f41d5d1d4fec185d166b8094e999dfed96c048c56602c97acbb7490", 10},
		{12, key, "0000000e0d0c0ba0a1a2a3a4a5", "000102030405060708090a0b", "0c0d0e0f101112131415161718191a1b1c1d1e1f20",
			"c0ffa0d6f05bdb67f24d43a4338d2aa4bed7b20e43cd1aa31662e7ad65d6db", 10},
		{13, "d7828d13b2b0bdc325a76236df93cc6b", "00412b4ea9cdbe3c9696766cfa", "0be1a88bace018b1", "08e8cf97d820ea258460e96ad9cf5289054d895ceac47c",
			"4cb97f86a2a4689a877947ab8091ef5386a6ffbdd080f8e78cf7cb0cddd7b3", 8},
	} {
		got := referenceCCM(t, unhex(t, c.key), unhex(t, c.nonce), unhex(t, c.plaintext), unhex(t, c.additional), c.tagLen)
		if want := unhex(t, c.sealed); !bytes.Equal(got, want) {
			t.Errorf("packet vector %d: %x, want %x", c.number, got, want)
		}
	}
}

// Against the reference, for every length around the block of both the plaintext and
// the additional data, in place as ESP does and aside; and nothing spoilt opens.
func TestCCM(t *testing.T) {
	nonce := []byte("saltsequenc")
	octets := unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30")
	for _, keyLen := range []int{16, 24, 32} {
		for _, tagLen := range []int{8, 12, 16} {
			key := octets[:keyLen]
			c, err := NewCCM(key, tagLen)
			if err != nil {
				t.Fatal(err)
			}
			if c.Overhead() != tagLen || c.NonceSize() != len(nonce) {
				t.Fatalf("overhead %d and nonce %d, want %d and %d", c.Overhead(), c.NonceSize(), tagLen, len(nonce))
			}
			for n := range octets {
				for _, additional := range [][]byte{nil, octets[:8], octets[:12], octets[:14], octets[:15], octets[:31]} {
					plaintext := octets[:n]
					want := referenceCCM(t, key, nonce, plaintext, additional, tagLen)
					if got := c.Seal([]byte("before"), nonce, plaintext, additional); !bytes.Equal(got, append([]byte("before"), want...)) {
						t.Fatalf("%d octets, %d additional, tag of %d: sealed to %x, want %x", n, len(additional), tagLen, got, want)
					}
					if got, err := c.Open([]byte("before"), nonce, want, additional); err != nil || !bytes.Equal(got, append([]byte("before"), plaintext...)) {
						t.Fatalf("%d octets, %d additional, tag of %d: opened to %x, %v", n, len(additional), tagLen, got, err)
					}
					inPlace := append(bytes.Clone(plaintext), make([]byte, tagLen)...)
					c.Seal(inPlace[:0], nonce, inPlace[:n], additional)
					if !bytes.Equal(inPlace, want) {
						t.Fatalf("%d octets, %d additional, tag of %d: sealed in place to %x, want %x", n, len(additional), tagLen, inPlace, want)
					}
					inPlace[n+tagLen/2] ^= 1
					spoilt := bytes.Clone(inPlace)
					if _, err := c.Open(inPlace[:0], nonce, inPlace, additional); err == nil || !bytes.Equal(inPlace, spoilt) {
						t.Fatalf("%d octets, %d additional, tag of %d: spoilt, and opened to %x, %v", n, len(additional), tagLen, inPlace, err)
					}
				}
			}
			sealed := c.Seal(nil, nonce, octets, octets[:8])
			for i := range sealed {
				sealed[i] ^= 0x80
				if _, err := c.Open(nil, nonce, sealed, octets[:8]); err == nil {
					t.Errorf("tag of %d octets: octet %d changed and opened", tagLen, i)
				}
				sealed[i] ^= 0x80
			}
			if _, err := c.Open(nil, nonce, sealed[:tagLen-1], nil); err == nil {
				t.Errorf("less than a tag of %d octets opened", tagLen)
			}
		}
	}
	for _, n := range []int{0, 4, 10, 13, 17} {
		if _, err := NewCCM(make([]byte, 16), n); err == nil {
			t.Errorf("a tag of %d octets is no error", n)
		}
	}
	if _, err := NewCCM(make([]byte, 15), 16); err == nil {
		t.Error("a key of 15 octets is no error")
	}
}
