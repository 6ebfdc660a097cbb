package transform

import "fmt"

// iivFamily is AES-GCM and AES-CCM with ICVs of 16 octets and ChaCha20-Poly1305, with
// an IV that is not sent, being the sequence number (RFC 8750). swanctl has no names
// for them; these are IANA's ENCR_AES_GCM_16_IIV, ENCR_AES_CCM_16_IIV and
// ENCR_CHACHA20_POLY1305_IIV in swanctl's spelling.
//
// RFC 8750 forbids it where several senders share one SA: an SA has one here.
func iivFamily() Family {
	var f Family
	add := func(name string, keyLen int, suite func(a *Algorithm, encryptionKey, integrityKey []byte) (*aeadSuite, error)) {
		a := Algorithm{
			Name:             name,
			Protocol:         ProtoESP,
			EncryptionKeyLen: keyLen,
			ICVLen:           16,
			BlockLen:         4,
			CounterMode:      true,
		}
		a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
			s, err := suite(&a, encryptionKey, integrityKey)
			if err != nil {
				return nil, err
			}
			s.implicit = true
			return newESP(&a, s), nil
		}
		f.Algorithms = append(f.Algorithms, a)
	}
	for _, bits := range []int{128, 192, 256} {
		add(fmt.Sprintf("aes%dgcm16iiv", bits), bits/8+aeadSaltLen, newGCM)
	}
	for _, bits := range []int{128, 192, 256} {
		add(fmt.Sprintf("aes%dccm16iiv", bits), bits/8+ccmSaltLen, newCCM)
	}
	add("chacha20poly1305iiv", chachaKeyLen, newChaCha)
	return f
}
