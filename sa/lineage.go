package sa

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Lineage is the line of SAs that succeed one another by rollover under one
// name. A policy refers to a lineage, never to one SA, so that a rollover touches
// no policy and makes no cached verdict stale. It may have the SAs of one direction
// or of both.
//
// A rollover puts the new inbound SA into the SAD first, then switches outbound,
// and retires the old SAs, which are removed after a grace time.
//
// Name, Notify and DeadAfter are set before the lineage is used, and not changed.
type Lineage struct {
	Name string
	// Notify is told what happens to the SAs of the lineage, and what needs one. It is
	// called on the packet path and must not block; nil is allowed.
	Notify func(Event)
	// DeadAfter is how long datagrams may leave by the lineage while none comes back,
	// until the event Dead; 0 stands for ever. It takes a lineage of both directions.
	DeadAfter time.Duration

	out  atomic.Pointer[SA]
	life life // of Tick

	// move is where the peer of the outbound SA is, nil while it is where it was
	// configured. It is here, and not in the SA, so that a rollover keeps it.
	move  atomic.Pointer[peerMove]
	moves atomic.Uint64

	mu      sync.Mutex // of those who change out and waiting
	waiting map[*Waiter]struct{}
}

// NewLineage returns a lineage that has no SA yet, and notifies nobody.
func NewLineage(name string) *Lineage { return &Lineage{Name: name} }

// Outbound returns the SA that outbound datagrams take now, or nil. It may be
// called from any goroutine; ask again for each batch.
func (l *Lineage) Outbound() *SA { return l.out.Load() }

// Switch makes next the SA for outbound datagrams from the next Outbound on, and
// returns the one before. next may be nil, after which Outbound returns nil. Who
// waits for an SA is told. It is an error if next is inbound, retiring, closed or was
// made for another lineage.
func (l *Lineage) Switch(next *SA) (old *SA, err error) {
	if old, err = l.exchange(next); err == nil && next != nil {
		if next != old {
			next.observe(Event{Kind: Switched, SA: next, Old: old, Lineage: l})
		}
		l.answer(true)
	}
	return old, err
}

func (l *Lineage) exchange(next *SA) (old *SA, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case next == nil:
	case next.Direction != Outbound:
		return nil, fmt.Errorf("lineage %q: SA %q is inbound, want an outbound one", l.Name, next.Name)
	case next.Lineage != l:
		return nil, fmt.Errorf("lineage %q: SA %q belongs to another lineage", l.Name, next.Name)
	case next.state.Load()&(stateClosed|stateRetiring) != 0:
		return nil, fmt.Errorf("lineage %q: SA %q is retiring or closed", l.Name, next.Name)
	}
	return l.out.Swap(next), nil
}

// retire keeps s, an outbound SA of l, from being switched to. Unless force, it does
// nothing and returns false where l sends by s; else l sends by none then.
func (l *Lineage) retire(s *SA, force bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out.Load() == s {
		if !force {
			return false
		}
		l.out.Store(nil)
	}
	s.state.Or(stateRetiring)
	return true
}

// Refuse tells whoever waits for an SA of the lineage that none will come for now,
// because the peer or somebody between does not allow it. What waits is dropped.
func (l *Lineage) Refuse() { l.answer(false) }

// A Waiter is told once of the next SA of a lineage.
type Waiter struct {
	lineage *Lineage
	answer  func(granted bool)
}

// Wait calls answer once, when the lineage gets an outbound SA (true) or is refused
// one (false); at once if it has one. answer is called on the goroutine of the key
// manager, so it must not block, nor call the lineage.
func (l *Lineage) Wait(answer func(granted bool)) *Waiter {
	w := &Waiter{l, answer}
	l.mu.Lock()
	if l.waiting == nil {
		l.waiting = make(map[*Waiter]struct{})
	}
	l.waiting[w] = struct{}{}
	l.mu.Unlock()
	// Switch stores before it looks for waiters, so one of the two sees the other.
	if l.Outbound() != nil && w.Stop() {
		answer(true)
	}
	return w
}

// Stop ends the waiting. It returns false if the answer has come or is coming.
func (w *Waiter) Stop() bool {
	w.lineage.mu.Lock()
	defer w.lineage.mu.Unlock()
	_, waited := w.lineage.waiting[w]
	delete(w.lineage.waiting, w)
	return waited
}

func (l *Lineage) answer(granted bool) {
	l.mu.Lock()
	all := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for w := range all {
		w.answer(granted)
	}
}
