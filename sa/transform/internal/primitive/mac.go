package primitive

import (
	"crypto/hmac"
	"hash"
	"slices"
	"sync"
)

// A MAC is HMAC (RFC 2104) with one key, cut to its first octets.
type MAC struct {
	tagLen  int
	digests sync.Pool // of *Digest
}

// NewMAC returns HMAC over newHash with a tag of tagLen octets, no more than the hash
// has. The key is copied.
func NewMAC(newHash func() hash.Hash, key []byte, tagLen int) *MAC {
	key = slices.Clone(key)
	m := &MAC{tagLen: tagLen}
	m.digests.New = func() any { return &Digest{h: hmac.New(newHash, key)} }
	return m
}

// TagLen is the length of the tag in octets.
func (m *MAC) TagLen() int { return m.tagLen }

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
