package legacy

import (
	"crypto/rand"

	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"
)

// tcryptFamily is ESP with DES-CBC and ciphertext stealing, private.
func tcryptFamily() transform.Family {
	var f transform.Family
	for name, ivLen := range ivLens("desctsiv") {
		f.Algorithms = append(f.Algorithms, cipherSuite{name, primitive.DESKeyLen, ivLen, 1, weakDES, newStealing}.algorithm())
	}
	return f
}

// A stealing is CBC-CS2 (NIST SP 800-38A, addendum).
type stealing struct{ *primitive.CBC }

func newStealing(key []byte) (chain, error) {
	c, err := primitive.NewDESCBC(key, rand.Reader)
	if err != nil {
		return nil, err
	}
	return stealing{c}, nil
}

func (c stealing) encrypt(iv, body []byte) {
	whole, last, rest := split(body)
	c.Encrypt(iv, whole)
	if len(rest) == 0 {
		return
	}
	// The rest, with zeros behind it, is chained to the last whole block, which it leaves
	// the beginning of to stand for itself.
	for i, clear := range rest {
		rest[i] = last[i]
		last[i] ^= clear
	}
	c.EncryptBlock(last)
}

func (c stealing) decrypt(iv, body []byte) {
	whole, last, rest := split(body)
	if len(rest) > 0 {
		c.DecryptBlock(last)
		for i, stolen := range rest {
			rest[i] ^= last[i]
			last[i] = stolen
		}
	}
	c.Decrypt(iv, whole)
}

func (c stealing) nextIV(iv []byte) { c.NextIV(iv) }

// split returns the whole blocks of a body, the last of them, and what is behind.
func split(body []byte) (whole, last, rest []byte) {
	n := len(body) - len(body)%blockLen
	return body[:n], body[n-blockLen : n], body[n:]
}
