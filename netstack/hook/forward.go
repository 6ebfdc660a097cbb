package hook

import (
	"sync/atomic"

	"bitw/netstack/wire"
)

// A Side is one of the two sides of the bump.
type Side uint8

// The two sides.
const (
	Left  Side = iota // the host's own kernel, or the LAN behind the box
	Right             // the wire
)

// Other returns the opposite side.
func (s Side) Other() Side { return s ^ 1 }

// String returns "left" or "right".
func (s Side) String() string {
	if s == Left {
		return "left"
	}
	return "right"
}

// A Datagram is one IP datagram on its way through the bump, parsed once. It
// borrows Bytes and Net from whoever hands it on, for the time of the call.
type Datagram struct {
	// From is the side that it came from.
	From Side
	// Bytes is the datagram alone: no link header in front, no link padding behind.
	Bytes []byte
	Info  wire.Info
	// Net is its offload metadata, or nil. Offsets in it count from the start of an
	// Ethernet header of 14 octets in front of Bytes.
	Net wire.VirtioNet
}

// A Forwarder turns the datagrams of its protocols round to the other side, as
// the original's IPF_TCP, IPF_UDP and IPF_ICMP did. It knows what is peculiar to
// the protocol: how a superframe is cut, what a policy has to look at beside the
// datagram itself. It ends no transport and changes nothing that the far end
// would notice.
//
// All methods may be called from many goroutines at once, and none allocates.
type Forwarder interface {
	// Name is "tcp", "udp", "icmp" or "other".
	Name() string
	// Cut readies c to write d as datagrams of at most maxLen octets, each with its
	// checksums complete. It returns DropTooBig where the protocol does not allow to
	// cut d so small, and DropBadOffload where metadata and datagram disagree.
	Cut(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason
	// Enclosed returns true for an ICMP error, and then describes in inner the
	// datagram that it is about, which went the other way (RFC 4301 §6).
	Enclosed(d *Datagram, inner *wire.Info) bool
}

// Forwarders is the table of all four, with what they carried.
type Forwarders struct {
	byProto [256]uint8
	list    []Forwarder
	carried [][2]carried
}

type carried struct {
	packets, octets atomic.Uint64
	_               [48]byte // the two sides are counted by different goroutines
}

// NewForwarders returns the forwarders for TCP, UDP, ICMP and everything else.
func NewForwarders() *Forwarders {
	f := &Forwarders{list: []Forwarder{other{}, tcp{}, udp{}, icmp{}}}
	f.carried = make([][2]carried, len(f.list))
	f.byProto[wire.ProtoTCP] = 1
	f.byProto[wire.ProtoUDP] = 2
	f.byProto[wire.ProtoICMP] = 3
	f.byProto[wire.ProtoICMPv6] = 3
	return f
}

// For returns the forwarder of an IP protocol number.
func (f *Forwarders) For(proto uint8) Forwarder { return f.list[f.byProto[proto]] }

// Count notes that datagrams of that protocol and length in octets, superframes counting
// as one, were turned round towards the side to.
func (f *Forwarders) Count(proto uint8, to Side, packets, octets int) {
	c := &f.carried[f.byProto[proto]][to]
	c.packets.Add(uint64(packets))
	c.octets.Add(uint64(octets))
}

// Carried is what one forwarder turned round towards one side.
type Carried struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// Carried returns, by the forwarder's name, what it carried to the left and to
// the right, indexed by Side.
func (f *Forwarders) Carried() map[string][2]Carried {
	m := make(map[string][2]Carried, len(f.list))
	for i, fw := range f.list {
		var c [2]Carried
		for s := range c {
			c[s] = Carried{f.carried[i][s].packets.Load(), f.carried[i][s].octets.Load()}
		}
		m[fw.Name()] = c
	}
	return m
}

// ethernetLen is the length of the link header that offload metadata count from.
const ethernetLen = 14

// whole readies c for a datagram that must stay one: only its checksum is
// finished. A superframe is refused.
func whole(c *wire.Cutter, d *Datagram, maxLen int) wire.DropReason {
	if d.Net != nil && d.Net.GSOKind() != wire.GSONone {
		return wire.DropBadOffload
	}
	return c.Init(d.Bytes, &d.Info, d.Net, maxLen)
}
