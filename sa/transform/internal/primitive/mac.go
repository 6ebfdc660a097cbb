package primitive

import (
	"crypto/hmac"
	"hash"
	"slices"
	"sync"
)

// A MAC is a keyed hash with one key, cut to its first octets.
type MAC struct {
	tagLen, ivLen int
	digests       sync.Pool // of *Digest
}

// newMAC returns a MAC whose computations are made by make, for one Digest each.
func newMAC(tagLen, ivLen int, make func() hash.Hash) *MAC {
	m := &MAC{tagLen: tagLen, ivLen: ivLen}
	m.digests.New = func() any { return &Digest{h: make()} }
	return m
}

// NewHMAC returns HMAC (RFC 2104) over newHash with a tag of tagLen octets, no more
// than the hash has. The key is copied.
func NewHMAC(newHash func() hash.Hash, key []byte, tagLen int) *MAC {
	key = slices.Clone(key)
	return newMAC(tagLen, 0, func() hash.Hash { return hmac.New(newHash, key) })
}

// NewMAC returns the MAC whose tag is the first tagLen octets of what a hash that make
// returns sums to. The hash has the key; it is reset before each computation, and summed
// once.
func NewMAC(tagLen int, make func() hash.Hash) *MAC { return newMAC(tagLen, 0, make) }

// TagLen is the length of the tag in octets.
func (m *MAC) TagLen() int { return m.tagLen }

// IVLen is the length in octets of the IV that each computation wants; 0 for most.
func (m *MAC) IVLen() int { return m.ivLen }

// Start returns an empty Digest, which the caller gives back with Done.
func (m *MAC) Start() *Digest {
	d := m.digests.Get().(*Digest)
	d.h.Reset()
	return d
}

// Done takes back a Digest of this MAC. Neither it nor its tag may be used after.
func (m *MAC) Done(d *Digest) { m.digests.Put(d) }

// A Digest is one computation of a MAC. It belongs to one goroutine.
type Digest struct {
	h   hash.Hash
	tag [64]byte
	// Scratch is for a caller who must change what it reads before it is hashed.
	Scratch [64]byte
}

// zeros is only read.
var zeros [64]byte

// SetIV gives the IV of this computation, which has the MAC's IVLen and must never
// come twice with one key. It may stand before, between or behind what is written; a
// MAC without IV ignores it.
func (d *Digest) SetIV(iv []byte) {
	if g, ok := d.h.(*gmac); ok {
		copy(g.nonce[len(g.nonce)-gmacIVLen:], iv)
	}
}

// Write adds b to what is hashed.
func (d *Digest) Write(b []byte) { d.h.Write(b) }

// WriteZeros adds n octets of zero.
func (d *Digest) WriteZeros(n int) {
	for ; n > len(zeros); n -= len(zeros) {
		d.h.Write(zeros[:])
	}
	d.h.Write(zeros[:n])
}

// WriteUint32 adds v in network byte order.
func (d *Digest) WriteUint32(v uint32) {
	b := append(d.tag[:0], byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	d.h.Write(b)
}

// Tag returns the tag of all that was written. It stays valid until Done.
func (d *Digest) Tag(m *MAC) []byte { return d.h.Sum(d.tag[:0])[:m.tagLen] }
