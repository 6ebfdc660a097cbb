package ipsec

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"pgregory.net/rapid"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// draws are the random configurations and packets of the rehearsal's proof.
type draws struct {
	t *rapid.T
	s *station
	// peer has the SAs the other way round, and seals what comes in.
	peer *station
	id   uint16
}

func pick[T any](t *rapid.T, what string, from ...T) T { return rapid.SampledFrom(from).Draw(t, what) }

// sometimes is true about once in n.
func sometimes(t *rapid.T, what string, n int) bool { return rapid.IntRange(1, n).Draw(t, what) == n }

var drawnAlgorithms = []struct {
	name  string
	proto uint8
}{
	{"aes128gcm16", transform.ProtoESP}, {"aes256-sha256", transform.ProtoESP}, {"null-sha1", transform.ProtoESP},
	{"chacha20poly1305", transform.ProtoESP}, {"aes128gcm16iiv", transform.ProtoESP}, {"3des-md5", transform.ProtoESP},
	{"sha256", transform.ProtoAH}, {"aes128gmac", transform.ProtoAH}, {"sha384", transform.ProtoAH},
}

// pairOf makes an SA each way, of one kind, at both ends.
func (d *draws) pairOf(name string, spi uint32) {
	t := d.t
	alg := pick(t, "algorithm", drawnAlgorithms...)
	mode := pick(t, "mode", sa.Transport, sa.Tunnel, sa.Tunnel, sa.BEET)
	six := sometimes(t, "outer six", 3)
	a, b := addrA4, addrB4
	if six {
		a, b = addrA6, addrB6
	}
	if alg.proto == transform.ProtoAH && mode == sa.BEET {
		mode = sa.Tunnel
	}
	innerA, innerB := addrA4, addrB4
	if sometimes(t, "inner six", 3) {
		innerA, innerB = addrA6, addrB6
	}
	headers := sa.Headers{
		DF: pick(t, "df rule", sa.CopyDF, sa.SetDF, sa.ClearDF), DSCP: pick(t, "dscp rule", sa.CopyDSCPOut, sa.CopyDSCPNone, sa.CopyDSCPBoth),
		NoECN: rapid.Bool().Draw(t, "no ecn"), TTL: pick[uint8](t, "outer ttl", 0, 7), FragmentBefore: rapid.Bool().Draw(t, "before"),
	}
	var encap *sa.Encap
	if alg.proto == transform.ProtoESP && sometimes(t, "encap", 4) {
		encap = &sa.Encap{LocalPort: 4500, RemotePort: 4500, Float: true}
	}
	tfc := 0
	if alg.proto == transform.ProtoESP {
		tfc = pick(t, "tfc", 0, 0, 0, 700, sa.PadToMTU)
	}
	window := pick(t, "window", 0, 0, 64)
	hard := sa.Lifetime{Packets: pick[uint64](t, "packets", 0, 0, 0, 1, 2), Bytes: pick[uint64](t, "bytes", 0, 0, 0, 1000)}
	change := func(src, dst netip.Addr) func(*sa.SAConfig) {
		return func(c *sa.SAConfig) {
			c.Headers, c.Encap, c.TFCPadding, c.Hard, c.ReplayWindow = headers, encap, tfc, hard, window
			if mode == sa.BEET {
				c.InnerSrc, c.InnerDst = src, dst
			}
		}
	}
	for _, x := range []struct {
		s   *station
		out sa.Direction
		in  sa.Direction
	}{{d.s, sa.Outbound, sa.Inbound}, {d.peer, sa.Inbound, sa.Outbound}} {
		x.s.add(name+"-out", alg.name, alg.proto, x.out, mode, spi, a, b, change(innerA, innerB))
		x.s.add(name+"-in", alg.name, alg.proto, x.in, mode, spi+1, b, a, change(innerB, innerA))
	}
}

func (d *draws) ranges(what string, of ...netip.Addr) []sa.AddrRange {
	switch rapid.IntRange(0, 3).Draw(d.t, what) {
	case 0:
		return nil
	case 1:
		return []sa.AddrRange{sa.AddrRangeFrom(of[0]), sa.AddrRangeFrom(of[1])}
	}
	return []sa.AddrRange{sa.AddrRangeFrom(pick(d.t, what+" one", of...))}
}

// policy makes a rule that mostly matches what packet draws.
func (d *draws) policy(name string, pairs int) *sa.Policy {
	t := d.t
	p := &sa.Policy{
		Name: name, Action: pick(t, "action", sa.Protect, sa.Protect, sa.Protect, sa.Bypass, sa.Discard),
		Directions: pick(t, "directions", sa.BothDirections, sa.BothDirections, sa.OnlyOutbound, sa.OnlyInbound),
		Selector: sa.Selector{
			Local: d.ranges("local", addrA4, addrA6), Remote: d.ranges("remote", addrB4, addrB6),
			Proto: pick[uint8](t, "proto", 0, 0, wire.ProtoTCP, wire.ProtoUDP, wire.ProtoICMP),
		},
	}
	if p.Selector.Proto == wire.ProtoUDP && rapid.Bool().Draw(t, "with ports") {
		p.Selector.RemotePorts = []sa.PortRange{{From: 80, To: pick[uint16](t, "to port", 80, 443)}}
	}
	if p.Selector.Proto == wire.ProtoICMP {
		p.Selector.Local, p.Selector.Remote = nil, nil // there are no such rules for IPv6
	}
	if l, r := p.Selector.Local, p.Selector.Remote; len(l) == 1 && len(r) == 1 && l[0].From.Is4() != r[0].From.Is4() {
		p.Selector.Local = nil
	}
	if p.Action == sa.Protect {
		p.MSSClamp = pick(t, "mss", 0, sa.ClampToPMTU, 500)
		n := 1
		if pairs > 1 && sometimes(t, "bundle", 4) {
			n = 2
		}
		for i := range n {
			k := fmt.Sprintf("p%d", (rapid.IntRange(0, pairs-1).Draw(t, "pair")+i)%pairs)
			if n == 2 {
				k = fmt.Sprintf("p%d", i)
			}
			if p.Directions.Has(sa.Outbound) {
				p.Out = append(p.Out, d.s.lineages[k+"-out"])
			}
			if p.Directions.Has(sa.Inbound) {
				p.In = append(p.In, d.s.lineages[k+"-in"])
			}
		}
		if n == 1 && sometimes(t, "populate", 6) {
			p.Populate = sa.PopulateRemote
		}
	}
	return p
}

// datagram draws one between the hosts.
func (d *draws) datagram(from, to [2]netip.Addr) []byte {
	t := d.t
	family := rapid.IntRange(0, 1).Draw(t, "family")
	src, dst := from[family], to[family]
	if sometimes(t, "stranger", 8) {
		dst = pick(t, "dst", netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("198.51.100.1"))
		src = from[0]
	}
	n := pick(t, "length", 0, 1, 100, 1300, 1400, 1432, 1440, 1472, rapid.IntRange(0, 9000).Draw(t, "any length"))
	var b []byte
	switch pick(t, "kind", "udp", "udp", "tcp", "icmp", "other") {
	case "udp":
		b = udpTo(src, dst, 1234, pick[uint16](t, "port", 80, 443, 53), n)
	case "tcp":
		b = tcpTo(src, dst, n, false)
		if sometimes(t, "syn", 3) {
			b[len(b)-n-32+13] = 2
		}
	case "icmp":
		proto := uint8(wire.ProtoICMP)
		if src.Is6() {
			proto = wire.ProtoICMPv6
		}
		b = ip(src, dst, proto, false, append([]byte{pick[uint8](t, "type", 8, 0, 128, 3, 1, 2), 0, 0, 0, 0, 0, 0, 0}, pattern(n)...))
	default:
		b = ip(src, dst, 47, false, pattern(n+4))
	}
	if src.Is4() && rapid.Bool().Draw(t, "df") {
		b[6] |= 0x40
	}
	if src.Is4() && sometimes(t, "fragment", 10) && len(b) > 20 && b[6]&0x40 == 0 {
		b = b[:len(b)-(len(b)-20)%8]
		if len(b) > 20 {
			b[6] |= 0x20
			wire.SetIPv4TotalLen(b, len(b))
		}
	}
	if src.Is4() {
		d.id++ // a rehearsal knows nothing of the fragments that wait
		b[4], b[5] = byte(d.id>>8), byte(d.id)
		wire.UpdateIPv4Checksum(b)
	}
	return b
}

// image is all of a station that a rehearsal must leave alone.
func (s *station) image(t *rapid.T) string {
	var states []sa.State
	for _, x := range s.sad.All() {
		states = append(states, x.State())
	}
	b, err := json.Marshal(states)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b) + fmt.Sprint(s.e.Drops(hook.Left).Snapshot(), s.e.Drops(hook.Right).Snapshot(), s.e.Incomplete(),
		s.e.PathMTUsLearned(), s.e.ICMPErrors(hook.Left), s.e.ICMPErrors(hook.Right), s.e.Forwarders().Carried())
	for _, p := range s.e.SPD().Policies() {
		for dir := range p.Counters {
			c := p.Traffic(sa.Direction(dir))
			text += fmt.Sprint(p.Name, c.Packets.Load(), c.Bytes.Load(), c.Drops.Snapshot(), len(p.Entries()))
		}
	}
	return text
}

// skeleton is what a frame is but for what is encrypted and what is drawn at random.
func skeleton(t *rapid.T, src, dst tcpip.LinkAddress, datagram []byte) string {
	var in wire.Info
	if reason := wire.Parse(datagram, &in); reason != wire.DropNone {
		t.Fatalf("a frame went out that is no datagram: %v", reason)
	}
	at := min(in.HeaderLen, len(datagram))
	upper := ""
	switch in.Proto {
	case wire.ProtoESP, wire.ProtoAH, wire.ProtoUDP:
		upper = fmt.Sprintf("%x", datagram[at:min(at+8, len(datagram))])
		if in.IsFragment && in.FragOffset > 0 || in.Proto == wire.ProtoUDP {
			upper = "" // encrypted, or a checksum of what is
		}
	case wire.ProtoICMP, wire.ProtoICMPv6:
		upper = fmt.Sprintf("%x", datagram[at:min(at+8, len(datagram))])
	}
	return fmt.Sprintf("%x>%x %d %v>%v proto %d tos %d ttl %d df %v frag %v %d %v ports %d %d upper %s", src, dst, len(datagram), in.Src, in.Dst,
		in.Proto, in.TOS, in.TTL, in.DF, in.IsFragment, in.FragOffset, in.MoreFragments, in.SrcPort, in.DstPort, upper)
}

func written(t *rapid.T, list []Written) (out []string) {
	for _, w := range list {
		if !w.Waits {
			out = append(out, skeleton(t, w.Src, w.Dst, w.Datagram))
		}
	}
	return out
}

func (s *sink) skeletons(t *rapid.T) (out []string) {
	for _, f := range s.frames {
		eth := f[wire.VirtioNetLen:]
		out = append(out, skeleton(t, tcpip.LinkAddress(eth[6:12]), tcpip.LinkAddress(eth[:6]), f[link.HeaderLen:]))
	}
	s.frames = nil
	return out
}

// countingNeighbors note what waits for them.
type countingNeighbors struct {
	fixedNeighbors
	waiting *int
}

func (c countingNeighbors) Enqueue(netip.Addr, *stack.PacketBuffer) { *c.waiting++ }

// What a rehearsal says of a datagram is what then becomes of it, and it leaves no trace.
func TestR50_ARehearsalSaysWhatTheEngineDoes(t *testing.T) {
	outcomes := map[string]int{}
	checks := flag.Lookup("rapid.checks")
	if asked := checks.Value.String(); asked == checks.DefValue {
		defer func() { _ = checks.Value.Set(asked) }()
		_ = checks.Value.Set("400")
	}
	rapid.Check(t, func(rt *rapid.T) {
		d := &draws{t: rt}
		d.s, d.peer = newStation(t, macA, macB, addrA4, addrA6), newStation(t, macB, macA, addrB4, addrB6)
		s, waiting := d.s, 0
		mac := macB
		if sometimes(rt, "unknown neighbour", 5) {
			mac = ""
		}
		s.e.Bind(s.left, s.right, countingNeighbors{fixedNeighbors{mac}, &waiting})
		s.e.SetHostResolves(sometimes(rt, "relay", 4))
		if sometimes(rt, "two NICs", 5) {
			s.e.hosts = fixedNeighbors{macA}
			s.e.SetLinkMTU(hook.Left, pick(rt, "inside mtu", 1500, 1300, 1100, 9000))
			s.e.SetLinkMTU(hook.Right, pick(rt, "outside mtu", 1500, 1280, 9000))
		}
		s.e.SetICMPErrors(pick(rt, "icmp rule", ICMPErrorsAccept, ICMPErrorsVerify, ICMPErrorsDiscard))
		if sometimes(rt, "routes", 3) {
			s.e.SetRoutes(NewRoutes([]Route{
				{Destination: netip.MustParsePrefix("192.0.2.0/24"), MTU: pick(rt, "route mtu", 0, 1400)},
				{Destination: netip.MustParsePrefix("203.0.113.0/24"), Via: addrB4},
			}))
		}
		mtu := pick(rt, "mtu", 1500, 1500, 1280, 9000)
		s.e.SetMTU(mtu)
		d.peer.e.SetMTU(9000)
		pairs := rapid.IntRange(1, 3).Draw(rt, "pairs")
		for i := range pairs {
			d.pairOf(fmt.Sprintf("p%d", i), uint32(0x1000+0x10*i))
		}
		for _, x := range s.sad.All() {
			switch {
			case sometimes(rt, "invalid", 12):
				x.Invalidate()
			case sometimes(rt, "gone", 12) && x.Direction == sa.Outbound:
				if rapid.Bool().Draw(rt, "asks") {
					x.Lineage.Notify = func(sa.Event) {}
				}
				_, _ = x.Lineage.Switch(nil)
			case sometimes(rt, "learned", 6):
				x.SetPMTU(1300, s.now)
			}
		}
		var rules, mirrored []*sa.Policy
		for i := range rapid.IntRange(1, 4).Draw(rt, "rules") {
			rules = append(rules, d.policy(fmt.Sprint("r", i), pairs))
		}
		s.policies(rules...)
		for i := range pairs {
			mirrored = append(mirrored, d.peer.protect(fmt.Sprint("m", i), addrB4, addrA4, fmt.Sprintf("p%d-in", i), fmt.Sprintf("p%d-out", i)))
			mirrored[i].Selector = sa.Selector{}
		}
		var earlier []byte
		for range 4 {
			from := pick(rt, "side", hook.Left, hook.Right)
			src, dst := macA, macA
			var b []byte
			a, z := [2]netip.Addr{addrA4, addrA6}, [2]netip.Addr{addrB4, addrB6}
			switch {
			case from == hook.Left:
				b = d.datagram(a, z)
				if rapid.Bool().Draw(rt, "to a station") {
					dst = macB
				}
			case earlier != nil && sometimes(rt, "replay", 4):
				src, b = macB, earlier
			default:
				src, b = macB, d.datagram(z, a)
				if sometimes(rt, "for another", 10) {
					dst = macB
				}
				if rapid.Bool().Draw(rt, "sealed") {
					d.peer.policies(mirrored[rapid.IntRange(0, pairs-1).Draw(rt, "sealed by")])
					d.peer.fromHost(b, nil)
					if wired := d.peer.right.take(t, "", ""); len(wired) > 0 {
						b = wired[0]
						if sometimes(rt, "broken", 6) {
							b[len(b)-1] ^= 1
						}
					}
					earlier = bytes.Clone(b)
				}
			}
			if isFragment(b) {
				earlier = nil // once more it would be the duplicate of one that waits
			}
			before := s.image(rt)
			keep := bytes.Clone(b)
			r := s.e.Rehearse(Arrival{Datagram: b, Src: src, Dst: dst}, from)
			if after := s.image(rt); after != before {
				rt.Fatalf("the rehearsal left a trace:\n%s\n%s", before, after)
			}
			if !bytes.Equal(keep, b) || len(s.left.frames)+len(s.right.frames)+waiting > 0 {
				rt.Fatal("the rehearsal changed the datagram, or sent one")
			}
			drops, held, incomplete := drops(s), s.e.Held(), s.e.sides[from].fragments.incomplete()
			blamed := s.e.SPD().Lookup(r.Direction, &r.Flow)
			pkt := link.NewPacket(frame(src, dst, bytes.Clone(b), nil), s.mac)
			if from == hook.Left {
				s.e.outbound(pkt)
			} else {
				s.e.inbound(pkt)
			}
			pkt.DecRef()
			for side, real := range []*sink{s.left, s.right} {
				want := real.skeletons(rt)
				if got := written(rt, r.Written[side]); fmt.Sprint(got) != fmt.Sprint(want) {
					rt.Fatalf("to the %v the engine wrote\n%q\nand the rehearsal\n%q", hook.Side(side), want, got)
				}
			}
			waits := 0
			for _, w := range r.Written[hook.Right] {
				if w.Waits {
					waits++
				}
			}
			gone := fmt.Sprint(since(s, drops, from))
			if x := from.Other(); r.Answer == nil && len(since(s, drops, x)) > 0 {
				rt.Fatalf("dropped of the other side: %v", since(s, drops, x))
			}
			if gone != fmt.Sprint(tally(r.Drops)) || waits != waiting || r.Held != (s.e.Held() > held) && r.Answer == nil || blamed != r.Policy {
				rt.Fatalf("the engine dropped %s, %d wait; the rehearsal %v, %d", gone, waiting, tally(r.Drops), waits)
			}
			// A fragment more of a datagram that waits is the same datagram to the reassembler.
			if r.Incomplete && incomplete == s.e.sides[from].fragments.incomplete() && gone == "map[]" {
				rt.Fatal("the rehearsal says that fragments are missing")
			}
			if from == hook.Left && r.Policy != nil && r.Policy.Action == sa.Protect && len(r.Written[hook.Right]) == 1 && !r.Written[hook.Right][0].Waits && !isFragment(b) {
				if x := s.e.Budget(r.Policy, b); x.Reason == wire.DropNone && x.Sealed != len(r.Written[hook.Right][0].Datagram) {
					rt.Fatalf("the budget says %+v, and the frame has %d", x, len(r.Written[hook.Right][0].Datagram))
				} else if x.Reason == wire.DropNone {
					checkBudget(rt, x)
				}
			}
			if r.Answer != nil {
				if r.Policy == nil || r.Direction != sa.Inbound {
					rt.Fatalf("%v decides about a datagram from the wire, %v", r.Policy, r.Direction)
				}
				gone += " answered"
			}
			outcomes[fmt.Sprintf("%v %s %d %d", from, gone, len(r.Written[0]), len(r.Written[1]))]++
			waiting = 0
			s.now += int64(time.Millisecond)
			d.peer.now = s.now
		}
	})
	if testing.Verbose() {
		t.Log(outcomes)
	}
	if len(outcomes) < 20 {
		t.Errorf("only %d different outcomes: %v", len(outcomes), outcomes)
	}
}

func isFragment(b []byte) bool {
	var in wire.Info
	return wire.Parse(b, &in) == wire.DropNone && in.IsFragment
}

// checkBudget adds up.
func checkBudget(t *rapid.T, x *Budget) {
	n := x.Size
	for _, st := range x.Steps {
		if st.Before != n {
			t.Fatalf("step %s begins with %d after %d: %+v", st.SA, st.Before, n, x)
		}
		for _, p := range st.Parts {
			n += p.Octets
			if p.Octets < 0 && p.Name != "inner IP header, which BEET mode leaves out" {
				t.Fatalf("a negative part: %+v", x)
			}
		}
		if st.After != n {
			t.Fatalf("step %s ends with %d, and adds up to %d: %+v", st.SA, st.After, n, x)
		}
	}
	if n != x.Sealed {
		t.Fatalf("adds up to %d: %+v", n, x)
	}
}

func drops(s *station) (n [2][wire.NumDropReasons]uint64) {
	for side := range n {
		for reason := range n[side] {
			n[side][reason] = s.e.Drops(hook.Side(side)).Load(wire.DropReason(reason))
		}
	}
	return n
}

func since(s *station, before [2][wire.NumDropReasons]uint64, side hook.Side) map[string]uint64 {
	m := map[string]uint64{}
	now := drops(s)
	for reason := range now[side] {
		if n := now[side][reason] - before[side][reason]; n > 0 {
			m[wire.DropReason(reason).String()] += n
		}
	}
	return m
}

func tally(list []wire.DropReason) map[string]uint64 {
	m := map[string]uint64{}
	for _, r := range list {
		m[r.String()]++
	}
	return m
}
