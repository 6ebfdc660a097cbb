package sa

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// A SAD is the security association database (RFC 4301 §4.4.2). Look-ups take no
// lock and allocate nothing; changes take one lock.
type SAD struct {
	mu     sync.Mutex // held by those who change
	seed   uint64
	tables [2]table[saKey, SA] // by Direction
	encap  encapIndex

	retiring map[*SA]int64 // until when; guarded by mu
	ticks    sync.Mutex    // held by Tick
}

// An saKey is a Key in 24 octets, so that with the pointer to its SA two of them
// make a line of memory. An IPv4 address is its IPv4-mapped one.
type saKey struct {
	hi, lo     uint64 // destination
	spi, proto uint32
}

func (k *Key) pack() saKey {
	a := k.Dst.As16()
	return saKey{binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:]), k.SPI, uint32(k.Proto)}
}

// hash mixes with a secret, so that nobody can choose SPIs that meet.
func (k *saKey) hash(seed uint64) uint64 {
	return mix(mix(k.hi^seed, k.lo^0x9e3779b97f4a7c15)^uint64(k.spi)<<8^uint64(k.proto), seed^0xbf58476d1ce4e5b9)
}

// NewSAD returns an empty database.
func NewSAD() *SAD {
	d := &SAD{seed: newSeed()}
	for i := range d.tables {
		d.tables[i].hash = func(k *saKey) uint64 { return k.hash(d.seed) }
	}
	return d
}

// Lookup returns the inbound SA of a packet with that SPI (host order),
// destination and protocol, or nil. For the packet path.
func (d *SAD) Lookup(spi uint32, dst netip.Addr, proto uint8) *SA {
	return d.find(Inbound, &Key{spi, dst, proto})
}

// LookupOutbound returns the outbound SA by which such a packet left, or nil: an
// ICMP error quotes no more of it.
func (d *SAD) LookupOutbound(spi uint32, dst netip.Addr, proto uint8) *SA {
	return d.find(Outbound, &Key{spi, dst, proto})
}

func (d *SAD) find(dir Direction, k *Key) *SA {
	if !k.Dst.IsValid() {
		return nil
	}
	packed := k.pack()
	return d.tables[dir].find(packed.hash(d.seed), &packed)
}

// Add puts s into the database. It returns an error that wraps ErrDuplicateSA, and
// names both SAs, if one with the same key and direction is there.
func (d *SAD) Add(s *SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.find(s.Direction, &s.Key); old != nil {
		return fmt.Errorf("SA %q and SA %q are both %v: %w", old.Name, s.Name, s.Key, ErrDuplicateSA)
	}
	d.tables[s.Direction].set(s.Key.pack(), s)
	d.encap.add(s)
	return nil
}

// Remove takes s out, and says whether it was there. Workers that looked it up
// before may still hold it; Close stops them.
func (d *SAD) Remove(s *SA) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.retiring, s)
	if !d.exchange(s, nil) {
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
	if !d.exchange(old, next) {
		return fmt.Errorf("SA %q is not in the SAD", old.Name)
	}
	d.encap.add(next)
	d.encap.remove(old)
	delete(d.retiring, old)
	return nil
}

// exchange puts next, which may be nil, in the place of old if that is there.
func (d *SAD) exchange(old, next *SA) bool {
	if d.find(old.Direction, &old.Key) != old {
		return false
	}
	d.tables[old.Direction].set(old.Key.pack(), next)
	return true
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
	list := make([]*SA, 0, d.tables[dir].count)
	d.tables[dir].all(func(s *SA) { list = append(list, s) })
	return list
}
