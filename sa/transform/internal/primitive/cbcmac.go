package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"hash"
)

// A cbcMAC is a CBC-MAC whose last block is masked, by one mask if it is whole and by
// another if it had to be padded. AES-XCBC and AES-CMAC differ only in how they make
// the masks and the key.
type cbcMAC struct {
	block         cipher.Block
	whole, padded [BlockLen]byte

	chain [BlockLen]byte // E[i-1] of RFC 3566 §4, with the octets of M[i] there are
	n     int            // how many those are; a full block waits for the next octet
	last  [BlockLen]byte
}

// NewXCBC returns AES-XCBC-MAC (RFC 3566) with a tag of tagLen octets. The key has
// 16 octets and is copied.
func NewXCBC(key []byte, tagLen int) (*MAC, error) {
	if len(key) != BlockLen {
		return nil, aes.KeySizeError(len(key))
	}
	outer, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	var keys [3][BlockLen]byte
	defer clear(keys[:])
	for i := range keys {
		for j := range keys[i] {
			keys[i][j] = byte(i + 1)
		}
		outer.Encrypt(keys[i][:], keys[i][:])
	}
	block, err := aes.NewCipher(keys[0][:])
	if err != nil {
		return nil, err
	}
	return newCBCMAC(cbcMAC{block: block, whole: keys[1], padded: keys[2]}, tagLen), nil
}

// NewCMAC returns AES-CMAC (RFC 4493, NIST SP 800-38B) with a tag of tagLen octets.
// The key has 16, 24 or 32 octets and is copied.
func NewCMAC(key []byte, tagLen int) (*MAC, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c := cbcMAC{block: block}
	block.Encrypt(c.whole[:], c.whole[:])
	double(&c.whole)
	c.padded = c.whole
	double(&c.padded)
	return newCBCMAC(c, tagLen), nil
}

// double multiplies b by x in GF(2^128) (RFC 4493 §2.3).
func double(b *[BlockLen]byte) {
	carry := b[0] >> 7
	for i := range BlockLen - 1 {
		b[i] = b[i]<<1 | b[i+1]>>7
	}
	b[BlockLen-1] = b[BlockLen-1]<<1 ^ 0x87&-carry
}

func newCBCMAC(c cbcMAC, tagLen int) *MAC {
	return newMAC(tagLen, 0, func() hash.Hash {
		c := c
		return &c
	})
}

func (c *cbcMAC) Size() int      { return BlockLen }
func (c *cbcMAC) BlockSize() int { return BlockLen }

func (c *cbcMAC) Reset() {
	clear(c.chain[:])
	c.n = 0
}

func (c *cbcMAC) Write(b []byte) (int, error) {
	written := len(b)
	for len(b) > 0 {
		if c.n == BlockLen {
			c.block.Encrypt(c.chain[:], c.chain[:])
			c.n = 0
		}
		n := subtle.XORBytes(c.chain[c.n:], c.chain[c.n:], b)
		c.n += n
		b = b[n:]
	}
	return written, nil
}

// Sum appends the tag of what was written and leaves the state as it is.
func (c *cbcMAC) Sum(b []byte) []byte {
	c.last = c.chain
	mask := &c.whole
	if c.n < BlockLen {
		mask = &c.padded
		c.last[c.n] ^= 0x80
	}
	subtle.XORBytes(c.last[:], c.last[:], mask[:])
	c.block.Encrypt(c.last[:], c.last[:])
	return append(b, c.last[:]...)
}
