package netlab

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
)

// Marker is in everything that this package's generators send, so that one
// look for it in a capture finds their traffic in the clear.
const Marker = "bitw test, clear text"

// markerEvery is the distance of two markers in a Payload, in octets: small
// enough that a packet of the smallest MTU has one whole.
const markerEvery = 256

// Payload is an endless stream of octets that depend on the seed: noise with a
// Marker every 256 octets.
type Payload struct {
	noise *rand.ChaCha8
	pos   int64
}

// NewPayload begins a stream.
func NewPayload(seed uint64) *Payload {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	return &Payload{noise: rand.NewChaCha8(key)}
}

// Read fills p; there is no error.
func (s *Payload) Read(p []byte) (int, error) {
	if _, err := s.noise.Read(p); err != nil {
		return 0, err
	}
	for at := -(s.pos % markerEvery); at < int64(len(p)); at += markerEvery {
		if at >= 0 {
			copy(p[at:], Marker)
		} else if skip := -at; skip < int64(len(Marker)) {
			copy(p, Marker[skip:])
		}
	}
	s.pos += int64(len(p))
	return len(p), nil
}

// Digest is a SHA-256 sum with the number of octets that went into it.
type Digest struct {
	Size int64
	Sum  [sha256.Size]byte
}

func (d Digest) String() string {
	return fmt.Sprintf("%d octets, SHA-256 %s", d.Size, hex.EncodeToString(d.Sum[:]))
}

// Send writes size octets of the seed's Payload.
func Send(w io.Writer, seed uint64, size int64) (Digest, error) {
	hash := sha256.New()
	// A pair of types that know nothing of each other: so the copy goes
	// through a buffer of a stream's usual size.
	n, err := io.Copy(io.MultiWriter(w, hash), io.LimitReader(NewPayload(seed), size))
	return Digest{n, [sha256.Size]byte(hash.Sum(nil))}, err
}

// Receive reads to the end of r.
func Receive(r io.Reader) (Digest, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, r)
	return Digest{n, [sha256.Size]byte(hash.Sum(nil))}, err
}

// compare is the verdict on a transfer.
func compare(sent, received Digest, sendErr, receiveErr error) error {
	if err := errors.Join(sendErr, receiveErr); err != nil {
		return fmt.Errorf("%w (sent %v; received %v)", err, sent, received)
	}
	if sent != received {
		return fmt.Errorf("sent %v, but received %v", sent, received)
	}
	return nil
}
