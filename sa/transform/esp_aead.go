package transform

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

const (
	aeadSaltLen = 4
	aeadIVLen   = 8
	// aeadNonceLen is the longest nonce: that of AES-CCM has a salt of 3 octets.
	aeadNonceLen = aeadSaltLen + aeadIVLen
)

// An aeadSuite is a combined-mode algorithm in ESP. RFC 4106, RFC 4309 and RFC 7634
// share the form: the nonce is salt and IV, the additional data is SPI and sequence
// number, 8 octets or with ESN 12.
//
// The IV is the sequence number, which an SA never uses twice; so the nonce never
// repeats for a key (RFC 4106 §3.1). In an explicit IV all 64 bits go in even without
// ESN: that costs nothing, and a counter that ran too far would still not repeat a
// nonce. An implicit one (RFC 8750 §4) is what the receiver knows of the number, and
// without ESN that is the low half.
type aeadSuite struct {
	aead     cipher.AEAD
	salt     [aeadSaltLen]byte
	saltLen  int
	implicit bool
}

// aesAEADFamily is a mode of AES with keys of 128, 192 and 256 bits, behind which a salt of
// so many octets stands, and ICVs of 8, 12 and 16 octets.
func aesAEADFamily(mode string, saltLen int, suite func(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error)) Family {
	f := Family{Aliases: make(map[string]string)}
	for _, bits := range []int{128, 192, 256} {
		cipherName := fmt.Sprintf("aes%d%s", bits, mode)
		f.Aliases[cipherName] = cipherName + "16"
		for _, icv := range []int{8, 12, 16} {
			a := Algorithm{
				Name:             fmt.Sprintf("%s%d", cipherName, icv),
				Protocol:         ProtoESP,
				EncryptionKeyLen: bits/8 + saltLen,
				IVLen:            aeadIVLen,
				ICVLen:           icv,
				BlockLen:         4,
				CounterMode:      true,
			}
			a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
				s, err := suite(&a, encryptionKey, integrityKey)
				if err != nil {
					return nil, err
				}
				return newESP(&a, s), nil
			}
			f.Aliases[fmt.Sprintf("%s%d", cipherName, icv*8)] = a.Name
			f.Algorithms = append(f.Algorithms, a)
		}
	}
	return f
}

// newSaltedAEAD makes a suite of a cipher's key with the salt behind it.
func newSaltedAEAD(a *Algorithm, encryptionKey, integrityKey []byte, saltLen int, newCipher func(key []byte, icvLen int) (cipher.AEAD, error)) (*aeadSuite, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, saltLen); err != nil {
		return nil, err
	}
	n := len(encryptionKey) - saltLen
	aead, err := newCipher(encryptionKey[:n], a.ICVLen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return newAEADSuite(aead, encryptionKey[n:]), nil
}

func newAEADSuite(aead cipher.AEAD, salt []byte) *aeadSuite {
	a := &aeadSuite{aead: aead}
	a.saltLen = copy(a.salt[:], salt)
	return a
}

func (a *aeadSuite) seal(t *scratch, buf []byte, hdr, pay, end int, s Sequence) {
	if !a.implicit {
		binary.BigEndian.PutUint64(buf[pay-aeadIVLen:], s.Number)
	}
	a.aead.Seal(buf[pay:pay], a.nonce(t, buf, pay, s), buf[pay:end], t.additional(buf[hdr:], s))
}

func (a *aeadSuite) open(t *scratch, buf []byte, hdr, pay, end int, s Sequence) bool {
	_, err := a.aead.Open(buf[pay:pay], a.nonce(t, buf, pay, s), buf[pay:end+a.aead.Overhead()], t.additional(buf[hdr:], s))
	return err == nil
}

// nonce returns the nonce of a packet with its IV, if it has one, in front of pay.
func (a *aeadSuite) nonce(t *scratch, buf []byte, pay int, s Sequence) []byte {
	iv := s.Number
	switch {
	case !a.implicit:
		iv = binary.BigEndian.Uint64(buf[pay-aeadIVLen:])
	case !s.ESN:
		iv = uint64(uint32(iv))
	}
	*(*[aeadSaltLen]byte)(t.nonce[:]) = a.salt
	binary.BigEndian.PutUint64(t.nonce[a.saltLen:], iv)
	return t.nonce[:a.saltLen+aeadIVLen]
}

// additional returns the additional authenticated data of RFC 4106 §5 for the header b.
func (t *scratch) additional(b []byte, s Sequence) []byte {
	if !s.ESN {
		return b[:espFixedLen]
	}
	copy(t.aad[:4], b)
	binary.BigEndian.PutUint32(t.aad[4:], s.high())
	copy(t.aad[8:], b[4:espFixedLen])
	return t.aad[:]
}
