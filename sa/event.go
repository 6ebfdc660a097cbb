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
)

var eventNames = [...]string{
	Acquire: "acquire", ExpireSoft: "expire-soft", ExpireHard: "expire-hard",
	SequenceLow: "sequence-low", PeerMoved: "peer-moved", Dead: "dead",
}

// String returns for example "expire-soft".
func (k EventKind) String() string {
	if int(k) < len(eventNames) && eventNames[k] != "" {
		return eventNames[k]
	}
	return fmt.Sprintf("EventKind(%d)", uint8(k))
}

// An Event is what the databases and the packet path tell a key manager, by the
// Notify of the lineage that it is about.
type Event struct {
	Kind EventKind
	// SA is nil for Acquire and Dead.
	SA      *SA
	Lineage *Lineage
	// Policy, Flow and Selector are those of an Acquire: the policy, the datagram that
	// came first, and what the SA that is wanted has to carry (RFC 4301 §4.4.1.2).
	Policy   *Policy
	Flow     Flow
	Selector Selector
	// Peer is that of PeerMoved.
	Peer netip.AddrPort
}

// tell notifies the key manager of something about s.
func (s *SA) tell(kind EventKind, peer netip.AddrPort) {
	if s.Lineage != nil {
		s.Lineage.tell(Event{Kind: kind, SA: s, Peer: peer})
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
