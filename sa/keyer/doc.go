// Package keyer holds the key managers: what makes SAs, puts them to work and
// ends them (RFC 4301 §4.5). They are plug-ins behind one interface, Manager.
// "sauser" takes its keys from the user, "sink" has SAs that discard and count. An
// IKEv2 daemon would be a third.
//
// A key manager never sees a packet. It gives commands to the databases, the
// methods of Commands, and is told events, sa.Event, by the Notify of its lineages:
//
//	Acquire      traffic needs an SA         AddPair, Switch; or Refuse
//	ExpireSoft   time for a successor        AddPair, Switch, Retire
//	SequenceLow  the same                    AddPair, Switch, Retire
//	ExpireHard   the SA drops everything     Delete
//	PeerMoved    the NAT mapping changed     nothing, or tell the peer
//	Dead         nothing comes back          ask the peer; or DeleteAll
//
// A lineage is what a policy names: the SAs of one purpose that succeed one another,
// in one direction or both. A policy that populates selectors from packets makes a
// lineage like it for each value that traffic brings, so a key manager goes by
// Event.Lineage, and by Event.Selector for what the SAs are to cover; what it made for
// such lineages it also deletes.
//
// While a lineage that has a Notify has no SA, what it should carry waits: a bounded
// number of datagrams, for a bounded time. A rollover makes before it breaks, so that no packet is
// without an SA at either end:
//
//  1. Both ends add the new inbound SA. From here on old and new are accepted.
//  2. Each end, once it knows that the other has done step 1, adds its new outbound
//     SA and switches to it. The switch is one atomic step between two packets.
//  3. Each end retires its old SAs: the inbound one goes on taking what is on its
//     way, and the outbound one recognizes ICMP errors about what it sent, until the
//     grace time is over.
//
// Every SA has a key of its own. A counter-mode key under a second outbound SA is
// refused, unless a sequence number store knows which numbers it has used.
//
// Notify is called on the packet path, so it must not block, nor call Commands;
// Events takes events there and hands them to the manager's own goroutine. The
// example of Manager shows a whole one.
package keyer
