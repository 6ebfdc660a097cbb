package sa

import (
	"net/netip"
	"slices"
	"sync/atomic"
)

// An encapIndex knows the SAs of a SAD that have UDP encapsulation: the places at
// which the inbound ones listen, and the outbound ones themselves. It is changed
// under the SAD's lock.
type encapIndex struct {
	counts map[netip.AddrPort]int
	// listening has the keys of counts. It is exchanged, never changed, and nil while
	// there are none.
	listening atomic.Pointer[map[netip.AddrPort]struct{}]
	outbound  map[*SA]struct{}
}

func (x *encapIndex) add(s *SA) {
	switch {
	case s.Encap == nil:
	case s.Direction == Outbound:
		if x.outbound == nil {
			x.outbound = make(map[*SA]struct{})
		}
		x.outbound[s] = struct{}{}
	default:
		if x.counts == nil {
			x.counts = make(map[netip.AddrPort]int)
		}
		at := netip.AddrPortFrom(s.Key.Dst, s.Encap.LocalPort)
		x.counts[at]++
		if x.counts[at] == 1 {
			x.publish()
		}
	}
}

func (x *encapIndex) remove(s *SA) {
	switch {
	case s.Encap == nil:
	case s.Direction == Outbound:
		delete(x.outbound, s)
	default:
		at := netip.AddrPortFrom(s.Key.Dst, s.Encap.LocalPort)
		if x.counts[at]--; x.counts[at] == 0 {
			delete(x.counts, at)
			x.publish()
		}
	}
}

func (x *encapIndex) publish() {
	if len(x.counts) == 0 {
		x.listening.Store(nil)
		return
	}
	m := make(map[netip.AddrPort]struct{}, len(x.counts))
	for at := range x.counts {
		m[at] = struct{}{}
	}
	x.listening.Store(&m)
}

// Encapsulated says whether an inbound SA expects ESP in UDP at that address and port
// (host order). For the packet path.
func (d *SAD) Encapsulated(dst netip.Addr, port uint16) bool {
	if d.shadow != nil {
		d = d.shadow.sad
	}
	m := d.encap.listening.Load()
	if m == nil {
		return false
	}
	_, ok := (*m)[netip.AddrPortFrom(dst.Unmap(), port)]
	return ok
}

// Encapsulating returns the outbound SAs with UDP encapsulation by SPI.
func (d *SAD) Encapsulating() []*SA {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.encap.outbound) == 0 {
		return nil
	}
	list := make([]*SA, 0, len(d.encap.outbound))
	for s := range d.encap.outbound {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *SA) int {
		if a.Key.SPI != b.Key.SPI {
			return int(int64(a.Key.SPI) - int64(b.Key.SPI))
		}
		return a.Key.Dst.Compare(b.Key.Dst)
	})
	return list
}
