package transform

import (
	"crypto/rand"
	"fmt"
	"io"
	"maps"

	"bitw/sa/transform/internal/primitive"
)

// cbcFamily is AES-CBC in ESP (RFC 3602) with keys of 128, 192 and 256 bits, each with
// every integrity algorithm: encrypted first, then authenticated.
func cbcFamily() Family {
	f := Family{Aliases: map[string]string{"aes": "aes128"}}
	maps.Copy(f.Aliases, integrityAliases())
	for _, bits := range []int{128, 192, 256} {
		for _, i := range integrities() {
			a := Algorithm{
				Name:             fmt.Sprintf("aes%d-%s", bits, i.name),
				Protocol:         ProtoESP,
				EncryptionKeyLen: bits / 8,
				IntegrityKeyLen:  i.keyLen,
				IVLen:            primitive.BlockLen,
				ICVLen:           i.icvLen,
				BlockLen:         primitive.BlockLen,
				Weak:             i.weak,
			}
			a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
				return newCBC(&a, &i, primitive.NewCBC, encryptionKey, integrityKey, rand.Reader)
			}
			f.Algorithms = append(f.Algorithms, a)
		}
	}
	return f
}

// newCBC makes a transform of a block cipher in CBC and an integrity algorithm.
func newCBC(a *Algorithm, i *integrity, newCipher func(key []byte, random io.Reader) (*primitive.CBC, error), encryptionKey, integrityKey []byte, random io.Reader) (Transform, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, 0); err != nil {
		return nil, err
	}
	cbc, err := newCipher(encryptionKey, random)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	mac, err := i.mac(integrityKey)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return newESP(a, &cbcSuite{cbc: cbc, mac: mac}), nil
}

// A cbcSuite is CBC with a MAC over header, IV and ciphertext.
type cbcSuite struct {
	cbc *primitive.CBC
	mac *primitive.MAC
}

func (c *cbcSuite) seal(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) {
	iv := buf[hdr+espFixedLen : pay]
	c.cbc.NextIV(iv)
	c.cbc.Encrypt(iv, buf[pay:end])
	signESP(c.mac, buf, hdr, end, s)
}

func (c *cbcSuite) open(_ *scratch, buf []byte, hdr, pay, end int, s Sequence) bool {
	if !verifyESP(c.mac, buf, hdr, end, s) {
		return false
	}
	c.cbc.Decrypt(buf[hdr+espFixedLen:pay], buf[pay:end])
	return true
}
