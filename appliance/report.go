package appliance

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"sort"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/config"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Status tells what the appliance is and did. It may be called at any time.
func (a *Appliance) Status() *Status {
	s := &Status{
		Interface: a.cfg.Interface, Inside: a.cfg.Inside, State: *a.state.Load(), OnFailure: string(a.cfg.OnFailure),
		Drops: make(map[string]uint64), DropsBySide: make(map[string]map[string]uint64),
	}
	for side := range a.stalled {
		if a.stalled[side].Load() {
			s.Stalled = append(s.Stalled, hook.Side(side).String())
		}
	}
	s.Time = time.Unix(0, a.opt.clock())
	if a.opt.steady != nil {
		s.ClockSet = a.opt.steady.set().Seconds()
	}
	if b := a.bump.Load(); b != nil {
		s.Since = a.since
		b.report(s)
		s.Watchers = a.watchers.all()
		s.Health = health(s)
	}
	return s
}

// report fills in what only a started appliance has.
func (b *bump) report(s *Status) {
	host := b.host.Load()
	b.countTaps()
	s.Cut, s.MTU, s.MTUFrom = b.cut(), b.engine.MTU(), "interface"
	if b.live.Load().MTU != 0 && s.MTU < host.mtu {
		s.MTUFrom = "configuration"
	}
	if mtu := b.live.Load().MTU; mtu > host.mtu {
		s.MTUConfigured = mtu
	}
	s.InsideMTU = host.inside.mtu
	s.TookOver = b.device != nil && b.device.TookOver()
	for _, p := range host.addresses {
		s.Addresses = append(s.Addresses, p.String())
	}
	for _, p := range b.engine.SPD().Policies() {
		st := policyStatus(p)
		st.Out.Rate = b.rates.of(gaugeOfPolicy(p, sa.Outbound), b.clock())
		st.In.Rate = b.rates.of(gaugeOfPolicy(p, sa.Inbound), b.clock())
		s.Policies = append(s.Policies, st)
	}
	for _, x := range b.sad.All() {
		st := saStatus(x, b.clock())
		st.Rate = b.rates.of(gaugeOf(x), b.clock())
		if k, err := b.keys.State(x.Name); err == nil {
			st.Key = k.String()
		}
		s.SAs = append(s.SAs, st)
	}
	s.Forwarders = make(map[string]ForwarderStatus)
	for name, c := range b.engine.Forwarders().Carried() {
		s.Forwarders[name] = ForwarderStatus{
			ToWire: Traffic{Packets: c[hook.Right].Packets, Bytes: c[hook.Right].Bytes},
			ToHost: Traffic{Packets: c[hook.Left].Packets, Bytes: c[hook.Left].Bytes},
		}
	}
	open, last := b.tapCounts.passedOpen()
	s.Links = map[string]LinkStatus{"left": linkStatus(b.kern, open[hook.Left]), "right": linkStatus(b.dev, open[hook.Right])}
	s.PassedOpenLast = last
	s.Classes = b.classStatus()
	s.Neighbors = b.neighborStatus()
	s.AddressConflicts = b.conflicts()
	s.Held = b.engine.Held()
	for _, r := range b.engine.Routes().List() {
		route := RouteStatus{Destination: r.Destination.String(), MTU: r.MTU}
		if r.Via.IsValid() {
			route.Via = r.Via.String()
		}
		s.Routes = append(s.Routes, route)
	}
	for _, side := range []hook.Side{hook.Left, hook.Right} {
		sum := make(map[string]uint64)
		for _, c := range []*wire.DropCounters{&b.drops[side], b.engine.Drops(side)} {
			for reason, n := range c.Snapshot() {
				sum[reason] += n
				s.Drops[reason] += n
			}
		}
		s.DropsBySide[side.String()] = sum
	}
	s.DropsLast = b.dropsLast(s)
	s.AllowInsecure, s.InsecureSAs = allowance(b.live.Load().AllowInsecure, s.SAs)
	for _, f := range b.engine.RecentDrops() {
		s.RecentDrops = append(s.RecentDrops, droppedFlow(&f))
	}
	s.Offloads = b.offloadStatus()
	markDown(s)
	b.reportInterface(s)
}

func policyStatus(p *sa.Policy) PolicyStatus {
	st := PolicyStatus{
		Name: p.Name, Action: p.Action.String(), Direction: p.Directions.String(), Selector: p.Selector.String(),
		Out: traffic(p.Traffic(sa.Outbound)), In: traffic(p.Traffic(sa.Inbound)),
	}
	if p.Populate != 0 {
		st.Populate, st.Entries = p.Populate.String(), len(p.Entries())
	}
	for _, l := range p.Out {
		st.OutSAs = append(st.OutSAs, l.Name)
	}
	for _, l := range p.In {
		st.InSAs = append(st.InSAs, l.Name)
	}
	return st
}

func traffic(c *sa.Counters) Traffic {
	return Traffic{Packets: c.Packets.Load(), Bytes: c.Bytes.Load(), LastUse: timeOf(c.LastUse.Load()), Drops: c.Drops.Snapshot()}
}

// timeOf returns the zero time for 0.
func timeOf(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

func saStatus(x *sa.SA, now int64) SAStatus {
	st := SAStatus{
		Name: x.Name, Direction: x.Direction.String(), Protocol: "esp", SPI: spiText(x.Key.SPI),
		Destination: x.Key.Dst.String(), Mode: x.Mode.String(), Algorithm: x.Algorithm.Name,
		ESN: x.ESN, PathMTU: x.PMTU(now), ReplayWindow: x.ReplayWindow, Lifetime: lifetime(x), Weak: x.Algorithm.Weak,
		Insecure: len(x.Algorithm.Insecure) > 0, NoSequence: x.Algorithm.NoSequence,
		Traffic: Traffic{Packets: x.Packets.Load(), Bytes: x.Bytes.Load(), LastUse: timeOf(x.LastUse.Load()), Drops: x.Drops.Snapshot()},
	}
	if st.PathMTU != 0 {
		st.PathMTUFrom, st.PathMTUUntil = "icmp", timeOf(x.PMTUUntil(now))
	}
	if x.Lineage != nil && x.Lineage.Name != x.Name {
		st.Lineage = x.Lineage.Name
	}
	if x.Key.Proto == wire.ProtoAH {
		st.Protocol = "ah"
	}
	if x.Src.IsValid() {
		st.Source = x.Src.String()
	}
	if x.Mode == sa.BEET {
		st.InnerSource, st.InnerDestination = x.InnerSrc.String(), x.InnerDst.String()
	}
	if x.Direction == sa.Outbound {
		st.DummiesSent = x.DummiesSent.Load()
		if !st.NoSequence {
			st.Sequence = x.LastSeq()
		}
	}
	st.Encap = encapStatus(x)
	st.Retiring = x.Retiring()
	switch soft, hard := x.Expired(); {
	case hard:
		st.Expired = "hard"
	case soft:
		st.Expired = "soft"
	}
	return st
}

// lifetime is what is left of x's, nil if nothing ends it.
func lifetime(x *sa.SA) *Lifetime {
	var l Lifetime
	_, hard := x.Ends()
	l.Expires = timeOf(hard)
	left := func(limit, used uint64) *uint64 {
		n := limit - min(limit, used)
		return &n
	}
	if x.Hard.Packets != 0 {
		l.PacketsLeft = left(x.Hard.Packets, x.Packets.Load())
	}
	if x.Hard.Bytes != 0 {
		l.BytesLeft = left(x.Hard.Bytes, x.Bytes.Load())
	}
	if x.Direction == sa.Outbound && !x.ESN && !x.Algorithm.NoSequence {
		l.SequenceLeft = left(math.MaxUint32, x.LastSeq())
	}
	if l == (Lifetime{}) {
		return nil
	}
	l.Created = timeOf(x.Created)
	return &l
}

// markDown finds what policies name and cannot use.
func markDown(s *Status) {
	type end struct{ name, direction string }
	up := make(map[end]bool)
	for i := range s.SAs {
		x := &s.SAs[i]
		if (x.Key == "" || x.Key == "valid") && x.Expired != "hard" {
			up[end{cmp.Or(x.Lineage, x.Name), x.Direction}] = true
		}
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.Action != sa.Protect.String() || p.Populate != "" {
			continue
		}
		for _, name := range p.OutSAs {
			if !up[end{name, sa.Outbound.String()}] {
				p.Down = append(p.Down, name)
			}
		}
		for _, name := range p.InSAs {
			if !up[end{name, sa.Inbound.String()}] && !slices.Contains(p.Down, name) {
				p.Down = append(p.Down, name)
			}
		}
	}
}

// noteDrops notes for which reasons more was dropped since it was called last.
func (b *bump) noteDrops() {
	now := b.clock()
	for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
		n := b.drops[0].Load(r) + b.drops[1].Load(r) + b.engine.Drops(hook.Left).Load(r) + b.engine.Drops(hook.Right).Load(r)
		if n != b.dropsSeen[r] {
			b.dropsSeen[r] = n
			b.dropsAt[r].Store(now)
		}
	}
}

// dropsLast is when each reason of s came last.
func (b *bump) dropsLast(s *Status) map[string]time.Time {
	m := make(map[string]time.Time)
	for r := wire.DropNone + 1; r < wire.NumDropReasons; r++ {
		if s.Drops[r.String()] == 0 {
			continue
		}
		at := b.dropsAt[r].Load()
		if at == 0 { // since the last noteDrops
			at = b.clock()
		}
		m[r.String()] = timeOf(at)
	}
	return m
}

func (b *bump) conflicts() (list []AddressConflict) {
	for _, c := range b.claims.Conflicts() {
		x := AddressConflict{Address: c.Address.String(), Own: c.Own, Last: timeOf(c.Last)}
		for _, mac := range c.Stations {
			x.MACs = append(x.MACs, mac.String())
		}
		list = append(list, x)
	}
	return list
}

func droppedFlow(f *ipsec.DroppedFlow) DroppedFlow {
	d := DroppedFlow{
		Reason: f.Reason.String(), From: f.From.String(), Last: timeOf(f.Last), Source: f.Src.String(), Destination: f.Dst.String(),
		Protocol: config.ProtocolName(f.Proto), Policy: f.Policy, SA: f.SA,
	}
	switch {
	case f.SPI != 0:
		d.SPI = spiText(f.SPI)
	case f.HasPorts:
		d.Source, d.Destination = netip.AddrPortFrom(f.Src, f.SrcPort).String(), netip.AddrPortFrom(f.Dst, f.DstPort).String()
	case f.Proto == wire.ProtoICMP || f.Proto == wire.ProtoICMPv6:
		d.ICMPType = &f.ICMPType
	}
	return d
}

func encapStatus(x *sa.SA) *EncapStatus {
	if x.Encap == nil {
		return nil
	}
	st := &EncapStatus{LocalPort: x.Encap.LocalPort, RemotePort: x.Encap.RemotePort}
	if x.Direction == sa.Outbound {
		st.Peer, st.KeepalivesSent = x.Remote().String(), x.KeepalivesSent.Load()
		if x.Lineage != nil {
			st.Moves = x.Lineage.Moves()
		}
	}
	return st
}

func linkStatus(l *link.Endpoint, open uint64) LinkStatus {
	c, u := l.Stats(), l.UDPStats()
	return LinkStatus{
		FramesIn: c.FramesIn, BytesIn: c.OctetsIn, FramesOut: c.FramesOut, BytesOut: c.OctetsOut,
		PassedOpen:       open,
		UDPSuperframesIn: u.ApartIn, UDPDatagramsIn: u.DatagramsIn, UDPSuperframesOut: u.JoinedOut, UDPDatagramsOut: u.DatagramsOut,
	}
}

func (b *bump) classStatus() map[string]ClassStatus {
	m := make(map[string]ClassStatus)
	for _, r := range b.live.Load().Classes {
		m[r.Name] = ClassStatus{Action: string(r.Action)}
	}
	for side, class := range b.classes {
		for _, c := range class.Counts() {
			st := m[c.Name]
			if st.Action == "" {
				st.Action = sa.Discard.String()
			}
			st.Bypassed += c.Bypassed
			st.Discarded += c.Discarded
			if hook.Side(side) == hook.Left {
				st.FromHost += c.Discarded
			}
			m[c.Name] = st
		}
	}
	return m
}

func (b *bump) neighborStatus() []NeighborStatus {
	var list []NeighborStatus
	for _, proto := range []tcpip.NetworkProtocolNumber{0x0800, 0x86dd} {
		entries, err := b.stack.Neighbors(ipsec.RightNIC, proto)
		if err != nil {
			continue
		}
		for _, e := range entries {
			list = append(list, NeighborStatus{Address: e.Addr.String(), MAC: e.LinkAddr.String(), State: strings.ToLower(e.State.String())})
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Address < list[j].Address })
	return list
}

// spiText writes an SPI.
func spiText(spi uint32) string { return fmt.Sprintf("0x%08x", spi) }
