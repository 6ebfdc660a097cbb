package keylog

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
)

func TestR50_Row(t *testing.T) {
	a, b := netip.MustParseAddr("198.51.100.2"), netip.MustParseAddr("198.51.100.1")
	for _, c := range []struct {
		sa   SA
		want string
	}{
		{SA{false, a, b, 0x1234, "aes128gcm16", []byte{1, 2}, nil},
			`"IPv4","198.51.100.2","198.51.100.1","0x00001234","AES-GCM with 16 octet ICV [RFC4106]","0x0102","NULL",""`},
		{SA{true, netip.Addr{}, netip.MustParseAddr("2001:db8::1"), 1, "aes256-sha256", []byte{1}, []byte{2}},
			`"IPv6","*","2001:db8::1","0x00000001","AES-CBC [RFC3602]","0x01","HMAC-SHA-256-128 [RFC4868]","0x02"`},
		{SA{SPI: 1, Algorithm: "null-sha1", IntegrityKey: []byte{2}}, `"IPv4","*","*","0x00000001","NULL","","HMAC-SHA-1-96 [RFC2404]","0x02"`},
		{SA{SPI: 1, Algorithm: "aes192ctr-aescmac", EncryptionKey: []byte{1}, IntegrityKey: []byte{2}},
			`"IPv4","*","*","0x00000001","AES-CTR [RFC3686]","0x01","ANY 96 bit authentication [no checking]","0x02"`},
		{SA{SPI: 1, Algorithm: "3des-md5", EncryptionKey: []byte{1}, IntegrityKey: []byte{2}},
			`"IPv4","*","*","0x00000001","TripleDES-CBC [RFC2451]","0x01","HMAC-MD5-96 [RFC2403]","0x02"`},
	} {
		if got, err := c.sa.Row(); got != c.want || err != nil {
			t.Errorf("%s: %s, %v\nexpected %s", c.sa.Algorithm, got, err, c.want)
		}
	}
	for _, name := range []string{"chacha20poly1305", "aes128ccm16", "aes128gcm16iiv", "aes128gmac", "aes128gcm16-sha256", "aes128", "desiv32", "sha256", ""} {
		if row, err := (SA{SPI: 1, Algorithm: name}).Row(); !errors.Is(err, ErrUnknown) || row != "" {
			t.Errorf("%q: %s, %v", name, row, err)
		}
	}
}

func TestPath(t *testing.T) {
	for capture, want := range map[string]string{
		"x/demo.pcapng": "x/demo.esp_sa", "demo": "demo.esp_sa", "a.b/demo": "a.b/demo.esp_sa", ".hidden": ".hidden.esp_sa", "x.esp_sa": "x.esp_sa",
	} {
		if got := Path(capture); got != want {
			t.Errorf("%q: %q, expected %q", capture, got, want)
		}
	}
}

func TestHint(t *testing.T) {
	hint := Hint("bitw", "it's.pcapng", "a b.esp_sa")
	for _, want := range []string{`-r 'it'\''s.pcapng'`, "cp 'a b.esp_sa' ~/.config/wireshark/profiles/bitw/esp_sa", "wireshark -C bitw "} {
		if !strings.Contains(hint, want) {
			t.Errorf("%s\nlacks %s", hint, want)
		}
	}
}
