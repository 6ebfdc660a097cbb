package netlab

import "net/netip"

// PairOptions are the properties of a pair of hosts. In the zero value the
// hosts have the default addresses, an MTU of 1500 and all offloads.
type PairOptions struct {
	A, B      []netip.Prefix // addresses; nil is DefaultA, DefaultB
	MTU       int            // see CardOptions
	NoOffload bool           // see CardOptions
}

// Pair is two hosts, "a" and "b", whose eth0 are on one wire.
type Pair struct {
	A, B *Host
	Wire *Wire
}

// DefaultA returns the addresses that a pair's first host has by default, from
// the ranges for documentation (RFC 5737, RFC 3849).
func DefaultA() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}
}

// DefaultB is DefaultA for the second host.
func DefaultB() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}
}

// Pair makes two hosts joined by a wire. A lab has at most one pair.
func (l *Lab) Pair(o PairOptions) *Pair {
	l.t.Helper()
	if o.A == nil {
		o.A = DefaultA()
	}
	if o.B == nil {
		o.B = DefaultB()
	}
	p := &Pair{Wire: l.Wire("wire"), A: l.Host("a"), B: l.Host("b")}
	for _, end := range []struct {
		host  *Host
		addrs []netip.Prefix
	}{{p.A, o.A}, {p.B, o.B}} {
		card := CardOptions{Addrs: end.addrs, MTU: o.MTU, NoOffload: o.NoOffload}
		if err := end.host.Plug(p.Wire, "eth0", card); err != nil {
			l.t.Fatal(err)
		}
	}
	return p
}
