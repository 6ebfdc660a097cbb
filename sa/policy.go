package sa

import (
	"fmt"
	"sync/atomic"

	"bitw/netstack/wire"
)

// An Action is what a policy does with a flow (RFC 4301 §4.4.1).
type Action uint8

const (
	Discard Action = iota // the zero value: what nobody decided does not pass
	Bypass
	Protect
)

// String returns "discard", "bypass" or "protect".
func (a Action) String() string {
	switch a {
	case Discard:
		return "discard"
	case Bypass:
		return "bypass"
	case Protect:
		return "protect"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// Directions says in which directions a policy applies.
type Directions uint8

const (
	BothDirections Directions = iota
	OnlyOutbound
	OnlyInbound
)

// Has says whether d is one of them.
func (ds Directions) Has(d Direction) bool {
	switch ds {
	case BothDirections:
		return d == Outbound || d == Inbound
	case OnlyOutbound:
		return d == Outbound
	case OnlyInbound:
		return d == Inbound
	}
	return false
}

// String returns "both", "out" or "in".
func (ds Directions) String() string {
	switch ds {
	case BothDirections:
		return "both"
	case OnlyOutbound:
		return "out"
	case OnlyInbound:
		return "in"
	}
	return fmt.Sprintf("Directions(%d)", uint8(ds))
}

// Counters count traffic. The zero value is ready, and any number of goroutines
// may use it.
type Counters struct {
	Packets, Bytes atomic.Uint64
	// LastUse is in nanoseconds since 1970, 0 if never used.
	LastUse atomic.Int64
	Drops   wire.DropCounters
}

// Add counts packets that passed, and their octets.
func (c *Counters) Add(packets, bytes int, now int64) {
	c.Packets.Add(uint64(packets))
	c.Bytes.Add(uint64(bytes))
	if c.LastUse.Load() < now {
		c.LastUse.Store(now)
	}
}

// merge adds what another counted, and may be called while others count.
func (c *Counters) merge(o *Counters) {
	c.Add(int(o.Packets.Load()), int(o.Bytes.Load()), o.LastUse.Load())
	c.Drops.Merge(&o.Drops)
}

// ClampToPMTU as a Policy's MSSClamp stands for what fits the path once it is protected.
const ClampToPMTU = -1

// A Policy is one rule of the SPD. Only its counters may change once an SPD has
// been made of it.
type Policy struct {
	Name       string
	Selector   Selector
	Action     Action
	Directions Directions
	// Populate names the selectors that are populated from the packet. Such a policy
	// protects by entries (see Demand): Out and In are what the lineages of the entries
	// are made after, and no datagram ever gets their SAs.
	Populate Populate
	// Out is the bundle of an outbound datagram, in the order in which it is applied:
	// the last SA's header is the outermost. In lists the bundle of inbound datagrams
	// in the same order, so that it is removed from the last to the first.
	Out, In []*Lineage
	// Reject has the host told by ICMP what a discarding policy drops of it (RFC 4301
	// §5.1.1).
	Reject bool
	// DiscardFragments says that datagrams which come in fragments do not pass (RFC 4301
	// §7): those of the host, and those of the wire that come so in the clear or out of an SA.
	DiscardFragments bool
	// MSSClamp is the largest TCP segment in octets that a protected SYN or SYN/ACK may
	// announce, in either direction; ClampToPMTU for what fits, 0 for any.
	MSSClamp int
	// Counters are indexed by Direction.
	Counters [2]Counters

	populated populated
	parent    *Policy // of an entry
	key       populatedKey
	born      int64 // nanoseconds since 1970
}

// CheckInbound says whether a datagram for which p is the SPD's inbound answer may
// pass, given the SAs that it came by: removed[0] was the outermost, and removed
// is empty for a datagram that came in the clear (RFC 4301 §5.2 step 4). p may be
// nil, for no match.
//
// The reasons are DropNoPolicy, DropPolicyDiscard, DropClearNotProtected,
// DropSelectorMismatch (other SAs than those that p demands) and
// DropWrongTransform (the right SAs, but not all of them, or in another order).
func (p *Policy) CheckInbound(removed []*SA) wire.DropReason {
	switch {
	case p == nil && len(removed) > 0:
		return wire.DropSelectorMismatch
	case p == nil:
		return wire.DropNoPolicy
	case p.Action == Bypass && len(removed) == 0:
		return wire.DropNone
	case p.Action == Bypass:
		return wire.DropSelectorMismatch
	case p.Action != Protect:
		return wire.DropPolicyDiscard
	case len(removed) == 0:
		return wire.DropClearNotProtected
	}
	if p.Populate != 0 {
		return wire.DropSelectorMismatch
	}
	inOrder := len(removed) == len(p.In)
	for i, s := range removed {
		if s.Lineage == nil || !p.demands(s.Lineage) {
			return wire.DropSelectorMismatch
		}
		if inOrder && p.In[len(p.In)-1-i] != s.Lineage {
			inOrder = false
		}
	}
	if !inOrder {
		return wire.DropWrongTransform
	}
	return wire.DropNone
}

func (p *Policy) demands(l *Lineage) bool {
	for _, in := range p.In {
		if in == l {
			return true
		}
	}
	return false
}

// Inherit adds to p's counters what old, and its entries, counted: p takes the place of old
// under the same name.
func (p *Policy) Inherit(old *Policy) {
	for d := range p.Counters {
		p.Counters[d].merge(old.Traffic(Direction(d)))
	}
}

// check returns why p cannot stand in an SPD.
func (p *Policy) check() error {
	if err := p.Selector.check(); err != nil {
		return err
	}
	if p.Directions > OnlyInbound {
		return fmt.Errorf("unknown directions %d", p.Directions)
	}
	if p.Reject && p.Action != Discard {
		return fmt.Errorf("action %v rejects nothing", p.Action)
	}
	if p.Action > Protect {
		return fmt.Errorf("unknown action %d", p.Action)
	}
	if err := p.Populate.check(p); err != nil {
		return err
	}
	for _, side := range []struct {
		d    Direction
		list []*Lineage
	}{{Outbound, p.Out}, {Inbound, p.In}} {
		switch {
		case p.Action != Protect && len(side.list) > 0:
			return fmt.Errorf("action %v takes no SAs, found %d for direction %v", p.Action, len(side.list), side.d)
		case p.Action == Protect && p.Directions.Has(side.d) && len(side.list) == 0:
			return fmt.Errorf("action protect names no SA for direction %v", side.d)
		case !p.Directions.Has(side.d) && len(side.list) > 0:
			return fmt.Errorf("SAs for direction %v, in which the policy does not apply", side.d)
		}
		for i, l := range side.list {
			if l == nil {
				return fmt.Errorf("SA %d for direction %v is missing", i+1, side.d)
			}
			for _, earlier := range side.list[:i] {
				if earlier == l {
					return fmt.Errorf("SA %q stands twice for direction %v", l.Name, side.d)
				}
			}
		}
	}
	return nil
}
