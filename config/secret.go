package config

import (
	"bytes"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const hidden = "(hidden)"

// A Secret is a key. It prints as (hidden) with every verb of fmt, in JSON, in YAML
// and in logs; only Bytes shows it. Copies share their octets, so that Clear
// reaches all of them. The zero Secret is empty.
type Secret struct {
	// fmt prints the unexported fields of a struct that holds a Secret without asking
	// its methods. It follows one pointer for a verb that does not suit, but never two.
	p **[]byte
}

// NewSecret returns a Secret with a copy of b.
func NewSecret(b []byte) Secret {
	if len(b) == 0 {
		return Secret{}
	}
	c := bytes.Clone(b)
	p := &c
	return Secret{&p}
}

// Bytes is the key itself, which the Secret keeps owning: read it, copy it if it
// must outlive Clear.
func (s Secret) Bytes() []byte {
	if s.p == nil {
		return nil
	}
	return **s.p
}

// Len is in octets.
func (s Secret) Len() int { return len(s.Bytes()) }

// Equal takes a time that depends on the lengths only.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare(s.Bytes(), t.Bytes()) == 1
}

// Clear overwrites the octets of s and all its copies with zeros.
func (s Secret) Clear() { clear(s.Bytes()) }

// String returns (hidden).
func (s Secret) String() string { return hidden }

// Format writes (hidden) for every verb and flag.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// MarshalText returns (hidden), for JSON, YAML and XML alike.
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalYAML returns (hidden).
func (s Secret) MarshalYAML() (any, error) { return hidden, nil }

// LogValue returns (hidden), for log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
