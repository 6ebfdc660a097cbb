package sa

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// A SAD is the security association database (RFC 4301 §4.4.2). Look-ups take no
// lock and allocate nothing; changes take one lock.
type SAD struct {
	mu     sync.Mutex // held by those who change
	tables [2]saTable // by Direction
	encap  encapIndex

	retiring map[*SA]int64 // until when; guarded by mu
	ticks    sync.Mutex    // held by Tick
}

// NewSAD returns an empty database.
func NewSAD() *SAD {
	d := new(SAD)
	seed := maphash.Comparable(maphash.MakeSeed(), uint64(0))
	for i := range d.tables {
		d.tables[i].seed = seed
		d.tables[i].current.Store(newBuckets(16))
	}
	return d
}

// Lookup returns the inbound SA of a packet with that SPI (host order),
// destination and protocol, or nil. For the packet path.
func (d *SAD) Lookup(spi uint32, dst netip.Addr, proto uint8) *SA {
	return d.tables[Inbound].find(Key{spi, dst, proto})
}

// LookupOutbound returns the outbound SA by which such a packet left, or nil: an
// ICMP error quotes no more of it.
func (d *SAD) LookupOutbound(spi uint32, dst netip.Addr, proto uint8) *SA {
	return d.tables[Outbound].find(Key{spi, dst, proto})
}

// Add puts s into the database. It returns an error that wraps ErrDuplicateSA, and
// names both SAs, if one with the same key and direction is there.
func (d *SAD) Add(s *SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := &d.tables[s.Direction]
	if old := t.find(s.Key); old != nil {
		return fmt.Errorf("SA %q and SA %q are both %v: %w", old.Name, s.Name, s.Key, ErrDuplicateSA)
	}
	t.add(s)
	d.encap.add(s)
	return nil
}

// Remove takes s out, and says whether it was there. Workers that looked it up
// before may still hold it; Close stops them.
func (d *SAD) Remove(s *SA) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.retiring, s)
	if !d.tables[s.Direction].replace(s, nil) {
		return false
	}
	d.encap.remove(s)
	return true
}

// Replace puts next in the place of old at once, so that no packet finds neither.
// It is an error if old is not there, or their keys or directions differ.
func (d *SAD) Replace(old, next *SA) error {
	if old.Key != next.Key || old.Direction != next.Direction {
		return fmt.Errorf("SA %q (%v, %v) cannot take the place of SA %q (%v, %v)",
			next.Name, next.Key, next.Direction, old.Name, old.Key, old.Direction)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.tables[old.Direction].replace(old, next) {
		return fmt.Errorf("SA %q is not in the SAD", old.Name)
	}
	d.encap.add(next)
	d.encap.remove(old)
	delete(d.retiring, old)
	return nil
}

// Len returns the number of SAs.
func (d *SAD) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tables[Outbound].count + d.tables[Inbound].count
}

// All returns the SAs by name, then direction, then SPI, then destination.
func (d *SAD) All() []*SA {
	list := append(d.list(Outbound), d.list(Inbound)...)
	slices.SortFunc(list, func(a, b *SA) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(a.Key.SPI, b.Key.SPI), a.Key.Dst.Compare(b.Key.Dst), cmp.Compare(a.Key.Proto, b.Key.Proto))
	})
	return list
}

func (d *SAD) list(dir Direction) []*SA {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list []*SA
	b := d.tables[dir].current.Load()
	for i := range b.heads {
		for n := b.heads[i].Load(); n != nil; n = n.next {
			list = append(list, n.sa)
		}
	}
	return list
}

// An saTable is a hash table whose chains are never changed, only exchanged: a
// reader that holds a chain can finish with it.
type saTable struct {
	seed    uint64
	count   int
	current atomic.Pointer[buckets]
}

type buckets struct {
	shift uint8
	heads []atomic.Pointer[saNode]
}

// The key is here as well as in the SA, so that a walk along a chain does not
// wait for the memory of SAs that it does not want.
type saNode struct {
	key  Key
	sa   *SA
	next *saNode
}

// newBuckets returns n of them; n is a power of two.
func newBuckets(n int) *buckets {
	return &buckets{shift: uint8(64 - bits.TrailingZeros(uint(n))), heads: make([]atomic.Pointer[saNode], n)}
}

// head returns the chain of k.
func (t *saTable) head(b *buckets, k *Key) *atomic.Pointer[saNode] {
	a := k.Dst.As16()
	hi, lo := bits.Mul64(binary.LittleEndian.Uint64(a[:8])^t.seed, binary.LittleEndian.Uint64(a[8:])^0x9e3779b97f4a7c15)
	h := hi ^ lo ^ uint64(k.SPI)<<8 ^ uint64(k.Proto)
	hi, lo = bits.Mul64(h^t.seed, 0xbf58476d1ce4e5b9)
	return &b.heads[(hi^lo)>>b.shift]
}

func (t *saTable) find(k Key) *SA {
	k.Dst = k.Dst.Unmap()
	b := t.current.Load()
	for n := t.head(b, &k).Load(); n != nil; n = n.next {
		if n.key == k {
			return n.sa
		}
	}
	return nil
}

func (t *saTable) add(s *SA) {
	b := t.current.Load()
	if t.count >= len(b.heads) {
		bigger := newBuckets(2 * len(b.heads))
		for i := range b.heads {
			for n := b.heads[i].Load(); n != nil; n = n.next {
				t.push(bigger, n.sa)
			}
		}
		t.current.Store(bigger)
		b = bigger
	}
	t.push(b, s)
	t.count++
}

func (t *saTable) push(b *buckets, s *SA) {
	head := t.head(b, &s.Key)
	head.Store(&saNode{s.Key, s, head.Load()})
}

// replace exchanges old for next in its chain, or takes it out when next is nil.
func (t *saTable) replace(old, next *SA) bool {
	head := t.head(t.current.Load(), &old.Key)
	var chain *saNode
	found := false
	for n := head.Load(); n != nil; n = n.next {
		s := n.sa
		if s == old {
			found = true
			if s = next; s == nil {
				continue
			}
		}
		chain = &saNode{s.Key, s, chain}
	}
	if !found {
		return false
	}
	head.Store(chain)
	if next == nil {
		t.count--
	}
	return true
}
