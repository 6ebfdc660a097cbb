package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
)

// CCMNonceLen is the length of an AES-CCM nonce in octets (RFC 4309 §4).
const CCMNonceLen = 11

// ccmFlags says that 15-CCMNonceLen octets hold the length and the count (RFC 3610
// §2.2, §2.3).
const ccmFlags = 15 - CCMNonceLen - 1

// ccmMaxAdditional is how much additional data a length field of 2 octets can tell
// (RFC 3610 §2.2).
const ccmMaxAdditional = 0xfeff

// NewCCM returns AES-CCM (RFC 3610, NIST SP 800-38C) in the form that ESP uses
// (RFC 4309 §2): nonces of 11 octets, so that 4 tell the length, and a tag of tagLen
// octets: 8, 12 or 16. The key has 16, 24 or 32 octets and is copied.
func NewCCM(key []byte, tagLen int) (cipher.AEAD, error) {
	if tagLen != 8 && tagLen != 12 && tagLen != 16 {
		return nil, fmt.Errorf("AES-CCM tag is %d octets, want 8, 12 or 16", tagLen)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	c := &ccm{block: block, tagLen: tagLen}
	c.scratch.New = func() any { return new(ccmScratch) }
	return c, nil
}

type ccm struct {
	block   cipher.Block
	tagLen  int
	scratch sync.Pool // of *ccmScratch
}

// A ccmScratch holds the blocks of one computation.
type ccmScratch struct {
	counterScratch
	mac, found [BlockLen]byte
	plaintext  []byte
}

func (c *ccm) NonceSize() int { return CCMNonceLen }
func (c *ccm) Overhead() int  { return c.tagLen }

// Seal appends ciphertext and tag to dst, as cipher.AEAD demands.
func (c *ccm) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	t := c.start(nonce)
	defer c.scratch.Put(t)
	c.sum(t, nonce, plaintext, additionalData)
	n := len(dst)
	dst = slices.Grow(dst, len(plaintext)+c.tagLen)[:n+len(plaintext)+c.tagLen]
	t.xor(c.block, 1, dst[n:], plaintext)
	copy(dst[n+len(plaintext):], t.mac[:c.tagLen])
	return dst
}

// Open appends the plaintext to dst, as cipher.AEAD demands. The tag is that of the
// plaintext, which is therefore made aside first: if the tag does not fit, dst is left
// as it was.
func (c *ccm) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	n := len(ciphertext) - c.tagLen
	if n < 0 {
		return nil, errOpen
	}
	t := c.start(nonce)
	defer c.scratch.Put(t)
	copy(t.found[:], ciphertext[n:])
	t.plaintext = slices.Grow(t.plaintext[:0], n)[:n]
	t.xor(c.block, 1, t.plaintext, ciphertext[:n])
	c.sum(t, nonce, t.plaintext, additionalData)
	if subtle.ConstantTimeCompare(t.mac[:c.tagLen], t.found[:c.tagLen]) != 1 {
		clear(t.plaintext)
		return nil, errOpen
	}
	return append(dst, t.plaintext...), nil
}

// start makes the counter blocks A_i of RFC 3610 §2.3, but for their count.
func (c *ccm) start(nonce []byte) *ccmScratch {
	if len(nonce) != CCMNonceLen {
		panic("primitive: wrong length of an AES-CCM nonce")
	}
	t := c.scratch.Get().(*ccmScratch)
	t.counter[0] = ccmFlags
	copy(t.counter[1:], nonce)
	return t
}

// sum leaves the encrypted authentication value U of RFC 3610 §2.3 in t.mac.
func (c *ccm) sum(t *ccmScratch, nonce, plaintext, additionalData []byte) {
	if uint64(len(plaintext)) > math.MaxUint32 || len(additionalData) > ccmMaxAdditional {
		panic("primitive: message too long for AES-CCM")
	}
	flags := byte((c.tagLen-2)/2<<3) | ccmFlags
	if len(additionalData) > 0 {
		flags |= 0x40
	}
	t.mac[0] = flags
	copy(t.mac[1:], nonce)
	binary.BigEndian.PutUint32(t.mac[1+CCMNonceLen:], uint32(len(plaintext)))
	c.block.Encrypt(t.mac[:], t.mac[:])
	if n := len(additionalData); n > 0 {
		t.mac[0] ^= byte(n >> 8)
		t.mac[1] ^= byte(n)
		first := subtle.XORBytes(t.mac[2:], t.mac[2:], additionalData)
		c.block.Encrypt(t.mac[:], t.mac[:])
		c.chain(t, additionalData[first:])
	}
	c.chain(t, plaintext)
	t.xor(c.block, 0, t.mac[:], t.mac[:])
}

// chain adds b, padded with zeros, to the CBC-MAC.
func (c *ccm) chain(t *ccmScratch, b []byte) {
	for len(b) > 0 {
		b = b[subtle.XORBytes(t.mac[:], t.mac[:], b):]
		c.block.Encrypt(t.mac[:], t.mac[:])
	}
}
