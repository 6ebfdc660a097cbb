package transform

import (
	"crypto/cipher"
	"encoding/binary"
	"sync"
)

const (
	aeadSaltLen  = 4
	aeadIVLen    = 8
	aeadNonceLen = aeadSaltLen + aeadIVLen
)

// An aeadSuite is a combined-mode algorithm in ESP. RFC 4106 and RFC 7634 share the
// form: the nonce is salt and explicit IV, the additional data is SPI and sequence
// number, 8 octets or with ESN 12.
//
// The explicit IV is the sequence number, which an SA never uses twice; so the nonce
// never repeats for a key (RFC 4106 §3.1). All 64 bits go in even without ESN: that
// costs nothing, and a counter that ran too far would still not repeat a nonce.
type aeadSuite struct {
	aead    cipher.AEAD
	salt    [aeadSaltLen]byte
	scratch sync.Pool // of *aeadScratch
}

// An aeadScratch holds what the cipher reads besides the packet: behind an interface
// it cannot live on the stack.
type aeadScratch struct {
	nonce [aeadNonceLen]byte
	aad   [12]byte
}

func newAEADSuite(aead cipher.AEAD, salt []byte) *aeadSuite {
	a := &aeadSuite{aead: aead, salt: [aeadSaltLen]byte(salt)}
	a.scratch.New = func() any {
		s := new(aeadScratch)
		copy(s.nonce[:], a.salt[:])
		return s
	}
	return a
}

func (a *aeadSuite) seal(buf []byte, hdr, pay, end int, s Sequence) {
	binary.BigEndian.PutUint64(buf[pay-aeadIVLen:], s.Number)
	t := a.scratch.Get().(*aeadScratch)
	copy(t.nonce[aeadSaltLen:], buf[pay-aeadIVLen:pay])
	a.aead.Seal(buf[pay:pay], t.nonce[:], buf[pay:end], t.additional(buf[hdr:], s))
	a.scratch.Put(t)
}

func (a *aeadSuite) open(buf []byte, hdr, pay, end int, s Sequence) bool {
	t := a.scratch.Get().(*aeadScratch)
	copy(t.nonce[aeadSaltLen:], buf[pay-aeadIVLen:pay])
	_, err := a.aead.Open(buf[pay:pay], t.nonce[:], buf[pay:end+a.aead.Overhead()], t.additional(buf[hdr:], s))
	a.scratch.Put(t)
	return err == nil
}

// additional returns the additional authenticated data of RFC 4106 §5 for the header b.
func (t *aeadScratch) additional(b []byte, s Sequence) []byte {
	if !s.ESN {
		return b[:espFixedLen]
	}
	copy(t.aad[:4], b)
	binary.BigEndian.PutUint32(t.aad[4:], s.high())
	copy(t.aad[8:], b[4:espFixedLen])
	return t.aad[:]
}
