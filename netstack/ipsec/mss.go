package ipsec

import (
	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// clampMSS lowers what a SYN or SYN/ACK of a protected flow announces, in the whole
// datagram b whose description is in (mss_clamp of a policy). maxInner is the largest
// datagram that fits the path once it is protected.
func (e *Engine) clampMSS(p *sa.Policy, b []byte, in *wire.Info, maxInner int) {
	mss := p.MSSClamp
	if mss == sa.ClampToPMTU {
		// Options of IP and TCP are not counted (RFC 6691 §2).
		mss = max(min(maxInner, e.LinkMTU(hook.Left))-ipHeaderLen(in.Src)-20, 1)
	}
	wire.ClampMSS(b, in, mss)
}

// clampInbound does it for a datagram that came by SAs: the host's answers will go by
// those that p has for the way out.
func (e *Engine) clampInbound(w *work, p *sa.Policy) {
	d := &w.d
	if p.MSSClamp == 0 || !wire.IsSYN(d.Bytes, &d.Info) {
		return
	}
	maxInner := maxDatagram
	if p.MSSClamp == sa.ClampToPMTU {
		w.wireInfo = wire.Info{
			Version: d.Info.Version, Src: d.Info.Dst, Dst: d.Info.Src, Proto: wire.ProtoTCP, InsertProto: wire.ProtoTCP,
			HeaderLen: ipHeaderLen(d.Info.Src), InsertAt: ipHeaderLen(d.Info.Src),
		}
		if reason, _ := w.plan.init(p, &w.wireInfo, w.now); reason != wire.DropNone {
			return // then there is no way back yet
		}
		hop, _ := e.routes.Load().Lookup(w.plan.dst)
		maxInner = w.plan.maxInner(e.pathLimit(&w.plan, route{mtu: hop.MTU}, w.now))
	}
	e.clampMSS(p, d.Bytes, &d.Info, maxInner)
}
