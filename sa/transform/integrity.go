package transform

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"hash"

	"bitw/sa/transform/internal/primitive"
)

// An integrity is an integrity algorithm that ESP's separate suites and AH share.
type integrity struct {
	name           string
	keyLen, icvLen int // octets
	// mac makes the MAC; the key has the right length and is copied.
	mac  func(key []byte) (*primitive.MAC, error)
	weak string
}

// integrities are the HMACs of RFC 2404 and RFC 4868, AES-XCBC-96 (RFC 3566) and
// AES-CMAC-96 (RFC 4494). The key of an HMAC is as long as the hash; RFC 4868 §2.1.1
// allows no other length. RFC 8221 does not speak of AES-CMAC.
func integrities() []integrity {
	return []integrity{
		{"sha1", 20, 12, newHMAC(sha1.New, 12), "SHA-1 is being phased out (RFC 8221 §6)"},
		{"sha256", 32, 16, newHMAC(sha256.New, 16), ""},
		{"sha384", 48, 24, newHMAC(sha512.New384, 24), ""},
		{"sha512", 64, 32, newHMAC(sha512.New, 32), ""},
		{"aesxcbc", 16, 12, newXCBC, "AES-XCBC is recommended for the Internet of Things only (RFC 8221 §6)"},
		{"aescmac", 16, 12, newCMAC, ""},
	}
}

// md5Integrity is HMAC-MD5-96 (RFC 2403), which stands apart: it is for the old ciphers
// and for AH, and only where somebody allows it.
func md5Integrity() integrity {
	return integrity{"md5", 16, 12, newHMAC(md5.New, 12), "MD5 is broken (RFC 6151), and must not be used (RFC 8221 §6)"}
}

func newHMAC(newHash func() hash.Hash, icvLen int) func(key []byte) (*primitive.MAC, error) {
	return func(key []byte) (*primitive.MAC, error) { return primitive.NewHMAC(newHash, key, icvLen), nil }
}

func newXCBC(key []byte) (*primitive.MAC, error) { return primitive.NewXCBC(key, 12) }
func newCMAC(key []byte) (*primitive.MAC, error) { return primitive.NewCMAC(key, 12) }

// integrityAliases are swanctl's other names.
func integrityAliases() map[string]string {
	return map[string]string{
		"sha":      "sha1",
		"sha2_256": "sha256",
		"sha2_384": "sha384",
		"sha2_512": "sha512",
	}
}

// espICV computes the ICV over an ESP packet without its ICV, and the implicit high
// bits of an extended sequence number behind it (RFC 4303 §3.3.2.1, §2.2.1). It
// stays valid until m.Done(d).
func espICV(m *primitive.MAC, d *primitive.Digest, packet []byte, s Sequence) []byte {
	d.Write(packet)
	if s.ESN {
		d.WriteUint32(s.high())
	}
	return d.Tag(m)
}

// signESP writes the ICV of buf[hdr:end] to buf[end:].
func signESP(m *primitive.MAC, buf []byte, hdr, end int, s Sequence) {
	d := m.Start()
	copy(buf[end:end+m.TagLen()], espICV(m, d, buf[hdr:end], s))
	m.Done(d)
}

// verifyESP says whether the ICV of buf[hdr:end] is what stands in buf[end:].
func verifyESP(m *primitive.MAC, buf []byte, hdr, end int, s Sequence) bool {
	d := m.Start()
	ok := subtle.ConstantTimeCompare(espICV(m, d, buf[hdr:end], s), buf[end:end+m.TagLen()]) == 1
	m.Done(d)
	return ok
}
