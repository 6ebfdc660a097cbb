package transform

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// The suites of issue 2 point 5: names, octets on the wire, and what discourages them.
func TestR37_Algorithms(t *testing.T) {
	const sha1, null = "SHA-1", "confidentiality"
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
		"aes-sha":                "aes128-sha1",
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
		{ProtoAH, "sha512", 0, 65, "sha512: integrity key is 65 octets, want 64"},
	} {
		_, err := mustLookup(t, c.protocol, c.name).New(make([]byte, c.enc), make([]byte, c.auth), Options{})
		var length *KeyLengthError
		if !errors.Is(err, ErrKeyLength) || !errors.As(err, &length) || err.Error() != c.want {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
}
