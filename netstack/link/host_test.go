package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"bitw/netstack/wire"
)

type host struct {
	s    *stack.Stack
	link *HostEndpoint
}

// newHost returns a netstack host with addrs, all on link.
func newHost(t *testing.T, d Device, mac tcpip.LinkAddress, o Options, clock tcpip.Clock, addrs ...string) *host {
	t.Helper()
	o.Devices, o.MAC, o.MTU = []Device{d}, mac, 1500
	e, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		Clock:              clock,
	})
	if err := s.CreateNIC(1, e); err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		proto := ipv6.ProtocolNumber
		if p.Addr().Is4() {
			proto = ipv4.ProtocolNumber
		}
		pa := tcpip.ProtocolAddress{Protocol: proto, AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits()}}
		if err := s.AddProtocolAddress(1, pa, stack.AddressProperties{}); err != nil {
			t.Fatal(err)
		}
		s.AddRoute(tcpip.Route{Destination: pa.AddressWithPrefix.Subnet(), NIC: 1})
	}
	t.Cleanup(func() { e.Close(); s.Destroy() })
	return &host{s, e}
}

func twoHosts(t *testing.T, o PipeOptions) (a, b *host) {
	da, db := Pipe(o)
	return newHost(t, da, macA, Options{}, nil, "10.0.0.1/24", "fd00::1/64"),
		newHost(t, db, macB, Options{}, nil, "10.0.0.2/24", "fd00::2/64")
}

func full(s string) tcpip.FullAddress {
	ap := netip.MustParseAddrPort(s)
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
}

// 10 MB of TCP each way between two hosts arrive unspoiled and travel as superframes.
func TestHostsTCPSuperframes(t *testing.T) {
	for _, tt := range []struct {
		name, dst string
		proto     tcpip.NetworkProtocolNumber
		gso       uint8
	}{
		{"IPv4", "10.0.0.2:80", ipv4.ProtocolNumber, wire.GSOTCPv4},
		{"IPv6", "[fd00::2]:80", ipv6.ProtocolNumber, wire.GSOTCPv6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var super, longest atomic.Int64
			a, b := twoHosts(t, PipeOptions{Wiretap: func(_ *PipeEnd, f []byte) {
				v := wire.VirtioNet(f)
				if v.GSOKind() == tt.gso && v.NeedsCsum() && int(v.GSOSize()) <= 1460 {
					super.Add(1)
				}
				longest.Store(max(longest.Load(), int64(len(f))))
			}})
			l, err := gonet.ListenTCP(b.s, full(tt.dst), tt.proto)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			data := make([]byte, 10<<20)
			for i := range data {
				data[i] = byte(i * i >> 7)
			}
			go func() { // echo
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				io.Copy(c, c)
			}()
			ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
			defer cancel()
			c, err := gonet.DialContextTCP(ctx, a.s, full(tt.dst), tt.proto)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() { c.Write(data); c.CloseWrite() }()
			got, err := io.ReadAll(c)
			if err != nil || sum(got) != sum(data) {
				t.Fatalf("%d octets back, error %v", len(got), err)
			}
			if super.Load() == 0 || longest.Load() < 20000 {
				t.Errorf("%d superframes, the longest frame has %d octets", super.Load(), longest.Load())
			}
			if n := b.s.Stats().TCP.ChecksumErrors.Value(); n != 0 {
				t.Errorf("%d checksum errors", n)
			}
		})
	}
}

func TestHostsUDP(t *testing.T) {
	a, b := twoHosts(t, PipeOptions{})
	for _, tt := range []struct {
		src, dst string
		proto    tcpip.NetworkProtocolNumber
	}{
		{"10.0.0.1:1000", "10.0.0.2:53", ipv4.ProtocolNumber},
		{"[fd00::1]:1000", "[fd00::2]:53", ipv6.ProtocolNumber},
	} {
		src, dst := full(tt.src), full(tt.dst)
		srv, err := gonet.DialUDP(b.s, &dst, nil, tt.proto)
		if err != nil {
			t.Fatal(err)
		}
		cl, err := gonet.DialUDP(a.s, &src, &dst, tt.proto)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 1400, 9000, 60000} {
			msg := bytes.Repeat([]byte{byte(n)}, n)
			if _, err := cl.Write(msg); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 65535)
			srv.SetReadDeadline(time.Now().Add(10 * time.Second))
			if m, err := srv.Read(buf); err != nil || !bytes.Equal(buf[:m], msg) {
				t.Fatalf("%s: %d octets of %d, %v", tt.dst, m, n, err)
			}
		}
		cl.Close()
		srv.Close()
	}
}

// A ping between two hosts whose links are pumped by hand on a clock that stands
// still: nothing runs by itself but the stack's own timers.
func TestHostsPingDeterministic(t *testing.T) {
	for _, tt := range []struct {
		name, dst string
		net       tcpip.NetworkProtocolNumber
		trans     tcpip.TransportProtocolNumber
		request   []byte
	}{
		{"IPv4", "10.0.0.2:0", ipv4.ProtocolNumber, icmp.ProtocolNumber4, []byte{8, 0, 0, 0, 0, 0, 0, 7, 'h', 'i'}},
		{"IPv6", "[fd00::2]:0", ipv6.ProtocolNumber, icmp.ProtocolNumber6, []byte{128, 0, 0, 0, 0, 0, 0, 7, 'h', 'i'}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			clock := faketime.NewManualClock()
			da, db := Pipe(PipeOptions{})
			a := newHost(t, da, macA, Options{Manual: true}, clock, "10.0.0.1/24", "fd00::1/64")
			b := newHost(t, db, macB, Options{Manual: true}, clock, "10.0.0.2/24", "fd00::2/64")
			var wq waiter.Queue
			ep, err := a.s.NewEndpoint(tt.trans, tt.net, &wq)
			if err != nil {
				t.Fatal(err)
			}
			defer ep.Close()
			if err := ep.Connect(full(tt.dst)); err != nil {
				t.Fatal(err)
			}
			if _, err := ep.Write(bytes.NewReader(tt.request), tcpip.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				clock.Advance(time.Second)
				PumpAll(1000, a.link, b.link)
			}
			var reply bytes.Buffer
			if _, err := ep.Read(&reply, tcpip.ReadOptions{}); err != nil {
				t.Fatalf("no reply: %v", err)
			}
			if got := reply.Bytes(); !bytes.HasSuffix(got, []byte("hi")) || got[0] != 0 && got[0] != 129 {
				t.Errorf("reply %x", got)
			}
		})
	}
}

func TestHostFinishesChecksums(t *testing.T) {
	udp4 := func() []byte { // virtio-net, Ethernet, IPv4, UDP with 4 octets, 14 octets of padding
		f := frame(0, macA, macB, 0x0800, 46)
		ip := header.IPv4(f[HeaderLen:])
		ip.Encode(&header.IPv4Fields{TotalLength: 32, TTL: 64, Protocol: uint8(header.UDPProtocolNumber),
			SrcAddr: tcpip.AddrFrom4([4]byte{10, 0, 0, 2}), DstAddr: tcpip.AddrFrom4([4]byte{10, 0, 0, 1})})
		ip.SetChecksum(^ip.CalculateChecksum())
		u := header.UDP(f[HeaderLen+20:])
		u.Encode(&header.UDPFields{SrcPort: 1, DstPort: 2, Length: 12})
		u.SetChecksum(header.PseudoHeaderChecksum(header.UDPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), 12))
		v := wire.VirtioNet(f[:12])
		v.SetFlags(wire.VirtioNetNeedsCsum)
		v.SetCsumStart(34)
		v.SetCsumOffset(6)
		return f
	}
	for _, tt := range []struct {
		name   string
		change func(v wire.VirtioNet)
		want   wire.DropReason
	}{
		{"padded datagram", func(wire.VirtioNet) {}, wire.DropNone},
		{"start outside", func(v wire.VirtioNet) { v.SetCsumStart(60) }, wire.DropBadOffload},
		{"field in the padding", func(v wire.VirtioNet) { v.SetCsumOffset(12) }, wire.DropBadOffload},
		{"start in the padding", func(v wire.VirtioNet) { v.SetCsumStart(46); v.SetCsumOffset(0) }, wire.DropBadOffload},
		{"UDP superframe", func(v wire.VirtioNet) { v.SetGSOType(wire.GSOUDPL4); v.SetGSOSize(2) }, wire.DropBadOffload},
		{"unknown type", func(v wire.VirtioNet) { v.SetGSOType(9) }, wire.DropBadOffload},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := udp4()
			tt.change(wire.VirtioNet(f[:12]))
			if got := finish(f[:12], f[12:]); got != tt.want {
				t.Fatalf("finish = %v, want %v", got, tt.want)
			}
			if tt.want == wire.DropNone {
				ip := header.IPv4(f[HeaderLen:])
				u := header.UDP(ip.Payload())
				if !u.IsChecksumValid(ip.SourceAddress(), ip.DestinationAddress(), checksum.Checksum(u.Payload(), 0)) {
					t.Errorf("checksum %#x is wrong", u.Checksum())
				}
			}
		})
	}
}

func TestHostDropsForeignFrames(t *testing.T) {
	a, b := Pipe(PipeOptions{})
	var drops wire.DropCounters
	e, err := NewHost(Options{Devices: []Device{a}, MAC: macA, MTU: 1500, Drops: &drops, Manual: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	c := new(capturing)
	e.Attach(c)
	defer c.release()
	b.WriteFrames([][]byte{frame(0, macB, macB, 0x0800, 40), frame(0, macA, macB, 0x0800, 40)})
	PumpAll(10, e)
	if len(c.pkts) != 1 || drops.Load(wire.DropForeignMAC) != 1 {
		t.Errorf("%d delivered, drops %v", len(c.pkts), drops.Snapshot())
	}
	if len(c.pkts[0].VirtioNetHeader().Slice()) != 0 {
		t.Error("the host's stack sees a virtio-net header")
	}
	e.SetPromiscuous(true)
	b.WriteFrames([][]byte{frame(0, macB, macB, 0x0800, 40)})
	PumpAll(10, e)
	if len(c.pkts) != 2 {
		t.Errorf("promiscuous: %d delivered", len(c.pkts))
	}
}

// Several goroutines write while readers run and the links close.
func TestConcurrentWritersAndClose(t *testing.T) {
	before := runtime.NumGoroutine()
	da, db := Pipe(PipeOptions{Queue: 16})
	var drops wire.DropCounters
	a, err := New(Options{Devices: []Device{da}, MAC: macA, MTU: 1500, Drops: &drops})
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(Options{Devices: []Device{db}, MAC: macB, MTU: 1500, Drops: &drops})
	if err != nil {
		t.Fatal(err)
	}
	a.Attach(dispatcherFunc(func() {}))
	b.Attach(dispatcherFunc(func() {}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range 200 {
				var l stack.PacketBufferList
				for i := range 4 {
					l.PushBack(NewPacket(frame(0, macB, macA, 0x0800, 40+i*500), macA))
				}
				a.WritePackets(l)
				b.WritePackets(l)
				l.DecRef()
			}
		}()
	}
	wg.Wait()
	b.Close()
	var l stack.PacketBufferList
	l.PushBack(NewPacket(frame(0, macB, macA, 0x0800, 40), macA))
	if _, err := a.WritePackets(l); err == nil || drops.Load(wire.DropLinkDown) != 1 {
		t.Errorf("write to a closed link: %v, drops %v", err, drops.Snapshot())
	}
	l.DecRef()
	a.Close()
	a.Wait()
	b.Wait()
	waitGoroutines(t, before)
}

func FuzzFinish(f *testing.F) {
	f.Add(frame(1, macA, macB, 0x0800, 40))
	f.Add(frame(1, macA, macB, 0x86dd, 60))
	super := frame(1, macA, macB, 0x0800, 4000)
	super[1], super[4], super[6], super[8] = wire.GSOTCPv4, 0xb4, 34, 16
	binary.BigEndian.PutUint16(super[HeaderLen+2:], 4000)
	f.Add(super)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderLen {
			if NewPacket(b, macA) != nil {
				t.Error("a packet out of a short frame")
			}
			return
		}
		finish(b[:wire.VirtioNetLen], b[wire.VirtioNetLen:])
		pkt := NewPacket(b, macA)
		if got, ok := Frame(pkt); !ok || !bytes.Equal(got, b) {
			t.Error("the frame changed")
		}
		pkt.DecRef()
	})
}
