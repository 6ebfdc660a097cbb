package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

const (
	macA = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x0a")
	macB = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x0b")
)

var (
	addrA4 = netip.MustParseAddr("192.0.2.1")
	addrB4 = netip.MustParseAddr("192.0.2.2")
	addrA6 = netip.MustParseAddr("2001:db8::1")
	addrB6 = netip.MustParseAddr("2001:db8::2")
)

// sink is a link endpoint that keeps the frames written to it.
type sink struct {
	stack.LinkEndpoint
	mu     sync.Mutex
	frames [][]byte
	calls  int
}

func (s *sink) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	for _, b := range framesOf(list) {
		s.frames = append(s.frames, bytes.Clone(b))
	}
	return list.Len(), nil
}

// framesOf returns all frames that are written with list.
func framesOf(list stack.PacketBufferList) (frames [][]byte) {
	for _, pkt := range list.AsSlice() {
		var ok bool
		if frames, ok = link.AppendFrames(frames, pkt); !ok {
			panic("a packet that is not one contiguous frame")
		}
	}
	return frames
}

// count is how many frames were written since the last take.
func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames)
}

// take returns the datagrams that were written since the last take, and checks
// the Ethernet addresses.
func (s *sink) take(t testing.TB, src, dst tcpip.LinkAddress) [][]byte {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out [][]byte
	for _, f := range s.frames {
		eth := header.Ethernet(f[wire.VirtioNetLen:])
		if dst != "" && eth.DestinationAddress() != dst || src != "" && eth.SourceAddress() != src {
			t.Errorf("frame from %v to %v, expected from %v to %v", eth.SourceAddress(), eth.DestinationAddress(), src, dst)
		}
		out = append(out, f[link.HeaderLen:])
	}
	s.frames = nil
	return out
}

// station is one engine between two sinks.
type station struct {
	t           testing.TB
	e           *Engine
	left, right *sink
	mac, peer   tcpip.LinkAddress
	sad         *sa.SAD
	lineages    map[string]*sa.Lineage
	now         int64
}

type fixedNeighbors struct{ mac tcpip.LinkAddress }

func (f fixedNeighbors) Lookup(netip.Addr) (tcpip.LinkAddress, bool) { return f.mac, f.mac != "" }
func (f fixedNeighbors) Peek(netip.Addr) (tcpip.LinkAddress, bool)   { return f.mac, f.mac != "" }
func (f fixedNeighbors) Enqueue(netip.Addr, *stack.PacketBuffer)     {}
func (f fixedNeighbors) Want(netip.Addr)                             {}

func newStation(t testing.TB, mac, peer tcpip.LinkAddress, locals ...netip.Addr) *station {
	t.Helper()
	s := &station{t: t, left: &sink{}, right: &sink{}, mac: mac, peer: peer, sad: sa.NewSAD(), lineages: map[string]*sa.Lineage{}, now: 1e18}
	spd, err := sa.NewSPD(nil)
	if err != nil {
		t.Fatal(err)
	}
	s.e = New(Config{
		SAD: s.sad, SPD: spd,
		Routes:  NewRoutes([]Route{{Destination: netip.MustParsePrefix("0.0.0.0/0")}, {Destination: netip.MustParsePrefix("::/0")}}),
		HostMAC: mac, WireMAC: mac, MTU: 1500,
		IsLocal: func(a netip.Addr) bool {
			for _, l := range locals {
				if l == a {
					return true
				}
			}
			return false
		},
		Clock: func() int64 { return s.now },
	})
	s.e.Bind(s.left, s.right, fixedNeighbors{peer})
	return s
}

func (s *station) policies(list ...*sa.Policy) {
	s.t.Helper()
	spd, err := sa.NewSPD(list)
	if err != nil {
		s.t.Fatal(err)
	}
	s.e.SetSPD(spd)
}

// add makes an SA with a key that depends on the name alone, so that both
// stations get the same.
func (s *station) add(name, algorithm string, proto uint8, dir sa.Direction, mode sa.Mode, spi uint32, src, dst netip.Addr, change ...func(*sa.SAConfig)) *sa.SA {
	s.t.Helper()
	alg, err := transform.NewRegistry(append(transform.Families(), legacy.Families()...)...).Lookup(proto, algorithm)
	if err != nil {
		s.t.Fatal(err)
	}
	l := sa.NewLineage(name)
	cfg := sa.SAConfig{
		Name: name, Key: sa.Key{SPI: spi, Dst: dst, Proto: proto}, Src: src, Direction: dir, Mode: mode, Algorithm: alg,
		EncryptionKey: testKey(alg.EncryptionKeyLen, spi, 1), IntegrityKey: testKey(alg.IntegrityKeyLen, spi, 2),
		Lineage: l, Store: sa.NewMemoryStore(), Clock: func() int64 { return s.now },
	}
	for _, f := range change {
		f(&cfg)
	}
	x, err := sa.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.sad.Add(x); err != nil {
		s.t.Fatal(err)
	}
	if dir == sa.Outbound {
		if _, err := l.Switch(x); err != nil {
			s.t.Fatal(err)
		}
	}
	s.lineages[name] = l
	return x
}

// make makes an outbound transport mode SA that is in no database, with the key that
// add gives to that SPI. l may be nil.
func (s *station) make(name string, l *sa.Lineage, spi uint32, dst netip.Addr) *sa.SA {
	s.t.Helper()
	alg, err := transform.Lookup(transform.ProtoESP, "aes128gcm16")
	if err != nil {
		s.t.Fatal(err)
	}
	x, err := sa.New(sa.SAConfig{
		Name: name, Key: sa.Key{SPI: spi, Dst: dst, Proto: transform.ProtoESP}, Direction: sa.Outbound, Algorithm: alg,
		EncryptionKey: testKey(alg.EncryptionKeyLen, spi, 1), Lineage: l, Store: sa.NewMemoryStore(), Clock: func() int64 { return s.now },
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return x
}

// testKey is the key of n octets of an SPI.
func testKey(n int, spi uint32, tag byte) sa.Secret {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i)*7 ^ tag ^ byte(spi)
	}
	return sa.NewSecret(b)
}

// fromHost gives a datagram to the left side, as the kernel would; vn may be nil.
func (s *station) fromHost(datagram []byte, vn func(wire.VirtioNet)) {
	pkt := link.NewPacket(frame(s.mac, s.mac, datagram, vn), s.mac)
	s.e.outbound(pkt)
	pkt.DecRef()
}

// fromWire gives a datagram to the right side.
func (s *station) fromWire(datagrams ...[]byte) {
	for _, d := range datagrams {
		pkt := link.NewPacket(frame(s.peer, s.mac, d, nil), s.mac)
		s.e.inbound(pkt)
		pkt.DecRef()
	}
}

func (s *station) drops(side hook.Side) map[string]uint64 { return s.e.Drops(side).Snapshot() }

func (s *station) expectDrop(side hook.Side, reason wire.DropReason) {
	s.t.Helper()
	if got := s.drops(side); len(got) != 1 || got[reason.String()] == 0 {
		s.t.Errorf("drops on the %v are %v, expected %v", side, got, reason)
	}
}

func frame(src, dst tcpip.LinkAddress, datagram []byte, vn func(wire.VirtioNet)) []byte {
	b := make([]byte, link.HeaderLen, link.HeaderLen+len(datagram))
	if vn != nil {
		vn(wire.VirtioNet(b))
	}
	copy(b[wire.VirtioNetLen:], dst)
	copy(b[wire.VirtioNetLen+6:], src)
	proto := header.IPv4ProtocolNumber
	if datagram[0]>>4 == 6 {
		proto = header.IPv6ProtocolNumber
	}
	binary.BigEndian.PutUint16(b[link.HeaderLen-2:], uint16(proto))
	return append(b, datagram...)
}

// ip puts an IP header without options in front of a payload. DF is set where df.
func ip(src, dst netip.Addr, proto uint8, df bool, payload []byte) []byte {
	if src.Is4() {
		b := make([]byte, header.IPv4MinimumSize, header.IPv4MinimumSize+len(payload))
		f := &header.IPv4Fields{
			TotalLength: uint16(len(payload) + header.IPv4MinimumSize), ID: 0x1234, TTL: 61, TOS: 0x28, Protocol: proto,
			SrcAddr: tcpip.AddrFromSlice(src.AsSlice()), DstAddr: tcpip.AddrFromSlice(dst.AsSlice()),
		}
		if df {
			f.Flags = header.IPv4FlagDontFragment
		}
		h := header.IPv4(b)
		h.Encode(f)
		h.SetChecksum(^h.CalculateChecksum())
		return append(b, payload...)
	}
	b := make([]byte, header.IPv6MinimumSize, header.IPv6MinimumSize+len(payload))
	header.IPv6(b).Encode(&header.IPv6Fields{
		PayloadLength: uint16(len(payload)), TrafficClass: 0x28, TransportProtocol: tcpip.TransportProtocolNumber(proto), HopLimit: 61,
		SrcAddr: tcpip.AddrFromSlice(src.AsSlice()), DstAddr: tcpip.AddrFromSlice(dst.AsSlice()),
	})
	return append(b, payload...)
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + i>>8)
	}
	return b
}

// udpTo is a UDP datagram with n octets of payload and its checksum.
func udpTo(src, dst netip.Addr, sport, dport uint16, n int) []byte {
	b := append(make([]byte, header.UDPMinimumSize), pattern(n)...)
	u := header.UDP(b)
	u.Encode(&header.UDPFields{SrcPort: sport, DstPort: dport, Length: uint16(len(b))})
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(b)))
	u.SetChecksum(^checksum.Checksum(b, sum))
	return ip(src, dst, wire.ProtoUDP, false, b)
}

// tcpTo is a TCP segment with n octets of payload whose checksum is complete, or
// holds only the pseudo header's sum as for a device where partial.
func tcpTo(src, dst netip.Addr, n int, partial bool) []byte {
	b := append(make([]byte, 32), pattern(n)...)
	h := header.TCP(b)
	h.Encode(&header.TCPFields{SrcPort: 4000, DstPort: 80, SeqNum: 1000, AckNum: 77, DataOffset: 32, Flags: header.TCPFlagAck | header.TCPFlagPsh, WindowSize: 512})
	copy(b[20:], []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2})
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, tcpip.AddrFromSlice(src.AsSlice()), tcpip.AddrFromSlice(dst.AsSlice()), uint16(len(b)))
	if partial {
		h.SetChecksum(sum)
	} else {
		h.SetChecksum(^checksum.Checksum(b, sum))
	}
	return ip(src, dst, wire.ProtoTCP, true, b)
}

// superframe describes a TCP superframe built by tcpTo.
func superframe(datagram []byte, mss int) func(wire.VirtioNet) {
	return func(v wire.VirtioNet) {
		l3 := header.IPv4MinimumSize
		v.SetGSOType(wire.GSOTCPv4)
		if datagram[0]>>4 == 6 {
			l3 = header.IPv6MinimumSize
			v.SetGSOType(wire.GSOTCPv6)
		}
		v.SetFlags(wire.VirtioNetNeedsCsum)
		v.SetHdrLen(uint16(ethernetLen + l3 + 32))
		v.SetGSOSize(uint16(mss))
		v.SetCsumStart(uint16(ethernetLen + l3))
		v.SetCsumOffset(16)
	}
}

func parse(t testing.TB, b []byte) wire.Info {
	t.Helper()
	var in wire.Info
	if reason := wire.Parse(b, &in); reason != wire.DropNone {
		t.Fatalf("datagram does not parse: %v", reason)
	}
	return in
}

// pair is two stations that talk by one SA each way.
type pair struct{ a, b *station }

// newPair protects everything between the two hosts of one family, by SAs whose
// tunnel ends, if any, are of another family where crossed.
func newPair(t testing.TB, algorithm string, proto uint8, mode sa.Mode, six, crossed bool) *pair {
	t.Helper()
	p := &pair{newStation(t, macA, macB, addrA4, addrA6), newStation(t, macB, macA, addrB4, addrB6)}
	a, b := addrA4, addrB4
	if six {
		a, b = addrA6, addrB6
	}
	endA, endB := a, b
	if crossed {
		endA, endB = addrA6, addrB6
		if six {
			endA, endB = addrA4, addrB4
		}
	}
	p.a.add("ab", algorithm, proto, sa.Outbound, mode, 0x1001, endA, endB)
	p.a.add("ba", algorithm, proto, sa.Inbound, mode, 0x2002, endB, endA)
	p.b.add("ab", algorithm, proto, sa.Inbound, mode, 0x1001, endA, endB)
	p.b.add("ba", algorithm, proto, sa.Outbound, mode, 0x2002, endB, endA)
	p.a.policies(p.a.protect("to-b", a, b, "ab", "ba"))
	p.b.policies(p.b.protect("to-a", b, a, "ba", "ab"))
	return p
}

func (s *station) protect(name string, local, remote netip.Addr, out, in string) *sa.Policy {
	return &sa.Policy{
		Name: name, Action: sa.Protect,
		Selector: sa.Selector{Local: []sa.AddrRange{sa.AddrRangeFrom(local)}, Remote: []sa.AddrRange{sa.AddrRangeFrom(remote)}},
		Out:      []*sa.Lineage{s.lineages[out]}, In: []*sa.Lineage{s.lineages[in]},
	}
}

// cross sends a datagram from a's host to b's, and returns what b's host gets
// and what was on the wire.
func (p *pair) cross(datagram []byte, vn func(wire.VirtioNet)) (got, wired [][]byte) {
	p.a.fromHost(datagram, vn)
	wired = p.a.right.take(p.a.t, macA, macB)
	for _, d := range wired {
		p.b.fromWire(bytes.Clone(d))
	}
	return p.b.left.take(p.b.t, macA, macB), wired
}

func modeName(m sa.Mode, six, crossed bool) string {
	inner, outer := 4, 4
	if six {
		inner = 6
	}
	if six != crossed {
		outer = 6
	}
	if m == sa.Transport {
		return fmt.Sprintf("transport/v%d", inner)
	}
	return fmt.Sprintf("tunnel/%din%d", inner, outer)
}
