package keyer

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"bitw/sa"
	"bitw/sa/transform"
)

// Check says whether a sauser could be made of specs: every algorithm is known,
// every key has the right length, no two SAs share a name, or SPI, destination and
// protocol in one direction, or a counter-mode key. It touches no store and keeps
// no key. The error joins one error for each fault.
func Check(specs []Spec, lookup AlgorithmLookup) error {
	return check(specs, lookup, sa.NewMemoryStore(), nil)
}

// check is Check with the store that the SAs would be tried with, nil standing for
// a user without store, and with what they would go on from.
func check(specs []Spec, lookup AlgorithmLookup, store sa.SequenceStore, resume *sa.Resume) error {
	errs := []error{checkNames(specs)}
	var keys keySet
	for i := range specs {
		s := &specs[i]
		alg, err := lookup(s.Proto, s.Algorithm)
		if err != nil {
			errs = append(errs, fmt.Errorf("SA %q: %w", s.Name, err))
			continue
		}
		if err := keys.add(s.Name, &alg, s.EncryptionKey, s.IntegrityKey); err != nil {
			errs = append(errs, err)
			continue
		}
		cfg := s.config()
		cfg.Algorithm, cfg.Store, cfg.Resume = alg, store, resume
		trial, err := sa.New(cfg)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, trial.Close())
	}
	return errors.Join(errs...)
}

// checkNames finds two specs of one name, or of one SPI, destination and protocol.
func checkNames(specs []Spec) error {
	type place struct {
		key sa.Key
		dir sa.Direction
	}
	var errs []error
	names := make(map[string]bool)
	places := make(map[place]string)
	for i := range specs {
		s := &specs[i]
		if names[s.Name] {
			errs = append(errs, fmt.Errorf("two SAs are named %q", s.Name))
		}
		names[s.Name] = true
		at := place{s.Key(), s.Direction}
		if other, twice := places[at]; twice {
			errs = append(errs, fmt.Errorf("SA %q and SA %q are both %v: %w", other, s.Name, at.key, sa.ErrDuplicateSA))
		} else {
			places[at] = s.Name
		}
	}
	return errors.Join(errs...)
}

// A keyID tells keys apart without keeping them.
type keyID struct {
	nonce [sha256.Size]byte // of what must not be shared by two SAs
	whole [sha256.Size]byte
}

func identify(encryptionKey, integrityKey sa.Secret) keyID {
	var id keyID
	first := encryptionKey
	if first.Empty() {
		first = integrityKey
	}
	id.nonce = sha256.Sum256(first.Bytes())
	h := sha256.New()
	fmt.Fprintf(h, "%d\x00", encryptionKey.Len())
	h.Write(encryptionKey.Bytes())
	h.Write(integrityKey.Bytes())
	h.Sum(id.whole[:0])
	return id
}

// A keySet holds the counter-mode keys in use, and whose they are. The zero value
// is empty.
type keySet struct {
	owner map[[sha256.Size]byte]string
}

// add puts in the key of the SA name, if it is one for which numbers must not
// repeat. Direction does not matter: with one key both ways, the two ends would
// use each nonce twice.
func (ks *keySet) add(name string, alg *transform.Algorithm, encryptionKey, integrityKey sa.Secret) error {
	if !alg.CounterMode || encryptionKey.Empty() && integrityKey.Empty() {
		return nil
	}
	return ks.addID(name, identify(encryptionKey, integrityKey))
}

func (ks *keySet) addID(name string, id keyID) error {
	if other, used := ks.owner[id.nonce]; used {
		return fmt.Errorf("SA %q and SA %q have the same counter-mode key, so nonces would repeat: give each SA a key of its own", other, name)
	}
	if ks.owner == nil {
		ks.owner = make(map[[sha256.Size]byte]string)
	}
	ks.owner[id.nonce] = name
	return nil
}
