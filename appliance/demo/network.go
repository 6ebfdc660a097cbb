package demo

import (
	"context"
	"net"
	"net/netip"

	"bitw/appliance"
)

// A network is two hosts and the wire between the appliances that protect them.
type network interface {
	// host is host a or b.
	host(i int) host
	// options tell the appliance of a host where it stands, and iface which interface
	// it cuts, if any.
	options(i int) (iface string, opts []appliance.Option)
	// evidence is what crosses the wire, from before the appliances start.
	evidence() *evidence
	// settle ends the capture of the wire once all that was sent is in it.
	settle() error
	// close removes everything, and may be called at any time. The appliances are
	// down.
	close() error
}

// A host makes sockets. Addresses are the host's own or the other's.
type host interface {
	ListenTCP(ctx context.Context, at netip.AddrPort) (net.Listener, error)
	DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	ListenUDP(ctx context.Context, at netip.AddrPort) (net.PacketConn, error)
	DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error)
	// DialPing returns a socket that writes and reads echo messages, beginning with
	// their ICMP header. Identifier and checksum are the host's to set.
	DialPing(ctx context.Context, to netip.Addr) (net.Conn, error)
}
