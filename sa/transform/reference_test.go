package transform

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"math/big"
	"testing"
)

// The MACs once more, the plain way: from the standard library and the words of the
// RFCs, without the code under test.

func referenceBlock(tb testing.TB, key []byte) cipher.Block {
	tb.Helper()
	b, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// referenceMAC is the whole tag of an integrity algorithm.
func referenceMAC(tb testing.TB, name string, key, message []byte) []byte {
	tb.Helper()
	hashes := map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New}
	if newHash := hashes[name]; newHash != nil {
		h := hmac.New(newHash, key)
		h.Write(message)
		return h.Sum(nil)
	}
	block := referenceBlock(tb, key)
	encrypt := func(b []byte) []byte {
		out := make([]byte, aes.BlockSize)
		block.Encrypt(out, b)
		return out
	}
	var whole, padded []byte
	switch name {
	case "aesxcbc": // RFC 3566 §4
		whole, padded = encrypt(bytes.Repeat([]byte{2}, 16)), encrypt(bytes.Repeat([]byte{3}, 16))
		block = referenceBlock(tb, encrypt(bytes.Repeat([]byte{1}, 16)))
	case "aescmac": // RFC 4493 §2.3
		double := func(b []byte) []byte {
			v := new(big.Int).SetBytes(b)
			v.Lsh(v, 1)
			if v.Bit(128) == 1 {
				v.SetBit(v, 128, 0).Xor(v, big.NewInt(0x87))
			}
			return v.FillBytes(make([]byte, aes.BlockSize))
		}
		whole = double(encrypt(make([]byte, 16)))
		padded = double(whole)
	default:
		tb.Fatalf("no reference for %q", name)
	}
	mask := whole
	if len(message) == 0 || len(message)%16 != 0 {
		mask = padded
		message = append(bytes.Clone(message), 0x80)
		message = append(message, make([]byte, (16-len(message)%16)%16)...)
	}
	message = bytes.Clone(message)
	last := message[len(message)-16:]
	for i := range last {
		last[i] ^= mask[i]
	}
	cipher.NewCBCEncrypter(block, make([]byte, 16)).CryptBlocks(message, message)
	return last
}

// referenceGMAC is AES-GMAC with the key followed by its salt.
func referenceGMAC(tb testing.TB, key, iv, message []byte) []byte {
	tb.Helper()
	n := len(key) - 4
	gcm, err := cipher.NewGCM(referenceBlock(tb, key[:n]))
	if err != nil {
		tb.Fatal(err)
	}
	return gcm.Seal(nil, append(bytes.Clone(key[n:]), iv...), nil, message)
}
