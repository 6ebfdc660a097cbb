package transform

import (
	"fmt"

	"bitw/sa/transform/internal/primitive"
)

// ccmSaltLen is in octets (RFC 4309 §4).
const ccmSaltLen = primitive.CCMNonceLen - aeadIVLen

// ccmFamily is AES-CCM in ESP (RFC 4309) with keys of 128, 192 and 256 bits and ICVs
// of 8, 12 and 16 octets.
func ccmFamily() Family {
	f := Family{Aliases: make(map[string]string)}
	for _, bits := range []int{128, 192, 256} {
		cipherName := fmt.Sprintf("aes%dccm", bits)
		f.Aliases[cipherName] = cipherName + "16"
		for _, icv := range []int{8, 12, 16} {
			a := Algorithm{
				Name:             fmt.Sprintf("%s%d", cipherName, icv),
				Protocol:         ProtoESP,
				EncryptionKeyLen: bits/8 + ccmSaltLen,
				IVLen:            aeadIVLen,
				ICVLen:           icv,
				BlockLen:         4,
				CounterMode:      true,
			}
			a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
				suite, err := newCCM(&a, encryptionKey, integrityKey)
				if err != nil {
					return nil, err
				}
				return newESP(&a, suite), nil
			}
			f.Aliases[fmt.Sprintf("%s%d", cipherName, icv*8)] = a.Name
			f.Algorithms = append(f.Algorithms, a)
		}
	}
	return f
}

func newCCM(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, ccmSaltLen); err != nil {
		return nil, err
	}
	n := len(encryptionKey) - ccmSaltLen
	aead, err := primitive.NewCCM(encryptionKey[:n], a.ICVLen)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return newAEADSuite(aead, encryptionKey[n:]), nil
}
