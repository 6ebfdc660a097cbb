package config

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// suites stands for the registry of transforms.
var suites = map[Protocol]map[string]Algorithm{
	ESP: {
		"aes128gcm16":      {EncryptionKeyLen: 20, CounterMode: true},
		"aes256gcm16":      {EncryptionKeyLen: 36, CounterMode: true},
		"aes128-sha256":    {EncryptionKeyLen: 16, IntegrityKeyLen: 32},
		"null-sha256":      {IntegrityKeyLen: 32},
		"des-md5":          {EncryptionKeyLen: 8, IntegrityKeyLen: 16, Weak: "DES falls to a search of its 2^56 keys", Insecure: []string{"des", "md5"}},
		"desiv64":          {EncryptionKeyLen: 8, NoSequence: true, Weak: "DES, and nothing else", Insecure: []string{"desiv64"}},
		"chacha20poly1305": {EncryptionKeyLen: 36, CounterMode: true},
	},
	AH: {"sha256": {IntegrityKeyLen: 32}, "sha1": {IntegrityKeyLen: 20}},
}

func testOptions(files map[string]string) Options {
	return Options{
		Algorithm: func(p Protocol, name string) (Algorithm, error) {
			a, ok := suites[p][name]
			if !ok {
				return a, fmt.Errorf("no such algorithm")
			}
			return a, nil
		},
		AlgorithmNames: func(p Protocol) []string {
			var names []string
			for n := range suites[p] {
				names = append(names, n)
			}
			slices.Sort(names)
			return names
		},
		InsecureNames: []string{"3des", "des", "desiv64", "kpdkmd5", "md5"},
		Classes:       []string{"arp", "ndp", "dhcp", "lldp", "multicast", "broadcast"},
		ReadFile: func(path string) ([]byte, fs.FileMode, error) {
			text, ok := files[path]
			if !ok {
				return nil, 0, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			// A test file with another mode than 0600 says so in its first line.
			if rest, ok := strings.CutPrefix(text, "#0644\n"); ok {
				return []byte(rest), 0o644, nil
			}
			return []byte(text), 0o600, nil
		},
	}
}

// mustParse parses text that has to be good.
func mustParse(t *testing.T, text string, files map[string]string) (*Config, Warnings) {
	t.Helper()
	c, w, err := Parse("bitw.yaml", []byte(text), testOptions(files))
	if err != nil {
		t.Fatalf("expected a good configuration, found:\n%s", err.(Errors).Text())
	}
	return c, w
}

const exampleKeys = `
# name  key and salt
to-b    0x00112233445566778899aabbccddeeff:a0a1a2a3
from-b  ffeeddccbbaa99887766554433221100b0b1b2b3 # comment
`

const pair = `interface: eth0
security_associations:
  - name: to-b
    direction: out
    protocol: esp
    mode: transport
    spi: 0x1001
    source: 192.0.2.1
    destination: 192.0.2.2
    algorithm: aes128gcm16
    encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3
  - name: from-b
    direction: in
    protocol: esp
    mode: transport
    spi: 0x2001
    source: 192.0.2.2
    destination: 192.0.2.1
    algorithm: aes128gcm16
    encryption_key: ff ee dd cc bb aa 99 88 77 66 55 44 33 22 11 00 b0 b1 b2 b3
policies:
  - name: to-b
    local: 192.0.2.1
    remote: 192.0.2.2
    action: protect
    out: to-b
    in: from-b
`
