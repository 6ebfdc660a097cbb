package keyer

import (
	"errors"
	"fmt"
	"slices"

	"bitw/sa"
)

// Add gives the manager one SA more, at any time before Close. The errors are those of
// NewSAUser; then nothing has changed. It copies the keys.
func (u *SAUser) Add(spec Spec) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return errors.New("sauser is closed")
	}
	others := make([]Spec, 0, len(u.entries)+1)
	for _, e := range u.entries {
		others = append(others, e.spec)
	}
	if err := checkNames(append(others, spec)); err != nil {
		return err
	}
	alg, err := u.cfg.Algorithms(spec.Proto, spec.Algorithm)
	if err != nil {
		return fmt.Errorf("SA %q: %w", spec.Name, err)
	}
	e := &entry{spec: spec, alg: alg, lineage: u.lineage(&spec)}
	e.spec.EncryptionKey, e.spec.IntegrityKey = sa.Secret{}, sa.Secret{}
	if !spec.EncryptionKey.Empty() || !spec.IntegrityKey.Empty() {
		if _, err := u.admit(e, spec.EncryptionKey, spec.IntegrityKey); err != nil {
			return err
		}
		e.keep(spec.EncryptionKey, spec.IntegrityKey)
	}
	if u.db != nil {
		if err := u.install(u.db, e); err != nil {
			e.forget()
			return err
		}
		e.forget()
		u.side(e)
	}
	u.entries = append(u.entries, e)
	u.byName[spec.Name] = e
	return nil
}

// Remove ends the SA of that name. A policy that still names its lineage protects by
// nothing from then on, and drops.
func (u *SAUser) Remove(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil {
		return err
	}
	u.entries = slices.DeleteFunc(u.entries, func(x *entry) bool { return x == e })
	delete(u.byName, name)
	e.forget()
	if e.sa == nil {
		return nil
	}
	_ = e.current(nil) // nil fits every lineage
	u.db.Remove(e.sa)
	return e.sa.Close()
}

// Names returns the names of the SAs in the order in which they came.
func (u *SAUser) Names() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	names := make([]string, len(u.entries))
	for i, e := range u.entries {
		names[i] = e.spec.Name
	}
	return names
}

// KeyLengths returns how many octets the SA's encryption key and integrity key have, 0
// for one that it does not take.
func (u *SAUser) KeyLengths(name string) (encryption, integrity int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil {
		return 0, 0, err
	}
	return e.alg.EncryptionKeyLen, e.alg.IntegrityKeyLen, nil
}
