package ipsec

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/trace"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Between two NICs what fits the one may be too long for the other. TCP superframes are
// then given smaller segments, and IPv4 datagrams without DF are fragmented. About others
// their sender is told (RFC 4301 §8.2, RFC 8201 §4), a remote one by the policy that covers
// the ICMP error, as if a host on the left had sent it.

// told returns the MTU to tell the sender of a datagram of n octets, of which in is
// Parse's result, that does not fit limit octets; 0 where it is fragmented instead.
func told(in *wire.Info, n, limit int) int {
	if in.Version == 6 {
		limit = max(limit, ipv6MinMTU)
	}
	if !in.DF || n <= limit {
		return 0
	}
	return limit
}

// cross adds w.d, which goes to a side as it came, in pkt or as the fragments in set, to
// the batch, as far as it has to be in pieces that the link there takes. If tooBig is not
// 0 nothing was added, and that is what the sender has to be told.
func (e *Engine) cross(w *work, pkt *stack.PacketBuffer, set *fragmentSet, to hook.Side) (tooBig int, reason wire.DropReason) {
	limit := e.LinkMTU(to)
	if set != nil {
		return 0, e.crossFragments(w, set, limit)
	}
	d := &w.d
	n, segments := len(d.Bytes), false
	if d.Net != nil {
		switch d.Net.GSOKind() {
		case wire.GSOTCPv4, wire.GSOTCPv6, wire.GSOUDPL4:
			n, segments = min(n, d.Info.HeaderLen+d.Info.L4HeaderLen+int(d.Net.GSOSize())), true
		}
	}
	if room := limit - d.Info.HeaderLen - d.Info.L4HeaderLen; n > limit && segments && d.Info.Proto == wire.ProtoTCP && room > 0 {
		d.Net.SetGSOSize(uint16(room))
		n = limit
	}
	if n <= limit {
		w.out.PushBack(w.packet(pkt).IncRef())
		return 0, wire.DropNone
	}
	if tooBig = told(&d.Info, n, limit); tooBig != 0 {
		return tooBig, wire.DropTooBig
	}
	if w.trail != nil {
		w.noteFragment("cut to fit the link", limit)
	}
	if reason = e.forwarders.For(d.Info.Proto).Cut(&w.cut, d, n); reason != wire.DropNone {
		return 0, reason
	}
	src := tcpip.LinkAddress(pkt.LinkHeader().Slice()[6:12])
	tmp, buf := newFrame(n)
	defer tmp.Release()
	for range w.cut.Segments() {
		b := buf[:w.cut.Next(buf)]
		if reason = wire.Parse(b, &w.wireInfo); reason == wire.DropNone {
			reason = e.pushFragments(w, b, &w.wireInfo, limit, src)
		}
		if reason != wire.DropNone {
			w.out.Reset()
			return 0, reason
		}
	}
	return 0, wire.DropNone
}

// crossFragments is cross for the fragments in set. Those that are too long are fragmented
// once more, with DF as well: their sender makes fragments, and an error would only ask
// for smaller ones.
func (e *Engine) crossFragments(w *work, set *fragmentSet, limit int) wire.DropReason {
	for i := range set.fragments {
		f := &set.fragments[i]
		if len(f.bytes) <= limit {
			w.out.PushBack(f.pkt.IncRef())
			continue
		}
		w.wireInfo = f.info
		w.wireInfo.DF = false
		if reason := e.pushFragments(w, f.bytes, &w.wireInfo, limit, tcpip.LinkAddress(f.pkt.LinkHeader().Slice()[6:12])); reason != wire.DropNone {
			w.out.Reset()
			return reason
		}
	}
	return wire.DropNone
}

// pushFragments adds a datagram, of which in is Parse's result, to the batch in fragments
// of at most limit octets. src is their Ethernet source.
func (e *Engine) pushFragments(w *work, b []byte, in *wire.Info, limit int, src tcpip.LinkAddress) wire.DropReason {
	if reason := w.frag.Init(b, in, limit, e.nextID()); reason != wire.DropNone {
		return reason
	}
	for {
		v, buf := newFrame(limit)
		n := w.frag.Next(buf[frameHead:])
		if n == 0 {
			v.Release()
			return wire.DropNone
		}
		w.push(packetOf(v, frameHead, frameHead+n, src))
	}
}

// fitBehind tells the sender of w.d, which is opened and came in pieces or not, where it is
// longer than the left link takes. It returns false, and has dropped w.d, if that may not
// be fragmented. What is not TCP may in IPv6, too: the sender's side may have put it
// together of fragments before it was sealed (RFC 4303 §3.3.4), and no MTU would then make
// it shorter.
func (e *Engine) fitBehind(w *work, p *sa.Policy, s *sa.SA, src tcpip.LinkAddress, pieces bool) bool {
	d := &w.d
	limit := e.LinkMTU(hook.Left)
	if len(d.Bytes) <= limit {
		return true
	}
	if pieces {
		d.Info.DF = false
		return true
	}
	mtu := told(&d.Info, len(d.Bytes), limit)
	if mtu == 0 {
		return true
	}
	cut := d.Info.Version == 6 && d.Info.Proto != wire.ProtoTCP
	if !cut {
		e.dropped(w, hook.Right, wire.DropTooBig, p, s)
	}
	e.tellRemote(w, mtu, src)
	return cut
}

// behind adds w.d, which is opened, to the batch for the left. src is the Ethernet source.
func (e *Engine) behind(w *work, src tcpip.LinkAddress) wire.DropReason {
	limit := e.LinkMTU(hook.Left)
	if len(w.d.Bytes) <= limit {
		e.toHost(w, w.d.Bytes, src)
		return wire.DropNone
	}
	if w.trail != nil {
		w.noteFragment("cut to fit the link", limit)
	}
	return e.pushFragments(w, w.d.Bytes, &w.d.Info, limit, src)
}

// tellRemote tells the sender of w.d, which came from the right, that it must have at most
// mtu octets. src is the station that brought it: where hosts find their next hops
// themselves, the error goes back there. It quotes w.d, so about what was opened it is not
// sent in the clear, whatever policy bypasses ICMP.
func (e *Engine) tellRemote(w *work, mtu int, src tcpip.LinkAddress) {
	if w.trail != nil {
		w.trail.Add(trace.Step{Station: trace.PathMTU, Verdict: "told to the sender", Octets: mtu})
	}
	b, ok := wire.AppendTooBig(w.icmp[:0], w.d.Bytes, &w.d.Info, mtu)
	if !ok {
		return
	}
	w.icmp = b
	if !e.icmpLimit.allow(w.now) {
		return
	}
	e.sides[hook.Right].errors.Add(1)
	if e.answering != nil {
		e.answering(b)
	}
	v, buf := newFrame(len(b))
	copy(buf[frameHead:], b)
	pkt := packetOf(v, frameHead, frameHead+len(b), e.wireMAC())
	defer pkt.DecRef()
	setDestination(pkt, src)
	x := e.work()
	defer e.done(x)
	x.quotes = w.open.n > 0
	e.outboundPacket(x, pkt)
}
