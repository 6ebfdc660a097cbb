package transform

import (
	"crypto/rand"
	"maps"

	"bitw/sa/transform/internal/primitive"
)

// desFamily is DES-CBC and triple DES in today's ESP, for peers that have nothing better:
// RFC 2405, and RFC 2451 with a key of 192 bits. Each comes with every integrity
// algorithm and with HMAC-MD5-96. The forms of RFC 1829 and RFC 1851, without
// sequence number and integrity, are in package legacy.
func desFamily() Family {
	f := Family{Aliases: map[string]string{}}
	maps.Copy(f.Aliases, integrityAliases())
	for _, c := range []struct {
		name   string
		keyLen int
		weak   string
	}{
		{"des", primitive.DESKeyLen, "DES falls to a search of its 2^56 keys, and must not be used (RFC 8221 §5)"},
		{"3des", primitive.TripleDESKeyLen, "triple DES has blocks of 64 bits, and should not be used (RFC 8221 §5)"},
	} {
		for _, i := range append(integrities(), md5Integrity()) {
			a := Algorithm{
				Name:             c.name + "-" + i.name,
				Protocol:         ProtoESP,
				EncryptionKeyLen: c.keyLen,
				IntegrityKeyLen:  i.keyLen,
				IVLen:            primitive.DESBlockLen,
				ICVLen:           i.icvLen,
				BlockLen:         primitive.DESBlockLen,
				Weak:             c.weak,
				Insecure:         []string{c.name},
			}
			if i.weak != "" {
				a.Weak += "; " + i.weak
			}
			if i.name == md5Integrity().name {
				a.Insecure = append(a.Insecure, i.name)
			}
			a.New = func(encryptionKey, integrityKey []byte, _ Options) (Transform, error) {
				return newCBC(&a, &i, primitive.NewDESCBC, encryptionKey, integrityKey, rand.Reader)
			}
			f.Algorithms = append(f.Algorithms, a)
		}
	}
	return f
}
