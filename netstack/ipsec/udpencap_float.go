package ipsec

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// encapsulation is what the engine keeps of peers behind NATs.
type encapsulation struct {
	mu sync.Mutex
	// moved has the lineages whose peers moved, by where they are, for ICMP errors about
	// packets that went there. There are at most as many as lineages.
	moved map[netip.Addr][]*sa.Lineage
	at    map[*sa.Lineage]netip.Addr
	// kept is when the last keepalive went from an address and port to another.
	kept map[mapping]int64
}

// A mapping is what a NAT on the way keeps: the ends of one flow of UDP.
type mapping struct{ local, remote netip.AddrPort }

// follow lets the outbound SAs of p know where the inbound ones, by which w.d came,
// have seen their peers. SAs at the same place of p.Out and p.In are a pair. It comes
// last, when ICV, sequence number and selectors were found right.
func (e *Engine) follow(w *work, p *sa.Policy) {
	o := &w.open
	if len(p.Out) != len(p.In) || o.n != len(p.In) {
		return
	}
	for i, s := range o.removed[:o.n] {
		x := &o.encap.seen[i]
		if s.Encap == nil || !x.newest {
			continue
		}
		if l := p.Out[o.n-1-i]; l.Follow(s, x.seq, x.from) {
			e.encap.note(l, x.from.Addr())
		}
	}
}

// note remembers where the peer of l is now.
func (x *encapsulation) note(l *sa.Lineage, a netip.Addr) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.moved == nil {
		x.moved, x.at = make(map[netip.Addr][]*sa.Lineage), make(map[*sa.Lineage]netip.Addr)
	}
	if old, ok := x.at[l]; ok {
		if old == a {
			return // another port alone
		}
		if x.moved[old] = slices.DeleteFunc(x.moved[old], func(o *sa.Lineage) bool { return o == l }); len(x.moved[old]) == 0 {
			delete(x.moved, old)
		}
	}
	x.at[l] = a
	x.moved[a] = append(x.moved[a], l)
}

// movedTo returns the outbound SA with that SPI whose peer moved to a, or nil.
func (x *encapsulation) movedTo(a netip.Addr, spi uint32) *sa.SA {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, l := range x.moved[a] {
		if s := l.Outbound(); s != nil && s.Key.SPI == spi && s.Encap != nil && s.Remote().Addr() == a {
			return s
		}
	}
	return nil
}

// keepalives sends the octet of RFC 3948 §4 for each mapping by which nothing went
// for as long as one of its SAs allows.
func (e *Engine) keepalives(now int64) {
	for _, x := range e.encap.silences(e.sad.Encapsulating(), now) {
		e.keepalive(x.sa, x.mapping)
	}
}

// A silence is a mapping whose keepalive is due, and an SA of it.
type silence struct {
	mapping
	sa    *sa.SA
	last  int64
	after time.Duration
}

// silences finds those that are due among the mappings of the outbound SAs.
func (e *encapsulation) silences(list []*sa.SA, now int64) []*silence {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(list) == 0 {
		clear(e.kept)
		return nil
	}
	silent := make(map[mapping]*silence)
	all := make([]*silence, 0, len(list))
	for _, s := range list {
		if s.Lineage == nil || s.Lineage.Outbound() != s || s.Usable(now) != wire.DropNone {
			continue
		}
		m := mapping{netip.AddrPortFrom(s.Src, s.Encap.LocalPort), s.Remote()}
		x := silent[m]
		if x == nil {
			x = &silence{mapping: m, sa: s, last: s.Created}
			silent[m] = x
			all = append(all, x)
		}
		x.last = max(x.last, s.LastUse.Load())
		if k := s.Encap.Keepalive; k != 0 && (x.after == 0 || k < x.after) {
			x.after, x.sa = k, s
		}
	}
	for m := range e.kept {
		if silent[m] == nil {
			delete(e.kept, m)
		}
	}
	return slices.DeleteFunc(all, func(x *silence) bool {
		if x.after == 0 || now-max(x.last, e.kept[x.mapping]) < int64(x.after) {
			return true
		}
		if e.kept == nil {
			e.kept = make(map[mapping]int64)
		}
		e.kept[x.mapping] = now
		return false
	})
}

// keepalive sends one, with the addresses and ports of s's own packets.
func (e *Engine) keepalive(s *sa.SA, m mapping) {
	w := e.work()
	defer e.done(w)
	hop, reason := e.nextHop(w, m.remote.Addr())
	if reason != wire.DropNone {
		e.drop(w, hook.Left, reason, nil, s)
		return
	}
	head := ipHeaderLen(m.remote.Addr())
	n := head + wire.UDPLen + 1
	v, buf := newFrame(n)
	b := buf[frameHead : frameHead+n]
	putIPHeader(b, s.Src, m.remote.Addr(), wire.ProtoUDP, e.nextID)
	b[n-1] = wire.KeepalivePayload
	wire.PutUDPHeader(b[head:], m.local.Port(), m.remote.Port())
	if s.Encap.Fills(m.remote.Addr()) {
		wire.FillUDPChecksum(b[head:], s.Src, m.remote.Addr())
	}
	w.push(packetOf(v, frameHead, frameHead+n, e.wireMAC()))
	e.toWire(w, hop)
	s.KeepalivesSent.Add(1)
}
