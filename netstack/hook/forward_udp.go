package hook

import "bitw/netstack/wire"

// udp forwards UDP (the original's ipf_udp). A superframe is a train of
// datagrams; each stays one, so that one which does not fit is DropTooBig.
type udp struct{}

func (udp) Name() string { return "udp" }

func (udp) Cut(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason {
	return c.Init(d.Bytes, &d.Info, d.Net, maxLen)
}

func (udp) Enclosed(*Datagram, *wire.Info) bool { return false }
