package primitive

import (
	"crypto/cipher"
	"crypto/des"
	"errors"
	"fmt"
	"io"
)

// Lengths in octets. The lowest bit of each octet of a key is a parity bit, which
// nothing looks at.
const (
	DESBlockLen     = des.BlockSize
	DESKeyLen       = 8
	DoubleDESKeyLen = 2 * DESKeyLen // of triple DES whose third key is the first
	TripleDESKeyLen = 3 * DESKeyLen

	desParity = 0x0101010101010101
)

// ErrWeakKey says that a DES key is one of those that do not encrypt as the others do.
var ErrWeakKey = errors.New("weak DES key")

// NewDESCBC returns CBC of DES with a key of 8 octets, or of triple DES
// (encrypt, decrypt, encrypt) with one of 16 or 24, which is copied. From random it reads
// 24 octets once. Weak and semi-weak keys, and those that make triple DES no more than
// DES, are refused (RFC 2405 §4, RFC 2451 §2.3).
func NewDESCBC(key []byte, random io.Reader) (*CBC, error) {
	if err := checkDESKey(key); err != nil {
		return nil, err
	}
	return newCBC(newDES, key, TripleDESKeyLen, random)
}

func newDES(key []byte) (cipher.Block, error) {
	switch len(key) {
	case DESKeyLen:
		return des.NewCipher(key)
	case DoubleDESKeyLen:
		whole := append(append(make([]byte, 0, TripleDESKeyLen), key...), key[:DESKeyLen]...)
		defer clear(whole)
		return des.NewTripleDESCipher(whole)
	}
	return des.NewTripleDESCipher(key)
}

func checkDESKey(key []byte) error {
	if n := len(key); n != DESKeyLen && n != DoubleDESKeyLen && n != TripleDESKeyLen {
		return fmt.Errorf("DES key is %d octets, want %d, %d or %d", n, DESKeyLen, DoubleDESKeyLen, TripleDESKeyLen)
	}
	var last uint64
	for i := 0; i < len(key); i += DESKeyLen {
		k := desKey(key[i:])
		if weakDESKey(k) {
			return fmt.Errorf("key %d of %d: %w", i/DESKeyLen+1, len(key)/DESKeyLen, ErrWeakKey)
		}
		if i > 0 && k == last {
			return fmt.Errorf("keys %d and %d are the same, so that triple DES would be DES: %w", i/DESKeyLen, i/DESKeyLen+1, ErrWeakKey)
		}
		last = k
	}
	return nil
}

// desKey reads a key without its parity.
func desKey(b []byte) uint64 {
	var k uint64
	for _, v := range b[:DESKeyLen] {
		k = k<<8 | uint64(v&^1)
	}
	return k
}

// weakDESKey knows the 4 weak and 12 semi-weak keys (FIPS 74 §3.6).
func weakDESKey(k uint64) bool {
	for _, w := range [...]uint64{
		0x0101010101010101, 0xfefefefefefefefe, 0x1f1f1f1f0e0e0e0e, 0xe0e0e0e0f1f1f1f1,
		0x011f011f010e010e, 0x1f011f010e010e01, 0x01e001e001f101f1, 0xe001e001f101f101,
		0x01fe01fe01fe01fe, 0xfe01fe01fe01fe01, 0x1fe01fe00ef10ef1, 0xe01fe01ff10ef10e,
		0x1ffe1ffe0efe0efe, 0xfe1ffe1ffe0efe0e, 0xe0fee0fef1fef1fe, 0xfee0fee0fef1fef1,
	} {
		if w&^desParity == k {
			return true
		}
	}
	return false
}
