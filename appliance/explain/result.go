package explain

import (
	"bitw/netstack/ipsec"
	"bitw/sa"
)

// What becomes of a packet, as Result.Outcome says it.
const (
	Sent              = "sent"                // leaves, or reaches the host, now
	Dropped           = "dropped"             // for Result.Reason
	WaitsForSA        = "waits for an SA"     // that a key manager is asked for
	WaitsForNeighbor  = "waits for neighbour" // whose Ethernet address is asked for
	WaitsForFragments = "waits for fragments" // without which nothing can be decided
	Taken             = "taken"               // ends at bitw itself
	Authenticated     = "authenticated"       // and what is inside decides on
)

// What policy says of a packet, as Result.Verdict says it.
const (
	Protect   = "protect"
	Bypass    = "bypass"
	Discard   = "discard"
	Undecided = "undecided" // by fragments alone, and of what bitw takes itself
)

// A Result is the answer to a question. Its JSON is what bitw explain -o json prints.
// Lengths are of IP datagrams in octets.
type Result struct {
	// Packet is what was asked about, as Parse takes it.
	Packet    string `json:"packet"`
	Direction string `json:"direction"`
	Length    int    `json:"length,omitempty"`
	// Interface is that of the running bitw, or of the configuration where Offline.
	Interface string `json:"interface,omitempty"`
	Offline   bool   `json:"offline"`

	Verdict string `json:"verdict"`
	Outcome string `json:"outcome"`
	// Reason is the drop reason that is counted, empty if nothing is dropped.
	Reason string `json:"reason,omitempty"`
	// Summary says all that in a sentence.
	Summary string `json:"summary"`

	// Class is there for frames that no policy decides.
	Class *Class `json:"class,omitempty"`
	// Flow is what the policies were asked about, in words.
	Flow string `json:"flow,omitempty"`
	// Rule is the policy that decides; nil if none matches, or none was asked.
	Rule *Rule `json:"rule,omitempty"`
	// Near are policies that nearly decided: they come before and have few selectors that
	// do not fit, or come later and would fit.
	Near []Near `json:"near,omitempty"`
	// SAs are those of the rule in the order of their application, or those that an
	// inbound packet comes by, the outermost first.
	SAs []SA `json:"security_associations,omitempty"`
	// Budget is the arithmetic of the overhead, for what is protected outbound.
	Budget *ipsec.Budget `json:"budget,omitempty"`
	// Route is where it goes on the wire.
	Route *Route `json:"route,omitempty"`
	// Frames are what is sent on, and Answer is the ICMP error that the sender gets.
	Frames []Frame `json:"frames,omitempty"`
	Answer *Answer `json:"answer,omitempty"`
	// Headers compares the datagram's own IP header with the outermost that leaves.
	Headers *Headers `json:"headers,omitempty"`
	// Notes say what was taken for granted, Warnings what is wrong and what to do.
	Notes    []string `json:"notes,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// A Class is what decides about a frame that no policy does.
type Class struct {
	Name string `json:"name"`
	// Action is "bypass", "discard", or "answered" where bitw does that itself.
	Action string `json:"action"`
}

// A Rule is a policy.
type Rule struct {
	// Number is its place among the policies, from 1.
	Number   int    `json:"number"`
	Name     string `json:"name"`
	Action   string `json:"action"`
	Selector string `json:"selector"`
}

// A Near is a policy that nearly decided.
type Near struct {
	Rule
	// Failed are the selectors that do not fit.
	Failed []sa.Mismatch `json:"failed,omitempty"`
	// Later says that it fits, but comes after the one that decides.
	Later bool `json:"later,omitempty"`
}

// An SA is a security association, and whether it can be used for this packet.
type SA struct {
	Name string `json:"name"`
	// Present is false where a rule wants one that is not there; only Name is set then.
	Present     bool   `json:"present"`
	Protocol    string `json:"protocol,omitempty"`
	SPI         string `json:"spi,omitempty"`
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	Mode        string `json:"mode,omitempty"`
	Algorithm   string `json:"algorithm,omitempty"`
	// Peer is where ESP in UDP goes.
	Peer string `json:"peer,omitempty"`
	// Next is the sequence number that the next packet gets, of an outbound SA. Newest is
	// the highest received and Window the size of the replay window, of an inbound one.
	Next   uint64 `json:"next,omitempty"`
	Newest uint64 `json:"newest,omitempty"`
	Window int    `json:"window,omitempty"`
	// Usable says whether it can be used, and State how it is in words.
	Usable bool   `json:"usable"`
	State  string `json:"state"`
}

// A Route is where a packet goes on the wire.
type Route struct {
	// Route is for example "0.0.0.0/0 via 192.0.2.1"; empty if the host names the station.
	Route   string `json:"route,omitempty"`
	NextHop string `json:"next_hop,omitempty"`
	// MAC is empty while it is not known.
	MAC string `json:"mac,omitempty"`
}

// A Frame is one that is written.
type Frame struct {
	// Side is "outside" for the wire, "inside" for the host.
	Side   string `json:"side"`
	MAC    string `json:"mac,omitempty"` // of the destination, empty while it is not known
	Length int    `json:"length"`
	// Layers has a line for each header, the outermost first.
	Layers []string `json:"layers"`
}

// An Answer is an ICMP error to the sender.
type Answer struct {
	// Text is in words, with type and code.
	Text string `json:"text"`
	// MTU is what it tells, 0 for nothing.
	MTU int `json:"mtu,omitempty"`
	// Refused says that no policy lets it out to a remote sender, or not now.
	Refused bool `json:"refused,omitempty"`
}

// Headers compares two IP headers.
type Headers struct {
	Inner Header `json:"inner"`
	Outer Header `json:"outer"`
}

// A Header is what stands in one.
type Header struct {
	DSCP uint8 `json:"dscp"`
	ECN  uint8 `json:"ecn"`
	TTL  uint8 `json:"ttl"`
	DF   bool  `json:"df"`
}
