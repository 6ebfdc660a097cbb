package legacy

import (
	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"
)

const weak3DES = "triple DES has blocks of 64 bits"

// crypt3Family is ESP with triple DES in outer CBC (RFC 1851), whose IV has 64 bits. With
// a key of 16 octets the third key is the first.
func crypt3Family() transform.Family {
	return transform.Family{Algorithms: []transform.Algorithm{
		cipherSuite{"3des112iv64", primitive.DoubleDESKeyLen, blockLen, blockLen, weak3DES, newCBC}.algorithm(),
		cipherSuite{"3des168iv64", primitive.TripleDESKeyLen, blockLen, blockLen, weak3DES, newCBC}.algorithm(),
	}}
}
