package sa

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"bitw/sa/transform"
)

// A SAD is the security association database (RFC 4301 §4.4.2). Look-ups take no
// lock and allocate nothing; changes take one lock.
type SAD struct {
	mu    sync.Mutex // held by those who change
	seed  [2]uint64
	v4    [2][2]table[saKey4, SA] // by Direction, and ESP or AH
	v6    [2][2]table[saKey6, SA]
	encap encapIndex
	// shadow is the one that this is, or nil.
	shadow *Shadow
	// observer is told what happens, see Observe; nil for nobody.
	observer func(Event)

	retiring map[*SA]int64 // until when; guarded by mu
	ticks    sync.Mutex    // held by Tick
}

// An saKey4 is SPI and IPv4 destination in 8 octets, so that with the pointers to
// their SAs four of them make a line of memory, and the table of 100,000 SAs four
// mebioctets.
type saKey4 uint64

// An saKey6 is SPI and IPv6 destination.
type saKey6 struct {
	hi, lo uint64
	spi    uint64
}

// hash mixes with a secret, so that nobody can choose SPIs that meet.
func (k *saKey4) hash(seed *[2]uint64) uint64 { return mix(uint64(*k)^seed[0], seed[1]) }

func (k *saKey6) hash(seed *[2]uint64) uint64 {
	return mix(mix(k.hi^seed[0], k.lo^seed[1])^k.spi, seed[1])
}

func pack4(k *Key) saKey4 {
	a := k.Dst.As4()
	return saKey4(uint64(k.SPI)<<32 | uint64(binary.BigEndian.Uint32(a[:])))
}

func pack6(k *Key) saKey6 {
	a := k.Dst.As16()
	return saKey6{binary.LittleEndian.Uint64(a[:8]), binary.LittleEndian.Uint64(a[8:]), uint64(k.SPI)}
}

// NewSAD returns an empty database.
func NewSAD() *SAD {
	d := &SAD{seed: [2]uint64{newSeed(), newSeed() | 1}}
	for dir := range d.v4 {
		for proto := range d.v4[dir] {
			d.v4[dir][proto].hash = func(k *saKey4) uint64 { return k.hash(&d.seed) }
			d.v6[dir][proto].hash = func(k *saKey6) uint64 { return k.hash(&d.seed) }
		}
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
	if d.shadow != nil {
		return d.shadow.find(dir, k)
	}
	proto := k.Proto - transform.ProtoESP
	if proto > 1 {
		return nil
	}
	switch {
	case k.Dst.Is4() || k.Dst.Is4In6():
		key := pack4(k)
		return d.v4[dir][proto].find(key.hash(&d.seed), &key)
	case k.Dst.Is6():
		key := pack6(k)
		return d.v6[dir][proto].find(key.hash(&d.seed), &key)
	}
	return nil
}

// set puts s, which may be nil, where k belongs. d.mu is held.
func (d *SAD) set(dir Direction, k *Key, s *SA) {
	proto := k.Proto - transform.ProtoESP
	if k.Dst.Is4() {
		d.v4[dir][proto].set(pack4(k), s)
	} else {
		d.v6[dir][proto].set(pack6(k), s)
	}
}

// Add puts s into the database. It returns an error that wraps ErrDuplicateSA, and
// names both SAs, if one with the same key and direction is there.
func (d *SAD) Add(s *SA) error {
	if err := d.add(s); err != nil {
		return err
	}
	d.tell(Added, s, nil)
	return nil
}

func (d *SAD) add(s *SA) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old := d.find(s.Direction, &s.Key); old != nil {
		return fmt.Errorf("SA %q and SA %q are both %v: %w", old.Name, s.Name, s.Key, ErrDuplicateSA)
	}
	d.enter(s)
	d.set(s.Direction, &s.Key, s)
	d.encap.add(s)
	return nil
}

// enter lets s tell the observer from now on.
func (d *SAD) enter(s *SA) {
	if d.observer != nil {
		s.observer.Store(&d.observer)
	}
}

// Remove takes s out, and says whether it was there. Workers that looked it up
// before may still hold it; Close stops them.
func (d *SAD) Remove(s *SA) bool {
	d.mu.Lock()
	delete(d.retiring, s)
	was := d.exchange(s, nil)
	if was {
		d.encap.remove(s)
	}
	d.mu.Unlock()
	if was {
		d.tell(Deleted, s, nil)
	}
	return was
}

// Replace puts next in the place of old at once, so that no packet finds neither.
// It is an error if old is not there, or their keys or directions differ.
func (d *SAD) Replace(old, next *SA) error {
	if old.Key != next.Key || old.Direction != next.Direction {
		return fmt.Errorf("SA %q (%v, %v) cannot take the place of SA %q (%v, %v)",
			next.Name, next.Key, next.Direction, old.Name, old.Key, old.Direction)
	}
	if !d.replace(old, next) {
		return fmt.Errorf("SA %q is not in the SAD", old.Name)
	}
	d.tell(Replaced, next, old)
	return nil
}

func (d *SAD) replace(old, next *SA) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.enter(next)
	if !d.exchange(old, next) {
		return false
	}
	d.encap.add(next)
	d.encap.remove(old)
	delete(d.retiring, old)
	return true
}

// exchange puts next, which may be nil, in the place of old if that is there.
func (d *SAD) exchange(old, next *SA) bool {
	if d.find(old.Direction, &old.Key) != old {
		return false
	}
	d.set(old.Direction, &old.Key, next)
	return true
}

// Len returns the number of SAs.
func (d *SAD) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.len(Outbound) + d.len(Inbound)
}

func (d *SAD) len(dir Direction) int {
	n := 0
	for proto := range d.v4[dir] {
		n += d.v4[dir][proto].count + d.v6[dir][proto].count
	}
	return n
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
	list := make([]*SA, 0, d.len(dir))
	add := func(s *SA) { list = append(list, s) }
	for proto := range d.v4[dir] {
		d.v4[dir][proto].all(add)
		d.v6[dir][proto].all(add)
	}
	return list
}
