package sa

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

const hidden = "(hidden)"

// A Secret is a key. Whatever prints or marshals it writes "(hidden)", also when
// it lies in an unexported field of another struct, where fmt calls no methods and
// prints an address: the octets are behind two pointers, as fmt may follow one.
//
// The zero value is the empty secret. Copies share the octets; Clone does not.
// Compare with Equal, never with ==.
type Secret struct {
	b **[]byte
}

// NewSecret returns a secret with a copy of b. The caller may clear b afterwards.
func NewSecret(b []byte) Secret {
	if len(b) == 0 {
		return Secret{}
	}
	c := append([]byte(nil), b...)
	p := &c
	return Secret{&p}
}

// Bytes returns the octets themselves, not a copy; nil when empty.
func (s Secret) Bytes() []byte {
	if s.b == nil {
		return nil
	}
	return **s.b
}

// Len returns the length in octets.
func (s Secret) Len() int { return len(s.Bytes()) }

// Empty says whether there are no octets.
func (s Secret) Empty() bool { return s.Len() == 0 }

// Clone returns a secret with its own copy of the octets.
func (s Secret) Clone() Secret { return NewSecret(s.Bytes()) }

// Equal compares in a time that depends on the lengths only.
func (s Secret) Equal(t Secret) bool {
	return subtle.ConstantTimeCompare(s.Bytes(), t.Bytes()) == 1
}

// Clear overwrites the octets with zeros, in all copies that share them, and
// makes s and those copies empty.
func (s Secret) Clear() {
	if s.b != nil {
		clear(**s.b)
		**s.b = nil
	}
}

// Format writes "(hidden)" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// String returns "(hidden)".
func (s Secret) String() string { return hidden }

// GoString returns "(hidden)".
func (s Secret) GoString() string { return hidden }

// MarshalText writes "(hidden)".
func (s Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// MarshalJSON writes "(hidden)".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// MarshalYAML writes "(hidden)".
func (s Secret) MarshalYAML() (any, error) { return hidden, nil }

// LogValue makes log/slog write "(hidden)".
func (s Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
