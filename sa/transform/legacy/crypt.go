package legacy

import (
	"crypto/rand"

	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"
)

const weakDES = "DES falls to a search of its 2^56 keys"

// cryptFamily is ESP with DES-CBC (RFC 1829), first with the IV of 32 bits, which that
// calls the most common.
func cryptFamily() transform.Family {
	var f transform.Family
	for name, ivLen := range ivLens("desiv") {
		f.Algorithms = append(f.Algorithms, cipherSuite{name, primitive.DESKeyLen, ivLen, blockLen, weakDES, newCBC}.algorithm())
	}
	return f
}

// A cbc is CBC over the whole body.
type cbc struct{ *primitive.CBC }

func newCBC(key []byte) (chain, error) {
	c, err := primitive.NewDESCBC(key, rand.Reader)
	if err != nil {
		return nil, err
	}
	return cbc{c}, nil
}

func (c cbc) encrypt(iv, body []byte) { c.Encrypt(iv, body) }
func (c cbc) decrypt(iv, body []byte) { c.Decrypt(iv, body) }
func (c cbc) nextIV(iv []byte)        { c.NextIV(iv) }
