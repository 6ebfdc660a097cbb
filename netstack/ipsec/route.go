package ipsec

import (
	"fmt"
	"net/netip"
	"slices"

	"bitw/netstack/wire"
)

// A Route says where datagrams for a destination go on the right.
type Route struct {
	Destination netip.Prefix
	// Via is the next hop; invalid for a destination on the link itself.
	Via netip.Addr
	// MTU is the largest datagram in octets on that route, 0 for the link's.
	MTU int
}

// String returns for example "10.0.0.0/8 via 192.0.2.1".
func (r Route) String() string {
	s := r.Destination.String() + " on link"
	if r.Via.IsValid() {
		s = r.Destination.String() + " via " + r.Via.String()
	}
	if r.MTU != 0 {
		s += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return s
}

// Routes is a table of routes, looked up by longest match. It does not change
// once it is made.
type Routes struct {
	list   []Route
	tables [2][]routeTable // IPv4 and IPv6, longest prefixes first
}

type routeTable struct {
	bits   int
	routes map[netip.Prefix]Route
}

// NewRoutes makes a table. Of two routes to one destination the first counts.
func NewRoutes(list []Route) *Routes {
	r := &Routes{list: slices.Clone(list)}
	for _, route := range list {
		route.Destination = route.Destination.Masked()
		family := &r.tables[0]
		if route.Destination.Addr().Is6() {
			family = &r.tables[1]
		}
		i := slices.IndexFunc(*family, func(t routeTable) bool { return t.bits == route.Destination.Bits() })
		if i < 0 {
			i = len(*family)
			*family = append(*family, routeTable{route.Destination.Bits(), make(map[netip.Prefix]Route)})
		}
		if _, ok := (*family)[i].routes[route.Destination]; !ok {
			(*family)[i].routes[route.Destination] = route
		}
	}
	for _, family := range r.tables {
		slices.SortFunc(family, func(a, b routeTable) int { return b.bits - a.bits })
	}
	return r
}

// List returns the routes in the order in which they were given.
func (r *Routes) List() []Route { return slices.Clone(r.list) }

// Lookup returns the route with the longest prefix that dst lies in.
func (r *Routes) Lookup(dst netip.Addr) (Route, bool) {
	tables := r.tables[0]
	if dst.Is6() {
		tables = r.tables[1]
	}
	for i := range tables {
		p, err := dst.Prefix(tables[i].bits)
		if err != nil {
			return Route{}, false
		}
		if route, ok := tables[i].routes[p]; ok {
			return route, true
		}
	}
	return Route{}, false
}

// route is where one datagram goes.
type route struct {
	nextHop netip.Addr
	mtu     int
	// named says that the host has chosen the station, work.station.
	named bool
	// kept says that the frame goes on with its own source.
	kept bool
}

// nextHop finds the next hop on the right for w.d, whose destination there is dst.
func (e *Engine) nextHop(w *work, dst netip.Addr) (route, wire.DropReason) {
	r, ok := e.routes.Load().Lookup(dst)
	hop := route{nextHop: dst, mtu: r.MTU, named: dst == w.d.Info.Dst && w.station != [6]byte{}}
	if !ok && !hop.named {
		return route{}, wire.DropNoRoute
	}
	if r.Via.IsValid() {
		hop.nextHop = r.Via
	}
	return hop, wire.DropNone
}

// stationOf returns the destination of a frame of the host, given its Ethernet header,
// or zeros if that names no station or is not to be heeded.
func (e *Engine) stationOf(eth []byte) (to [6]byte) {
	if !e.named.Load() || len(eth) < 6 || eth[0]&1 != 0 || string(eth[:6]) == string(e.hostMAC()) {
		return to
	}
	return [6]byte(eth)
}
