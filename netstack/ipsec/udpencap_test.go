package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	portA, portB = 4500, 4501
)

// encapPair is newPair with ESP in UDP, and the events of a's SAs.
type encapPair struct {
	*pair
	a, b   netip.Addr // of the hosts
	events []sa.Event
	outA   *sa.SA
}

type encapCase struct {
	mode         sa.Mode
	six, crossed bool
	algorithm    string
	change       func(*sa.SAConfig)
}

func newEncapPair(t testing.TB, c encapCase) *encapPair {
	t.Helper()
	p := &encapPair{pair: &pair{newStation(t, macA, macB, addrA4, addrA6), newStation(t, macB, macA, addrB4, addrB6)}, a: addrA4, b: addrB4}
	if c.six {
		p.a, p.b = addrA6, addrB6
	}
	endA, endB := p.a, p.b
	if c.crossed {
		endA, endB = addrA6, addrB6
		if c.six {
			endA, endB = addrA4, addrB4
		}
	}
	if c.algorithm == "" {
		c.algorithm = "aes128gcm16"
	}
	encap := func(local, remote uint16) func(*sa.SAConfig) {
		return func(cfg *sa.SAConfig) {
			cfg.Encap = &sa.Encap{LocalPort: local, RemotePort: remote, Keepalive: 20 * time.Second, Float: true}
			if c.change != nil {
				c.change(cfg)
			}
		}
	}
	notify := func(cfg *sa.SAConfig) { cfg.Lineage.Notify = func(ev sa.Event) { p.events = append(p.events, ev) } }
	p.outA = p.pair.a.add("ab", c.algorithm, wire.ProtoESP, sa.Outbound, c.mode, 0x1001, endA, endB, encap(portA, portB), notify)
	p.pair.a.add("ba", c.algorithm, wire.ProtoESP, sa.Inbound, c.mode, 0x2002, endB, endA, encap(portA, portB))
	p.pair.b.add("ab", c.algorithm, wire.ProtoESP, sa.Inbound, c.mode, 0x1001, endA, endB, encap(portB, portA))
	p.pair.b.add("ba", c.algorithm, wire.ProtoESP, sa.Outbound, c.mode, 0x2002, endB, endA, encap(portB, portA))
	p.pair.a.policies(p.pair.a.protect("to-b", p.a, p.b, "ab", "ba"))
	p.pair.b.policies(p.pair.b.protect("to-a", p.b, p.a, "ba", "ab"))
	return p
}

// answer sends a datagram of n octets of UDP from b to a, by way of a NAT that has b
// appear at from. It returns what a's host got, with what was on the wire.
func (p *encapPair) answer(t testing.TB, n int, from netip.AddrPort) (got [][]byte, wired []byte) {
	t.Helper()
	p.pair.b.fromHost(udpTo(p.b, p.a, 53, 5000, n), nil)
	list := p.pair.b.right.take(t, macB, macA)
	if len(list) != 1 {
		t.Fatalf("%d datagrams on the wire, expected one", len(list))
	}
	wired = list[0]
	p.pair.a.fromWire(translated(bytes.Clone(wired), from))
	return p.pair.a.left.take(t, macB, macA), wired
}

// translated is a UDP datagram with another source, as a NAT makes it.
func translated(b []byte, from netip.AddrPort) []byte {
	wire.SetSrc(b, from.Addr())
	wire.SetLength(b, int(b[0]>>4), len(b))
	head := ipHeaderLen(from.Addr())
	binary.BigEndian.PutUint16(b[head:], from.Port())
	return b
}

func encapCases() []encapCase {
	var list []encapCase
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, six := range []bool{false, true} {
			for _, crossed := range []bool{false, true} {
				if !crossed || mode == sa.Tunnel {
					list = append(list, encapCase{mode: mode, six: six, crossed: crossed})
				}
			}
		}
	}
	return list
}

func TestRFC3948_2_1_ESPInUDP(t *testing.T) {
	for _, c := range encapCases() {
		t.Run(modeName(c.mode, c.six, c.crossed), func(t *testing.T) {
			p := newEncapPair(t, c)
			for _, datagram := range [][]byte{udpTo(p.a, p.b, 5000, 53, 100), tcpTo(p.a, p.b, 1300, false)} {
				got, wired := p.cross(datagram, nil)
				if len(got) != 1 || !bytes.Equal(got[0], datagram) {
					t.Fatalf("%d datagrams arrived, or another than sent; drops %v", len(got), p.pair.b.drops(hook.Right))
				}
				in := parse(t, wired[0])
				if in.Proto != wire.ProtoUDP || in.SrcPort != portA || in.DstPort != portB {
					t.Errorf("on the wire: protocol %d from port %d to %d", in.Proto, in.SrcPort, in.DstPort)
				}
				payload, kind := wire.EncapPayload(wired[0], &in)
				if kind != wire.EncapESP || len(payload) != in.TotalLen-in.HeaderLen-wire.UDPLen || binary.BigEndian.Uint32(payload) != 0x1001 {
					t.Errorf("payload is %d with SPI %x", kind, payload[:4])
				}
				sum := header.UDP(wired[0][in.HeaderLen:]).Checksum()
				if (sum == 0) != (in.Version == 4) || !wire.VerifyL4(wired[0], &in) {
					t.Errorf("UDP checksum over IPv%d is %#x", in.Version, sum)
				}
			}
		})
	}
}

func TestRFC3948_2_1_ChecksumFilledWhereWanted(t *testing.T) {
	for _, want := range []bool{false, true} {
		for _, six := range []bool{false, true} {
			p := newEncapPair(t, encapCase{mode: sa.Tunnel, six: six, change: func(c *sa.SAConfig) {
				c.Encap.Checksum = map[bool]sa.UDPChecksum{true: sa.ChecksumFilled, false: sa.ChecksumZero}[want]
			}})
			got, wired := p.cross(udpTo(p.a, p.b, 1, 2, 77), nil)
			in := parse(t, wired[0])
			if sum := header.UDP(wired[0][in.HeaderLen:]).Checksum(); (sum != 0) != want || want && !wire.VerifyL4(wired[0], &in) {
				t.Errorf("checksum %#x, wanted %v", sum, want)
			}
			if len(got) != 1 {
				t.Errorf("IPv6 %v, checksum %v: did not arrive", six, want)
			}
			// RFC 3948 §2.1: the receiver must not depend on it.
			b := udpEncap(t, p)
			b[in.HeaderLen+6] ^= 0x5a
			p.pair.b.fromWire(b)
			if len(p.pair.b.left.take(t, macA, macB)) != 1 {
				t.Errorf("IPv6 %v: a wrong UDP checksum mattered: %v", six, p.pair.b.drops(hook.Right))
			}
		}
	}
}

// udpEncap is one more datagram from a as it is on the wire.
func udpEncap(t testing.TB, p *encapPair) []byte {
	t.Helper()
	p.pair.a.fromHost(udpTo(p.a, p.b, 1, 2, 77), nil)
	return p.pair.a.right.take(t, macA, macB)[0]
}

// TestRFC3948_OverheadInMTU sends superframes and datagrams at the limit.
func TestRFC3948_OverheadInMTU(t *testing.T) {
	for _, c := range encapCases() {
		t.Run(modeName(c.mode, c.six, c.crossed), func(t *testing.T) {
			p := newEncapPair(t, c)
			big := tcpTo(p.a, p.b, 20000, true)
			got, wired := p.cross(big, superframe(big, 1400))
			octets := 0
			for _, d := range got {
				in := parse(t, d)
				octets += len(d) - in.HeaderLen - in.L4HeaderLen
				if !wire.VerifyL4(d, &in) {
					t.Error("a segment's checksum is wrong")
				}
			}
			longest := 0
			for _, d := range wired {
				longest = max(longest, len(d))
			}
			if octets != 20000 || longest > 1500 || longest < 1500-16 {
				t.Errorf("%d octets arrived, the longest datagram on the wire has %d", octets, longest)
			}
			// What does not fit is answered with the size that does.
			p.pair.a.fromHost(tcpTo(p.a, p.b, 1500, false), nil)
			answers := p.pair.a.left.take(t, "", macA)
			if len(answers) != 1 {
				t.Fatalf("%d answers to a datagram that is too big", len(answers))
			}
			in := parse(t, answers[0])
			mtu := int(binary.BigEndian.Uint16(answers[0][in.HeaderLen+6:]))
			fits := tcpTo(p.a, p.b, mtu-ipHeaderLen(p.a)-32, false)
			if got, wired := p.cross(fits, nil); len(got) != 1 || len(wired) != 1 || len(wired[0]) > 1500 {
				t.Errorf("a datagram of the %d octets that were told: %d pieces on the wire", mtu, len(wired))
			}
		})
	}
}

func TestRFC3948_2_2_IKEGoesToTheHost(t *testing.T) {
	p := newEncapPair(t, encapCase{mode: sa.Tunnel})
	protect := p.pair.a.protect("to-b", p.a, p.b, "ab", "ba")
	ike := &sa.Policy{Name: "ike", Action: sa.Bypass, Selector: sa.Selector{
		Proto: wire.ProtoUDP, LocalPorts: []sa.PortRange{{From: portA, To: portA}},
	}}
	p.pair.a.policies(ike, protect)
	message := rawUDP(p.b, p.a, portB, portA, append(make([]byte, 4), pattern(200)...))
	p.pair.a.fromWire(message)
	if got := p.pair.a.left.take(t, macB, macA); len(got) != 1 || !bytes.Equal(got[0], message) {
		t.Errorf("%d datagrams reached the host, expected the IKE message as it was", len(got))
	}
	// And out, from the same port.
	reply := rawUDP(p.a, p.b, portA, portB, append(make([]byte, 4), pattern(100)...))
	p.pair.a.fromHost(reply, nil)
	if got := p.pair.a.right.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], reply) {
		t.Errorf("%d datagrams reached the wire, expected the reply as it was", len(got))
	}
	// Without the rule it does not pass, and ESP passes with and without.
	if got, _ := p.answer(t, 50, netip.AddrPortFrom(p.b, portB)); len(got) != 1 {
		t.Errorf("ESP beside IKE: %d arrived; %v", len(got), p.pair.a.drops(hook.Right))
	}
	p.pair.a.policies(protect)
	p.pair.a.fromWire(message)
	if got := p.pair.a.left.take(t, macB, macA); len(got) != 0 {
		t.Error("IKE passed without a rule")
	}
	p.pair.a.expectDrop(hook.Right, wire.DropClearNotProtected)
}

// rawUDP is a UDP datagram with that payload and no checksum.
func rawUDP(src, dst netip.Addr, sport, dport uint16, payload []byte) []byte {
	b := append(make([]byte, wire.UDPLen), payload...)
	wire.PutUDPHeader(b, sport, dport)
	return ip(src, dst, wire.ProtoUDP, false, b)
}

func TestRFC3948_2_3_KeepalivesAreDroppedQuietly(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newEncapPair(t, encapCase{mode: sa.Tunnel, six: six})
		p.pair.a.policies(
			&sa.Policy{Name: "all", Action: sa.Bypass, Selector: sa.Selector{Proto: sa.AnyProto}},
		)
		for range 3 {
			p.pair.a.fromWire(rawUDP(p.b, p.a, 1234, portA, []byte{0xff}))
		}
		p.pair.a.expectDrop(hook.Right, wire.DropKeepalive)
		if n := p.pair.a.drops(hook.Right)["nat_keepalive"]; n != 3 || len(p.pair.a.left.take(t, "", "")) != 0 {
			t.Errorf("%d keepalives counted", n)
		}
		// Another port, another address, another octet: nothing special.
		for _, d := range [][]byte{
			rawUDP(p.b, p.a, 1234, portA+1, []byte{0xff}), rawUDP(p.b, p.a, 1234, portA, []byte{0xfe}),
			rawUDP(p.b, p.a, 1234, portA, []byte{0xff, 0xff}), rawUDP(p.b, p.a, 1234, portA, nil),
			rawUDP(p.b, p.a, 1234, portA, []byte{1, 2, 3, 4, 5, 6, 7}),
		} {
			p.pair.a.fromWire(d)
			if len(p.pair.a.left.take(t, "", "")) != 1 {
				t.Errorf("%x did not pass", d)
			}
		}
	}
}

func TestRFC3948_4_KeepalivesAreSentInSilence(t *testing.T) {
	for _, six := range []bool{false, true} {
		p := newEncapPair(t, encapCase{mode: sa.Tunnel, six: six})
		s := p.pair.a
		tick := func(d time.Duration) [][]byte {
			s.now += int64(d)
			s.e.Tick()
			return s.right.take(t, macA, macB)
		}
		if got := tick(19 * time.Second); len(got) != 0 {
			t.Fatal("a keepalive before its time")
		}
		p.cross(udpTo(p.a, p.b, 1, 2, 3), nil)
		if got := tick(10 * time.Second); len(got) != 0 {
			t.Fatal("a keepalive though there was traffic")
		}
		got := tick(10 * time.Second)
		if len(got) != 1 {
			t.Fatalf("%d keepalives after 20 s of silence", len(got))
		}
		in := parse(t, got[0])
		if in.Src != p.a || in.Dst != p.b || in.SrcPort != portA || in.DstPort != portB || !wire.VerifyL4(got[0], &in) {
			t.Errorf("keepalive %+v", in)
		}
		if b, kind := wire.EncapPayload(got[0], &in); kind != wire.EncapKeepalive {
			t.Errorf("keepalive holds %x", b)
		}
		if n := len(tick(19 * time.Second)); n != 0 {
			t.Error("the next keepalive is too early")
		}
		if n := len(tick(time.Second)); n != 1 {
			t.Errorf("%d keepalives after 20 s more", n)
		}
		if n := p.outA.KeepalivesSent.Load(); n != 2 {
			t.Errorf("%d keepalives counted", n)
		}
		p.pair.b.fromWire(got[0])
		p.pair.b.expectDrop(hook.Right, wire.DropKeepalive)
		p.outA.Invalidate()
		if n := len(tick(time.Minute)); n != 0 {
			t.Error("a keepalive for an SA that must not be used")
		}
	}
}

func TestRFC3948_EncapsulationIsPartOfTheSA(t *testing.T) {
	plain := newPair(t, "aes128gcm16", wire.ProtoESP, sa.Tunnel, false, false)
	p := newEncapPair(t, encapCase{mode: sa.Tunnel})
	p.pair.a.fromHost(udpTo(p.a, p.b, 1, 2, 30), nil)
	encapsulated := p.pair.a.right.take(t, macA, macB)[0]
	in := parse(t, encapsulated)
	esp := ip(p.a, p.b, wire.ProtoESP, false, encapsulated[in.HeaderLen+wire.UDPLen:])

	p.pair.b.fromWire(bytes.Clone(esp))
	p.pair.b.expectDrop(hook.Right, wire.DropEncapMismatch)
	plain.b.fromWire(bytes.Clone(esp))
	if got := plain.b.left.take(t, macA, macB); len(got) != 1 {
		t.Errorf("what is in the UDP datagram is not ESP: %v", plain.b.drops(hook.Right))
	}
	// The right SA by the port of another one, and an unknown SPI even where the port
	// is let through.
	other := newEncapPair(t, encapCase{mode: sa.Tunnel})
	other.pair.b.add("more", "aes128gcm16", wire.ProtoESP, sa.Inbound, sa.Tunnel, 0x3003, p.a, p.b, func(c *sa.SAConfig) {
		c.Encap = &sa.Encap{LocalPort: 999, RemotePort: 999}
	})
	d := bytes.Clone(encapsulated)
	binary.BigEndian.PutUint16(d[in.HeaderLen+2:], 999)
	other.pair.b.fromWire(d)
	other.pair.b.expectDrop(hook.Right, wire.DropEncapMismatch)

	p = newEncapPair(t, encapCase{mode: sa.Tunnel})
	p.pair.b.policies(&sa.Policy{Name: "all", Action: sa.Bypass, Selector: sa.Selector{Proto: sa.AnyProto}},
		&sa.Policy{Name: "udp", Action: sa.Bypass, Selector: sa.Selector{Proto: wire.ProtoESP}})
	d = bytes.Clone(encapsulated)
	binary.BigEndian.PutUint32(d[in.HeaderLen+wire.UDPLen:], 0x4444)
	p.pair.b.fromWire(d)
	p.pair.b.expectDrop(hook.Right, wire.DropUnknownSPI)
	if len(p.pair.b.left.take(t, "", "")) != 0 {
		t.Error("ESP of no SA reached the host")
	}
}
