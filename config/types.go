package config

import (
	"net"
	"net/netip"
	"path/filepath"
	"time"
)

// OnFailure says what the cut interface does once bitw is gone.
type OnFailure string

// The two fail states.
const (
	// Shut lets nothing pass until the appliance or the operator is back.
	Shut OnFailure = "shut"
	// Open restores the interface as it was, in the clear.
	Open OnFailure = "open"
)

// Neighbors says how the host finds the Ethernet addresses of its neighbours.
type Neighbors string

// The two ways.
const (
	// Proxy answers the host's ARP and neighbour discovery with the host's own Ethernet
	// address; bitw finds every next hop itself.
	Proxy Neighbors = "proxy"
	// Relay lets ARP and neighbour discovery cross, so that the host learns the true
	// addresses; bitw looks up those of tunnel headers only.
	Relay Neighbors = "relay"
)

// Confine says what the program keeps to itself once the interface is cut.
type Confine string

// What is taken from the process (package appliance/confine).
const (
	// ConfineFull takes the capabilities and the system calls that it does not need.
	ConfineFull Confine = "full"
	// ConfineCapabilities takes capabilities, but no system calls.
	ConfineCapabilities Confine = "capabilities"
	// ConfineOff takes nothing.
	ConfineOff Confine = "off"
)

// Direction is seen from the host behind bitw: Out is towards the wire.
type Direction string

// Directions. An SA has exactly one; a policy may have both.
const (
	Out  Direction = "out"
	In   Direction = "in"
	Both Direction = "both"
)

// Protocol is the security protocol of an SA.
type Protocol string

// The security protocols.
const (
	ESP Protocol = "esp" // RFC 4303
	AH  Protocol = "ah"  // RFC 4302
)

// Number is the IP protocol number of p, or 0 if p is neither ESP nor AH.
func (p Protocol) Number() uint8 {
	switch p {
	case ESP:
		return 50
	case AH:
		return 51
	}
	return 0
}

// Mode of an SA (RFC 4301 §4.1).
type Mode string

// The modes. BEET is bound end-to-end tunnel mode (draft-nikander-esp-beet-mode-09).
const (
	Transport Mode = "transport"
	Tunnel    Mode = "tunnel"
	BEET      Mode = "beet"
)

// Action is what a policy or a class of frames does with what it matches.
// A class knows only Bypass and Discard.
type Action string

// Actions (RFC 4301 §4.4.1).
const (
	Protect Action = "protect"
	Bypass  Action = "bypass"
	Discard Action = "discard"
)

// A Config is everything that one appliance is told. Load and Parse return only
// configurations that passed every check; one built by hand passed none.
type Config struct {
	// Interface is the name of the network interface that bitw cuts, in the two-NIC
	// form of the one on the outside.
	Interface string
	// Inside is the interface towards the protected hosts in the two-NIC form, and
	// empty otherwise.
	Inside string
	// Protected are the addresses of the hosts on the inside, in the two-NIC form. No
	// bits are set outside a prefix, and none overlaps another.
	Protected []netip.Prefix
	// MirrorLink says that each of two interfaces loses its link while the other has
	// none.
	MirrorLink bool
	OnFailure  OnFailure
	// Control is the path of the UNIX socket for bitw status and bitw down.
	Control string
	// ControlGroup is the group, by name or number, whose members may ask there but change
	// nothing, and ControlAdminGroup the one whose members may also change; empty for none.
	// Root and the user that bitw runs as may always do both.
	ControlGroup, ControlAdminGroup string
	// Metrics is the address on which metrics are served over HTTP to whoever asks, the zero
	// value for none.
	Metrics netip.AddrPort
	// StateDir is where sequence numbers are reserved ahead; empty means nowhere,
	// and then no outbound SA has a counter-mode algorithm.
	StateDir string
	// LogLevel is one of error, warn, info, debug and trace.
	LogLevel string
	// Trace are the levels of nodes that have another than trace.DefaultLevel.
	Trace []TraceLevel
	// ICMPErrors says which errors in the clear from the wire are believed; empty stands
	// for ICMPAccept.
	ICMPErrors ICMPErrors
	// Watchdog is how long a side may make no progress while frames wait; 0 is off.
	Watchdog time.Duration
	// Confine is what the program bitw lets go of once the interface is cut; empty stands for
	// ConfineFull. An appliance in another program has no part in it.
	Confine Confine
	// ForbidBypass keeps processes from making sockets that send past the cut, those of
	// the cgroup (version 2) whose directory BypassCgroup is, or all where that is empty.
	ForbidBypass bool
	BypassCgroup string
	// AllowInsecure are the parts of algorithms' names that may be used although they
	// should not, each once.
	AllowInsecure []string
	Limits        Limits
	Offloads      Offloads
	// Classes are in the order of the file, each name and EtherType once.
	Classes []Class
	// Neighbors is how the host finds its neighbours.
	Neighbors       Neighbors
	StaticNeighbors []Neighbor
	Routes          []Route
	// MTU is the largest IP packet on the wire in octets, IP header included; 0 means
	// what the interface says.
	MTU int
	// SAs and Policies are in the order of the file. Names are unique in each.
	SAs      []SA
	Policies []Policy

	marks map[string]mark
}

// A Class says what happens to frames that no policy decides.
type Class struct {
	// Name is one of Options.Classes, or "ethertype 0x8899" with four lower-case
	// digits when EtherType is set.
	Name string
	// EtherType is in host order, 0 for a class that is named.
	EtherType uint16
	// Action is Bypass or Discard.
	Action Action
	Pos    Position
}

// A Neighbor is a static neighbour on the wire side. Traffic never changes it.
type Neighbor struct {
	Address netip.Addr
	// MAC has 6 octets.
	MAC net.HardwareAddr
	Pos Position
}

// A Route overrides what the host's interface says about a destination.
type Route struct {
	// Destination has no bits set outside its prefix.
	Destination netip.Prefix
	// Via is the next hop, of the family of Destination; invalid (the zero Addr) when
	// the destination is on the link itself.
	Via netip.Addr
	Pos Position
}

// An SA is one security association with keys set by the user (RFC 4301 §4.4.2).
type SA struct {
	Name string
	// Direction is Out or In.
	Direction Direction
	Protocol  Protocol
	Mode      Mode
	// SPI is in host order, 256 or more.
	SPI uint32
	// Source and Destination are the addresses of the IP header that precedes the
	// ESP or AH header: the tunnel's ends, or in transport mode those of the packet.
	Source, Destination netip.Addr
	// InnerSource and InnerDestination are set in BEET mode only: what the packet has in
	// their place before it is protected, and again afterwards.
	InnerSource, InnerDestination netip.Addr
	// Algorithm is swanctl's name of the suite.
	Algorithm string
	// EncryptionKey has the length that the algorithm wants, an AEAD's salt at its end.
	EncryptionKey Secret
	IntegrityKey  Secret
	// KeyFile is where the keys came from, empty when from the configuration itself.
	KeyFile string
	// ESN says that sequence numbers have 64 bits (RFC 4303 §2.2.1).
	ESN bool
	// ReplayWindow is in packets, a multiple of 64.
	ReplayWindow int
	// Lifetime ends the SA, SoftLifetime is only told of.
	Lifetime, SoftLifetime Lifetime
	// Encap is nil without UDP encapsulation.
	Encap *Encap
	// TFCPadding is to how many octets an outbound SA pads what it protects (RFC 4303
	// §2.7): 0 for none, PadToMTU for as many as fit.
	TFCPadding int
	// Dummies is how many dummy packets an outbound SA sends a second (RFC 4303 §2.6).
	Dummies int
	Headers Headers
	Pos     Position
}

// A Lifetime holds limits of an SA; 0 means no limit.
type Lifetime struct {
	Packets uint64
	// Bytes counts octets of payload before protection.
	Bytes uint64
	// Time runs from the start of the SA.
	Time time.Duration
}

// A Policy is one entry of the SPD (RFC 4301 §4.4.1). A nil selector matches
// anything.
type Policy struct {
	Name      string
	Direction Direction
	// Local are the addresses behind bitw, Remote those across the wire, whichever
	// way a packet goes.
	Local, Remote []AddressRange
	// Protocol is the IP protocol number of the packet's payload.
	Protocol *uint8
	// LocalPorts and RemotePorts are only set for protocols that have ports.
	LocalPorts, RemotePorts []PortRange
	// ICMP is only set when Protocol is 1 or 58.
	ICMP *ICMPRange
	// MHTypes are types of a mobility header, only set when Protocol is 135.
	MHTypes []TypeRange
	// Opaque says that only packets match whose ports, ICMP type and code, or mobility
	// header type are not there: fragments other than the first (RFC 4301 §4.4.1.1). The
	// protocol is then one that has such fields.
	Opaque bool
	// Populate names the selectors whose value each packet brings, one SA for each value
	// (RFC 4301 §4.4.1.2), in the order of PopulateKeys. Only for Protect. Out and In
	// then name what the SAs of a value are called after.
	Populate []string
	Action   Action
	// MSSClamp is the largest TCP segment that a SYN may announce, 0 for any, ClampToPMTU
	// for what fits. Only for Protect.
	MSSClamp int
	// Reject has the host told by ICMP what is dropped of it. Only for Discard.
	Reject bool
	// DiscardFragments says that packets which come in fragments are dropped: from the
	// host, and from the wire in the clear or out of an SA.
	DiscardFragments bool
	// Out names the SAs of a protected packet in the order of their application, the
	// innermost first.
	Out []string
	// In is in the same order; an arriving packet is taken apart from its end.
	In  []string
	Pos Position
}

// An AddressRange holds the addresses from First to Last, both included and of one
// family, neither with a zone nor IPv4 mapped in IPv6.
type AddressRange struct {
	First, Last netip.Addr
}

// A PortRange holds the ports from First to Last, both included.
type PortRange struct {
	First, Last uint16
}

// An ICMPRange holds the types and codes between two bounds, all included.
type ICMPRange struct {
	TypeFirst, TypeLast, CodeFirst, CodeLast uint8
}

// A TypeRange holds the types from First to Last, both included.
type TypeRange struct {
	First, Last uint8
}

// PopulateKeys are the keys of a policy that populate may name.
func PopulateKeys() []string {
	return []string{"local", "remote", "protocol", "local_ports", "remote_ports", "icmp", "mh_type"}
}

// A Position is a place in a file. Line and Column count from 1, columns in
// characters (not octets).
type Position struct {
	File         string
	Line, Column int
}

// Default is a configuration in which all that has a default has it. Control and
// Neighbors are empty; they follow from the interface by DefaultControl, and from
// OnFailure by DefaultNeighbors.
func Default() Config {
	return Config{
		OnFailure:  Shut,
		StateDir:   "/var/lib/bitw",
		LogLevel:   "info",
		ICMPErrors: ICMPAccept,
		Watchdog:   5 * time.Second,
		Confine:    ConfineFull,
	}
}

// DefaultControl is the control socket of the appliance on an interface.
func DefaultControl(iface string) string {
	return filepath.Join("/run/bitw", iface+".sock")
}

// DefaultNeighbors is how the host finds its neighbours when nothing is said. Under
// Open nobody may be there to correct what it was told.
func DefaultNeighbors(f OnFailure) Neighbors {
	if f == Open {
		return Relay
	}
	return Proxy
}

// DefaultReplayWindow is the replay window of an SA that names none, in packets.
const DefaultReplayWindow = 64

// SA returns the SA of that name.
func (c *Config) SA(name string) (*SA, bool) {
	for i := range c.SAs {
		if c.SAs[i].Name == name {
			return &c.SAs[i], true
		}
	}
	return nil, false
}

// Policy returns the policy of that name.
func (c *Config) Policy(name string) (*Policy, bool) {
	for i := range c.Policies {
		if c.Policies[i].Name == name {
			return &c.Policies[i], true
		}
	}
	return nil, false
}
