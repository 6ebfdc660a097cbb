package transform

import (
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

// chachaFamily is ChaCha20-Poly1305 in ESP (RFC 7634): 32 octets of key and 4 of salt.
func chachaFamily() family {
	a := Algorithm{
		Name:             "chacha20poly1305",
		Protocol:         ProtoESP,
		EncryptionKeyLen: chacha20poly1305.KeySize + aeadSaltLen,
		IVLen:            aeadIVLen,
		ICVLen:           chacha20poly1305.Overhead,
		BlockLen:         4,
		CounterMode:      true,
	}
	a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
		if err := checkKeys(&a, encryptionKey, integrityKey, aeadSaltLen); err != nil {
			return nil, err
		}
		aead, err := chacha20poly1305.New(encryptionKey[:chacha20poly1305.KeySize])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.Name, err)
		}
		return newESP(&a, newAEADSuite(aead, encryptionKey[chacha20poly1305.KeySize:])), nil
	}
	return family{
		algorithms: []Algorithm{a},
		aliases:    map[string]string{"chacha20poly1305compat": a.Name},
	}
}
