package keyer

import (
	"errors"
	"fmt"

	"bitw/sa"
	"bitw/sa/transform"
)

// SetKey gives the SA a key, which from the next packet on is valid. It copies the
// keys. Another key than before makes a new SA, whose numbers and replay window
// start anew; the same key goes on where it was. After an error the key is as it
// was, except when the store refuses the numbers of a key that was already in use,
// which leaves it empty.
func (u *SAUser) SetKey(name string, encryptionKey, integrityKey sa.Secret) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil {
		return err
	}
	id, err := u.admit(e, encryptionKey, integrityKey)
	switch {
	case err != nil:
		return err
	case u.db == nil:
		e.keep(encryptionKey, integrityKey)
		return nil
	case e.state != Empty && e.id.whole == id.whole:
		e.sa.Revalidate()
		e.state = Valid
		return nil
	case e.state != Empty && e.alg.CounterMode && e.id.nonce == id.nonce:
		// The numbers of this encryption key go on, so the old SA must hand them back
		// before the new one can claim them.
		if err := u.clearKey(e); err != nil {
			return err
		}
	}
	next, err := u.make(e, encryptionKey, integrityKey)
	if err != nil {
		return err
	}
	err = u.exchange(e, next)
	e.state, e.id = Valid, id
	u.side(e)
	return err
}

// admit says whether the key may become that of e.
func (u *SAUser) admit(e *entry, encryptionKey, integrityKey sa.Secret) (keyID, error) {
	if encryptionKey.Empty() && integrityKey.Empty() {
		return keyID{}, fmt.Errorf("SA %q: the key is empty", e.spec.Name)
	}
	opt := transform.Options{IPv6: e.spec.Key().Dst.Is6()}
	if _, err := e.alg.New(encryptionKey.Bytes(), integrityKey.Bytes(), opt); err != nil {
		return keyID{}, fmt.Errorf("SA %q: %w", e.spec.Name, err)
	}
	id := identify(encryptionKey, integrityKey)
	if !e.alg.CounterMode {
		return id, nil
	}
	var keys keySet
	for _, other := range u.entries {
		if other != e && other.alg.CounterMode && other.state != Empty {
			if err := keys.addID(other.spec.Name, other.id); err != nil {
				return keyID{}, err
			}
		}
	}
	if err := keys.addID(e.spec.Name, id); err != nil {
		return keyID{}, err
	}
	return id, u.checkSide(e, id)
}

// exchange puts next in the place of e's SA. The error is that of closing the old
// one, which is out of work nevertheless.
func (u *SAUser) exchange(e *entry, next *sa.SA) error {
	if err := u.db.Replace(e.sa, next); err != nil {
		return errors.Join(err, next.Close())
	}
	err := e.current(next)
	old := e.sa
	e.sa = next
	return errors.Join(err, old.Close())
}

// InvalidateKey makes the key invalid from the next packet on. SetKey with the same
// key makes it valid again, with the sequence numbers and the replay window that it
// had. An empty key stays empty.
func (u *SAUser) InvalidateKey(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil || e.state == Empty {
		return err
	}
	e.state = Invalid
	if e.sa != nil {
		e.sa.Invalidate()
	}
	return nil
}

// ClearKey makes the key empty from the next packet on, and forgets it, and with
// it which sequence numbers of its peer were seen.
func (u *SAUser) ClearKey(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil {
		return err
	}
	return u.clearKey(e)
}

func (u *SAUser) clearKey(e *entry) error {
	e.forget()
	if e.state == Empty || e.sa == nil {
		e.state = Empty
		return nil
	}
	next, err := u.make(e, sa.Secret{}, sa.Secret{})
	if err != nil {
		return err
	}
	e.state, e.id = Empty, keyID{}
	return u.exchange(e, next)
}

// State returns the state of the SA's key.
func (u *SAUser) State(name string) (KeyState, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	e, err := u.entry(name)
	if err != nil {
		return Empty, err
	}
	return e.state, nil
}

func (u *SAUser) entry(name string) (*entry, error) {
	switch e := u.byName[name]; {
	case u.closed:
		return nil, errors.New("sauser is closed")
	case e == nil:
		return nil, fmt.Errorf("no security association is called %q", name)
	default:
		return e, nil
	}
}
