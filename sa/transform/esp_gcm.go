package transform

import "bitw/sa/transform/internal/primitive"

// gcmFamily is AES-GCM in ESP (RFC 4106) with keys of 128, 192 and 256 bits and ICVs
// of 8, 12 and 16 octets.
func gcmFamily() Family { return aesAEADFamily("gcm", aeadSaltLen, newGCM) }

func newGCM(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error) {
	return newSaltedAEAD(a, encryptionKey, integrityKey, aeadSaltLen, primitive.NewGCM)
}
