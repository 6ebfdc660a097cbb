package transform

import (
	"encoding/binary"
	"fmt"
	"maps"

	"bitw/sa/transform/internal/primitive"
)

const (
	ctrNonceLen = 4 // at the end of the keying material (RFC 3686 §5.1)
	ctrIVLen    = 8
)

// ctrFamily is AES-CTR in ESP (RFC 3686) with keys of 128, 192 and 256 bits, each with
// every integrity algorithm: RFC 3686 §3.1 forbids it without.
func ctrFamily() Family {
	f := Family{Aliases: make(map[string]string)}
	maps.Copy(f.Aliases, integrityAliases())
	for _, bits := range []int{128, 192, 256} {
		for _, i := range integrities() {
			a := Algorithm{
				Name:             fmt.Sprintf("aes%dctr-%s", bits, i.name),
				Protocol:         ProtoESP,
				EncryptionKeyLen: bits/8 + ctrNonceLen,
				IntegrityKeyLen:  i.keyLen,
				IVLen:            ctrIVLen,
				ICVLen:           i.icvLen,
				BlockLen:         4,
				CounterMode:      true,
				Weak:             i.weak,
			}
			a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
				return newCTR(&a, &i, encryptionKey, integrityKey)
			}
			f.Algorithms = append(f.Algorithms, a)
		}
	}
	return f
}

func newCTR(a *Algorithm, i *integrity, encryptionKey, integrityKey []byte) (Transform, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, ctrNonceLen); err != nil {
		return nil, err
	}
	n := len(encryptionKey) - ctrNonceLen
	ctr, err := primitive.NewCTR(encryptionKey[:n])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	mac, err := i.mac(integrityKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return newESP(a, &ctrSuite{ctr: ctr, nonce: [ctrNonceLen]byte(encryptionKey[n:]), mac: mac}), nil
}

// A ctrSuite is AES-CTR with a MAC over header, IV and ciphertext. The IV is the
// sequence number, all 64 bits of it, which an SA never uses twice (RFC 3686 §3.1).
type ctrSuite struct {
	ctr   *primitive.CTR
	nonce [ctrNonceLen]byte
	mac   *primitive.MAC
}

func (c *ctrSuite) seal(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) {
	iv := buf[hdr+espFixedLen : pay]
	binary.BigEndian.PutUint64(iv, s.Number)
	c.ctr.XOR(c.nonce[:], iv, buf[pay:end])
	signESP(c.mac, buf, hdr, end, s)
}

func (c *ctrSuite) open(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) bool {
	if !verifyESP(c.mac, buf, hdr, end, s) {
		return false
	}
	c.ctr.XOR(c.nonce[:], buf[hdr+espFixedLen:pay], buf[pay:end])
	return true
}
