package ipsec

import (
	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Where a datagram does not fit the path and may be cut, it is cut after it was sealed
// (RFC 4303 §3.3.4), or, where a tunnel is the first to enclose it, before, so that
// each piece is a packet of its own (RFC 4301 §8.2.1, case 2).

// mayCutBefore says whether the datagram in, which does not fit, is to be fragmented
// before it is sealed: because an SA is set so, because its outer header must have DF,
// or because it would be no datagram any more once sealed whole.
func (b *bundle) mayCutBefore(in *wire.Info, whole bool) bool {
	if in.DF || b.steps[0].outer == 0 || b.steps[0].sa.Mode != sa.Tunnel {
		return false
	}
	wanted := !whole
	for i := range b.steps[:b.n] {
		h := &b.steps[i].sa.Headers
		wanted = wanted || h.FragmentBefore || h.DF == sa.SetDF && b.steps[i].outer != 0
	}
	return wanted
}

// protectFragments cuts w.d, for which w.cut is ready, into fragments of at most
// maxInner octets, applies the SAs to each and sends them. It returns true if nothing
// was done because an SA has a successor by now.
func (e *Engine) protectFragments(w *work, p *sa.Policy, hop route, maxInner int) (again bool) {
	d, b := &w.d, &w.plan
	tmp, buf := newFrame(len(d.Bytes))
	defer tmp.Release()
	datagram := buf[:w.cut.Next(buf)]
	id := w.fragmentID
	if id == 0 {
		id = e.nextID()
	}
	reason := wire.Parse(datagram, &w.wireInfo)
	if reason == wire.DropNone {
		reason = w.frag.Init(datagram, &w.wireInfo, maxInner, id)
	}
	if reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, nil)
		return false
	}
	n := w.frag.Fragments()
	if reason, s := b.takeSeq(n); reason != wire.DropNone {
		if b.superseded(s) {
			return true
		}
		e.drop(w, hook.Left, reason, p, s)
		return false
	}
	b.cutAfter = false
	if w.trail != nil {
		w.noteFragment("cut before it is sealed", maxInner)
	}
	octets, room := 0, b.room(maxInner)
	for i := range n {
		v, buf := newFrame(room)
		start := frameHead + b.front
		end := start + w.frag.Next(buf[start:])
		octets += end - start
		start, end, reason, s := b.seal(buf, start, end, i, &d.Info, e.nextID)
		if reason != wire.DropNone {
			v.Release()
			e.drop(w, hook.Left, reason, p, s)
			continue
		}
		w.push(b.packet(v, start, end, e.wireMAC()))
	}
	e.protected(w, p, hop, n, octets)
	return false
}

// fragment adds the fragments of a sealed datagram to the batch (RFC 4303
// §3.3.4: ESP first, then fragmentation).
func (e *Engine) fragment(w *work, p *sa.Policy, sealed []byte, limit int) {
	if w.trail != nil {
		w.noteFragment("cut after it is sealed", limit)
	}
	reason := wire.Parse(sealed, &w.wireInfo)
	if reason == wire.DropNone {
		reason = e.pushFragments(w, sealed, &w.wireInfo, limit, e.wireMAC())
	}
	if reason != wire.DropNone {
		e.drop(w, hook.Left, reason, p, nil)
	}
}
