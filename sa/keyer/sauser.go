package keyer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"

	"bitw/sa"
	"bitw/sa/transform"
)

// A KeyState is that of a manual key.
type KeyState uint8

const (
	Empty   KeyState = iota // there is no key
	Valid                   // the key is in use
	Invalid                 // there is a key, and it must not be used
)

// String returns "empty", "valid" or "invalid".
func (k KeyState) String() string {
	switch k {
	case Empty:
		return "empty"
	case Valid:
		return "valid"
	case Invalid:
		return "invalid"
	}
	return fmt.Sprintf("KeyState(%d)", uint8(k))
}

// SAUserConfig is what a sauser is made of.
type SAUserConfig struct {
	Specs      []Spec
	Algorithms AlgorithmLookup
	// Store keeps the outbound sequence numbers of the keys. Counter-mode keys are
	// refused without it.
	Store sa.SequenceStore
	// Resume may know what the SAs were in another process; nil is allowed.
	Resume *sa.Resume
	// Clock returns nanoseconds since 1970; nil stands for the system's clock.
	Clock func() int64
	// Events is told what happens to the SAs, as the Notify of their lineages; nil is
	// allowed.
	Events func(sa.Event)
}

// A SAUser is the key manager whose keys are set by the user. While a key is empty
// or invalid, its SA drops everything as DropKeyInvalid; it never lets a packet by.
// The methods may be called from any goroutine.
type SAUser struct {
	cfg SAUserConfig

	mu      sync.Mutex
	entries []*entry
	byName  map[string]*entry
	past    []*entry // had the names before, and their SAs retire
	sides   map[[sha256.Size]byte]sided
	db      *sa.SAD // nil before Start
	closed  bool
}

// An entry is one manual SA. The keys in spec are there before Start only.
type entry struct {
	spec    Spec
	alg     transform.Algorithm
	lineage *sa.Lineage
	state   KeyState
	id      keyID  // unless Empty
	sa      *sa.SA // nil before Start
}

// NewSAUser makes the manager. It copies the keys. The errors are those of Check,
// and sa.ErrNoSequenceStore for a counter-mode key for sending without a store.
func NewSAUser(cfg SAUserConfig) (*SAUser, error) {
	var trial sa.SequenceStore
	if cfg.Store != nil {
		trial = sa.NewMemoryStore()
	}
	if err := check(cfg.Specs, cfg.Algorithms, trial, cfg.Resume); err != nil {
		return nil, err
	}
	u := &SAUser{cfg: cfg, byName: make(map[string]*entry), sides: make(map[[sha256.Size]byte]sided)}
	for _, spec := range cfg.Specs {
		alg, err := cfg.Algorithms(spec.Proto, spec.Algorithm)
		if err != nil {
			return nil, fmt.Errorf("SA %q: %w", spec.Name, err)
		}
		e := &entry{spec: spec, alg: alg, lineage: &sa.Lineage{Name: spec.Name, Notify: cfg.Events}}
		e.spec.EncryptionKey, e.spec.IntegrityKey = sa.Secret{}, sa.Secret{}
		if !spec.EncryptionKey.Empty() || !spec.IntegrityKey.Empty() {
			e.keep(spec.EncryptionKey, spec.IntegrityKey)
		}
		u.entries = append(u.entries, e)
		u.byName[spec.Name] = e
	}
	u.cfg.Specs = nil // holds the caller's keys
	return u, nil
}

// Name returns "sauser".
func (u *SAUser) Name() string { return "sauser" }

// Lineage implements Manager. Each SA has a lineage of its name.
func (u *SAUser) Lineage(name string) *sa.Lineage {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e := u.byName[name]; e != nil {
		return e.lineage
	}
	return nil
}

// Start implements Manager. It reserves the sequence numbers of the keys.
func (u *SAUser) Start(c *Commands) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	db := c.SAD
	if u.db != nil || u.closed {
		return errors.New("sauser was started before")
	}
	for _, e := range u.entries {
		if err := u.install(db, e); err != nil {
			return errors.Join(err, u.withdraw(db))
		}
	}
	u.db = db
	for _, e := range u.entries {
		u.side(e)
		e.forget()
	}
	return nil
}

// install makes e's first SA and puts it to work.
func (u *SAUser) install(db *sa.SAD, e *entry) error {
	s, err := u.make(e, e.spec.EncryptionKey, e.spec.IntegrityKey)
	if err != nil {
		return err
	}
	if e.state == Invalid {
		s.Invalidate()
	}
	if err := db.Add(s); err != nil {
		return errors.Join(err, s.Close())
	}
	e.sa = s
	return e.current(s)
}

// withdraw takes out of db what is in it, and ends it.
func (u *SAUser) withdraw(db *sa.SAD) error {
	var errs []error
	for _, e := range append(slices.Clone(u.past), u.entries...) {
		if e.sa == nil {
			continue
		}
		_ = e.current(nil)
		db.Remove(e.sa)
		errs = append(errs, e.sa.Close())
		e.sa = nil
	}
	return errors.Join(errs...)
}

// Close implements Manager.
func (u *SAUser) Close() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
	for _, e := range u.entries {
		e.forget()
	}
	if u.db == nil {
		return nil
	}
	return u.withdraw(u.db)
}

// make makes an SA for e with the keys, either or both of which may be empty.
func (u *SAUser) make(e *entry, encryptionKey, integrityKey sa.Secret) (*sa.SA, error) {
	return sa.New(u.config(e, encryptionKey, integrityKey))
}

// current makes s the outbound SA of e's lineage, if e is outbound.
func (e *entry) current(s *sa.SA) error {
	if e.spec.Direction != sa.Outbound {
		return nil
	}
	_, err := e.lineage.Switch(s)
	return err
}

// keep takes copies of the keys until Start.
func (e *entry) keep(encryptionKey, integrityKey sa.Secret) {
	e.forget()
	e.spec.EncryptionKey, e.spec.IntegrityKey = encryptionKey.Clone(), integrityKey.Clone()
	e.state, e.id = Valid, identify(encryptionKey, integrityKey)
}

// forget clears the copies.
func (e *entry) forget() {
	e.spec.EncryptionKey.Clear()
	e.spec.IntegrityKey.Clear()
}
