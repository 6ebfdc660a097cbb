package sa

import "errors"

// Errors that callers match with errors.Is.
var (
	// ErrKeyInUse means that another SA, here or in another process, numbers its
	// packets with the same key.
	ErrKeyInUse = errors.New("the key is in use by another SA or process")
	// ErrNoSequenceStore means that a counter-mode key for sending came without a
	// SequenceStore.
	ErrNoSequenceStore = errors.New("a counter-mode key needs a sequence number store, because a nonce must never repeat, not even after a crash")
	// ErrSequenceExhausted means that a key has no sequence numbers left.
	ErrSequenceExhausted = errors.New("all sequence numbers of the key are used up; it needs to be replaced")
	// ErrDuplicateSA means that the SAD already holds an SA with that SPI, destination
	// and protocol.
	ErrDuplicateSA = errors.New("an SA with this SPI, destination and protocol exists")
)
