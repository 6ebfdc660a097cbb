package config

import (
	"net/netip"
	"strings"
)

func (d *decoder) control(n *node) {
	t, ok := d.text(n, "the path of a socket")
	if !ok {
		return
	}
	p := d.relative(t)
	// sun_path has 108 octets with its final zero (unix(7)).
	if len(p) > 107 {
		d.fail(n.place, "choose a shorter path", "the path of the socket has %d octets, and UNIX sockets allow 107", len(p))
		return
	}
	d.config.Control = p
}

// group reads the name or number of a group. Whether there is one is the appliance's to
// find out.
func (d *decoder) group(n *node) string {
	t, ok := d.text(n, "the name or number of a group")
	if !ok {
		return ""
	}
	// What shadow's useradd allows, and more is not to be expected (group(5)).
	if len(t) > 32 || strings.ContainsAny(t, ":, \t/") || strings.HasPrefix(t, "-") {
		d.fail(n.place, "a name has 1 to 32 octets without spaces, and : , /", "%s cannot be the name of a group", quote(t))
		return ""
	}
	return t
}

// metrics reads the address on which metrics are served.
func (d *decoder) metrics(n *node) netip.AddrPort {
	t, ok := d.text(n, "an address and a port")
	if !ok {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddrPort(t)
	if err != nil || a.Port() == 0 {
		d.fail(n.place, "write it as in 127.0.0.1:9469 or [::1]:9469", "expected an address and a port, found %s", quote(t))
		return netip.AddrPort{}
	}
	if !a.Addr().IsLoopback() {
		d.warn(n.place, "use 127.0.0.1 or [::1], or see that only the monitor reaches it", "whoever reaches %s may read the metrics, which name policies and peers", a)
	}
	return a
}
