package config

import "io/fs"

// Options are what a configuration is checked against and this package cannot know.
type Options struct {
	// Algorithm looks an algorithm up by its name, for a protocol. Its error is
	// shown as it is when AlgorithmNames has nothing nearer to say. Nil: every
	// name is accepted with keys of any length.
	Algorithm func(protocol Protocol, name string) (Algorithm, error)
	// AlgorithmNames lists the names that Algorithm knows for a protocol; nil: no
	// suggestions.
	AlgorithmNames func(protocol Protocol) []string
	// InsecureNames are those that may stand in allow_insecure; nil: any.
	InsecureNames []string
	// Classes are the names that may stand under classes.
	Classes []string
	// NoInterface allows a configuration without an interface, for an appliance
	// whose links are given by the caller.
	NoInterface bool
	// ReadFile reads a key file and tells its mode. Nil: Load reads the file
	// system, and Parse refuses key_file.
	ReadFile func(path string) (data []byte, mode fs.FileMode, err error)
}

// An Algorithm is what the checks need to know of one.
type Algorithm struct {
	// EncryptionKeyLen and IntegrityKeyLen are in octets, an AEAD's salt included; 0
	// means that there is no such key.
	EncryptionKeyLen, IntegrityKeyLen int
	// CounterMode says that one sequence number used twice with one key breaks it.
	CounterMode bool
	// NoSequence says that its packets carry no sequence number.
	NoSequence bool
	// Weak says in a few words why the algorithm is discouraged; empty if it is not.
	Weak string
	// Insecure are the parts of its name that must stand in allow_insecure.
	Insecure []string
}
