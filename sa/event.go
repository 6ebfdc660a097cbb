package sa

import (
	"fmt"
	"net/netip"
)

// An EventKind is what happened to an SA, or to a flow that needs one.
type EventKind uint8

const (
	// Acquire: a datagram needs an SA of a lineage that has none (RFC 4301 §4.4.1.1).
	// The event has Lineage, Policy, Flow and Selector. It comes once for all that
	// waits, and again if no SA came in time and there still is traffic.
	Acquire EventKind = iota + 1
	// ExpireSoft: the soft lifetime is over, time to make a successor.
	ExpireSoft
	// ExpireHard: the hard lifetime is over, the SA drops everything.
	ExpireHard
	// SequenceLow: an outbound SA has used 7/8 of its sequence numbers, and drops
	// everything once they are used up (RFC 4303 §3.3.3).
	SequenceLow
	// PeerMoved: an authenticated packet of UDP encapsulation came from another address
	// or port than the SA's peer had, which is in Peer (RFC 3948 §3.1, RFC 7296 §2.23).
	PeerMoved
	// Dead: datagrams leave by the lineage, and for Lineage.DeadAfter no authenticated
	// one came back (RFC 3706 §5). It comes once, and again after a sign of life.
	Dead

	// What follows is what key managers do, or need not know: only who observes a SAD
	// (SAD.Observe) is told.

	// Added: an SA was put into the database.
	Added
	// Replaced: an SA has taken the place of Old.
	Replaced
	// Switched: outbound datagrams of the lineage take SA from now on, and took Old, which
	// may be nil, before.
	Switched
	// Retired: an SA is kept for a grace time only.
	Retired
	// Revived: a retired SA is as it was before.
	Revived
	// Deleted: an SA was taken out of the database.
	Deleted
	// PathMTU: an SA's path MTU was lowered, to PMTU.
	PathMTU
)

var eventNames = [...]string{
	Acquire: "acquire", ExpireSoft: "expire-soft", ExpireHard: "expire-hard",
	SequenceLow: "sequence-low", PeerMoved: "peer-moved", Dead: "dead",
	Added: "added", Replaced: "replaced", Switched: "switched", Retired: "retired", Revived: "revived", Deleted: "deleted",
	PathMTU: "path-mtu",
}

// String returns for example "expire-soft".
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is what the databases and the packet path tell a key manager, by the
// Notify of the lineage that it is about, and who observes the SAD.
type Event struct {
	Kind EventKind
	// SA is nil for Acquire and Dead.
	SA *SA
	// Lineage may be nil where an SA has none.
	Lineage *Lineage
	// Old is that of Replaced and Switched.
	Old *SA
	// Policy, Flow and Selector are those of an Acquire: the policy, the datagram that
	// came first, and what the SA that is wanted has to carry (RFC 4301 §4.4.1.2).
	Policy   *Policy
	Flow     Flow
	Selector Selector
	// Peer is that of PeerMoved.
	Peer netip.AddrPort
	// PMTU is that of PathMTU, in octets, the outer IP header included.
	PMTU int
}

// Observe has f told all that happens to the SAs of the database and to their lineages.
// It comes before the first Add. f is called on whatever goroutine it happens on, also on
// the packet path, and with locks held: it must not block, and not change the database.
func (d *SAD) Observe(f func(Event)) { d.observer = f }

// tell tells the observer about s.
func (d *SAD) tell(kind EventKind, s, old *SA) {
	if d.observer != nil {
		d.observer(Event{Kind: kind, SA: s, Old: old, Lineage: s.Lineage})
	}
}

// NeedSA is Lineage.NeedSA, of which the observer is told too.
func (d *SAD) NeedSA(l *Lineage, p *Policy, f *Flow) bool {
	asked := l.NeedSA(p, f)
	if asked && d.observer != nil {
		d.observer(Event{Kind: Acquire, Lineage: l, Policy: p, Flow: *f, Selector: p.Selector})
	}
	return asked
}

// tell notifies the key manager of something about s, and the observer.
func (s *SA) tell(kind EventKind, peer netip.AddrPort) {
	ev := Event{Kind: kind, SA: s, Lineage: s.Lineage, Peer: peer}
	if s.Lineage != nil {
		s.Lineage.tell(ev)
	}
	s.observe(ev)
}

// observe tells the observer of the database in which s is, or was.
func (s *SA) observe(ev Event) {
	if f := s.observer.Load(); f != nil {
		(*f)(ev)
	}
}

// NeedSA tells the key manager that a datagram f needs an SA of the lineage for p.
// It returns false if there is no key manager that could make one. For the packet
// path, which asks once for all that waits.
func (l *Lineage) NeedSA(p *Policy, f *Flow) bool {
	if l.Notify == nil {
		return false
	}
	l.tell(Event{Kind: Acquire, Policy: p, Flow: *f, Selector: p.Selector})
	return true
}

func (l *Lineage) tell(ev Event) {
	if l.Notify != nil {
		ev.Lineage = l
		l.Notify(ev)
	}
}
