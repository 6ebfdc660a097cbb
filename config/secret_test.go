package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestR44_SecretsNeverPrint tries all ways in which text comes out of a Go program.
func TestR44_SecretsNeverPrint(t *testing.T) {
	c, _ := mustParse(t, pair, nil)
	s := c.SAs[0].EncryptionKey
	unexported := struct{ k Secret }{s}
	var out strings.Builder
	for _, v := range []any{s, &s, unexported, &unexported, []Secret{s}, map[string]Secret{"k": s}, c, *c, c.SAs, &c.SAs[0], c.SAs[0], Diff(c, &Config{})} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%08b", "%T"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		j, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		y, err := yaml.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(j)
		out.Write(y)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "k", v)
	}
	text := strings.ToLower(out.String())
	for _, leak := range []string{"00112233", "ffeeddcc", "ff ee dd", "00 11 22", "0 17 34 51", "17, 34", "ff, 0xee", "abeiM0RV", "- 17", "0 21 42 63"} {
		if strings.Contains(text, strings.ToLower(leak)) {
			t.Errorf("the key came out as %q", leak)
		}
	}
	if !strings.Contains(text, hidden) {
		t.Error("nothing is (hidden)")
	}
}

func TestSecret(t *testing.T) {
	b := []byte{1, 2, 3}
	s := NewSecret(b)
	clear(b)
	same, other, copied := NewSecret([]byte{1, 2, 3}), NewSecret([]byte{1, 2}), s
	if !s.Equal(same) || s.Equal(other) || s.Len() != 3 || !(Secret{}).Equal(NewSecret(nil)) || (Secret{}).Len() != 0 {
		t.Error("Equal and Len")
	}
	octets := copied.Bytes()
	s.Clear()
	if octets[0]|octets[1]|octets[2] != 0 || copied.Len() != 0 {
		t.Error("Clear left a copy")
	}
	Secret{}.Clear()
}

// TestHideKeys is about lines shown below an error.
func TestHideKeys(t *testing.T) {
	for _, x := range [][2]string{
		{`  encryption_key: 0x00112233`, `  encryption_key: (hidden)`},
		{`  - {name: a, "integrity_key" : secret, spi: 1}`, `  - {name: a, "integrity_key" : (hidden)`},
		{`  key_file: keys/a.key`, `  key_file: keys/a.key`},
		{`  - {key_file: a, encryption_key: 00}`, `  - {key_file: a, encryption_key: (hidden)`},
		{`  crypt: 00112233445566778899aabbccddeeff # x`, `  crypt: (hidden) # x`},
		{`      00 11 22 33 44 55 66 77 88`, `      (hidden)`},
		{`  key_file: 00112233445566778899aabb`, `  key_file: (hidden)`},
		{`  x00112233445566778899aabb: 00112233445566778899aabb`, `  x(hidden)`},
		{`  local: 2001:0db8:0000:0000:0000:0000:0000:0001`, `  local: 2001:0db8:0000:0000:0000:0000:0000:0001`},
		{`  mac: 02:00:00:00:00:09`, `  mac: 02:00:00:00:00:09`},
	} {
		if got := hideKeys(x[0]); got != x[1] {
			t.Errorf("%q became %q, expected %q", x[0], got, x[1])
		}
	}
}

func TestNearest(t *testing.T) {
	for _, x := range [][2]string{{"encrypton_key", "encryption_key"}, {"tpc", "tcp"}, {"INTERFACE", "interface"}, {"up", ""}, {"x", ""}, {"", ""}, {"wholly-different", ""}} {
		if got := Nearest(x[0], []string{"interface", "encryption_key", "tcp", "out"}); got != x[1] {
			t.Errorf("nearest to %q is %q, expected %q", x[0], got, x[1])
		}
	}
}
