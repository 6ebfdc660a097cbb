package demo

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"math/rand/v2"
)

// chunkLen is how many octets of content have one marker: less than half of what
// the smallest packet of a file carries, so that each packet has a whole one.
const chunkLen = 512

// content is an endless stream of octets that follow from its seed: noise with
// the marker at the start of each chunk. Two seeds have nothing in common else.
type content struct {
	noise *rand.ChaCha8
	chunk [chunkLen]byte
	used  int
}

func newContent(seed byte) *content {
	return &content{noise: rand.NewChaCha8([32]byte{0: seed}), used: chunkLen}
}

// Read implements io.Reader and has no error.
func (c *content) Read(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if c.used == chunkLen {
			n := copy(c.chunk[:], marker)
			_, _ = c.noise.Read(c.chunk[n:]) // has no error
			c.used = 0
		}
		n := copy(rest, c.chunk[c.used:])
		c.used += n
		rest = rest[n:]
	}
	return len(p), nil
}

// contentOf are the first octets of a stream.
func contentOf(seed byte, octets int) []byte {
	p := make([]byte, octets)
	_, _ = newContent(seed).Read(p) // has no error
	return p
}

// digest is a SHA-256 sum over a number of octets.
type digest struct {
	octets int64
	sum    [sha256.Size]byte
}

func digestOf(octets int64, h hash.Hash) digest {
	return digest{octets, [sha256.Size]byte(h.Sum(nil))}
}

// String is short: enough to compare by eye.
func (d digest) String() string { return hex.EncodeToString(d.sum[:6]) + "…" }
