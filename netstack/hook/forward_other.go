package hook

import "bitw/netstack/wire"

// other forwards every protocol that has no forwarder of its own: SCTP, GRE,
// OSPF, the host's own ESP and what else a policy lets pass.
type other struct{}

func (other) Name() string { return "other" }

func (other) Cut(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason {
	return whole(c, d, maxLen)
}

func (other) Enclosed(*Datagram, *wire.Info) bool { return false }
