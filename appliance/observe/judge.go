package observe

import (
	"encoding/binary"
	"net/netip"

	"bitw/appliance"
	"bitw/netstack/wire"
	"bitw/sa"
)

// A judge says what a configuration would do.
type judge struct {
	db  *appliance.Databases
	mtu int
}

// A packet is one frame's datagram, read once.
type packet struct {
	dir  sa.Direction
	data []byte
	info wire.Info
	net  wire.VirtioNet
}

// train says whether p is a superframe.
func (p *packet) train() bool { return p.net != nil && p.net.GSOKind() != wire.GSONone }

// sizes are how many packets p makes on the wire, the length of the largest and of
// all of them.
func (p *packet) sizes() (n, largest, octets int) {
	total := p.info.TotalLen
	head := p.info.HeaderLen + p.info.L4HeaderLen
	if !p.train() || head >= total {
		return 1, total, total
	}
	size := int(p.net.GSOSize())
	n = (total - head + size - 1) / size
	return n, min(head+size, total), total + (n-1)*head
}

func flowOf(dir sa.Direction, in *wire.Info) *sa.Flow {
	f := &sa.Flow{
		Local: in.Src, Remote: in.Dst, Proto: in.Proto, LocalPort: in.SrcPort, RemotePort: in.DstPort,
		ICMPType: in.ICMPType, ICMPCode: in.ICMPCode, MHType: in.MHType, HasPorts: in.HasPorts,
	}
	if dir == sa.Inbound {
		f.Local, f.Remote = f.Remote, f.Local
		f.LocalPort, f.RemotePort = f.RemotePort, f.LocalPort
	}
	return f
}

// opinion is a verdict with what it takes to go on counting by it.
type opinion struct {
	Verdict
	bundle bundle
	// passing says that another packet of the flow may be something else: on the port of
	// ESP in UDP come IKE and keepalives too.
	passing bool
}

// of judges the first packet of one direction of a flow.
func (j *judge) of(p *packet) *opinion {
	if p.dir == sa.Inbound {
		return j.inUDP(p)
	}
	return j.outbound(p)
}

// protects is hook.ClassOptions.Protects.
func (j *judge) protects(dir sa.Direction, datagram []byte) bool {
	p := packet{dir: dir, data: datagram}
	if wire.Parse(datagram, &p.info) != wire.DropNone || p.info.IsFragment {
		return true
	}
	return j.of(&p).Action == sa.Protect.String()
}

func (j *judge) outbound(p *packet) *opinion {
	rule := j.db.SPD.Lookup(sa.Outbound, flowOf(sa.Outbound, &p.info))
	if inner, ok := p.enclosed(); ok && (rule == nil || rule.Action == sa.Bypass) {
		// An ICMP error goes by the policy of what it is about (RFC 4301 §6.1), or if it
		// quotes what came protected, or not at all.
		came := j.db.SPD.Lookup(sa.Inbound, flowOf(sa.Inbound, &inner))
		quotes := came != nil && came.Action == sa.Protect
		back := j.db.SPD.Lookup(sa.Outbound, flowOf(sa.Inbound, &inner))
		if inner.Src == p.info.Dst && (rule == nil || quotes && back != nil && back.Action == sa.Protect) {
			rule = back
		}
		if quotes && rule != nil && rule.Action == sa.Bypass {
			return &opinion{Verdict: discard(wire.DropICMPPolicy, rule.Name)}
		}
	}
	o := &opinion{Verdict: verdictOf(rule)}
	if o.Action != sa.Protect.String() {
		return o
	}
	b, reason := bundleOf(rule, &p.info)
	if reason != wire.DropNone {
		o.Verdict = discard(reason, rule.Name)
		return o
	}
	o.bundle, o.SAs, o.Fit, o.MaxInner = b, b.names(), Fits, b.maxInner(j.mtu)
	return o
}

// inUDP is inbound, with an eye on what UDP may hold (RFC 3948 §2).
func (j *judge) inUDP(p *packet) *opinion {
	if p.info.Proto != wire.ProtoUDP || !p.info.HasPorts || !j.db.SAD.Encapsulated(p.info.Dst, p.info.DstPort) {
		return &opinion{Verdict: j.inbound(p)}
	}
	payload, kind := wire.EncapPayload(p.data, &p.info)
	switch kind {
	case wire.EncapESP:
		return &opinion{Verdict: j.sealed(payload, p.info.Dst, wire.ProtoESP, p.info.DstPort)}
	case wire.EncapKeepalive:
		return &opinion{Verdict: discard(wire.DropKeepalive, ""), passing: true}
	}
	return &opinion{Verdict: j.inbound(p), passing: true}
}

func (j *judge) inbound(p *packet) Verdict {
	if p.info.Proto == wire.ProtoESP || p.info.Proto == wire.ProtoAH {
		return j.sealed(p.data[min(p.info.HeaderLen, len(p.data)):], p.info.Dst, p.info.Proto, 0)
	}
	rule := j.db.SPD.Lookup(sa.Inbound, flowOf(sa.Inbound, &p.info))
	if reason := rule.CheckInbound(nil); reason != wire.DropNone && reason != wire.DropPolicyDiscard {
		if inner, ok := p.enclosed(); ok && inner.Src == p.info.Dst {
			if q := j.db.SPD.Lookup(sa.Inbound, flowOf(sa.Outbound, &inner)); q.CheckInbound(nil) == wire.DropNone {
				rule = q
			}
		}
	}
	v := verdictOf(rule)
	if v.Action == sa.Protect.String() {
		v.Reason = wire.DropClearNotProtected.String()
		for _, l := range rule.In {
			v.SAs = append(v.SAs, l.Name)
		}
	}
	return v
}

// sealed judges what arrives with an ESP or AH header, at the start of h, in UDP to a port
// unless that is 0. What is inside cannot be known here, so no policy is named.
func (j *judge) sealed(h []byte, dst netip.Addr, proto uint8, port uint16) Verdict {
	at := 0
	if proto == wire.ProtoAH {
		at = 4
	}
	if len(h) < at+4 {
		return discard(wire.DropMalformed, "")
	}
	s := j.db.SAD.Lookup(binary.BigEndian.Uint32(h[at:]), dst, proto)
	if s == nil {
		return discard(wire.DropUnknownSPI, "")
	}
	if reason := s.EncapMatches(port); reason != wire.DropNone {
		return discard(reason, "")
	}
	return Verdict{Action: sa.Protect.String(), SAs: []string{s.Name}}
}

// enclosed gives the packet that an ICMP error is about.
func (p *packet) enclosed() (inner wire.Info, ok bool) {
	if p.info.Proto != wire.ProtoICMP && p.info.Proto != wire.ProtoICMPv6 || !wire.IsICMPError(&p.info) {
		return inner, false
	}
	_, reason := wire.Enclosed(p.data, &p.info, &inner)
	return inner, reason == wire.DropNone
}

func verdictOf(rule *sa.Policy) Verdict {
	switch {
	case rule == nil:
		return discard(wire.DropNoPolicy, "")
	case rule.Action == sa.Discard:
		return discard(wire.DropPolicyDiscard, rule.Name)
	}
	return Verdict{Action: rule.Action.String(), Policy: rule.Name}
}

func discard(reason wire.DropReason, policy string) Verdict {
	return Verdict{Action: sa.Discard.String(), Reason: reason.String(), Policy: policy}
}

// count adds a packet to what protection would cost. Fragments are joined before they
// are protected, and what comes of that is fragmented again: they fit always.
func (j *judge) count(o *opinion, p *packet) {
	if len(o.bundle.steps) == 0 {
		return
	}
	n, largest, octets := p.sizes()
	if p.info.IsFragment {
		o.Overhead += uint64(max(0, o.bundle.sealedLen(largest)-largest))
		o.Fit = worse(o.Fit, Fragmented)
		return
	}
	last := octets - (n-1)*largest
	o.Overhead += uint64((n-1)*(o.bundle.sealedLen(largest)-largest) + o.bundle.sealedLen(last) - last)
	o.OverheadLargest = max(o.OverheadLargest, o.bundle.sealedLen(largest)-largest)
	if o.bundle.sealedLen(largest) <= j.mtu {
		return
	}
	told := o.MaxInner
	if p.info.Version == 6 {
		told = max(told, ipv6MinMTU)
	}
	switch {
	case p.train():
		o.Fit = worse(o.Fit, Cut)
	case p.info.DF && largest > told:
		o.Fit = TooBig
		o.TooBig += uint64(n)
	default:
		o.Fit = worse(o.Fit, Fragmented)
	}
}
