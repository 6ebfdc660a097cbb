package appliance

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"bitw/config"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// memoryHost is an ordinary netstack host behind an appliance.
type memoryHost struct {
	stack *stack.Stack
	mac   net.HardwareAddr
	v4    netip.Addr
	v6    netip.Addr
}

func newMemoryHost(t testing.TB, dev link.Device, mac net.HardwareAddr, v4, v6 string) *memoryHost {
	t.Helper()
	h := &memoryHost{mac: mac, v4: netip.MustParseAddr(v4), v6: netip.MustParseAddr(v6)}
	end, err := link.NewHost(link.Options{Devices: []link.Device{dev}, MAC: tcpip.LinkAddress(mac), MTU: 1500, Name: "host"})
	if err != nil {
		t.Fatal(err)
	}
	h.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := h.stack.CreateNIC(1, end); err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		proto tcpip.NetworkProtocolNumber
		addr  netip.Addr
		bits  int
	}{{header.IPv4ProtocolNumber, h.v4, 24}, {header.IPv6ProtocolNumber, h.v6, 64}} {
		pa := tcpip.ProtocolAddress{Protocol: a.proto, AddressWithPrefix: tcpip.AddressWithPrefix{Address: addressOf(a.addr), PrefixLen: a.bits}}
		if err := h.stack.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
	}
	h.stack.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1},
	})
	t.Cleanup(func() {
		end.Close()
		h.stack.Destroy()
	})
	return h
}

func (h *memoryHost) full(six bool, port uint16) (tcpip.FullAddress, tcpip.NetworkProtocolNumber) {
	if six {
		return tcpip.FullAddress{NIC: 1, Addr: addressOf(h.v6), Port: port}, header.IPv6ProtocolNumber
	}
	return tcpip.FullAddress{NIC: 1, Addr: addressOf(h.v4), Port: port}, header.IPv4ProtocolNumber
}

// wireLog keeps what crossed the wire between two appliances.
type wireLog struct {
	mu     sync.Mutex
	frames [][]byte
}

func (w *wireLog) see(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, bytes.Clone(frame))
}

// protocols counts the IP protocols on the wire, neighbour discovery apart.
func (w *wireLog) protocols() map[uint8]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := make(map[uint8]int)
	for _, f := range w.frames {
		var in wire.Info
		if len(f) > link.HeaderLen && wire.Parse(f[link.HeaderLen:], &in) == wire.DropNone {
			if in.Proto == wire.ProtoICMPv6 && in.ICMPType >= 133 && in.ICMPType <= 137 || in.Dst.IsMulticast() {
				continue
			}
			m[in.Proto]++
		}
	}
	return m
}

// memoryPair is two hosts, each behind an appliance, joined by a wire in memory.
type memoryPair struct {
	a, b       *memoryHost
	boxA, boxB *Appliance
	wire       *wireLog
}

func key(t testing.TB, n int) config.Secret {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return config.NewSecret(b)
}

// mirror is the configuration of the other end.
func mirror(c config.Config) config.Config {
	m := c
	m.SAs, m.Policies = nil, nil
	for _, s := range c.SAs {
		if s.Direction == config.Out {
			s.Direction = config.In
		} else {
			s.Direction = config.Out
		}
		m.SAs = append(m.SAs, s)
	}
	for _, p := range c.Policies {
		p.Local, p.Remote = p.Remote, p.Local
		p.Out, p.In = p.In, p.Out
		m.Policies = append(m.Policies, p)
	}
	return m
}

// protectAll protects everything between the two hosts, IPv4 in transport and
// IPv6 in tunnel mode.
func protectAll(t testing.TB) config.Config {
	one := func(s string) []config.AddressRange {
		a := netip.MustParseAddr(s)
		return []config.AddressRange{{First: a, Last: a}}
	}
	addr := netip.MustParseAddr
	return config.Config{
		SAs: []config.SA{
			{Name: "ab", Direction: config.Out, Protocol: config.ESP, Mode: config.Transport, SPI: 0x1001, Source: addr("192.0.2.1"), Destination: addr("192.0.2.2"), Algorithm: "aes128gcm16", EncryptionKey: key(t, 20)},
			{Name: "ba", Direction: config.In, Protocol: config.ESP, Mode: config.Transport, SPI: 0x2001, Source: addr("192.0.2.2"), Destination: addr("192.0.2.1"), Algorithm: "aes128gcm16", EncryptionKey: key(t, 20)},
			{Name: "ab6", Direction: config.Out, Protocol: config.ESP, Mode: config.Tunnel, SPI: 0x1006, Source: addr("2001:db8::1"), Destination: addr("2001:db8::2"), Algorithm: "aes256-sha256", EncryptionKey: key(t, 32), IntegrityKey: key(t, 32)},
			{Name: "ba6", Direction: config.In, Protocol: config.ESP, Mode: config.Tunnel, SPI: 0x2006, Source: addr("2001:db8::2"), Destination: addr("2001:db8::1"), Algorithm: "aes256-sha256", EncryptionKey: key(t, 32), IntegrityKey: key(t, 32)},
		},
		Policies: []config.Policy{
			{Name: "v4", Local: one("192.0.2.1"), Remote: one("192.0.2.2"), Action: config.Protect, Out: []string{"ab"}, In: []string{"ba"}},
			{Name: "v6", Local: one("2001:db8::1"), Remote: one("2001:db8::2"), Action: config.Protect, Out: []string{"ab6"}, In: []string{"ba6"}},
		},
	}
}

// newMemoryPair starts two appliances; the first option is for a, the second for b.
func newMemoryPair(t testing.TB, cfgA, cfgB config.Config, opts ...Option) *memoryPair {
	t.Helper()
	p := &memoryPair{wire: &wireLog{}}
	macA, macB := net.HardwareAddr{2, 0, 0, 0, 0, 10}, net.HardwareAddr{2, 0, 0, 0, 0, 11}
	hostA, innerA := link.Pipe(link.PipeOptions{})
	hostB, innerB := link.Pipe(link.PipeOptions{})
	outerA, outerB := link.Pipe(link.PipeOptions{Queue: 8192, Wiretap: func(_ *link.PipeEnd, frame []byte) { p.wire.see(frame) }})
	p.a = newMemoryHost(t, hostA, macA, "192.0.2.1", "2001:db8::1")
	p.b = newMemoryHost(t, hostB, macB, "192.0.2.2", "2001:db8::2")
	start := func(cfg config.Config, left, right link.Device, h *memoryHost, opts []Option) *Appliance {
		box, err := New(cfg, append(opts, WithSequenceStore(sa.NewMemoryStore()), WithLinks(left, right, Host{
			MAC:       h.mac,
			Addresses: []netip.Prefix{netip.PrefixFrom(h.v4, 24), netip.PrefixFrom(h.v6, 64)},
		}))...)
		if err != nil {
			t.Fatal(err)
		}
		errc := make(chan error, 1)
		go func() { errc <- box.Run(context.Background()) }()
		select {
		case <-box.Ready():
		case err := <-errc:
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = box.Close()
			if err := <-errc; err != nil {
				t.Error(err)
			}
		})
		return box
	}
	opts = append(opts, func(*options) {}, func(*options) {})
	p.boxA = start(cfgA, innerA, outerA, p.a, opts[:1:1])
	p.boxB = start(cfgB, innerB, outerB, p.b, opts[1:2:2])
	return p
}

// transfer sends n octets of TCP from one host to the other.
func (p *memoryPair) transfer(t testing.TB, six bool, n int) {
	t.Helper()
	addr, proto := p.b.full(six, 8080)
	l, err := gonet.ListenTCP(p.b.stack, addr, proto)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	data := make([]byte, n)
	_, _ = rand.Read(data)
	got := make(chan []byte, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- nil
			return
		}
		b, _ := io.ReadAll(c)
		_ = c.Close()
		got <- b
	}()
	// Nothing here is timed, but what hangs is to say so.
	const patience = time.Minute
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, p.a.stack, addr, proto)
	if err != nil {
		t.Fatalf("connect: %v\nA: %s\nB: %s", err, dropsOf(p.boxA), dropsOf(p.boxB))
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if n, err := c.Write(data); err != nil {
		t.Fatalf("after %d octets: %v\n%s", n, err, p.state())
	}
	_ = c.CloseWrite()
	select {
	case b := <-got:
		if !bytes.Equal(b, data) {
			t.Fatalf("%d octets arrived of %d, or others\n%s", len(b), len(data), p.state())
		}
	case <-time.After(patience):
		t.Fatalf("transfer hangs\n%s", p.state())
	}
	_ = c.Close()
}

// state is what tells why a transfer does not go on.
func (p *memoryPair) state() string {
	var w strings.Builder
	for name, x := range map[string]struct {
		box  *Appliance
		host *memoryHost
	}{"A": {p.boxA, p.a}, "B": {p.boxB, p.b}} {
		tcp := x.host.stack.Stats().TCP
		fmt.Fprintf(&w, "%s: drops %s; TCP: %d segments sent, %d received, %d retransmitted, %d timeouts, %d checksum errors\n", name, dropsOf(x.box),
			tcp.SegmentsSent.Value(), tcp.ValidSegmentsReceived.Value(), tcp.Retransmits.Value(), tcp.Timeouts.Value(), tcp.ChecksumErrors.Value())
	}
	return w.String()
}

func dropsOf(a *Appliance) string { return fmt.Sprint(a.Status().DropsBySide) }

func TestR49_TwoAppliancesInOneProcess(t *testing.T) {
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg))
	for _, six := range []bool{false, true} {
		p.transfer(t, six, 4<<20)
	}
	if seen := p.wire.protocols(); len(seen) != 1 || seen[wire.ProtoESP] == 0 {
		t.Errorf("IP protocols on the wire: %v; expected ESP alone", seen)
	}
	s := p.boxA.Status()
	if s.State != "active" || len(s.SAs) != 4 || s.Policies[0].Out.Packets == 0 || s.Policies[1].In.Packets == 0 {
		t.Errorf("status %+v", s)
	}
}
