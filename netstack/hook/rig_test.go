package hook

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	icmptransport "gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"

	"bitw/netstack/link"
	"bitw/netstack/wire"
)

const (
	macHost = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x01") // of the kernel and both sides of the bump
	macPeer = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x02")
	macEvil = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x03")
)

var (
	host4, host6 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	peer4, peer6 = netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")
	none4, none6 = netip.MustParseAddr("10.0.0.99"), netip.MustParseAddr("fd00::99")
)

// bump is a bump without IPsec on a clock that stands still: all hooks, and a network
// protocol that passes datagrams on to the other side.
type bump struct {
	t           *testing.T
	clock       *faketime.ManualClock
	s           *stack.Stack
	left, right *link.Endpoint
	kern, dev   *link.PipeEnd // the far ends of the two links
	pumps       []link.Pumper
	own         map[netip.Addr]bool
	resolver    *Resolver
	claims      *Claims
	classes     [2]*Class
	watch       *Watch
	capture     *Capture
	drops       wire.DropCounters
	mu          sync.Mutex // for what timers write; the clock waits for them before run returns
	failed      []netip.Addr
	fromLeft    [][]byte // what the bump wrote to the left, without virtio-net header
	fromRight   [][]byte // what the bump wrote to the right
}

func newBump(t *testing.T, rules ...ClassRule) *bump {
	t.Helper()
	return newBumpWith(t, [2]Neighbors{}, rules...)
}

// newBumpWith is newBump where ARP and neighbour discovery are dealt with as said.
func newBumpWith(t *testing.T, neighbors [2]Neighbors, rules ...ClassRule) *bump {
	t.Helper()
	b := &bump{t: t, clock: faketime.NewManualClock(), own: map[netip.Addr]bool{host4: true, host6: true}}
	isOwn := func(a netip.Addr) bool { return b.own[a] }
	newLink := func(log *[][]byte) (*link.Endpoint, *link.PipeEnd) {
		var near *link.PipeEnd
		near, far := link.Pipe(link.PipeOptions{Wiretap: func(from *link.PipeEnd, f []byte) {
			if from == near {
				b.mu.Lock()
				defer b.mu.Unlock()
				*log = append(*log, bytes.Clone(f[wire.VirtioNetLen:]))
			}
		}})
		e, err := link.New(link.Options{Devices: []link.Device{near}, MAC: macHost, MTU: 1500, Drops: &b.drops, Manual: true})
		if err != nil {
			t.Fatal(err)
		}
		b.pumps = append(b.pumps, e)
		return e, far
	}
	b.left, b.kern = newLink(&b.fromLeft)
	b.right, b.dev = newLink(&b.fromRight)

	var toLeft, toRight Relay
	b.watch = NewWatch(b.clock)
	b.capture = NewCapture(b.watch)
	probes := NewProbes(b.clock)
	b.resolver = NewResolver(ResolverOptions{Clock: b.clock, Drops: &b.drops,
		Failed: func(a netip.Addr, _ *stack.PacketBuffer) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.failed = append(b.failed, a)
		}})
	wrap := func(e stack.LinkEndpoint, side Side, other *Relay) (stack.LinkEndpoint, *Class) {
		h := b.watch.Wrap(e, side)
		c, err := NewClass(h, ClassOptions{Rules: rules, Neighbors: neighbors[side], Other: other, Drops: &b.drops})
		if err != nil {
			t.Fatal(err)
		}
		return h, c
	}
	outerLeft, cl := wrap(b.left, Left, &toRight)
	outerRight, cr := wrap(b.right, Right, &toLeft)
	toLeft.Bind(outerLeft)
	toRight.Bind(outerRight)
	b.classes = [2]*Class{cl, cr}

	b.s = stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{arp.NewProtocol,
			func(*stack.Stack) stack.NetworkProtocol { return &passProtocol{b, header.IPv4ProtocolNumber} },
			func(*stack.Stack) stack.NetworkProtocol { return &passProtocol{b, header.IPv6ProtocolNumber} }},
		Clock: b.clock, NUDDisp: b.resolver,
	})
	b.resolver.Attach(b.s, 2, outerRight)
	var proxy stack.LinkEndpoint = cl
	b.claims = NewClaims(func() int64 { return b.clock.Now().UnixNano() })
	atRight := NeighborOptions{MAC: macHost, Own: isOwn, Announced: b.resolver.Announced, Claims: b.claims, Drops: &b.drops}
	if neighbors[Right] == Answer {
		proxy = NewProxyARP(cl, ProxyOptions{MAC: macHost, Own: isOwn, Wire: &toRight, Probes: probes, Drops: &b.drops})
		atRight.Host, atRight.Probes = &toLeft, probes
	}
	neighbor := NewNeighbor(cr, atRight)
	for nic, e := range map[tcpip.NICID]stack.LinkEndpoint{1: proxy, 2: neighbor} {
		if err := b.s.CreateNIC(nic, e); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []netip.Addr{host4, host6} {
		pa := tcpip.ProtocolAddress{Protocol: protocolOf(a), AddressWithPrefix: addressOf(a).WithPrefix()}
		if err := b.s.AddProtocolAddress(2, pa, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { b.left.Close(); b.right.Close(); b.s.Destroy() })
	return b
}

// run lets d pass, moving frames all the while.
func (b *bump) run(d time.Duration) {
	const step = 50 * time.Millisecond
	for ; d >= 0; d -= step {
		link.PumpAll(10000, b.pumps...)
		b.clock.Advance(min(step, max(d, 0)))
	}
	link.PumpAll(10000, b.pumps...)
}

// host puts a netstack host at the far end of a link.
func (b *bump) host(d link.Device, mac tcpip.LinkAddress, addrs ...netip.Addr) *stack.Stack {
	b.t.Helper()
	e, err := link.NewHost(link.Options{Devices: []link.Device{d}, MAC: mac, MTU: 1500, Manual: true})
	if err != nil {
		b.t.Fatal(err)
	}
	b.pumps = append(b.pumps, e)
	s := stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{
			ipv4.NewProtocol,
			ipv6.NewProtocolWithOptions(ipv6.Options{DADConfigs: stack.DefaultDADConfigurations()}),
			arp.NewProtocolWithOptions(arp.Options{DADConfigs: stack.DefaultDADConfigurations()}),
		},
		TransportProtocols: []stack.TransportProtocolFactory{icmptransport.NewProtocol4, icmptransport.NewProtocol6},
		Clock:              b.clock,
	})
	if err := s.CreateNIC(1, e); err != nil {
		b.t.Fatal(err)
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		pa := tcpip.ProtocolAddress{Protocol: protocolOf(a),
			AddressWithPrefix: tcpip.AddressWithPrefix{Address: addressOf(a), PrefixLen: bits}}
		if err := s.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
			b.t.Fatal(err)
		}
		s.AddRoute(tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: 1})
	}
	b.t.Cleanup(func() { e.Close(); s.Destroy() })
	return s
}

// resolve asks a host for the Ethernet address of a.
func (b *bump) resolve(s *stack.Stack, a netip.Addr) (mac tcpip.LinkAddress) {
	s.GetLinkAddress(1, addressOf(a), tcpip.Address{}, protocolOf(a), func(r stack.LinkResolutionResult) {
		if r.Err == nil {
			mac = r.LinkAddress
		}
	})
	b.run(4 * time.Second)
	return mac
}

// ping reports whether an echo from a host to a comes back.
func (b *bump) ping(s *stack.Stack, to netip.Addr) bool {
	b.t.Helper()
	trans, echo := icmptransport.ProtocolNumber4, byte(8)
	if to.Is6() {
		trans, echo = icmptransport.ProtocolNumber6, 128
	}
	var wq waiter.Queue
	ep, err := s.NewEndpoint(trans, protocolOf(to), &wq)
	if err != nil {
		b.t.Fatal(err)
	}
	defer ep.Close()
	if err := ep.Connect(tcpip.FullAddress{NIC: 1, Addr: addressOf(to)}); err != nil {
		b.t.Fatal(err)
	}
	if _, err := ep.Write(bytes.NewReader([]byte{echo, 0, 0, 0, 0, 0, 0, 1, 'x'}), tcpip.WriteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.run(time.Second)
	var reply bytes.Buffer
	_, err = ep.Read(&reply, tcpip.ReadOptions{})
	return err == nil && bytes.HasSuffix(reply.Bytes(), []byte("x"))
}

// send lets the station at the far end of a link say something, an Ethernet frame.
func (b *bump) send(from *link.PipeEnd, frame []byte) {
	b.t.Helper()
	f := append(make([]byte, wire.VirtioNetLen), frame...)
	if n, err := from.WriteFrames([][]byte{f}); n != 1 || err != nil {
		b.t.Fatal(n, err)
	}
	b.run(0)
}

// take returns what was written to one side since the last time.
func take(log *[][]byte) [][]byte {
	l := *log
	*log = nil
	return l
}

// passProtocol passes every datagram to the other side of the bump.
type passProtocol struct {
	b      *bump
	number tcpip.NetworkProtocolNumber
}

func (p *passProtocol) Number() tcpip.NetworkProtocolNumber                     { return p.number }
func (*passProtocol) MinimumPacketSize() int                                    { return 20 }
func (*passProtocol) ParseAddresses([]byte) (src, dst tcpip.Address)            { return }
func (*passProtocol) SetOption(tcpip.SettableNetworkProtocolOption) tcpip.Error { return nil }
func (*passProtocol) Option(tcpip.GettableNetworkProtocolOption) tcpip.Error    { return nil }
func (*passProtocol) Close()                                                    {}
func (*passProtocol) Wait()                                                     {}
func (*passProtocol) Parse(*stack.PacketBuffer) (tcpip.TransportProtocolNumber, bool, bool) {
	return 0, false, false
}

func (p *passProtocol) NewEndpoint(nic stack.NetworkInterface, _ stack.TransportDispatcher) stack.NetworkEndpoint {
	e := &passEndpoint{p: p, nic: nic}
	e.Init(e, stack.AddressableEndpointStateOptions{})
	if p.number == header.IPv6ProtocolNumber {
		return &resolvingEndpoint{e}
	}
	return e
}

type passEndpoint struct {
	stack.AddressableEndpointState
	p   *passProtocol
	nic stack.NetworkInterface
}

func (e *passEndpoint) HandlePacket(pkt *stack.PacketBuffer) {
	b := e.p.b
	eth := pkt.LinkHeader().Slice()
	if e.nic.ID() == 2 {
		if e.p.number == header.IPv6ProtocolNumber && HandleND(e.nic, pkt, &b.drops) {
			return
		}
		if string(eth[:6]) != string(macHost) {
			b.drops.Add(wire.DropForeignMAC)
			return
		}
		writeOne(b.left, pkt)
		return
	}
	var in wire.Info
	if r := wire.Parse(datagram(pkt), &in); r != wire.DropNone {
		b.drops.Add(r)
		return
	}
	b.resolver.Enqueue(in.Dst, pkt)
}

func (e *passEndpoint) LearnNeighbor(a tcpip.Address, mac tcpip.LinkAddress) tcpip.Error {
	return e.nic.HandleNeighborProbe(e.p.number, a, mac)
}

func (*passEndpoint) Enable() tcpip.Error               { return nil }
func (*passEndpoint) Enabled() bool                     { return true }
func (*passEndpoint) Disable()                          {}
func (*passEndpoint) DefaultTTL() uint8                 { return 64 }
func (e *passEndpoint) MTU() uint32                     { return e.nic.MTU() }
func (e *passEndpoint) Close()                          { e.Cleanup() }
func (*passEndpoint) EndpointHeaderSize() uint32        { return 40 }
func (e *passEndpoint) MaxHeaderLength() uint16         { return e.nic.MaxHeaderLength() + 40 }
func (*passEndpoint) Stats() stack.NetworkEndpointStats { return passStats{} }
func (e *passEndpoint) NetworkProtocolNumber() tcpip.NetworkProtocolNumber {
	return e.p.number
}
func (*passEndpoint) WritePacket(*stack.Route, stack.NetworkHeaderParams, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}
func (*passEndpoint) WriteHeaderIncludedPacket(*stack.Route, *stack.PacketBuffer) tcpip.Error {
	return &tcpip.ErrNotSupported{}
}

type passStats struct{}

func (passStats) IsNetworkEndpointStats() {}

type resolvingEndpoint struct{ *passEndpoint }

func (e *resolvingEndpoint) LinkAddressRequest(target, local tcpip.Address, remote tcpip.LinkAddress) tcpip.Error {
	return SendNS(e.nic, target, local, remote)
}
func (*resolvingEndpoint) ResolveStaticAddress(tcpip.Address) (tcpip.LinkAddress, bool) {
	return "", false
}
func (*resolvingEndpoint) LinkAddressProtocol() tcpip.NetworkProtocolNumber {
	return header.IPv6ProtocolNumber
}

// Frames to send and to compare with, without virtio-net header.

func ethernet(dst, src tcpip.LinkAddress, typ uint16, payload ...[]byte) []byte {
	f := append([]byte(dst), src...)
	f = append(f, byte(typ>>8), byte(typ))
	return append(f, bytes.Join(payload, nil)...)
}

// arpFrame is an ARP packet as in RFC 826.
func arpFrame(dst tcpip.LinkAddress, op byte, sha tcpip.LinkAddress, spa netip.Addr, tha tcpip.LinkAddress, tpa netip.Addr) []byte {
	return ethernet(dst, sha, 0x0806, []byte{0, 1, 8, 0, 6, 4, 0, op}, []byte(sha), spa.AsSlice(), []byte(tha), tpa.AsSlice())
}

func ndFrame(dst, src tcpip.LinkAddress, m ndMessage) []byte {
	b := make([]byte, ndLen)
	return ethernet(dst, src, 0x86dd, b[:m.encode(b)])
}

// addHex decodes hexadecimal with spaces.
func addHex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

// waitGoroutines fails unless the number of goroutines falls back to n.
func waitGoroutines(t *testing.T, n int) {
	t.Helper()
	for range 3000 {
		if runtime.NumGoroutine() <= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d goroutines left, %d before", runtime.NumGoroutine(), n)
}
