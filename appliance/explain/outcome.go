package explain

import (
	"cmp"
	"fmt"
	"slices"

	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/netstack/wire"
	"bitw/sa"
)

// An explanation turns a rehearsal into a result, part by part.
type explanation struct {
	env  *Environment
	r    *Result
	a    *ipsec.Arrival
	in   *wire.Info
	side hook.Side
	x    *ipsec.Rehearsal
}

const (
	maxNear   = 5 // rules that nearly decided
	maxLater  = 3 // rules that would decide if they came before
	maxFailed = 2 // selectors that do not fit, beyond which a rule was not near; and so it is where others have fewer
)

func ruleOf(i int, p *sa.Policy) Rule {
	return Rule{Number: i + 1, Name: p.Name, Action: p.Action.String(), Selector: p.Selector.String()}
}

// rules finds the policy that decides and those that nearly did.
func (e *explanation) rules() {
	x := e.x
	if !x.Asked || e.unknownSPI() {
		return
	}
	e.r.Flow = fmt.Sprintf("%v, %s", &x.Flow, x.Direction)
	if x.Policy != nil {
		rule := ruleOf(x.Index, x.Policy)
		e.r.Rule = &rule
	}
	var before, later []Near
	for i, p := range e.env.Engine.SPD().Policies() {
		if i == x.Index {
			continue
		}
		failed := p.Mismatches(x.Direction, &x.Flow)
		switch {
		case x.Index >= 0 && i > x.Index:
			if len(failed) == 0 && len(later) < maxLater {
				later = append(later, Near{Rule: ruleOf(i, p), Later: true})
			}
		case len(failed) <= maxFailed:
			before = append(before, Near{Rule: ruleOf(i, p), Failed: failed})
		}
	}
	slices.SortStableFunc(before, func(a, b Near) int { return cmp.Compare(len(a.Failed), len(b.Failed)) })
	if len(before) > 0 && len(before[0].Failed) < maxFailed {
		far := slices.IndexFunc(before, func(n Near) bool { return len(n.Failed) == maxFailed })
		if far >= 0 {
			before = before[:far]
		}
	}
	e.r.Near = append(before[:min(len(before), maxNear)], later...)
	if wire.IsICMPError(e.in) && x.Flow.Proto != e.in.Proto && len(x.Removed) == 0 {
		e.r.Notes = append(e.r.Notes, "an ICMP error that no policy lets pass goes by that of the packet which it is about (RFC 4301 §6)")
	}
}

// unknownSPI says that no SA takes the packet. The policies are only asked then whether
// the host's own ESP may pass.
func (e *explanation) unknownSPI() bool { return slices.Contains(e.x.Drops, wire.DropUnknownSPI) }

// outcome says what becomes of the packet.
func (e *explanation) outcome() {
	r, x := e.r, e.x
	onward := x.Written[e.side.Other()]
	waits := slices.ContainsFunc(onward, func(w ipsec.Written) bool { return w.Waits })
	switch {
	case x.Opened:
		r.Outcome = Authenticated
	case x.Held:
		r.Outcome = WaitsForSA
	case x.Incomplete:
		r.Outcome = WaitsForFragments
	case len(x.Drops) > 0:
		r.Outcome, r.Reason = Dropped, x.Drops[0].String()
	case waits:
		r.Outcome = WaitsForNeighbor
	case len(onward) > 0:
		r.Outcome = Sent
	default:
		r.Outcome = Taken
	}
	switch {
	case r.Outcome == WaitsForFragments || r.Outcome == Taken:
		r.Verdict = Undecided
	case r.Outcome == Authenticated:
		r.Verdict = Protect
	case e.side == hook.Right && r.Outcome == Dropped:
		r.Verdict = Discard
	case e.side == hook.Right && len(x.Removed) > 0:
		r.Verdict = Protect
	case x.Policy == nil:
		r.Verdict = Discard
	default:
		r.Verdict = x.Policy.Action.String()
	}
}

// sas lists the SAs that the rule wants, or that the packet comes by.
func (e *explanation) sas() {
	x := e.x
	switch {
	case e.side == hook.Left && x.Policy != nil:
		for _, l := range x.Policy.Out {
			e.r.SAs = append(e.r.SAs, e.outboundSA(l))
		}
	case e.side == hook.Right && x.Tried != nil:
		list := x.Removed
		if len(list) == 0 || x.Blamed != nil && list[len(list)-1] != x.Blamed {
			list = append(slices.Clone(list), cmp.Or(x.Blamed, x.Tried))
		}
		for _, s := range list {
			e.r.SAs = append(e.r.SAs, e.inboundSA(s))
		}
	case e.side == hook.Right && x.Policy != nil && !e.unknownSPI():
		for _, l := range x.Policy.In {
			e.r.SAs = append(e.r.SAs, SA{Name: l.Name, State: "the packet did not come by it"})
		}
	}
}

func describeSA(s *sa.SA) SA {
	d := SA{
		Name: s.Name, Present: true, Protocol: sa.ProtoName(s.Key.Proto), SPI: fmt.Sprintf("0x%08x", s.Key.SPI),
		Destination: s.Key.Dst.String(), Mode: s.Mode.String(), Algorithm: s.Algorithm.Name,
	}
	if s.Src.IsValid() {
		d.Source = s.Src.String()
	}
	return d
}

// outboundSA asks a copy of the SA that l sends by whether it can be used.
func (e *explanation) outboundSA(l *sa.Lineage) SA {
	s := l.Outbound()
	if s == nil {
		state := "none is there, and nobody can be asked for one"
		if l.Notify != nil {
			state = "none is there; the key manager is asked for one (acquire)"
		}
		return SA{Name: l.Name, State: state}
	}
	d := describeSA(s)
	d.Next = s.LastSeq() + 1
	if s.Encap != nil {
		d.Peer = s.Remote().String()
	}
	c := sa.NewShadow(e.env.Engine.SPD(), e.env.SAD, nil).SA(s)
	reason := c.Usable(e.env.Clock())
	if reason == wire.DropNone {
		_, reason = c.TakeSeq(1)
	}
	d.Usable, d.State = reason == wire.DropNone, saState(s, reason)
	return d
}

func (e *explanation) inboundSA(s *sa.SA) SA {
	d := describeSA(s)
	d.Window = s.ReplayWindow
	if st := s.State(); st.Replay != nil {
		d.Newest = st.Replay.Top
	}
	reason := wire.DropNone
	if e.x.Blamed == s && len(e.x.Drops) > 0 && !e.x.Opened {
		reason = e.x.Drops[0]
	}
	d.Usable, d.State = reason == wire.DropNone, saState(s, reason)
	return d
}

// saState says in words why an SA can be used or not.
func saState(s *sa.SA, reason wire.DropReason) string {
	switch reason {
	case wire.DropNone:
		state := "usable"
		if soft, _ := s.Expired(); soft {
			state += ", but its soft lifetime is over"
		}
		if s.Retiring() {
			state += ", but it has a successor and will be removed"
		}
		return state
	case wire.DropKeyInvalid:
		return "it has no key, or the key was taken away"
	case wire.DropPolicyDiscard:
		return "it is made to discard"
	case wire.DropLifetimeExpired:
		return "its lifetime is over"
	case wire.DropSeqExhausted:
		return "its sequence numbers are used up"
	case wire.DropSeqUnreserved:
		return "no sequence numbers are reserved: see state_dir"
	case wire.DropReplay:
		return "it has had a packet with this sequence number"
	case wire.DropReplayOld:
		return "this sequence number is too old for its replay window"
	case wire.DropEncapMismatch:
		return "it is for ESP in UDP and the packet is not, or the other way round"
	case wire.DropICV:
		return "the packet's ICV is wrong for its key"
	case wire.DropBadLength:
		return "the packet has a length that its algorithm cannot make"
	}
	return "usable, but the packet is dropped: " + reason.String()
}
