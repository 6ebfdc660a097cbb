package transform

import "bitw/sa/transform/internal/primitive"

// ccmSaltLen is in octets (RFC 4309 §4).
const ccmSaltLen = primitive.CCMNonceLen - aeadIVLen

// ccmFamily is AES-CCM in ESP (RFC 4309) with keys of 128, 192 and 256 bits and ICVs
// of 8, 12 and 16 octets.
func ccmFamily() Family { return aesAEADFamily("ccm", ccmSaltLen, newCCM) }

func newCCM(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error) {
	return newSaltedAEAD(a, encryptionKey, integrityKey, ccmSaltLen, primitive.NewCCM)
}
