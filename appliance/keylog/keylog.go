// Package keylog writes keys of SAs in the form of Wireshark's table "esp_sa", by which it
// looks into ESP. It knows names of algorithms and octets, and no appliance.
package keylog

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// ErrUnknown is matched by the errors about SAs into which Wireshark cannot look.
var ErrUnknown = errors.New("not to be looked into by Wireshark")

// An SA is what the table has of one SA for ESP.
type SA struct {
	// IPv6 says of which version the outer header is.
	IPv6 bool
	// Src and Dst are its addresses; what is not valid stands for any.
	Src, Dst netip.Addr
	SPI      uint32 // host order
	// Algorithm is the name as bitw has it, such as "aes128gcm16".
	Algorithm string
	// EncryptionKey has salt or nonce at its end, as bitw's configuration has it.
	EncryptionKey, IntegrityKey []byte
}

// Row returns the line of the table: version, source, destination, SPI, encryption with its
// key, integrity with its key. Wireshark 4.4 and later have two more columns, whose
// defaults fit. The error matches ErrUnknown.
func (s SA) Row() (string, error) {
	encryption, integrity, err := names(s.Algorithm)
	if err != nil {
		return "", err
	}
	family := "IPv4"
	if s.IPv6 {
		family = "IPv6"
	}
	fields := []string{
		family, address(s.Src), address(s.Dst), fmt.Sprintf("0x%08x", s.SPI),
		encryption, word(s.EncryptionKey), integrity, word(s.IntegrityKey),
	}
	return `"` + strings.Join(fields, `","`) + `"`, nil
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return "*"
	}
	return a.String()
}

func word(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return "0x" + hex.EncodeToString(key)
}

// names are those that Wireshark 4.0 has for the parts of an algorithm.
func names(algorithm string) (encryption, integrity string, err error) {
	first, second, _ := strings.Cut(algorithm, "-")
	unknown := fmt.Errorf("%s: %w", algorithm, ErrUnknown)
	bits := strings.TrimPrefix(first, "aes")
	switch cipher := strings.TrimLeft(bits, "0123456789"); {
	case first == "null":
		encryption = "NULL"
	case first == "des":
		encryption = "DES-CBC [RFC2405]"
	case first == "3des":
		encryption = "TripleDES-CBC [RFC2451]"
	case bits == first:
		return "", "", unknown
	case cipher == "":
		encryption = "AES-CBC [RFC3602]"
	case cipher == "ctr":
		encryption = "AES-CTR [RFC3686]"
	case second == "" && (cipher == "gcm8" || cipher == "gcm12" || cipher == "gcm16"):
		return "AES-GCM with " + strings.TrimPrefix(cipher, "gcm") + " octet ICV [RFC4106]", "NULL", nil
	default:
		return "", "", unknown
	}
	integrity, ok := map[string]string{
		"md5": "HMAC-MD5-96 [RFC2403]", "sha1": "HMAC-SHA-1-96 [RFC2404]", "sha256": "HMAC-SHA-256-128 [RFC4868]",
		"sha384": "HMAC-SHA-384-192 [RFC4868]", "sha512": "HMAC-SHA-512-256 [RFC4868]",
		// It has no AES for integrity, but can leave out the ICV.
		"aesxcbc": "ANY 96 bit authentication [no checking]", "aescmac": "ANY 96 bit authentication [no checking]",
	}[second]
	if !ok {
		return "", "", unknown
	}
	return encryption, integrity, nil
}

// Path is where the keys of a capture go: beside it, with another extension.
func Path(capture string) string {
	dot := strings.LastIndexByte(capture, '.')
	if dot <= strings.LastIndexByte(capture, '/')+1 {
		dot = len(capture)
	}
	return capture[:dot] + ".esp_sa"
}

// Hint tells how to look into a capture with its keys. profile is the name of Wireshark's
// profile that gets them.
func Hint(profile, capture, keys string) string {
	return fmt.Sprintf(`To see inside and outside side by side, give Wireshark the keys in a profile of their own:
  mkdir -p ~/.config/wireshark/profiles/%[1]s
  cp %[3]s ~/.config/wireshark/profiles/%[1]s/esp_sa
  wireshark -C %[1]s -o esp.enable_encryption_decode:TRUE -r %[2]s
Since TCP is there twice, -o tcp.desegment_tcp_streams:FALSE keeps it from being joined.
With tshark the same, or without the profile, one -o for each line of the keys:
  tshark -r %[2]s -o esp.enable_encryption_decode:TRUE -o 'uat:esp_sa:LINE' -o 'uat:esp_sa:LINE' …
`, profile, shellWord(capture), shellWord(keys))
}

// shellWord quotes s for a shell where that is needed.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+,:@%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
