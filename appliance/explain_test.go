package appliance

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"

	"bitw/appliance/explain"
	"bitw/config"
	"bitw/netstack/ipsec"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// A probe is an appliance in memory, with the far ends of its links in hand.
type probe struct {
	box       *Appliance
	ends      [2]*link.PipeEnd // of the host and of the wire
	mac, peer tcpip.LinkAddress
	close     func()
}

// newProbe runs cfg before a host with 192.0.2.1 and 2001:db8::1, which knows its
// neighbours but 192.0.2.3.
func newProbe(t *rapid.T, cfg config.Config, mtu int) *probe {
	p := &probe{mac: "\x02\x00\x00\x00\x00\x0a", peer: "\x02\x00\x00\x00\x00\x0b"}
	for _, a := range []string{"192.0.2.2", "192.0.2.254", "2001:db8::2"} {
		cfg.StaticNeighbors = append(cfg.StaticNeighbors, config.Neighbor{Address: netip.MustParseAddr(a), MAC: []byte(p.peer)})
	}
	var inner, wired *link.PipeEnd
	p.ends[0], inner = link.Pipe(link.PipeOptions{})
	wired, p.ends[1] = link.Pipe(link.PipeOptions{})
	var err error
	p.box, err = New(cfg, WithSequenceStore(sa.NewMemoryStore()), WithLinks(inner, wired, Host{
		MAC: net.HardwareAddr(p.mac), MTU: mtu,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		Routes:    []ipsec.Route{{Destination: netip.MustParsePrefix("198.51.100.0/24"), Via: netip.MustParseAddr("192.0.2.254")}},
	}))
	if err != nil {
		t.Fatal(err)
	}
	errc := make(chan error, 1)
	go func() { errc <- p.box.Run(context.Background()) }()
	select {
	case <-p.box.Ready():
	case err := <-errc:
		t.Fatal(err)
	}
	p.close = func() {
		_ = p.box.Close()
		if err := <-errc; err != nil {
			t.Error(err)
		}
	}
	return p
}

// send gives a frame to the host's end (0) or the wire's (1).
func (p *probe) send(t *rapid.T, end int, frame []byte) {
	b := append(make([]byte, wire.VirtioNetLen), frame...)
	if _, err := p.ends[end].WriteFrames([][]byte{b}); err != nil {
		t.Fatal(err)
	}
}

// seen is what has become of a frame, as the world around an appliance sees it.
type seen struct {
	lengths [2][]int // of the datagrams that came to the host and to the wire
	drops   map[string]uint64
	rules   map[string]uint64 // by which a packet passed or was dropped
	asked   bool              // for a neighbour
}

// look adds what has come since.
func (p *probe) look(s *seen) {
	bufs, sizes := [][]byte{make([]byte, link.MaxFrameLen)}, []int{0}
	for i, end := range p.ends {
		for {
			n, err := end.PollFrames(bufs, sizes)
			if err != nil || n == 0 {
				break
			}
			f := bufs[0][wire.VirtioNetLen:sizes[0]]
			switch kind := uint16(f[12])<<8 | uint16(f[13]); {
			case kind == wire.EtherTypeARP:
				s.asked = true
			case kind == wire.EtherTypeIPv6 && f[20] == wire.ProtoICMPv6 && len(f) > 54 && f[54] >= 133 && f[54] <= 137:
				s.asked = true // or announced
			default:
				s.lengths[i] = append(s.lengths[i], len(f)-wire.EthernetLen)
			}
		}
	}
}

// idle tells that nobody is at work on a frame that was taken, so that all of it is counted.
func (p *probe) idle() bool {
	b := p.box.bump.Load()
	for _, n := range b.dev.Turns(b.kern.Turns(nil)) {
		if n%2 == 1 {
			return false
		}
	}
	return true
}

// counted is what the status of an appliance tells, by drop reason and by policy.
func (p *probe) counted() (drops, rules map[string]uint64) {
	st := p.box.Status()
	rules = make(map[string]uint64)
	for _, r := range st.Policies {
		for _, way := range []Traffic{r.Out, r.In} {
			rules[r.Name] += way.Packets
			for _, n := range way.Drops {
				rules[r.Name] += n
			}
		}
	}
	return st.Drops, rules
}

func more(now, before map[string]uint64) map[string]uint64 {
	m := make(map[string]uint64)
	for k, n := range now {
		if n > before[k] {
			m[k] = n - before[k]
		}
	}
	return m
}

// predicted is what an explanation says that will be seen.
func predicted(r *explain.Result, from int) (s seen) {
	s.drops, s.rules = map[string]uint64{}, map[string]uint64{}
	for _, f := range r.Frames {
		if r.Outcome != explain.WaitsForNeighbor {
			s.lengths[1-from] = append(s.lengths[1-from], f.Length)
		}
	}
	if r.Reason != "" {
		s.drops[r.Reason] = 1
	}
	return s
}

// probePacket draws a frame, and says which end it is for.
func probePacket(t *rapid.T, p *probe) (frame []byte, from int) {
	from = rapid.IntRange(0, 1).Draw(t, "from")
	local, remote := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(rapid.SampledFrom([]string{"192.0.2.2", "192.0.2.2", "192.0.2.3", "198.51.100.7", "203.0.113.9", "224.0.0.251"}).Draw(t, "remote"))
	if rapid.IntRange(0, 3).Draw(t, "six") == 0 {
		local, remote = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	if remote.IsMulticast() {
		from = 0
	}
	n := rapid.SampledFrom([]int{0, 30, 1300, 1410, 1440, 1472}).Draw(t, "length")
	proto := rapid.SampledFrom([]uint8{wire.ProtoTCP, wire.ProtoUDP, wire.ProtoUDP, 47}).Draw(t, "proto")
	port := rapid.SampledFrom([]uint16{22, 53, 80, 443}).Draw(t, "port")
	u := make([]byte, 20+n)
	u[0], u[1] = 0x40, 0
	u[2], u[3] = byte(port>>8), byte(port)
	if from == 1 {
		u[0], u[1], u[2], u[3] = byte(port>>8), byte(port), 0x40, 0
		local, remote = remote, local
	}
	switch proto {
	case wire.ProtoTCP:
		u[12], u[13] = 0x50, 0x10
	case wire.ProtoUDP:
		u[4], u[5] = byte(len(u)>>8), byte(len(u))
	}
	head := 20
	if local.Is6() {
		head = 40
	}
	b := append(make([]byte, head), u...)
	src, dst := tcpip.AddrFromSlice(local.AsSlice()), tcpip.AddrFromSlice(remote.AsSlice())
	kind := uint16(wire.EtherTypeIPv4)
	if local.Is6() {
		kind = wire.EtherTypeIPv6
		header.IPv6(b).Encode(&header.IPv6Fields{PayloadLength: uint16(len(u)), TransportProtocol: tcpip.TransportProtocolNumber(proto), HopLimit: 64, SrcAddr: src, DstAddr: dst})
	} else {
		f := header.IPv4Fields{TotalLength: uint16(len(b)), TTL: 64, ID: 7, Protocol: proto, SrcAddr: src, DstAddr: dst}
		if rapid.Bool().Draw(t, "df") {
			f.Flags = header.IPv4FlagDontFragment
		}
		header.IPv4(b).Encode(&f)
		wire.UpdateIPv4Checksum(b)
	}
	to := p.mac
	if remote.IsMulticast() {
		to = "\x01\x00\x5e\x00\x00\xfb"
	}
	frame = make([]byte, wire.EthernetLen, wire.EthernetLen+len(b))
	copy(frame, to)
	copy(frame[6:], []tcpip.LinkAddress{p.mac, p.peer}[from])
	frame[12], frame[13] = byte(kind>>8), byte(kind)
	return append(frame, b...), from
}

// probeConfig draws two SAs each way and some policies.
func probeConfig(t *rapid.T) config.Config {
	addr := netip.MustParseAddr
	cfg := config.Config{Classes: []config.Class{{Name: "mdns", Action: rapid.SampledFrom([]config.Action{config.Bypass, config.Discard}).Draw(t, "mdns")}}}
	for i, name := range []string{"one", "two"} {
		alg := rapid.SampledFrom([]struct {
			name      string
			enc, auth int
		}{{"aes128gcm16", 20, 0}, {"aes256-sha256", 32, 32}, {"null-sha256", 0, 32}}).Draw(t, "algorithm")
		mode := rapid.SampledFrom([]config.Mode{config.Tunnel, config.Tunnel, config.Transport}).Draw(t, "mode")
		for d, dir := range []config.Direction{config.Out, config.In} {
			s := config.SA{
				Name: name + string(dir), Direction: dir, Protocol: config.ESP, Mode: mode, SPI: uint32(0x1000 + 16*i + d), Algorithm: alg.name,
				Source: addr("192.0.2.1"), Destination: addr("192.0.2.2"),
				EncryptionKey: config.NewSecret(bytes.Repeat([]byte{byte(2*i + d)}, alg.enc)), IntegrityKey: config.NewSecret(make([]byte, alg.auth)),
			}
			if dir == config.In {
				s.Source, s.Destination = s.Destination, s.Source
			}
			if dir == config.Out {
				s.Lifetime.Packets = rapid.SampledFrom([]uint64{0, 0, 2}).Draw(t, "lifetime")
			}
			cfg.SAs = append(cfg.SAs, s)
		}
	}
	for i := range rapid.IntRange(1, 4).Draw(t, "policies") {
		p := config.Policy{
			Name: fmt.Sprint("p", i), Action: rapid.SampledFrom([]config.Action{config.Protect, config.Protect, config.Bypass, config.Discard}).Draw(t, "action"),
			Direction: rapid.SampledFrom([]config.Direction{"", "", config.Out, config.In}).Draw(t, "direction"),
		}
		if rapid.Bool().Draw(t, "one remote") {
			a := addr(rapid.SampledFrom([]string{"192.0.2.2", "198.51.100.7", "2001:db8::2"}).Draw(t, "address"))
			p.Remote = []config.AddressRange{{First: a, Last: a}}
		}
		if proto := rapid.SampledFrom([]uint8{0, wire.ProtoUDP, wire.ProtoTCP}).Draw(t, "protocol"); proto != 0 {
			p.Protocol = &proto
			if rapid.Bool().Draw(t, "ports") {
				p.RemotePorts = []config.PortRange{{First: 50, Last: 443}}
			}
		}
		if p.Action == config.Protect {
			name := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "SA")
			if p.Direction != config.In {
				p.Out = []string{name + string(config.Out)}
			}
			if p.Direction != config.Out {
				p.In = []string{name + string(config.In)}
			}
		}
		cfg.Policies = append(cfg.Policies, p)
	}
	return cfg
}

// A recorded packet that has passed here is explained as it was then, whatever its sequence
// number is now, and one that was changed on its way fails authentication as ever.
func TestR50_ARecordedPacketThatHasPassed(t *testing.T) {
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg))
	p.transfer(t, false, 300_000)
	asked := 0
	p.wire.mu.Lock()
	frames := slices.Clone(p.wire.frames)
	p.wire.mu.Unlock()
	for _, f := range frames {
		var in wire.Info
		frame := f[link.HeaderLen-wire.EthernetLen:]
		if wire.Parse(f[link.HeaderLen:], &in) != wire.DropNone || in.Proto != wire.ProtoESP || in.Dst != p.b.v4 {
			continue
		}
		asked++
		before := p.boxB.Status().Drops
		r, err := p.boxB.Explain(Question{Frame: frame})
		if err != nil {
			t.Fatal(err)
		}
		if r.Verdict != explain.Protect || r.Outcome != explain.Sent || len(r.Notes) != 1 || len(r.SAs) != 1 || !r.SAs[0].Usable {
			t.Fatalf("packet %d: %s", asked, r.Text())
		}
		frame[len(frame)-1] ^= 1
		if r, err = p.boxB.Explain(Question{Frame: frame}); err != nil || r.Reason != "icv" {
			t.Fatalf("changed packet %d: %v, %s", asked, err, r.Text())
		}
		if after := p.boxB.Status().Drops; fmt.Sprint(after) != fmt.Sprint(before) {
			t.Fatalf("drops were %v and are %v", before, after)
		}
		if asked == 20 { // the first are left of the window now
			break
		}
	}
	if asked < 20 {
		t.Errorf("%d packets on the wire", asked)
	}
}

// What an explanation says of a frame is what then is seen of it: by which policy, why it
// is dropped, what comes out and how long that is. In words it is the same.
func TestR50_WhatIsExplainedHappens(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	if asked := checks.Value.String(); asked == checks.DefValue {
		defer func() { _ = checks.Value.Set(asked) }()
		_ = checks.Value.Set("30")
	}
	rapid.Check(t, func(t *rapid.T) {
		p := newProbe(t, probeConfig(t), rapid.SampledFrom([]int{1500, 1400}).Draw(t, "mtu"))
		defer p.close()
		for range 12 {
			frame, from := probePacket(t, p)
			direction := []string{explain.Out, explain.In}[from]
			drops, rules := p.counted()
			r, err := p.box.Explain(Question{Frame: frame})
			if err != nil {
				t.Fatal(err)
			}
			if r.Direction != direction {
				t.Fatalf("the direction of %s is %s, expected %s", r.Packet, r.Direction, direction)
			}
			worded, err := p.box.Explain(Question{Packet: r.Packet, Direction: direction})
			if err != nil {
				t.Fatal(err)
			}
			if a, b := sum(r), sum(worded); a != b {
				t.Fatalf("%s is explained as\n%s\nand in words as\n%s", r.Packet, a, b)
			}
			if d, u := p.counted(); len(more(d, drops))+len(more(u, rules)) > 0 {
				t.Fatalf("the explanation of %s was counted", r.Packet)
			}
			want := predicted(r, from)
			var got seen
			count := func() {
				d, u := p.counted()
				got.drops, got.rules = more(d, drops), more(u, rules)
			}
			p.send(t, from, frame)
			for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
				p.look(&got)
				count()
				settled := fmt.Sprint(got.drops) == fmt.Sprint(want.drops) && slices.Equal(got.lengths[1-from], want.lengths[1-from]) &&
					(r.Answer != nil) == (len(got.lengths[from]) > 0) && (r.Outcome != explain.WaitsForNeighbor || got.asked)
				if r.Rule != nil && (r.Outcome == explain.Sent || r.Reason != "") {
					// A drop that is not on the account of a policy is on that of none.
					settled = settled && (got.rules[r.Rule.Name] > 0 || len(got.rules) == 0 && r.Reason != "")
				}
				if settled && p.idle() {
					count()
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%s: explained as\n%s\nand seen was %+v", r.Packet, r.Text(), got)
				}
			}
			for name := range got.rules {
				if r.Rule == nil || r.Rule.Name != name {
					t.Fatalf("%s: counted by policy %s, explained as\n%s", r.Packet, name, r.Text())
				}
			}
			if r.Outcome == explain.WaitsForNeighbor {
				break // that it is found by nobody is counted some seconds later
			}
		}
	})
}

// sum is what matters of a result.
func sum(r *explain.Result) string {
	text := fmt.Sprintln(r.Verdict, r.Outcome, r.Reason, r.Direction, r.Length, r.Answer)
	if r.Rule != nil {
		text += fmt.Sprintln(*r.Rule)
	}
	for _, f := range r.Frames {
		text += fmt.Sprintln(f.Side, f.MAC, f.Length)
	}
	return text
}
