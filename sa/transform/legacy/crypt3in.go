package legacy

import (
	"crypto/rand"

	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"
)

// crypt3inFamily is ESP with triple DES in inner CBC, private.
func crypt3inFamily() transform.Family {
	const weak = "inner CBC makes triple DES little more than DES"
	return transform.Family{Algorithms: []transform.Algorithm{
		cipherSuite{"3desin112iv64", primitive.DoubleDESKeyLen, blockLen, blockLen, weak, newInner}.algorithm(),
		cipherSuite{"3desin168iv64", primitive.TripleDESKeyLen, blockLen, blockLen, weak, newInner}.algorithm(),
	}}
}

// An inner is three passes of CBC with three keys, of which the third may be the first.
type inner struct{ first, second, third *primitive.CBC }

func newInner(key []byte) (chain, error) {
	// Triple DES knows which keys do not make one.
	if _, err := primitive.NewDESCBC(key, rand.Reader); err != nil {
		return nil, err
	}
	var passes [3]*primitive.CBC
	for i := range passes {
		at := i * primitive.DESKeyLen % len(key)
		var err error
		if passes[i], err = primitive.NewDESCBC(key[at:at+primitive.DESKeyLen], rand.Reader); err != nil {
			return nil, err
		}
	}
	return &inner{passes[0], passes[1], passes[2]}, nil
}

func (c *inner) encrypt(iv, body []byte) {
	c.first.Encrypt(iv, body)
	c.second.Decrypt(iv, body)
	c.third.Encrypt(iv, body)
}

func (c *inner) decrypt(iv, body []byte) {
	c.third.Decrypt(iv, body)
	c.second.Encrypt(iv, body)
	c.first.Decrypt(iv, body)
}

func (c *inner) nextIV(iv []byte) { c.first.NextIV(iv) }
