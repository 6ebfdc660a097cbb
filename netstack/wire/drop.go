package wire

import (
	"slices"
	"sync/atomic"
)

// A DropReason says why a packet was not passed on. It is the one list that
// counters, metrics, logs, traces, captures and errors take their words from.
// DropNone, the zero value, means that the packet was not dropped.
type DropReason uint8

// The drop reasons. A packet that is dropped has exactly one.
const (
	DropNone DropReason = iota

	// Policy.
	DropNoPolicy          // no rule of the SPD matches (RFC 4301 §5: discard)
	DropPolicyDiscard     // a rule says discard
	DropClearNotProtected // arrived in the clear, but policy demands protection (RFC 4301 §5.2)
	DropSelectorMismatch  // decrypted, but does not fit the selectors of its SA (RFC 4301 §5.2 step 4)
	DropNoSA              // rule says protect, and no SA is there to do it
	DropAcquireTimeout    // waited for an SA that the key manager did not make in time
	DropClassDiscard      // non-IP, broadcast or multicast, and not let through by name

	// Inbound ESP and AH.
	DropUnknownSPI     // no SA for (SPI, destination, protocol)
	DropReplay         // sequence number seen before
	DropReplayOld      // sequence number left of the replay window
	DropICV            // integrity check failed
	DropBadPadding     // ESP padding is not 1, 2, 3, …, or longer than the packet
	DropBadLength      // too short or too long for its transform
	DropBadNextHeader  // next header that the SA's mode does not allow
	DropDummy          // ESP dummy packet, next header 59 (RFC 4303 §2.6)
	DropWrongTransform // bundle not applied in the listed order
	DropEncapMismatch  // in UDP for an SA without encapsulation, or the other way round, or for another port
	DropKeepalive      // NAT keepalive (RFC 3948 §2.3); nothing is wrong
	DropECN            // marked for congestion outside or in a fragment, which the packet cannot tell (RFC 6040 §4.2, RFC 3168 §5.3)

	// Outbound ESP and AH.
	DropSeqExhausted    // sequence numbers used up (RFC 4303 §3.3.3)
	DropSeqUnreserved   // the sequence number store could not promise fresh numbers
	DropLifetimeExpired // hard lifetime of the SA is over
	DropKeyInvalid      // the SA's key is empty or invalid

	// IP.
	DropMalformed       // header fields contradict each other or the packet's length
	DropTooBig          // does not fit the path and must not be fragmented; ICMP sent
	DropTTLExceeded     // TTL or hop limit used up
	DropFragOverlap     // overlapping fragments (RFC 5722)
	DropFragDuplicate   // the very same fragment once more
	DropFragTimeout     // fragments missing after the time limit
	DropFragMemory      // fragment memory is at its cap
	DropFragPolicy      // a fragment without the fields that the policy needs, or of a policy that discards fragments
	DropExtensionHeader // IPv6 extension header chain that cannot be followed
	DropOwnAddressSpoof // came from the wire with the protected host's own source address
	DropMartian         // an SA brought a source address that cannot be one station's
	DropSourceRoute     // an SA brought a datagram that says itself where to go from here (RFC 5095, RFC 7126)
	DropICMPPolicy      // ICMP error that does not belong to a flow we let pass (RFC 4301 §6)

	// Links and neighbours.
	DropNoRoute      // no route to the destination
	DropUnresolved   // neighbour did not answer
	DropQueueFull    // a bounded queue was full
	DropLinkWrite    // the link refused the frame
	DropLinkDown     // the link is not up
	DropBadFrame     // not an Ethernet frame, or shorter than its header says
	DropBadOffload   // segmentation or checksum metadata contradict the frame
	DropForeignMAC   // addressed to another station
	DropEndpointGone // the appliance is stopping

	// Taps, before a reader saw the frame.
	DropTapFull     // came faster than it was read
	DropTapClosed   // came or was queued while the states of the taps let nothing pass
	DropTapOversize // a superframe longer than 64 KB

	// NumDropReasons is the number of reasons, DropNone included.
	NumDropReasons
)

var dropNames = [NumDropReasons]string{
	DropNone:              "none",
	DropNoPolicy:          "no_policy",
	DropPolicyDiscard:     "policy_discard",
	DropClearNotProtected: "clear_not_protected",
	DropSelectorMismatch:  "selector_mismatch",
	DropNoSA:              "no_sa",
	DropAcquireTimeout:    "acquire_timeout",
	DropClassDiscard:      "class_discard",
	DropUnknownSPI:        "unknown_spi",
	DropReplay:            "replay",
	DropReplayOld:         "replay_old",
	DropICV:               "icv",
	DropBadPadding:        "bad_padding",
	DropBadLength:         "bad_length",
	DropBadNextHeader:     "bad_next_header",
	DropDummy:             "dummy",
	DropWrongTransform:    "wrong_transform",
	DropEncapMismatch:     "encap_mismatch",
	DropKeepalive:         "nat_keepalive",
	DropECN:               "ecn",
	DropSeqExhausted:      "seq_exhausted",
	DropSeqUnreserved:     "seq_unreserved",
	DropLifetimeExpired:   "lifetime_expired",
	DropKeyInvalid:        "key_invalid",
	DropMalformed:         "malformed",
	DropTooBig:            "too_big",
	DropTTLExceeded:       "ttl_exceeded",
	DropFragOverlap:       "frag_overlap",
	DropFragDuplicate:     "frag_duplicate",
	DropFragTimeout:       "frag_timeout",
	DropFragMemory:        "frag_memory",
	DropFragPolicy:        "frag_policy",
	DropExtensionHeader:   "extension_header",
	DropOwnAddressSpoof:   "own_address_spoof",
	DropMartian:           "martian",
	DropSourceRoute:       "source_route",
	DropICMPPolicy:        "icmp_policy",
	DropNoRoute:           "no_route",
	DropUnresolved:        "unresolved",
	DropQueueFull:         "queue_full",
	DropLinkWrite:         "link_write",
	DropLinkDown:          "link_down",
	DropBadFrame:          "bad_frame",
	DropBadOffload:        "bad_offload",
	DropForeignMAC:        "foreign_mac",
	DropEndpointGone:      "endpoint_gone",
	DropTapFull:           "tap_full",
	DropTapClosed:         "tap_closed",
	DropTapOversize:       "tap_oversize",
}

// String returns the reason's name as it stands in status, metrics and captures.
func (r DropReason) String() string {
	if r < NumDropReasons {
		return dropNames[r]
	}
	return "unknown"
}

// DropReasonNames are the names of all reasons.
func DropReasonNames() []string { return slices.Clone(dropNames[DropNone+1:]) }

// ParseDropReason finds the reason of that name; DropNone has none.
func ParseDropReason(name string) (DropReason, bool) {
	for r := DropNone + 1; r < NumDropReasons; r++ {
		if dropNames[r] == name {
			return r, true
		}
	}
	return DropNone, false
}

// DropCounters counts drops by reason. The zero value is ready, and any number
// of goroutines may use it.
type DropCounters struct {
	n [NumDropReasons]atomic.Uint64
}

// Add counts one drop. DropNone is not counted.
func (c *DropCounters) Add(r DropReason) {
	if r != DropNone {
		c.n[r].Add(1)
	}
}

// Grow counts n drops that somebody else has counted.
func (c *DropCounters) Grow(r DropReason, n uint64) {
	if r != DropNone {
		c.n[r].Add(n)
	}
}

// Load returns how many drops were counted for r.
func (c *DropCounters) Load(r DropReason) uint64 { return c.n[r].Load() }

// Merge adds what other counted.
func (c *DropCounters) Merge(other *DropCounters) {
	for i := range other.n {
		if n := other.n[i].Load(); n != 0 {
			c.n[i].Add(n)
		}
	}
}

// Snapshot returns the non-zero counters by name.
func (c *DropCounters) Snapshot() map[string]uint64 {
	m := make(map[string]uint64)
	for r := DropNone + 1; r < NumDropReasons; r++ {
		if v := c.n[r].Load(); v != 0 {
			m[r.String()] = v
		}
	}
	return m
}

// AddSnapshot adds what Snapshot of another returned. Names that are no reason are
// left out.
func (c *DropCounters) AddSnapshot(m map[string]uint64) {
	for r := DropNone + 1; r < NumDropReasons; r++ {
		if v := m[r.String()]; v != 0 {
			c.n[r].Add(v)
		}
	}
}
