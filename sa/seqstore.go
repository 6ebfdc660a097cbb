package sa

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"bitw/sa/transform"
)

// A SequenceStore remembers how far the outbound sequence numbers of a key have
// been used, so that no number is used twice with it, whatever happens to the
// process (RFC 4106 §2, RFC 4303 §3.3.3: a nonce must not repeat under one key).
type SequenceStore interface {
	// Claim takes the numbers of the key with that fingerprint for one user, and
	// returns the first that was never promised to anybody: 1 for a new key. It is an
	// error if somebody, in this process or another, holds the claim.
	Claim(fingerprint string) (claim SequenceClaim, next uint64, err error)
}

// A SequenceClaim is the exclusive use of one key's sequence numbers.
type SequenceClaim interface {
	// Reserve makes it durable that any number below until may have been used. When
	// it returns an error nothing is promised.
	Reserve(until uint64) error
	// Release ends the claim; the caller has used no number from next on, and will use
	// none. The claim has ended even when it returns an error.
	Release(next uint64) error
}

// fingerprint names the key whose numbers must not repeat, without giving it away.
//
// A counter-mode key is named by its encryption key alone (with its salt), or for
// a suite without one by the integrity key. The algorithm stays out, because the
// same key under aes128gcm8 and aes128gcm16 makes the same key stream. Other keys
// are named with their SA, as two SAs may share them.
func fingerprint(alg *transform.Algorithm, key Key, encryptionKey, integrityKey Secret) string {
	h := sha256.New()
	if alg.CounterMode {
		h.Write([]byte("bitw sequence numbers, counter mode\x00"))
		if !encryptionKey.Empty() {
			h.Write(encryptionKey.Bytes())
		} else {
			h.Write(integrityKey.Bytes())
		}
	} else {
		fmt.Fprintf(h, "bitw sequence numbers, SA\x00%v\x00%s\x00%d\x00", key, alg.Name, encryptionKey.Len())
		h.Write(encryptionKey.Bytes())
		h.Write(integrityKey.Bytes())
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// A MemoryStore is a SequenceStore for keys that do not outlive the process, such
// as those that a key exchange or the demo makes. It must not be used for a key
// that stands in a file: after a restart its numbers would repeat.
type MemoryStore struct {
	mu   sync.Mutex
	keys map[string]*memoryClaim
}

// NewMemoryStore returns an empty store.
func NewMemoryStore() *MemoryStore { return &MemoryStore{keys: make(map[string]*memoryClaim)} }

type memoryClaim struct {
	store *MemoryStore
	next  uint64
	held  bool
}

// Claim implements SequenceStore.
func (m *MemoryStore) Claim(fingerprint string) (SequenceClaim, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.keys[fingerprint]
	if c == nil {
		c = &memoryClaim{store: m, next: 1}
		m.keys[fingerprint] = c
	}
	if c.held {
		return nil, 0, fmt.Errorf("sequence numbers of key %s: %w", fingerprint, ErrKeyInUse)
	}
	c.held = true
	return c, c.next, nil
}

func (c *memoryClaim) Reserve(until uint64) error {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.next = max(c.next, until)
	return nil
}

func (c *memoryClaim) Release(next uint64) error {
	c.store.mu.Lock()
	defer c.store.mu.Unlock()
	c.next, c.held = next, false
	return nil
}
