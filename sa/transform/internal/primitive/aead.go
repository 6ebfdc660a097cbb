// Package primitive holds what the transforms need beyond the standard library:
// AES-GCM with every ICV length of RFC 4106, AES-CCM, AES-CTR, AES-CBC with
// unpredictable IVs (RFC 3602 §3), HMAC truncated as RFC 2404 and RFC 4868 do,
// AES-XCBC, AES-CMAC and AES-GMAC. All of it works on plain octets: it knows no
// packet, no SPI and no sequence number. Everything here may be used from many
// goroutines at once and does not allocate per call.
package primitive

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// errOpen is what a shortGCM or a ccm returns for a tag that does not fit.
var errOpen = errors.New("message authentication failed")

const gcmTagLen = 16

// NewGCM returns AES-GCM with 12-octet nonces and a tag of tagLen octets: 8, 12 or
// 16 (RFC 4106 §6). The key has 16, 24 or 32 octets and is copied.
func NewGCM(key []byte, tagLen int) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	switch tagLen {
	case 8:
		full, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		return &shortGCM{full: full, tagLen: tagLen}, nil
	case 12, gcmTagLen:
		return cipher.NewGCMWithTagSize(block, tagLen)
	}
	return nil, fmt.Errorf("AES-GCM tag is %d octets, want 8, 12 or 16", tagLen)
}

// A shortGCM is GCM with a tag shorter than the standard library makes: the first
// tagLen octets of the whole tag (NIST SP 800-38D §7.1 step 6, MSB_t).
//
// The library neither writes nor checks such a tag, so the work is done in a buffer
// aside. Encryption and decryption are the same keystream, so sealing the ciphertext
// gives the plaintext, and sealing that gives the ciphertext again with the tag that
// belongs to it. The caller's buffer sees plaintext only after the tags were compared.
type shortGCM struct {
	full    cipher.AEAD
	tagLen  int
	scratch sync.Pool // of *[]byte
}

func (g *shortGCM) NonceSize() int { return g.full.NonceSize() }
func (g *shortGCM) Overhead() int  { return g.tagLen }

// borrow returns an empty buffer with room for n octets, to be given back.
func (g *shortGCM) borrow(n int) *[]byte {
	b, ok := g.scratch.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	*b = slices.Grow((*b)[:0], n)
	return b
}

// Seal appends ciphertext and tag to dst, as cipher.AEAD demands.
func (g *shortGCM) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	b := g.borrow(len(plaintext) + gcmTagLen)
	sealed := g.full.Seal(*b, nonce, plaintext, additionalData)
	dst = append(dst, sealed[:len(plaintext)+g.tagLen]...)
	g.scratch.Put(b)
	return dst
}

// Open appends the plaintext to dst, as cipher.AEAD demands. If the tag does not fit,
// dst is left as it was.
func (g *shortGCM) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	n := len(ciphertext) - g.tagLen
	if n < 0 {
		return nil, errOpen
	}
	b := g.borrow(2 * (n + gcmTagLen))
	defer g.scratch.Put(b)
	plaintext := g.full.Seal(*b, nonce, ciphertext[:n], additionalData)[:n]
	again := g.full.Seal((*b)[n+gcmTagLen:n+gcmTagLen], nonce, plaintext, additionalData)
	if subtle.ConstantTimeCompare(again[n:n+g.tagLen], ciphertext[n:]) != 1 {
		clear(plaintext)
		return nil, errOpen
	}
	return append(dst, plaintext...), nil
}
