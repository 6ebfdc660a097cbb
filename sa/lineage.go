package sa

import (
	"fmt"
	"sync/atomic"
)

// A Lineage is the line of SAs that succeed one another by rollover under one
// name. A policy refers to a lineage, never to one SA, so that a rollover touches
// no policy and makes no cached verdict stale.
//
// A rollover puts the new inbound SA into the SAD first, then switches outbound,
// and removes the old inbound SA after a grace time.
type Lineage struct {
	Name string
	out  atomic.Pointer[SA]

	// move is where the peer of the outbound SA is, nil while it is where it was
	// configured. It is here, and not in the SA, so that a rollover keeps it.
	move  atomic.Pointer[peerMove]
	moves atomic.Uint64
}

// NewLineage returns a lineage that has no SA yet.
func NewLineage(name string) *Lineage { return &Lineage{Name: name} }

// Outbound returns the SA that outbound datagrams take now, or nil. It may be
// called from any goroutine; ask again for each batch.
func (l *Lineage) Outbound() *SA { return l.out.Load() }

// Switch makes next the SA for outbound datagrams from the next Outbound on, and
// returns the one before. next may be nil, after which Outbound returns nil. It is
// an error if next is inbound or was made for another lineage.
func (l *Lineage) Switch(next *SA) (old *SA, err error) {
	if next != nil && next.Direction != Outbound {
		return nil, fmt.Errorf("lineage %q: SA %q is inbound, want an outbound one", l.Name, next.Name)
	}
	if next != nil && next.Lineage != l {
		return nil, fmt.Errorf("lineage %q: SA %q belongs to another lineage", l.Name, next.Name)
	}
	return l.out.Swap(next), nil
}
