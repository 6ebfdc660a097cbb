package observe

import "time"

// A Report tells what was seen. Octets are of IP datagrams, or for Other of Ethernet
// frames; a superframe counts as the packets that it would be cut into.
type Report struct {
	Interface string    `json:"interface"`
	Inside    string    `json:"inside,omitempty"` // of two, of which Interface is the outside
	MTU       int       `json:"mtu"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	// Judged says that a configuration was given to judge by.
	Judged bool `json:"judged"`
	// Flows are those with the most octets first.
	Flows []Flow `json:"flows"`
	// Forgotten is how many flows were left out because there were too many; those
	// that had been silent longest went first.
	Forgotten uint64 `json:"forgotten"`
	// Other are the frames that no policy decides, by class.
	Other map[string]Other `json:"other"`
	// Unreadable counts frames that are IP by their EtherType but not by their octets.
	Unreadable uint64 `json:"unreadable"`
	// Missed counts frames that passed unseen because they came too fast.
	Missed Missed `json:"missed"`
}

// Missed counts frames by side.
type Missed struct {
	Inside  uint64 `json:"inside"`
	Outside uint64 `json:"outside"`
}

// Other counts the frames of one class, from both sides.
type Other struct {
	Frames uint64 `json:"frames"`
	Bytes  uint64 `json:"bytes"`
	// Action is "bypass", "discard", or "answered" for those that bitw answers itself;
	// empty if nothing was judged.
	Action string `json:"action,omitempty"`
}

// A Flow is both directions of a conversation.
type Flow struct {
	// Local is the host behind the interface.
	Local      string `json:"local"`
	Remote     string `json:"remote"`
	Protocol   uint8  `json:"protocol"`
	LocalPort  uint16 `json:"local_port,omitempty"`
	RemotePort uint16 `json:"remote_port,omitempty"`
	// ICMPType is that of the request for echo and its reply; nil if it is no ICMP, or
	// not known.
	ICMPType *uint8    `json:"icmp_type,omitempty"`
	First    time.Time `json:"first"`
	Last     time.Time `json:"last"`
	Out      Half      `json:"out"`
	In       Half      `json:"in"`
}

// A Half is one direction of a flow.
type Half struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	// Largest is the length of the largest packet.
	Largest int `json:"largest"`
	// Verdict is what would become of it; nil before the first packet, or if nothing
	// was judged.
	Verdict *Verdict `json:"verdict,omitempty"`
}

// A Verdict is what a configuration would do with one direction of a flow.
type Verdict struct {
	// Action is "protect", "bypass" or "discard".
	Action string `json:"action"`
	// Policy is the rule that decides, empty for none.
	Policy string `json:"policy,omitempty"`
	// Reason is the drop reason of what would be discarded. For an inbound flow that a
	// policy protects it is clear_not_protected as long as the peer sends in the clear.
	Reason string `json:"reason,omitempty"`
	// SAs are the bundle in the order of application, the last one's header the
	// outermost.
	SAs []string `json:"sas,omitempty"`

	// What follows is for outbound flows that would be protected.

	// Overhead is what would be added to all packets so far, OverheadLargest to the
	// largest.
	Overhead        uint64 `json:"overhead,omitempty"`
	OverheadLargest int    `json:"overhead_largest,omitempty"`
	// Fit says whether protected packets fit the MTU: "fits"; "cut", only superframes do
	// not, and they are cut smaller; "fragmented", some do not and may be fragmented;
	// "too_big", some do not and may not be (DF): their sender would be told MaxInner.
	Fit string `json:"fit,omitempty"`
	// MaxInner is the largest packet that fits.
	MaxInner int `json:"max_inner,omitempty"`
	// TooBig counts the packets of "too_big".
	TooBig uint64 `json:"too_big,omitempty"`
}

// The values of Verdict.Fit, the worst last.
const (
	Fits       = "fits"
	Cut        = "cut"
	Fragmented = "fragmented"
	TooBig     = "too_big"
)

func worse(a, b string) string {
	rank := map[string]int{Fits: 1, Cut: 2, Fragmented: 3, TooBig: 4}
	if rank[b] > rank[a] {
		return b
	}
	return a
}
