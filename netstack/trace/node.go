package trace

import "sync/atomic"

// An ID is a part that has a trace level of its own.
type ID uint8

// The parts. Each is named after the node of the x-kernel whose work it does.
const (
	Init ID = iota
	Watchdog
	EthKern
	EthDev
	Eth0
	Eth1
	ARP0
	ARP1
	VNet
	IP
	RFC1825
	SPIInt
	SAIDMgr
	KM
	Sink
	ForwardTCP
	ForwardUDP
	ForwardICMP
	ForwardOther
	// NumIDs is the number of parts.
	NumIDs
)

var idNames = [NumIDs]string{
	"init", "watchdog", "ethkern", "ethdev", "eth/0", "eth/1", "arp/0", "arp/1", "vnet", "ip", "rfc1825",
	"spiint", "saidmgr", "km", "sink", "ipf_tcp", "ipf_udp", "ipf_icmp", "ipf_other",
}

// String returns the node's name, such as "eth/0".
func (i ID) String() string {
	if i < NumIDs {
		return idNames[i]
	}
	return "unknown"
}

// NodeNames are the names of all parts.
func NodeNames() []string { return append([]string(nil), idNames[:]...) }

// DefaultLevel is the level of a node that was given none: nothing of a packet is told.
const DefaultLevel = Errors

// A Node is how much one part tells. Any number of goroutines may use it.
type Node struct {
	level atomic.Uint32
}

// On says whether something of that level is to be told.
func (n *Node) On(l Level) bool { return uint32(l) >= n.level.Load() }

// Level returns the level.
func (n *Node) Level() Level { return Level(n.level.Load()) }

// Set sets the level; LevelUnset stands for DefaultLevel.
func (n *Node) Set(l Level) {
	if l == LevelUnset {
		l = DefaultLevel
	}
	n.level.Store(uint32(l))
}

// Nodes are those of one appliance.
type Nodes [NumIDs]Node

// NewNodes returns nodes of the default level.
func NewNodes() *Nodes {
	n := new(Nodes)
	for i := range n {
		n[i].Set(DefaultLevel)
	}
	return n
}
