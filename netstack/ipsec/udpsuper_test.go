package ipsec

import (
	"bytes"
	"encoding/binary"
	"maps"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
)

// TestRFC3948_2_1_ChecksumLeftToTheLink: where the right link finishes checksums,
// datagrams have one, unless the SA says never.
func TestRFC3948_2_1_ChecksumLeftToTheLink(t *testing.T) {
	for _, c := range encapCases() {
		for _, rule := range []sa.UDPChecksum{sa.ChecksumAuto, sa.ChecksumFilled, sa.ChecksumZero} {
			c.change = func(cfg *sa.SAConfig) { cfg.Encap.Checksum = rule }
			p := newEncapPair(t, c)
			a := p.pair.a
			a.e.SetUDPOffload(true)
			a.fromHost(udpTo(p.a, p.b, 5000, 53, 100), nil)
			frames := a.right.frames
			if len(frames) != 1 {
				t.Fatalf("%d frames", len(frames))
			}
			off, d := wire.VirtioNet(frames[0][:wire.VirtioNetLen]), bytes.Clone(frames[0][link.HeaderLen:])
			in := parse(t, d)
			sum := header.UDP(d[in.HeaderLen:]).Checksum()
			name := modeName(c.mode, c.six, c.crossed)
			if rule == sa.ChecksumZero {
				if off.NeedsCsum() || sum != 0 {
					t.Errorf("%s: checksum %#x, left %v, expected none", name, sum, off.NeedsCsum())
				}
				continue
			}
			if !off.NeedsCsum() || off.Check(ethernetLen+len(d)) != wire.DropNone {
				t.Fatalf("%s, rule %d: the checksum is not left to the link", name, rule)
			}
			if r := wire.FinishChecksum(d, &in, off, ethernetLen); r != wire.DropNone || !wire.VerifyL4(d, &in) {
				t.Errorf("%s, rule %d: the finished checksum is wrong (%v)", name, rule, r)
			}
			a.right.take(t, macA, macB)
			p.pair.b.fromWire(d)
			if len(p.pair.b.left.take(t, macA, macB)) != 1 {
				t.Errorf("%s: did not arrive: %v", name, p.pair.b.drops(hook.Right))
			}
		}
	}
}

// TestRFC3948_2_1_ChecksumNotLeft: a checksum can be left only where nothing is put around
// or cut after it.
func TestRFC3948_2_1_ChecksumNotLeft(t *testing.T) {
	p := newEncapPair(t, encapCase{mode: sa.Tunnel, change: func(c *sa.SAConfig) { c.Encap.Checksum = sa.ChecksumFilled }})
	a := p.pair.a
	a.e.SetUDPOffload(true)
	big := udpTo(p.a, p.b, 1, 2, 1460) // without DF, so ESP in UDP is fragmented
	a.fromHost(big, nil)
	frames := a.right.frames
	if len(frames) != 2 {
		t.Fatalf("%d frames, expected two fragments", len(frames))
	}
	for _, f := range frames {
		if wire.VirtioNet(f).Flags() != 0 {
			t.Error("a fragment has a checksum left to the link")
		}
	}
	for _, d := range a.right.take(t, macA, macB) {
		p.pair.b.fromWire(bytes.Clone(d))
	}
	if got := p.pair.b.left.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], big) {
		t.Errorf("%d arrived: %v", len(got), p.pair.b.drops(hook.Right))
	}
}

// inbox delivers what a link of the bump delivers to an engine's right side.
type inbox struct{ e *Engine }

func (x inbox) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	x.e.inbound(pkt)
}

func (inbox) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// fromWireFrame gives a frame to the right side of s by a link.
func (s *station) fromWireFrame(f []byte) {
	s.t.Helper()
	near, far := link.Pipe(link.PipeOptions{})
	e, err := link.New(link.Options{Devices: []link.Device{near}, MAC: s.mac, MTU: 1500, Manual: true, Apart: s.sad.Encapsulated})
	if err != nil {
		s.t.Fatal(err)
	}
	e.Attach(inbox{s.e})
	defer e.Close()
	if _, err := far.WriteFrames([][]byte{f}); err != nil {
		s.t.Fatal(err)
	}
	link.PumpAll(10, e)
}

// udpSuperframe is a superframe of UDP datagrams, with their UDP payloads of size octets but the
// last.
func udpSuperframe(t testing.TB, datagrams [][]byte, size int) []byte {
	t.Helper()
	head := parse(t, datagrams[0]).HeaderLen + wire.UDPLen
	b := bytes.Clone(datagrams[0][:head])
	for _, d := range datagrams {
		b = append(b, d[head:]...)
	}
	wire.SetLength(b, int(b[0]>>4), len(b))
	binary.BigEndian.PutUint16(b[head-wire.UDPLen+4:], uint16(len(b)-head+wire.UDPLen))
	f := frame(macA, macB, b, nil)
	off := wire.VirtioNet(f[:wire.VirtioNetLen])
	wire.LeaveUDPChecksum(f[link.HeaderLen:], head-wire.UDPLen, off)
	off.SetGSOType(wire.GSOUDPL4)
	off.SetGSOSize(uint16(size))
	return f
}

// TestUDPSuperframeIsItsDatagrams: what an adversary makes of a superframe has the same
// outcome as its datagrams one by one: the same datagrams for the host, the same drops.
func TestUDPSuperframeIsItsDatagrams(t *testing.T) {
	const n = 8
	for name, change := range map[string]func(list [][]byte) [][]byte{
		"as it is": func(l [][]byte) [][]byte { return l },
		"one forged": func(l [][]byte) [][]byte {
			l[3][len(l[3])-20] ^= 1
			return l
		},
		"all forged": func(l [][]byte) [][]byte {
			for _, d := range l {
				d[len(d)-1] ^= 1
			}
			return l
		},
		"one twice": func(l [][]byte) [][]byte { return append(append(l[:2:2], bytes.Clone(l[1])), l[2:]...) },
		"backwards": func(l [][]byte) [][]byte {
			for i := range n / 2 {
				l[i], l[n-1-i] = l[n-1-i], l[i]
			}
			return l
		},
		"unknown SPI": func(l [][]byte) [][]byte {
			h := parse(t, l[5]).HeaderLen + wire.UDPLen
			l[5][h] ^= 0x40
			return l
		},
		"IKE among them": func(l [][]byte) [][]byte {
			h := parse(t, l[5]).HeaderLen + wire.UDPLen
			clear(l[5][h : h+4])
			return l
		},
		"a keepalive at the end": func(l [][]byte) [][]byte {
			d := l[n-1]
			h := parse(t, d).HeaderLen + wire.UDPLen
			d = append(d[:h:h], wire.KeepalivePayload)
			wire.SetLength(d, int(d[0]>>4), len(d))
			binary.BigEndian.PutUint16(d[h-4:], wire.UDPLen+1)
			l[n-1] = d
			return l
		},
		"cut short at the end": func(l [][]byte) [][]byte {
			d := l[n-1]
			h := parse(t, d).HeaderLen
			d = d[:len(d)-7]
			wire.SetLength(d, int(d[0]>>4), len(d))
			binary.BigEndian.PutUint16(d[h+4:], uint16(len(d)-h))
			l[n-1] = d
			return l
		},
	} {
		for _, c := range encapCases() {
			p := newEncapPair(t, c)
			q := newEncapPair(t, c) // has the same keys
			for range n {
				p.pair.a.fromHost(udpTo(p.a, p.b, 7, 53, 100), nil)
			}
			list := change(p.pair.a.right.take(t, macA, macB))
			for i, d := range list {
				if d[0]>>4 == 4 { // a superframe has one identification, from which it counts
					binary.BigEndian.PutUint16(d[4:], uint16(i))
					wire.UpdateIPv4Checksum(d)
				}
			}
			size := len(list[0]) - parse(t, list[0]).HeaderLen - wire.UDPLen
			super := udpSuperframe(t, list, size)
			for _, d := range list {
				p.pair.b.fromWire(bytes.Clone(d))
			}
			q.pair.b.fromWireFrame(super)
			single, whole := p.pair.b.left.take(t, "", macB), q.pair.b.left.take(t, "", macB)
			if len(single) != len(whole) {
				t.Errorf("%s, %s: %d datagrams one by one, %d of a superframe", modeName(c.mode, c.six, c.crossed), name, len(single), len(whole))
				continue
			}
			for i := range single {
				if !bytes.Equal(single[i], whole[i]) {
					t.Errorf("%s, %s: datagram %d differs", modeName(c.mode, c.six, c.crossed), name, i)
				}
			}
			if a, b := p.pair.b.drops(hook.Right), q.pair.b.drops(hook.Right); !maps.Equal(a, b) {
				t.Errorf("%s, %s: drops %v one by one, %v of a superframe", modeName(c.mode, c.six, c.crossed), name, a, b)
			}
			if name == "as it is" && len(single) != n {
				t.Errorf("%d of %d arrived: %v", len(single), n, p.pair.b.drops(hook.Right))
			}
		}
	}
}

// TestUDPSuperframeForTheEngine: the engine itself takes none for ESP in UDP.
func TestUDPSuperframeForTheEngine(t *testing.T) {
	p := newEncapPair(t, encapCase{mode: sa.Transport})
	for range 3 {
		p.pair.a.fromHost(udpTo(p.a, p.b, 7, 53, 100), nil)
	}
	f := udpSuperframe(t, p.pair.a.right.take(t, macA, macB), 132)
	pkt := link.NewPacket(f, macB)
	p.pair.b.e.inbound(pkt)
	pkt.DecRef()
	p.pair.b.expectDrop(hook.Right, wire.DropBadOffload)
}
