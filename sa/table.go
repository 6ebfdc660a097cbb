package sa

import (
	"hash/maphash"
	"math/bits"
	"sync/atomic"
)

// A table is a hash table whose readers take no lock, allocate nothing and wait for
// at most one or two lines of memory: keys and pointers lie side by side in one
// array, and where a key belongs it is, or in the next slots (open addressing).
// Writers hold a lock of their own.
//
// A slot gets its key once, before its value is stored, and never another; a value
// that is taken out leaves a gravestone, which only the same key may use again. So
// a reader that sees a value sees its key. When half of the slots have a key, a new
// array takes over, without the gravestones.
type table[K comparable, V any] struct {
	// hash must give the same for as long as the table lives. Readers call it
	// themselves, so that it can be inlined.
	hash    func(*K) uint64
	count   int
	current atomic.Pointer[slots[K, V]]
}

type slots[K comparable, V any] struct {
	shift uint8 // the home of a key is the high bits of its hash
	used  int   // slots with a key
	grave *V    // the value of those that were taken out
	slot  []slot[K, V]
}

type slot[K comparable, V any] struct {
	key   K
	value atomic.Pointer[V] // nil while the slot has no key
}

// minSlots is the size of an empty table.
const minSlots = 16

func newSlots[K comparable, V any](n int) *slots[K, V] {
	return &slots[K, V]{shift: uint8(64 - bits.TrailingZeros(uint(n))), grave: new(V), slot: make([]slot[K, V], n)}
}

// find returns the value of k, whose hash is h, or nil.
func (t *table[K, V]) find(h uint64, k *K) *V {
	s := t.current.Load()
	if s == nil {
		return nil
	}
	for i := h >> s.shift; ; i++ {
		at := &s.slot[i&uint64(len(s.slot)-1)]
		v := at.value.Load()
		if v == nil {
			return nil
		}
		if at.key == *k {
			if v == s.grave {
				return nil
			}
			return v
		}
	}
}

// set gives k the value v, nil to take it out, and returns the one before.
func (t *table[K, V]) set(k K, v *V) (old *V) {
	s := t.current.Load()
	if s == nil {
		s = newSlots[K, V](minSlots)
		t.current.Store(s)
	}
	at := s.place(t.hash(&k), &k)
	was := at.value.Load()
	if was != nil && was != s.grave {
		old = was
	}
	switch {
	case old == nil && v == nil:
		return nil
	case v == nil:
		t.count--
		at.value.Store(s.grave)
		return old
	case old == nil:
		t.count++
	}
	if was == nil {
		s.used++
		at.key = k
	}
	at.value.Store(v)
	if 2*s.used > len(s.slot) {
		t.rebuild(s)
	}
	return old
}

// place returns the slot of k, which may be one without a key.
func (s *slots[K, V]) place(h uint64, k *K) *slot[K, V] {
	for i := h >> s.shift; ; i++ {
		at := &s.slot[i&uint64(len(s.slot)-1)]
		if at.value.Load() == nil || at.key == *k {
			return at
		}
	}
}

// rebuild moves what is there into an array that it fills by a third at most: in most
// cases the first slot is the right one, and the processor guesses so.
func (t *table[K, V]) rebuild(old *slots[K, V]) {
	n := minSlots
	for n < 3*t.count {
		n *= 2
	}
	next := newSlots[K, V](n)
	for i := range old.slot {
		from := &old.slot[i]
		if v := from.value.Load(); v != nil && v != old.grave {
			at := next.place(t.hash(&from.key), &from.key)
			at.key = from.key
			at.value.Store(v)
			next.used++
		}
	}
	t.current.Store(next)
}

// all calls f with each value.
func (t *table[K, V]) all(f func(*V)) {
	s := t.current.Load()
	if s == nil {
		return
	}
	for i := range s.slot {
		if v := s.slot[i].value.Load(); v != nil && v != s.grave {
			f(v)
		}
	}
}

// newSeed returns a number that nobody outside knows.
func newSeed() uint64 { return maphash.Comparable(maphash.MakeSeed(), uint64(0)) }

// mix makes one number of two, so that each bit of it depends on all of theirs.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
