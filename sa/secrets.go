package sa

import "sync"

// secrets are the keys of an SA as they were given, for who may see them: the transform
// has them in a form of its own.
type secrets struct {
	mu         sync.Mutex
	enc, integ Secret
}

func (k *secrets) keep(enc, integ Secret) { k.enc, k.integ = enc.Clone(), integ.Clone() }

func (k *secrets) clear() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.enc.Clear()
	k.integ.Clear()
}

// Secrets returns copies of the encryption key and the integrity key, which are the
// caller's to clear. They are empty without a key, and after Close.
func (s *SA) Secrets() (encryptionKey, integrityKey Secret) {
	s.secrets.mu.Lock()
	defer s.secrets.mu.Unlock()
	return s.secrets.enc.Clone(), s.secrets.integ.Clone()
}
