package config

// neighbors reads how the host finds its neighbours, and compares with what the
// classes say of ARP and neighbour discovery. It comes after on_failure and classes.
func (d *decoder) neighbors(f *fields) {
	c := &d.config
	n := f.by["neighbors"]
	switch {
	case n == nil:
		c.Neighbors = DefaultNeighbors(c.OnFailure)
	case n.kind == list:
		d.fail(n.place, "write proxy or relay; a list of neighbors belongs under static_neighbors", "expected proxy or relay, found %s", n.found())
		return
	default:
		c.Neighbors = enum(d.source, n, Proxy, Relay)
	}
	if n != nil && c.Neighbors == Proxy && c.OnFailure == Open {
		d.fail(n.place, "write relay, the default under on_failure: open, or on_failure: shut",
			"with on_failure: open a crash leaves the host what proxy has told it, its own Ethernet address for all neighbors, and nobody to correct that")
	}
	for _, x := range c.Classes {
		what, ok := map[string]string{"arp": "IPv4", "ndp": "IPv6"}[x.Name]
		at := place{x.Pos.Line, x.Pos.Column}
		switch {
		case !ok:
		case c.Neighbors == Proxy && x.Action == Bypass:
			d.fail(at, "write neighbors: relay to let it cross, or remove it", "class %s does not cross under neighbors: proxy, bitw answers it", x.Name)
		case c.Neighbors == Proxy && x.Action == Discard:
			d.warn(at, "remove it", "class %s is answered by bitw under neighbors: proxy, whatever is said here", x.Name)
		case c.Neighbors == Relay && x.Action == Discard:
			d.warn(at, "remove it, or write neighbors: proxy",
				"class %s is discarded under neighbors: relay: the host finds no %s neighbors, and they do not find it", x.Name, what)
		}
	}
}
