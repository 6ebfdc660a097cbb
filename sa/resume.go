package sa

import (
	"fmt"
	"maps"
	"sync/atomic"
)

// A Resume has the states of the SAs of a process that ends or has ended, for new SAs
// that take their places: as an SAConfig's Resume it lets New make the SA what its
// predecessor was. The predecessor of an SA is the one with the same direction, SPI,
// destination, protocol, key and kind of sequence numbers, whatever its name.
//
// A counter-mode key goes on behind the numbers that the other process has used with
// it for sending, under whatever SPI and name and whatever the SequenceStore knows;
// one by which the other process received cannot be used for sending, since its peer
// has used the numbers.
//
// The methods may be called from any goroutine. A nil Resume knows nothing.
type Resume struct {
	known atomic.Pointer[resumed]
}

type resumed struct {
	states   map[resumeKey]*State
	next     map[string]uint64 // by KeyID of outbound SAs
	received map[string]string // by KeyID of inbound counter-mode SAs: the SA's name
}

type resumeKey struct {
	direction Direction
	key       Key
	id        string
	esn       bool
}

// NewResume returns a Resume that knows e.
func NewResume(e Export) *Resume {
	r := new(Resume)
	r.Set(e)
	return r
}

// Set replaces what is known. e belongs to r from then on.
func (r *Resume) Set(e Export) {
	k := &resumed{states: make(map[resumeKey]*State), next: make(map[string]uint64), received: make(map[string]string)}
	maps.Copy(k.next, e.Next)
	for i := range e.SAs {
		st := &e.SAs[i]
		if st.KeyID == "" {
			continue
		}
		at := resumeKey{Outbound, Key{st.SPI, st.Destination, st.Protocol}, st.KeyID, st.ESN}
		if st.Direction == stateOut {
			k.next[st.KeyID] = max(k.next[st.KeyID], st.Next)
		} else {
			at.direction = Inbound
			if st.CounterMode {
				k.received[st.KeyID] = st.Name
			}
		}
		k.states[at] = st
	}
	r.known.Store(k)
}

// of returns the state of s's predecessor, nil if there is none.
func (r *Resume) of(s *SA) *State {
	if r == nil {
		return nil
	}
	return r.known.Load().states[resumeKey{s.Direction, s.Key, s.keyID, s.ESN}]
}

// floor returns the first number that was not used with a key for sending, 0 if nothing
// is known of it.
func (r *Resume) floor(keyID string) (uint64, error) {
	if r == nil {
		return 0, nil
	}
	k := r.known.Load()
	if name, ok := k.received[keyID]; ok {
		return 0, fmt.Errorf("the counter-mode key is the one by which SA %q received, so its numbers are used: %w", name, ErrKeyInUse)
	}
	return k.next[keyID], nil
}

// MakeExport makes the Export of the SAs that list has, and of what resume (as the SAs
// were made with it, or nil) and those stores that end with the process know of keys
// that are no longer in use. It is exact once the SAs are closed.
func MakeExport(list []*SA, resume *Resume, stores ...SequenceStore) Export {
	e := Export{SAs: make([]State, 0, len(list)), Next: make(map[string]uint64)}
	for _, s := range list {
		e.SAs = append(e.SAs, s.State())
	}
	if resume != nil {
		maps.Copy(e.Next, resume.known.Load().next)
	}
	for _, store := range stores {
		if m, ok := store.(*MemoryStore); ok {
			m.addTo(e.Next)
		}
	}
	return e
}

// addTo tells next of all keys.
func (m *MemoryStore) addTo(next map[string]uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.keys {
		next[id] = max(next[id], c.next)
	}
}
