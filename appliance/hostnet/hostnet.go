// Package hostnet tells what the interface of the protected host is: its index,
// MAC, MTU, state, addresses and routes, and follows them live over rtnetlink
// (RFC 3549). It only reads: nothing on the machine changes by it.
//
// Read takes one snapshot. Watch takes one and then another after every change,
// each as a new immutable Interface together with what differs. Both look into a
// network namespace given by the path of its file, for example
// /run/netns/left or /proc/1234/ns/net; the empty path means the namespace of the
// calling thread and needs no privilege.
//
// The package knows nothing of packets, policies or the devices that the
// appliance itself makes in the same namespace: what belongs to other interfaces
// is left out.
package hostnet

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// ErrNoInterface says that the namespace has no interface with the name. The
// error wrapping it lists the interfaces that exist.
var ErrNoInterface = errors.New("no such interface")

// An Interface is what the kernel told of one interface at one time. Nothing
// changes it after it was handed out, and no receiver may.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr // empty for an interface that has none
	MTU   int              // octets of an IP packet, link header excluded

	Up      bool // set up by the administrator (IFF_UP)
	Carrier bool // up, and the lower layer has a signal (IFF_LOWER_UP)

	// Gone says that the interface was deleted or left the namespace. Name,
	// Index, MAC and MTU are then the last known ones, the rest is empty. Only a
	// Watcher hands out such a snapshot.
	Gone bool

	// Addresses are the interface's own ones, each with the length of its
	// network: IPv4 and then IPv6, in the kernel's order, which has a primary
	// address before its secondary ones. An address with a peer has the full
	// length, as its network is the peer's. Tentative ones are included.
	Addresses []netip.Prefix

	// Tentative are those of Addresses for which duplicate address detection
	// (RFC 4862, section 5.4) has not ended well: still running, or failed.
	Tentative []netip.Addr

	// Routes are the unicast routes of the main table that leave by this
	// interface, in the order of a look-up, so that the first match wins: IPv4 and
	// then IPv6, longest prefix first, and lowest metric first for one
	// destination. A route with several next hops gives one entry for each of them
	// that leaves by this interface. Left out are routes chosen by more than the
	// destination (a source prefix or a TOS) and next hops that the kernel has
	// declared dead.
	Routes []Route
}

// A Route says where packets to a destination go.
type Route struct {
	Destination netip.Prefix // 0.0.0.0/0 and ::/0 for a default route
	Via         netip.Addr   // next hop; the zero Addr when on link; IPv6 for an IPv4 route by RFC 8950
	MTU         int          // octets, the route's own; 0 when the interface's holds
	Metric      int          // the lower is preferred
}

// HasAddress tells whether addr is one of the interface's own, tentative ones
// included. A zone is ignored and an IPv4-mapped address counts as IPv4.
func (i *Interface) HasAddress(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return slices.ContainsFunc(i.Addresses, func(p netip.Prefix) bool { return p.Addr() == addr })
}

// An Event is the set of what differs between one snapshot and the one before.
type Event uint16

// The kinds of an Event.
const (
	Initial     Event = 1 << iota // the first snapshot; always alone
	Addresses                     // an address came or went, or ceased to be tentative
	Routes                        // a route came, went or changed
	MTU                           // the interface's MTU changed
	MAC                           // the interface's MAC changed
	LinkUp                        // the interface was set up
	LinkDown                      // the interface was set down
	Carrier                       // the lower layer has a signal again
	CarrierLost                   // the lower layer lost its signal, or the interface was set down
	Renamed                       // the same interface has another name
	Gone                          // the interface was deleted or left the namespace; always alone
	Recreated                     // an interface with the watched name stands in place of the former one; always alone, anything may differ
)

var eventNames = [...]string{
	"initial", "addresses", "routes", "mtu", "mac", "link_up", "link_down",
	"carrier", "carrier_lost", "renamed", "gone", "recreated",
}

// Has tells whether all kinds of k are in e.
func (e Event) Has(k Event) bool { return e&k == k }

// String gives the names of the kinds, joined by commas: "addresses,routes".
func (e Event) String() string {
	var names []string
	for i, name := range eventNames {
		if e.Has(1 << i) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// difference is what changed from old to cur.
func difference(old, cur *Interface) Event {
	switch {
	case old.Gone && cur.Gone:
		return 0
	case cur.Gone:
		return Gone
	case old.Gone || old.Index != cur.Index:
		return Recreated
	}
	var e Event
	add := func(differs bool, k Event) {
		if differs {
			e |= k
		}
	}
	add(!slices.Equal(old.Addresses, cur.Addresses) || !slices.Equal(old.Tentative, cur.Tentative), Addresses)
	add(!slices.Equal(old.Routes, cur.Routes), Routes)
	add(old.MTU != cur.MTU, MTU)
	add(!bytes.Equal(old.MAC, cur.MAC), MAC)
	add(cur.Up && !old.Up, LinkUp)
	add(old.Up && !cur.Up, LinkDown)
	add(cur.Carrier && !old.Carrier, Carrier)
	add(old.Carrier && !cur.Carrier, CarrierLost)
	add(old.Name != cur.Name, Renamed)
	return e
}
