package sa

import (
	"sync/atomic"

	"bitw/sa/transform"
)

// A Shadow answers as an SPD and a SAD do, with copies: of the policies, lineages and
// SAs that somebody asks for, made when they are asked for, as they are then. So the
// packet path can try what it would do with a datagram, and nothing of that is left:
// no counter, sequence number, replay window, path MTU or place of a peer changes, and
// no key manager is told anything. A Shadow is for one goroutine and one datagram.
type Shadow struct {
	spd       *SPD
	sad       *SAD
	transform func(*SA) transform.Transform

	// Again has the copies take sequence numbers that their SAs have taken. It is set
	// before the first is made.
	Again bool

	policies map[*Policy]*Policy
	lineages map[*Lineage]*Lineage
	sas      map[*SA]*SA
	origin   map[*SA]*SA

	// Lookups are the questions to the SPD, and Found the copies of the SAs that the SAD
	// was asked for and has, both in their order.
	Lookups []Lookup
	Found   []*SA
	// Events are what key managers would have been told. Policies and lineages in them
	// are copies.
	Events []Event
}

// A Lookup is a question to an SPD.
type Lookup struct {
	Direction Direction
	Flow      Flow
	// Index is the place of the policy that matched, from 0, or -1.
	Index int
	// Policy is the copy that was the answer, or nil.
	Policy *Policy
}

// NewShadow makes a shadow of two databases. seal, if not nil, gives the transform of
// each copy of an SA that has one.
func NewShadow(spd *SPD, sad *SAD, seal func(*SA) transform.Transform) *Shadow {
	return &Shadow{
		spd: spd, sad: sad, transform: seal,
		policies: make(map[*Policy]*Policy), lineages: make(map[*Lineage]*Lineage),
		sas: make(map[*SA]*SA), origin: make(map[*SA]*SA),
	}
}

// SPD returns the shadow as an SPD.
func (sh *Shadow) SPD() *SPD { return &SPD{policies: sh.spd.policies, index: sh.spd.index, shadow: sh} }

// SAD returns the shadow as a SAD. It is for look-ups only.
func (sh *Shadow) SAD() *SAD { return &SAD{shadow: sh} }

// Original returns the SA of which s is a copy, or nil.
func (sh *Shadow) Original(s *SA) *SA { return sh.origin[s] }

// Policies returns the copies that were made.
func (sh *Shadow) Policies() []*Policy { return values(sh.policies) }

// SAs returns the copies that were made.
func (sh *Shadow) SAs() []*SA { return values(sh.sas) }

func values[T any](m map[*T]*T) []*T {
	list := make([]*T, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	return list
}

// answer is the answer of the SPD that found the i-th policy, or -1 for none.
func (sh *Shadow) answer(d Direction, f *Flow, i int) *Policy {
	l := Lookup{Direction: d, Flow: *f, Index: i}
	if i >= 0 {
		l.Policy = sh.Policy(sh.spd.policies[i].entry(f))
	}
	sh.Lookups = append(sh.Lookups, l)
	return l.Policy
}

// find is the answer of the SAD.
func (sh *Shadow) find(dir Direction, k *Key) *SA {
	s := sh.SA(sh.sad.find(dir, k))
	if s != nil {
		sh.Found = append(sh.Found, s)
	}
	return s
}

// Policy returns the copy of p, whose counters begin at 0.
func (sh *Shadow) Policy(p *Policy) *Policy {
	if p == nil {
		return nil
	}
	if c := sh.policies[p]; c != nil {
		return c
	}
	c := &Policy{
		Name: p.Name, Selector: p.Selector, Action: p.Action, Directions: p.Directions, Populate: p.Populate,
		Reject: p.Reject, DiscardFragments: p.DiscardFragments, MSSClamp: p.MSSClamp, key: p.key, born: p.born,
	}
	sh.policies[p] = c
	c.parent = sh.Policy(p.parent)
	for _, l := range p.Out {
		c.Out = append(c.Out, sh.Lineage(l))
	}
	for _, l := range p.In {
		c.In = append(c.In, sh.Lineage(l))
	}
	return c
}

// Lineage returns the copy of l, which notifies the shadow if l notifies anybody.
func (sh *Shadow) Lineage(l *Lineage) *Lineage {
	if l == nil {
		return nil
	}
	if c := sh.lineages[l]; c != nil {
		return c
	}
	c := &Lineage{Name: l.Name, DeadAfter: l.DeadAfter}
	sh.lineages[l] = c
	if l.Notify != nil {
		c.Notify = func(ev Event) { sh.Events = append(sh.Events, ev) }
	}
	c.move.Store(l.move.Load())
	c.moves.Store(l.moves.Load())
	c.out.Store(sh.SA(l.Outbound()))
	return c
}

// SA returns the copy of s, whose counters of drops begin at 0.
func (sh *Shadow) SA(s *SA) *SA {
	if s == nil {
		return nil
	}
	if c := sh.sas[s]; c != nil {
		return c
	}
	c := &SA{
		discard: s.discard, ESN: s.ESN, Direction: s.Direction, Mode: s.Mode, hardEnd: s.hardEnd, softEnd: s.softEnd,
		Transform: s.Transform, Encap: s.Encap, Key: s.Key, clock: s.clock, Name: s.Name, Src: s.Src, Headers: s.Headers,
		InnerSrc: s.InnerSrc, InnerDst: s.InnerDst, Algorithm: s.Algorithm, ReplayWindow: s.ReplayWindow,
		Soft: s.Soft, Hard: s.Hard, Created: s.Created, TFCPadding: s.TFCPadding, Dummies: s.Dummies,
		keyID: s.keyID, pmtuAge: s.pmtuAge,
	}
	sh.sas[s], sh.origin[c] = c, s
	c.state.Store(s.state.Load())
	c.Packets.Store(s.Packets.Load())
	c.Bytes.Store(s.Bytes.Load())
	c.LastUse.Store(s.LastUse.Load())
	c.pmtu.Store(s.pmtu.Load())
	s.seq.copyTo(&c.seq)
	if s.replay != nil {
		c.replay = s.replay.copy()
		if sh.Again {
			c.replay.forget(s.ESN)
		}
	}
	if c.Transform != nil && sh.transform != nil {
		c.Transform = sh.transform(s)
	}
	c.Lineage = sh.Lineage(s.Lineage)
	return c
}

// copyTo makes c go on where q is, without the store: what q has not reserved, c has
// not either.
func (q *sequence) copyTo(c *sequence) {
	c.used.Store(q.used.Load())
	c.limit.Store(q.limit.Load())
	c.ended.Store(q.ended.Load())
	c.first, c.last, c.low, c.block, c.clock = q.first, q.last, q.low, q.block, q.clock
	c.busy.Store(true) // so that nobody goes to reserve
}

// copy returns a window that has seen the same.
func (w *replayWindow) copy() *replayWindow {
	c := &replayWindow{size: w.size, mask: w.mask, ring: make([]atomic.Uint64, len(w.ring))}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.top.Store(w.top.Load())
	for i := range w.ring {
		c.ring[i].Store(w.ring[i].Load())
	}
	return c
}

// forget has w take what it has seen; with extended sequence numbers only in the window, by
// which their upper half is found.
func (w *replayWindow) forget(esn bool) {
	for i := range w.ring {
		w.ring[i].Store(0)
	}
	if !esn {
		w.top.Store(0)
	}
}
