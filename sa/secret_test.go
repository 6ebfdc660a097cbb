package sa

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

func TestSecretPrintsAsHidden(t *testing.T) {
	s := NewSecret([]byte("swordfish"))
	shown := map[string]string{"String": s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%08b", "%c", "%U", "%t", "%20s"} {
		shown[verb] = fmt.Sprintf(verb, s)
		shown["pointer "+verb] = fmt.Sprintf(verb, &s)
	}
	js, err := json.Marshal(map[string]any{"key": s, "list": []Secret{s}})
	if err != nil {
		t.Fatal(err)
	}
	shown["JSON"] = string(js)
	y, err := yaml.Marshal(map[string]any{"key": s})
	if err != nil {
		t.Fatal(err)
	}
	shown["YAML"] = string(y)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", s)
	shown["slog"] = log.String()
	for how, text := range shown {
		if !strings.Contains(text, "(hidden)") {
			t.Errorf("%s prints %q", how, text)
		}
	}
	// In an unexported field fmt calls no methods; the octets must not show either.
	type holder struct{ key Secret }
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q", "%p"} {
		text := fmt.Sprintf(verb, holder{s}) + fmt.Sprintf(verb, &holder{s}) + fmt.Sprintf(verb, []any{holder{s}})
		for _, leak := range []string{"swordfish", "115 119 111", "73776f72", "\\x73", "0x73, 0x77"} {
			if strings.Contains(text, leak) {
				t.Errorf("%s of a struct prints %q", verb, text)
			}
		}
	}
}

func TestSecretEqualAndClear(t *testing.T) {
	octets := []byte("swordfish")
	s := NewSecret(octets)
	octets[0] = 'S'
	if string(s.Bytes()) != "swordfish" {
		t.Fatal("the secret shares the caller's octets")
	}
	other := s.Clone()
	if !s.Equal(other) || s.Equal(NewSecret([]byte("swordfisH"))) || s.Equal(NewSecret([]byte("sword"))) || s.Equal(Secret{}) {
		t.Fatal("Equal is wrong")
	}
	if !(Secret{}).Equal(NewSecret(nil)) || !(Secret{}).Empty() {
		t.Fatal("the zero secret is not the empty one")
	}
	b, alias := s.Bytes(), s
	s.Clear()
	if !bytes.Equal(b, make([]byte, 9)) || !alias.Empty() || other.Len() != 9 {
		t.Fatalf("after Clear: octets %v, alias of length %d, clone of length %d", b, alias.Len(), other.Len())
	}
	Secret{}.Clear()
}
