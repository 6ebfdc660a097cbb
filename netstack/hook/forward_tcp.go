package hook

import "bitw/netstack/wire"

// tcp forwards TCP (the original's ipf_tcp). A superframe may be cut to any
// size: TCP promises no boundaries, and segments that make room for ESP spare
// the host an ICMP error.
type tcp struct{}

func (tcp) Name() string { return "tcp" }

func (tcp) Cut(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason {
	return c.Init(d.Bytes, &d.Info, d.Net, maxLen)
}

func (tcp) Enclosed(*Datagram, *wire.Info) bool { return false }
