package ipsec

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
	"bitw/sa"
)

// What follows is called only for a packet that has a trail, that is while somebody looks,
// but for keepTrail.

// takeTrail takes the trail off a packet that was delivered: the packet may be kept, or
// go to other goroutines, and the trail may not.
func (w *work) takeTrail(pkt *stack.PacketBuffer) {
	if pkt.Owner != nil {
		w.trail = hook.TrailOf(pkt)
		pkt.Owner = nil
	}
}

// keepTrail has the batch, which is to wait, take along what is known now.
func (w *work) keepTrail() {
	kept := w.trail.Keep()
	if kept == nil {
		return
	}
	for _, pkt := range w.out.AsSlice() {
		if pkt.Owner == nil {
			pkt.Owner = kept
		}
	}
}

// noteRule notes what the SPD says about w.d.
func (w *work) noteRule(p *sa.Policy) {
	s := trace.Step{Station: trace.Rule, Verdict: "none", Left: w.d.From == hook.Left}
	if p != nil {
		s.Name, s.Verdict = p.Name, p.Action.String()
	}
	w.trail.Add(s)
}

// noteSA notes that an SA is to be applied or taken off, or that none is there.
func (w *work) noteSA(s *sa.SA, verdict string) {
	step := trace.Step{Station: trace.SA, Verdict: verdict, Left: w.d.From == hook.Left}
	if s != nil {
		step.Name, step.SPI, step.Address, step.Algorithm = s.Name, s.Key.SPI, s.Key.Dst, s.Algorithm.Name
	}
	w.trail.Add(step)
}

// noteSealed notes the SAs of the plan, which made of octets what is in the batch.
func (w *work) noteSealed(octets int) {
	sealed := 0
	for _, pkt := range w.out.AsSlice() {
		sealed += pkt.Data().Size()
	}
	for i := range w.plan.steps[:w.plan.n] {
		s := w.plan.steps[i].sa
		w.noteSA(s, "found")
		step := trace.Step{Station: trace.Transform, Verdict: "sealed", Name: s.Name, SPI: s.Key.SPI, Algorithm: s.Algorithm.Name, From: octets, Left: true}
		if i == w.plan.n-1 {
			step.Octets = sealed
		}
		w.trail.Add(step)
	}
}

// noteOpened notes that s was taken off a datagram of so many octets.
func (w *work) noteOpened(s *sa.SA, octets int) {
	w.trail.Add(trace.Step{
		Station: trace.Transform, Verdict: "opened", Name: s.Name, SPI: s.Key.SPI, Algorithm: s.Algorithm.Name,
		From: octets, Octets: len(w.d.Bytes),
	})
	w.trail.Opened(&w.d.Info, w.d.Bytes)
}

// noteFragment notes what is done about fragments.
func (w *work) noteFragment(verdict string, octets int) {
	w.trail.Add(trace.Step{Station: trace.Fragment, Verdict: verdict, Octets: octets, Left: w.d.From == hook.Left})
}

// noteNeighbor notes where the batch goes.
func (w *work) noteNeighbor(verdict string, hop netip.Addr, mac string, left bool) {
	s := trace.Step{Station: trace.Neighbor, Verdict: verdict, Address: hop, Left: left}
	copy(s.MAC[:], mac)
	w.trail.Add(s)
}

// turned counts a datagram of so many octets that was turned round.
func (e *Engine) turned(w *work, to hook.Side, octets int) {
	proto := w.d.Info.Proto
	e.forwarders.Count(proto, to, 1, octets)
	if w.trail != nil {
		w.trail.Add(trace.Step{Station: trace.Forward, Name: e.forwarders.For(proto).Name(), Octets: octets, Left: to == hook.Left})
	}
}

// noteDrop notes the drop of w.d, or of a part of it.
func (w *work) noteDrop(reason wire.DropReason, p *sa.Policy, s *sa.SA) {
	var policy, name string
	var spi uint32
	if p != nil {
		policy = p.Name
	}
	if s != nil {
		name, spi = s.Name, s.Key.SPI
	}
	w.trail.Drop(reason, policy, name, spi)
}

// notePart notes what became of a fragment: the reassembler keeps it, or drops it for a
// reason and counts that.
func (w *work) notePart(reason wire.DropReason) {
	if w.trail == nil {
		return
	}
	if reason != wire.DropNone {
		w.noteDrop(reason, nil, nil)
		return
	}
	w.noteFragment("waits for the others", len(w.d.Bytes))
}

// noteFound notes which SA an SPI names, if any.
func (w *work) noteFound(s *sa.SA, spi uint32) {
	if s != nil {
		w.noteSA(s, "found")
		return
	}
	w.trail.Add(trace.Step{Station: trace.SA, Verdict: "not found", SPI: spi, Address: w.d.Info.Dst})
}

func knownWord(known bool) string {
	if known {
		return "known"
	}
	return "asked for"
}
