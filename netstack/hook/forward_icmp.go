package hook

import "bitw/netstack/wire"

// icmp forwards ICMP and ICMPv6 (the original's ipf_icmp). An error message
// belongs to the flow of the datagram that it encloses (RFC 4301 §6).
type icmp struct{}

func (icmp) Name() string { return "icmp" }

func (icmp) Cut(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason {
	return whole(c, d, maxLen)
}

func (icmp) Enclosed(d *Datagram, inner *wire.Info) bool {
	if !wire.IsICMPError(&d.Info) {
		return false
	}
	_, reason := wire.Enclosed(d.Bytes, &d.Info, inner)
	return reason == wire.DropNone
}
