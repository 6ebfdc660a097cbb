package transform

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Errors that errors.Is matches; the types below carry the details for errors.As.
var (
	ErrUnknownAlgorithm = errors.New("unknown algorithm")
	ErrKeyLength        = errors.New("wrong key length")
	ErrInsecure         = errors.New("insecure algorithm that is not allowed")
)

// CheckAllowed says whether allowed names every insecure part of the algorithm's name,
// each exactly. The error matches ErrInsecure.
func (a *Algorithm) CheckAllowed(allowed []string) error {
	for _, part := range a.Insecure {
		if !slices.Contains(allowed, part) {
			return fmt.Errorf("%q: %w by the name %q: %s", a.Name, ErrInsecure, part, a.Weak)
		}
	}
	return nil
}

// An UnknownAlgorithmError says that Lookup knows no such name.
type UnknownAlgorithmError struct {
	Protocol uint8
	Name     string
	// Nearest are up to three names that may have been meant, best first.
	Nearest []string
}

func (e *UnknownAlgorithmError) Error() string {
	var protocol string
	switch e.Protocol {
	case ProtoESP:
		protocol = "ESP"
	case ProtoAH:
		protocol = "AH"
	default:
		return fmt.Sprintf("IP protocol %d has no algorithms, want %d (ESP) or %d (AH)", e.Protocol, ProtoESP, ProtoAH)
	}
	if len(e.Nearest) == 0 {
		return fmt.Sprintf("unknown %s algorithm %q", protocol, e.Name)
	}
	return fmt.Sprintf("unknown %s algorithm %q, nearest known: %s", protocol, e.Name, strings.Join(e.Nearest, ", "))
}

// Is makes the error match ErrUnknownAlgorithm.
func (e *UnknownAlgorithmError) Is(target error) bool { return target == ErrUnknownAlgorithm }

// A KeyLengthError says that a key does not have the length of its algorithm.
type KeyLengthError struct {
	Algorithm string
	Key       string // "encryption" or "integrity"
	// Want and Found are in octets. Salt is how many of the wanted are salt (RFC 3686
	// calls it the nonce).
	Want, Found, Salt int
}

func (e *KeyLengthError) Error() string {
	s := fmt.Sprintf("%s: %s key is %d octets, want %d", e.Algorithm, e.Key, e.Found, e.Want)
	switch {
	case e.Salt > 0:
		s += fmt.Sprintf(" (%d of key, then %d of salt)", e.Want-e.Salt, e.Salt)
	case e.Want == 0:
		s += " (the algorithm takes none)"
	}
	return s
}

// Is makes the error match ErrKeyLength.
func (e *KeyLengthError) Is(target error) bool { return target == ErrKeyLength }

// CheckKeys compares the lengths of the keys with those that a asks for. salt is how
// many octets are salt of the encryption key, or of the integrity key if a has no other.
func CheckKeys(a *Algorithm, encryptionKey, integrityKey []byte, salt int) error {
	if len(encryptionKey) != a.EncryptionKeyLen {
		return &KeyLengthError{a.Name, "encryption", a.EncryptionKeyLen, len(encryptionKey), min(salt, a.EncryptionKeyLen)}
	}
	if len(integrityKey) != a.IntegrityKeyLen {
		if a.EncryptionKeyLen > 0 {
			salt = 0
		}
		return &KeyLengthError{a.Name, "integrity", a.IntegrityKeyLen, len(integrityKey), salt}
	}
	return nil
}
