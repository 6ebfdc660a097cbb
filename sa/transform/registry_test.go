package transform

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// All suites: names, octets on the wire, and what discourages them.
func TestR37_Algorithms(t *testing.T) {
	const sha1, xcbc, null, optional = "SHA-1", "AES-XCBC", "confidentiality", "optional"
	const des, tripleDES, md5 = "2^56 keys", "triple DES", "MD5"
	type row struct {
		protocol            uint8
		name                string
		enc, auth           int
		iv, icv, block      int
		counter             bool
		weakBecause, weakBy string
	}
	var rows []row
	for _, r := range []row{
		{ProtoESP, "aes128gcm8", 20, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes128gcm12", 20, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes128gcm16", 20, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes192gcm8", 28, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes192gcm12", 28, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes192gcm16", 28, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes256gcm8", 36, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes256gcm12", 36, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes256gcm16", 36, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "chacha20poly1305", 36, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes128-sha1", 16, 20, 16, 12, 16, false, sha1, ""},
		{ProtoESP, "aes128-sha256", 16, 32, 16, 16, 16, false, "", ""},
		{ProtoESP, "aes128-sha384", 16, 48, 16, 24, 16, false, "", ""},
		{ProtoESP, "aes128-sha512", 16, 64, 16, 32, 16, false, "", ""},
		{ProtoESP, "aes192-sha1", 24, 20, 16, 12, 16, false, sha1, ""},
		{ProtoESP, "aes192-sha256", 24, 32, 16, 16, 16, false, "", ""},
		{ProtoESP, "aes192-sha384", 24, 48, 16, 24, 16, false, "", ""},
		{ProtoESP, "aes192-sha512", 24, 64, 16, 32, 16, false, "", ""},
		{ProtoESP, "aes256-sha1", 32, 20, 16, 12, 16, false, sha1, ""},
		{ProtoESP, "aes256-sha256", 32, 32, 16, 16, 16, false, "", ""},
		{ProtoESP, "aes256-sha384", 32, 48, 16, 24, 16, false, "", ""},
		{ProtoESP, "aes256-sha512", 32, 64, 16, 32, 16, false, "", ""},
		{ProtoESP, "null-sha1", 0, 20, 0, 12, 4, false, sha1, null},
		{ProtoESP, "null-sha256", 0, 32, 0, 16, 4, false, null, ""},
		{ProtoESP, "null-sha384", 0, 48, 0, 24, 4, false, null, ""},
		{ProtoESP, "null-sha512", 0, 64, 0, 32, 4, false, null, ""},
		{ProtoAH, "sha1", 0, 20, 0, 12, 4, false, sha1, ""},
		{ProtoAH, "sha256", 0, 32, 0, 16, 4, false, "", ""},
		{ProtoAH, "sha384", 0, 48, 0, 24, 4, false, "", ""},
		{ProtoAH, "sha512", 0, 64, 0, 32, 4, false, "", ""},
		{ProtoESP, "aes128ccm8", 19, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes128ccm12", 19, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes128ccm16", 19, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes192ccm8", 27, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes192ccm12", 27, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes192ccm16", 27, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes256ccm8", 35, 0, 8, 8, 4, true, "", ""},
		{ProtoESP, "aes256ccm12", 35, 0, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes256ccm16", 35, 0, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes128gcm16iiv", 20, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes192gcm16iiv", 28, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes256gcm16iiv", 36, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes128ccm16iiv", 19, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes192ccm16iiv", 27, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes256ccm16iiv", 35, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "chacha20poly1305iiv", 36, 0, 0, 16, 4, true, "", ""},
		{ProtoESP, "aes128-aesxcbc", 16, 16, 16, 12, 16, false, xcbc, ""},
		{ProtoESP, "aes128-aescmac", 16, 16, 16, 12, 16, false, "", ""},
		{ProtoESP, "aes192-aesxcbc", 24, 16, 16, 12, 16, false, xcbc, ""},
		{ProtoESP, "aes192-aescmac", 24, 16, 16, 12, 16, false, "", ""},
		{ProtoESP, "aes256-aesxcbc", 32, 16, 16, 12, 16, false, xcbc, ""},
		{ProtoESP, "aes256-aescmac", 32, 16, 16, 12, 16, false, "", ""},
		{ProtoESP, "aes128ctr-sha1", 20, 20, 8, 12, 4, true, sha1, ""},
		{ProtoESP, "aes128ctr-sha256", 20, 32, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes128ctr-sha384", 20, 48, 8, 24, 4, true, "", ""},
		{ProtoESP, "aes128ctr-sha512", 20, 64, 8, 32, 4, true, "", ""},
		{ProtoESP, "aes128ctr-aesxcbc", 20, 16, 8, 12, 4, true, xcbc, ""},
		{ProtoESP, "aes128ctr-aescmac", 20, 16, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes192ctr-sha1", 28, 20, 8, 12, 4, true, sha1, ""},
		{ProtoESP, "aes192ctr-sha256", 28, 32, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes192ctr-sha384", 28, 48, 8, 24, 4, true, "", ""},
		{ProtoESP, "aes192ctr-sha512", 28, 64, 8, 32, 4, true, "", ""},
		{ProtoESP, "aes192ctr-aesxcbc", 28, 16, 8, 12, 4, true, xcbc, ""},
		{ProtoESP, "aes192ctr-aescmac", 28, 16, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes256ctr-sha1", 36, 20, 8, 12, 4, true, sha1, ""},
		{ProtoESP, "aes256ctr-sha256", 36, 32, 8, 16, 4, true, "", ""},
		{ProtoESP, "aes256ctr-sha384", 36, 48, 8, 24, 4, true, "", ""},
		{ProtoESP, "aes256ctr-sha512", 36, 64, 8, 32, 4, true, "", ""},
		{ProtoESP, "aes256ctr-aesxcbc", 36, 16, 8, 12, 4, true, xcbc, ""},
		{ProtoESP, "aes256ctr-aescmac", 36, 16, 8, 12, 4, true, "", ""},
		{ProtoESP, "aes128gmac", 0, 20, 8, 16, 4, true, null, ""},
		{ProtoESP, "aes192gmac", 0, 28, 8, 16, 4, true, null, ""},
		{ProtoESP, "aes256gmac", 0, 36, 8, 16, 4, true, null, ""},
		{ProtoESP, "null-aesxcbc", 0, 16, 0, 12, 4, false, xcbc, null},
		{ProtoESP, "null-aescmac", 0, 16, 0, 12, 4, false, null, ""},
		{ProtoAH, "aesxcbc", 0, 16, 0, 12, 4, false, xcbc, ""},
		{ProtoAH, "aescmac", 0, 16, 0, 12, 4, false, "", ""},
		{ProtoAH, "aes128gmac", 0, 20, 8, 16, 4, true, optional, ""},
		{ProtoAH, "aes192gmac", 0, 28, 8, 16, 4, true, optional, ""},
		{ProtoAH, "aes256gmac", 0, 36, 8, 16, 4, true, optional, ""},
		{ProtoESP, "des-sha1", 8, 20, 8, 12, 8, false, des, sha1},
		{ProtoESP, "des-sha256", 8, 32, 8, 16, 8, false, des, ""},
		{ProtoESP, "des-sha384", 8, 48, 8, 24, 8, false, des, ""},
		{ProtoESP, "des-sha512", 8, 64, 8, 32, 8, false, des, ""},
		{ProtoESP, "des-aesxcbc", 8, 16, 8, 12, 8, false, des, xcbc},
		{ProtoESP, "des-aescmac", 8, 16, 8, 12, 8, false, des, ""},
		{ProtoESP, "des-md5", 8, 16, 8, 12, 8, false, des, md5},
		{ProtoESP, "3des-sha1", 24, 20, 8, 12, 8, false, tripleDES, sha1},
		{ProtoESP, "3des-sha256", 24, 32, 8, 16, 8, false, tripleDES, ""},
		{ProtoESP, "3des-sha384", 24, 48, 8, 24, 8, false, tripleDES, ""},
		{ProtoESP, "3des-sha512", 24, 64, 8, 32, 8, false, tripleDES, ""},
		{ProtoESP, "3des-aesxcbc", 24, 16, 8, 12, 8, false, tripleDES, xcbc},
		{ProtoESP, "3des-aescmac", 24, 16, 8, 12, 8, false, tripleDES, ""},
		{ProtoESP, "3des-md5", 24, 16, 8, 12, 8, false, tripleDES, md5},
		{ProtoAH, "md5", 0, 16, 0, 12, 4, false, md5, "RFC 8221"},
	} {
		rows = append(rows, r)
		a, err := Lookup(r.protocol, r.name)
		if err != nil {
			t.Error(err)
			continue
		}
		got := row{a.Protocol, a.Name, a.EncryptionKeyLen, a.IntegrityKeyLen, a.IVLen, a.ICVLen, a.BlockLen, a.CounterMode, r.weakBecause, r.weakBy}
		if got != r {
			t.Errorf("%s is %+v, want %+v", r.name, got, r)
		}
		if (a.Weak == "") != (r.weakBecause == "") || !strings.Contains(a.Weak, r.weakBecause) || !strings.Contains(a.Weak, r.weakBy) {
			t.Errorf("%s: Weak is %q", r.name, a.Weak)
		}
	}
	if n := len(Algorithms()); n != len(rows) {
		t.Errorf("%d algorithms, want %d", n, len(rows))
	}
}

// The other spellings are those of strongSwan's proposal keywords.
func TestLookupAliases(t *testing.T) {
	for alias, want := range map[string]string{
		"aes128gcm":              "aes128gcm16",
		"aes128gcm64":            "aes128gcm8",
		"aes192gcm96":            "aes192gcm12",
		"aes256gcm128":           "aes256gcm16",
		"chacha20poly1305compat": "chacha20poly1305",
		"aes128ccm":              "aes128ccm16",
		"aes256ccm64":            "aes256ccm8",
		"aes-sha":                "aes128-sha1",
		"aes192ctr-sha2_256":     "aes192ctr-sha256",
		"aes256-sha2_384":        "aes256-sha384",
		"null-sha2_512":          "null-sha512",
	} {
		if a, err := Lookup(ProtoESP, alias); err != nil || a.Name != want {
			t.Errorf("%s is %q (%v), want %s", alias, a.Name, err, want)
		}
	}
	if a, err := Lookup(ProtoAH, "sha2_256"); err != nil || a.Name != "sha256" {
		t.Errorf("AH sha2_256 is %q (%v)", a.Name, err)
	}
}

func TestLookupUnknown(t *testing.T) {
	for _, c := range []struct {
		protocol uint8
		name     string
		nearest  string // the first one; empty: none
	}{
		{ProtoESP, "aes128gcm17", "aes128gcm12"},
		{ProtoESP, "aes256gmc16", "aes256gcm16"},
		{ProtoESP, "AES256GCM16", "aes256gcm16"},
		{ProtoESP, "chacha20-poly1305", "chacha20poly1305"},
		{ProtoESP, "aes256", "aes256-sha256"},
		{ProtoESP, "null", "null-sha256"},
		{ProtoESP, "null-null", "null-sha1"},
		{ProtoESP, "sha256", "aes128-sha256"},
		{ProtoESP, "aes128gmac-sha256", "aes128gmac"},
		{ProtoESP, "aes256ctr", "aes256ctr-sha256"},
		{ProtoAH, "sha-256", "sha256"},
		{ProtoAH, "aes256-sha256", "sha256"},
		{ProtoESP, "rot13", ""},
		{ProtoESP, "", ""},
		{6, "sha256", ""},
	} {
		_, err := Lookup(c.protocol, c.name)
		var unknown *UnknownAlgorithmError
		if !errors.Is(err, ErrUnknownAlgorithm) || !errors.As(err, &unknown) {
			t.Errorf("%q: %v", c.name, err)
			continue
		}
		if c.nearest == "" && len(unknown.Nearest) > 0 || c.nearest != "" && !slices.Contains(unknown.Nearest, c.nearest) {
			t.Errorf("%q: nearest are %q, want %q", c.name, unknown.Nearest, c.nearest)
		}
		t.Log(err)
	}
}

// NULL with NULL cannot be made (RFC 8221 §5): every suite demands a key.
func TestR37_NoNullWithNull(t *testing.T) {
	for _, a := range Algorithms() {
		if a.EncryptionKeyLen+a.IntegrityKeyLen == 0 || a.ICVLen == 0 {
			t.Errorf("%s has no integrity", a.Name)
		}
		if _, err := a.New(nil, nil, Options{}); !errors.Is(err, ErrKeyLength) {
			t.Errorf("%s without keys: %v", a.Name, err)
		}
	}
}

func TestKeyLengths(t *testing.T) {
	for _, c := range []struct {
		protocol  uint8
		name      string
		enc, auth int
		want      string
	}{
		{ProtoESP, "aes256gcm16", 32, 0, "aes256gcm16: encryption key is 32 octets, want 36 (32 of key, then 4 of salt)"},
		{ProtoESP, "aes128gcm16", 20, 32, "aes128gcm16: integrity key is 32 octets, want 0 (the algorithm takes none)"},
		{ProtoESP, "chacha20poly1305", 0, 0, "chacha20poly1305: encryption key is 0 octets, want 36 (32 of key, then 4 of salt)"},
		{ProtoESP, "aes128-sha256", 17, 32, "aes128-sha256: encryption key is 17 octets, want 16"},
		{ProtoESP, "aes128-sha256", 16, 20, "aes128-sha256: integrity key is 20 octets, want 32"},
		{ProtoESP, "null-sha1", 16, 20, "null-sha1: encryption key is 16 octets, want 0 (the algorithm takes none)"},
		{ProtoESP, "aes128ccm12", 20, 0, "aes128ccm12: encryption key is 20 octets, want 19 (16 of key, then 3 of salt)"},
		{ProtoESP, "aes256ccm16iiv", 32, 0, "aes256ccm16iiv: encryption key is 32 octets, want 35 (32 of key, then 3 of salt)"},
		{ProtoESP, "chacha20poly1305iiv", 32, 0, "chacha20poly1305iiv: encryption key is 32 octets, want 36 (32 of key, then 4 of salt)"},
		{ProtoESP, "aes128ctr-sha256", 16, 32, "aes128ctr-sha256: encryption key is 16 octets, want 20 (16 of key, then 4 of salt)"},
		{ProtoESP, "aes128ctr-sha256", 20, 36, "aes128ctr-sha256: integrity key is 36 octets, want 32"},
		{ProtoESP, "aes128gmac", 20, 0, "aes128gmac: encryption key is 20 octets, want 0 (the algorithm takes none)"},
		{ProtoESP, "aes128gmac", 0, 16, "aes128gmac: integrity key is 16 octets, want 20 (16 of key, then 4 of salt)"},
		{ProtoESP, "null-aesxcbc", 0, 20, "null-aesxcbc: integrity key is 20 octets, want 16"},
		{ProtoAH, "aes256gmac", 0, 32, "aes256gmac: integrity key is 32 octets, want 36 (32 of key, then 4 of salt)"},
		{ProtoAH, "sha512", 0, 65, "sha512: integrity key is 65 octets, want 64"},
	} {
		_, err := mustLookup(t, c.protocol, c.name).New(make([]byte, c.enc), make([]byte, c.auth), Options{})
		var length *KeyLengthError
		if !errors.Is(err, ErrKeyLength) || !errors.As(err, &length) || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}

// What must be allowed by name is a part of the algorithm's name, and only that of old
// ciphers and MD5.
func TestR38_InsecurePartsOfNames(t *testing.T) {
	for _, a := range Algorithms() {
		var want []string
		for _, part := range strings.Split(a.Name, "-") {
			if part == "des" || part == "3des" || part == "md5" {
				want = append(want, part)
			}
		}
		if !slices.Equal(a.Insecure, want) {
			t.Errorf("%s: insecure are %q, want %q", a.Name, a.Insecure, want)
		}
		if len(want) > 0 && a.Weak == "" {
			t.Errorf("%s is insecure and not weak", a.Name)
		}
	}
	if got, want := NewRegistry(Families()...).Insecure(), []string{"3des", "des", "md5"}; !slices.Equal(got, want) {
		t.Errorf("insecure are %q, want %q", got, want)
	}
}
