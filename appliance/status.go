package appliance

import (
	"fmt"
	"time"
)

// A Status tells what an appliance is and did. Its JSON is what bitw status -o
// json prints. Counters count from the start, those of policies, SAs and drops
// from that of the first of processes that took over from one another; octets are of IP datagrams.
type Status struct {
	Interface string `json:"interface"`
	// Inside is the other interface in the two-NIC form, where Interface is the outside.
	Inside string `json:"inside,omitempty"`
	// RenamedTo is the interface's present name, if that is another.
	RenamedTo string `json:"renamed_to,omitempty"`
	// Time is when this was so, by the clock that all times here are by: the machine's, as
	// it was at the start. ClockSet is by how many seconds that has been set since.
	Time     time.Time `json:"time"`
	ClockSet float64   `json:"clock_set,omitempty"`
	// State is "starting", "active" or "stopped", and after SetTaps, or when the
	// watchdog has found a side stalled, also "clear" or "severed" as Taps.Flow. It is
	// "waiting for interface" while there is none.
	State string `json:"state"`
	// Since is when the appliance started.
	Since     time.Time `json:"since"`
	OnFailure string    `json:"on_failure"`
	// Stalled are the sides, "left" or "right", whose frames make no progress; see
	// Config.Watchdog.
	Stalled []string `json:"stalled,omitempty"`
	// Cut is how the interface is cut: "tcx", "clsact", or "links" for WithLinks.
	Cut string `json:"cut"`
	// Guard is how the interface is kept shut when it is created anew, until it is cut
	// again: "netdev", "inet" (not ARP) or "none"; empty for WithLinks.
	Guard string `json:"guard,omitempty"`
	// BypassForbidden is the cgroup in which sockets that send past the cut are refused,
	// and BypassRefused how many were.
	BypassForbidden string `json:"bypass_forbidden,omitempty"`
	BypassRefused   uint64 `json:"bypass_refused,omitempty"`
	// Carrier says that the interface is up and its lower layer has a signal; true
	// for WithLinks.
	Carrier bool `json:"carrier"`
	// TookOver says that an earlier process left the interface shut or handed it over.
	TookOver bool `json:"took_over"`
	MTU      int  `json:"mtu"`
	// MTUFrom is "interface" or "configuration", whichever is smaller.
	MTUFrom string `json:"mtu_from,omitempty"`
	// MTUConfigured is what the configuration says, if that is more than the interface has.
	MTUConfigured int `json:"mtu_configured,omitempty"`
	// InsideMTU is the inside interface's, in the two-NIC form.
	InsideMTU int            `json:"inside_mtu,omitempty"`
	Addresses []string       `json:"addresses"`
	Policies  []PolicyStatus `json:"policies"`
	SAs       []SAStatus     `json:"security_associations"`
	// Forwarders has tcp, udp, icmp and other.
	Forwarders map[string]ForwarderStatus `json:"forwarders"`
	// Classes are the frames that no policy decides, by class.
	Classes map[string]ClassStatus `json:"classes"`
	// Links has "left" and "right".
	Links map[string]LinkStatus `json:"links"`
	// PassedOpenLast is when something was last counted as LinkStatus.PassedOpen, to about a second.
	PassedOpenLast time.Time        `json:"passed_open_last,omitzero"`
	Neighbors      []NeighborStatus `json:"neighbors"`
	Routes         []RouteStatus    `json:"routes"`
	// AllowInsecure is what the configuration allows of algorithms that should not be
	// used, and InsecureSAs how many SAs make use of it.
	AllowInsecure []string `json:"allow_insecure,omitempty"`
	InsecureSAs   int      `json:"insecure_sas"`
	// Held is how many of the host's datagrams wait for an SA that a key manager was
	// asked for.
	Held int `json:"held,omitempty"`
	// Drops counts every drop by its reason; DropsBySide tells where the frame came
	// from.
	Drops       map[string]uint64            `json:"drops"`
	DropsBySide map[string]map[string]uint64 `json:"drops_by_side"`
	// DropsLast is when something was dropped last for each reason, to about a second.
	DropsLast map[string]time.Time `json:"drops_last,omitempty"`
	// RecentDrops are examples of what was dropped, at most four for each reason and side,
	// the newest first.
	RecentDrops []DroppedFlow `json:"recent_drops,omitempty"`
	// AddressConflicts are addresses that more than one station says to have.
	AddressConflicts []AddressConflict `json:"address_conflicts,omitempty"`
	// Offloads are the ways to move many packets at the cost of one, and which are in use.
	Offloads []OffloadStatus `json:"offloads,omitempty"`
	// Watchers are the captures and traces under way.
	Watchers []Watcher `json:"watchers"`
	// Health is what an operator should look at, the gravest first.
	Health []Finding `json:"health"`
}

// The severities of a Finding.
const (
	Critical = "critical" // traffic that should pass does not, or passes in the clear
	Warning  = "warning"  // it may come to that, or is wrong in part
	Notice   = "notice"   // it is over, or nothing is wrong
)

// A Finding is one thing that an operator should look at, in plain words.
type Finding struct {
	Severity string `json:"severity"`
	// About is what it is about, as "sa to-b" or "policy web"; empty for the whole.
	About   string `json:"about,omitempty"`
	Problem string `json:"problem"`
	// Remedy is what to do.
	Remedy string `json:"remedy"`
}

// String is the finding as a sentence.
func (f Finding) String() string {
	s := f.Problem + ": " + f.Remedy
	if f.About != "" {
		s = f.About + ": " + s
	}
	return s
}

// A DroppedFlow is an example of what was dropped.
type DroppedFlow struct {
	Reason string `json:"reason"`
	// From is the side it came from, "left" or "right".
	From string    `json:"from"`
	Last time.Time `json:"last"`
	// Source and Destination are addresses, with ports where the protocol has them and
	// they are known.
	Source      string `json:"source"`
	Destination string `json:"destination"`
	// Protocol is a name or a number.
	Protocol string `json:"protocol"`
	ICMPType *uint8 `json:"icmp_type,omitempty"`
	SPI      string `json:"spi,omitempty"`
	// Policy and SA are those whose account it is on, where one is known.
	Policy string `json:"policy,omitempty"`
	SA     string `json:"sa,omitempty"`
}

// String returns for example "tcp 192.0.2.1:1234 > 192.0.2.9:443".
func (f DroppedFlow) String() string {
	s := f.Protocol + " " + f.Source + " > " + f.Destination
	switch {
	case f.SPI != "":
		s += " spi " + f.SPI
	case f.ICMPType != nil:
		s += fmt.Sprintf(" type %d", *f.ICMPType)
	}
	return s
}

// An AddressConflict is an address that two stations on the wire say to have (RFC 5227).
type AddressConflict struct {
	Address string `json:"address"`
	// Own says that it is the protected host's.
	Own bool `json:"own,omitempty"`
	// MACs are the stations, without the host itself.
	MACs []string  `json:"macs"`
	Last time.Time `json:"last"`
}

// Traffic is what passed in one direction, and what was dropped instead.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// LastUse is the zero time if nothing passed yet.
	LastUse time.Time         `json:"last_use,omitzero"`
	Drops   map[string]uint64 `json:"drops,omitempty"`
	// Rate is of late; nil where that is not known yet.
	Rate *Rate `json:"rate,omitempty"`
}

// A Rate is what passed each second, over the last seconds.
type Rate struct {
	Packets float64 `json:"packets_per_second"`
	Bits    float64 `json:"bits_per_second"`
	// Over is how many seconds those are, 5 to 10 but at the beginning.
	Over float64 `json:"over_seconds"`
}

// A PolicyStatus is one rule of the SPD.
type PolicyStatus struct {
	Name      string `json:"name"`
	Action    string `json:"action"`
	Direction string `json:"direction"`
	Selector  string `json:"selector"`
	// Populate names the selectors that are populated from the packet, as in
	// "remote,remote_ports", and Entries is how many values have SAs or wait for them.
	Populate string  `json:"populate,omitempty"`
	Entries  int     `json:"entries,omitempty"`
	Out      Traffic `json:"out"`
	In       Traffic `json:"in"`
	// OutSAs and InSAs name the SAs in the order of their application.
	OutSAs []string `json:"out_sas,omitempty"`
	InSAs  []string `json:"in_sas,omitempty"`
	// Down are those of OutSAs and InSAs by which nothing can pass now: none with a key, or
	// its lifetime is over.
	Down []string `json:"down,omitempty"`
}

// An SAStatus is one security association.
type SAStatus struct {
	Name        string `json:"name"`
	Direction   string `json:"direction"`
	Protocol    string `json:"protocol"`
	SPI         string `json:"spi"`
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination"`
	// InnerSource and InnerDestination are those of BEET mode.
	InnerSource      string `json:"inner_source,omitempty"`
	InnerDestination string `json:"inner_destination,omitempty"`
	Mode             string `json:"mode"`
	Algorithm        string `json:"algorithm"`
	// Key is "empty", "valid" or "invalid".
	Key string `json:"key"`
	ESN bool   `json:"esn"`
	// Insecure says that the algorithm had to be allowed by name, and NoSequence that its
	// packets carry no sequence numbers, so that replays are not noticed.
	Insecure   bool `json:"insecure,omitempty"`
	NoSequence bool `json:"no_sequence,omitempty"`
	// Sequence is the last number sent, for outbound SAs.
	Sequence uint64 `json:"sequence,omitempty"`
	// ReplayWindow is in packets, 0 for outbound SAs and for those that do not look.
	ReplayWindow int `json:"replay_window,omitempty"`
	// Lineage is the name that policies know the SA by, where that is another.
	Lineage string `json:"lineage,omitempty"`
	// PathMTU is what was learned from the wire, 0 if nothing was, PathMTUFrom by what
	// ("icmp"), and PathMTUUntil how long it is believed.
	PathMTU      int       `json:"path_mtu,omitempty"`
	PathMTUFrom  string    `json:"path_mtu_from,omitempty"`
	PathMTUUntil time.Time `json:"path_mtu_until,omitzero"`
	Lifetime     *Lifetime `json:"lifetime,omitempty"`
	// Encap is there for ESP in UDP.
	Encap *EncapStatus `json:"encap,omitempty"`
	// DummiesSent counts the dummy packets of outbound SAs.
	DummiesSent uint64 `json:"dummies_sent,omitempty"`
	// Expired is "", "soft" or "hard".
	Expired string `json:"expired,omitempty"`
	// Retiring says that the SA has a successor and is kept for a grace time only.
	Retiring bool `json:"retiring,omitempty"`
	// Weak says why the algorithm is discouraged.
	Weak string `json:"weak,omitempty"`
	// Traffic's LastUse is, for an inbound SA, when the last authentic packet came.
	Traffic
}

// A Lifetime is what is left of the hard lifetime of an SA. A nil limit is none.
type Lifetime struct {
	Created time.Time `json:"created,omitzero"`
	// Expires is the zero time where the lifetime has no end in time.
	Expires     time.Time `json:"expires,omitzero"`
	PacketsLeft *uint64   `json:"packets_left,omitempty"`
	BytesLeft   *uint64   `json:"bytes_left,omitempty"`
	// SequenceLeft is how many numbers an outbound SA has that does not count in 64 bits.
	SequenceLeft *uint64 `json:"sequence_left,omitempty"`
}

// An EncapStatus is the UDP encapsulation of an SA.
type EncapStatus struct {
	LocalPort  uint16 `json:"local_port"`
	RemotePort uint16 `json:"remote_port"`
	// For outbound SAs: where packets go now, how often the peer has moved, and the
	// keepalives that were sent.
	Peer           string `json:"peer,omitempty"`
	Moves          uint64 `json:"moves,omitempty"`
	KeepalivesSent uint64 `json:"keepalives_sent,omitempty"`
}

// A ForwarderStatus is what one forwarder turned round, superframes counting as
// one packet.
type ForwarderStatus struct {
	ToWire Traffic `json:"to_wire"`
	ToHost Traffic `json:"to_host"`
}

// A ClassStatus counts the frames of one class, from both sides.
type ClassStatus struct {
	Action    string `json:"action"`
	Bypassed  uint64 `json:"bypassed"`
	Discarded uint64 `json:"discarded"`
	// FromHost is how many of the discarded ones the host sent.
	FromHost uint64 `json:"discarded_from_host,omitempty"`
}

// An OffloadStatus is one of the configuration's offloads.
type OffloadStatus struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
	// Why says why it is not in use, or not as it was asked for: "configuration", or what
	// the kernel said.
	Why string `json:"why,omitempty"`
}

// A LinkStatus counts the frames of one link, as bitw read and wrote them.
type LinkStatus struct {
	FramesIn  uint64 `json:"frames_in"`
	BytesIn   uint64 `json:"bytes_in"`
	FramesOut uint64 `json:"frames_out"`
	BytesOut  uint64 `json:"bytes_out"`
	// PassedOpen is how many frames from this side passed bitw by, without protection, while
	// it was held up for so long that the interface opened (on_failure: open).
	PassedOpen uint64 `json:"passed_open,omitempty"`
	// UDPSuperframesIn are those that were received and taken apart, since they end here,
	// UDPSuperframesOut those that were sent, and the datagrams are what was in them.
	UDPSuperframesIn  uint64 `json:"udp_superframes_in,omitempty"`
	UDPDatagramsIn    uint64 `json:"udp_datagrams_in,omitempty"`
	UDPSuperframesOut uint64 `json:"udp_superframes_out,omitempty"`
	UDPDatagramsOut   uint64 `json:"udp_datagrams_out,omitempty"`
}

// A RouteStatus is a route to the wire; Via is empty for a destination on the link, and MTU
// 0 where it is the link's.
type RouteStatus struct {
	Destination string `json:"destination"`
	Via         string `json:"via,omitempty"`
	MTU         int    `json:"mtu,omitempty"`
}

// String returns for example "10.0.0.0/8 via 192.0.2.1".
func (r RouteStatus) String() string {
	text := r.Destination + " on link"
	if r.Via != "" {
		text = r.Destination + " via " + r.Via
	}
	if r.MTU != 0 {
		text += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return text
}

// A NeighborStatus is one neighbour on the wire.
type NeighborStatus struct {
	Address string `json:"address"`
	MAC     string `json:"mac"`
	State   string `json:"state"`
}
