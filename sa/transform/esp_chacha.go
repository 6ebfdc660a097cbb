package transform

import (
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
)

const chachaKeyLen = chacha20poly1305.KeySize + aeadSaltLen

// chachaFamily is ChaCha20-Poly1305 in ESP (RFC 7634): 32 octets of key and 4 of salt.
func chachaFamily() Family {
	a := Algorithm{
		Name:             "chacha20poly1305",
		Protocol:         ProtoESP,
		EncryptionKeyLen: chachaKeyLen,
		IVLen:            aeadIVLen,
		ICVLen:           chacha20poly1305.Overhead,
		BlockLen:         4,
		CounterMode:      true,
	}
	a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
		suite, err := newChaCha(&a, encryptionKey, integrityKey)
		if err != nil {
			return nil, err
		}
		return newESP(&a, suite), nil
	}
	return Family{
		Algorithms: []Algorithm{a},
		Aliases:    map[string]string{"chacha20poly1305compat": a.Name},
	}
}

func newChaCha(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error) {
	if err := CheckKeys(a, encryptionKey, integrityKey, aeadSaltLen); err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.New(encryptionKey[:chacha20poly1305.KeySize])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.Name, err)
	}
	return newAEADSuite(aead, encryptionKey[chacha20poly1305.KeySize:]), nil
}
