package primitive

import (
	"crypto/cipher"
	"hash"
	"slices"
)

const (
	gmacSaltLen = 4
	gmacIVLen   = 8
)

// NewGMAC returns AES-GMAC (RFC 4543, NIST SP 800-38D) with a tag of 16 octets, whose
// IVs of 8 octets are put behind a salt of 4. The key has 16, 24 or 32 octets; both
// are copied.
func NewGMAC(key, salt []byte) (*MAC, error) {
	gcm, err := NewGCM(key, gcmTagLen)
	if err != nil {
		return nil, err
	}
	fixed := [gmacSaltLen]byte(salt)
	return newMAC(gcmTagLen, gmacIVLen, func() hash.Hash {
		g := &gmac{gcm: gcm}
		copy(g.nonce[:], fixed[:])
		return g
	}), nil
}

// A gmac is GCM without plaintext. The standard library wants the additional data in
// one piece, so what is written is gathered.
type gmac struct {
	gcm   cipher.AEAD
	nonce [gmacSaltLen + gmacIVLen]byte
	data  []byte
}

func (g *gmac) Size() int      { return gcmTagLen }
func (g *gmac) BlockSize() int { return BlockLen }
func (g *gmac) Reset()         { g.data = g.data[:0] }

func (g *gmac) Write(b []byte) (int, error) {
	g.data = append(slices.Grow(g.data, len(b)), b...)
	return len(b), nil
}

func (g *gmac) Sum(b []byte) []byte { return g.gcm.Seal(b, g.nonce[:], nil, g.data) }
