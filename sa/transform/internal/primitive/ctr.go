package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"sync"
)

// A CTR is AES in counter mode (NIST SP 800-38A §6.5) with one key, where a counter
// block is a nonce of 12 octets and a count of 4.
type CTR struct {
	block   cipher.Block
	scratch sync.Pool // of *counterScratch
}

// A counterScratch is the counter block and the key stream that it makes. Behind the
// interface of the cipher they cannot live on the stack, and the counter mode of the
// standard library allocates for each packet.
type counterScratch struct{ counter, stream [BlockLen]byte }

// NewCTR returns counter mode with a key of 16, 24 or 32 octets, which is copied.
func NewCTR(key []byte) (*CTR, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c := &CTR{block: block}
	c.scratch.New = func() any { return new(counterScratch) }
	return c, nil
}

// XOR encrypts or decrypts data in place. The nonce is the concatenation of a and b,
// 12 octets, which must never come twice with one key; the count starts at 1, as
// RFC 3686 §4 says.
func (c *CTR) XOR(a, b, data []byte) {
	t := c.scratch.Get().(*counterScratch)
	n := copy(t.counter[:], a)
	copy(t.counter[n:], b)
	t.xor(c.block, 1, data, data)
	c.scratch.Put(t)
}

// xor writes src, encrypted with the count from first on, to dst.
func (t *counterScratch) xor(block cipher.Block, first uint32, dst, src []byte) {
	for ; len(src) > 0; first++ {
		binary.BigEndian.PutUint32(t.counter[BlockLen-4:], first)
		block.Encrypt(t.stream[:], t.counter[:])
		n := subtle.XORBytes(dst, src, t.stream[:])
		dst, src = dst[n:], src[n:]
	}
}
