package link

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

var (
	superSrc = netip.MustParseAddr("192.0.2.1")
	superDst = netip.MustParseAddr("192.0.2.2")
)

// espInUDP is a frame with a UDP datagram to port whose checksum is left to the device.
func espInUDP(port uint16, payload []byte) []byte {
	f := frame(0, macB, macA, 0x0800, 28+len(payload))
	ip := f[HeaderLen:]
	clear(ip[:28])
	ip[0], ip[6], ip[8], ip[9] = 0x45, 0x40, 64, wire.ProtoUDP
	wire.SetSrc(ip, superSrc)
	wire.SetDst(ip, superDst)
	wire.SetIPv4TotalLen(ip, len(ip))
	copy(ip[28:], payload)
	wire.PutUDPHeader(ip[20:], 4500, port)
	wire.LeaveUDPChecksum(ip, 20, wire.VirtioNet(f[:wire.VirtioNetLen]))
	return f
}

// payloadOf is n octets that differ by i.
func payloadOf(i, n int) []byte { return bytes.Repeat([]byte{byte(i + 1)}, n) }

// kernel is a Device that keeps what it is given, and refuses what take says.
type kernel struct {
	Device
	frames [][]byte
	take   func(frame []byte) error
}

func (k *kernel) WriteFrames(frames [][]byte) (int, error) {
	for i, f := range frames {
		if k.take != nil {
			if err := k.take(f); err != nil {
				return i, err
			}
		}
		k.frames = append(k.frames, bytes.Clone(f))
	}
	return len(frames), nil
}

// newSuper is an endpoint that writes to a kernel.
func newSuper(t *testing.T, take func([]byte) error, drops *wire.DropCounters) (*Endpoint, *kernel) {
	t.Helper()
	a, _ := Pipe(PipeOptions{})
	k := &kernel{Device: a, take: take}
	e, err := New(Options{Devices: []Device{k}, MAC: macA, MTU: 1500, Drops: drops})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e, k
}

func write(t *testing.T, e *Endpoint, frames ...[]byte) int {
	t.Helper()
	var list stack.PacketBufferList
	for _, f := range frames {
		list.PushBack(NewPacket(f, macA))
	}
	defer list.Reset()
	n, _ := e.WritePackets(list)
	return n
}

// whole are the payloads of a frame, which may be a superframe, in order, each with its
// checksum verified.
func whole(t *testing.T, f []byte) (payloads [][]byte) {
	t.Helper()
	datagram, off := datagramIn(f)
	var in wire.Info
	var c wire.Cutter
	if r := wire.Parse(datagram, &in); r != wire.DropNone {
		t.Fatal(r)
	}
	if r := c.Init(datagram, &in, off, 65535); r != wire.DropNone {
		t.Fatal(r)
	}
	for range c.Segments() {
		b := make([]byte, 65535)
		b = b[:c.Next(b)]
		var in wire.Info
		if r := wire.Parse(b, &in); r != wire.DropNone || !wire.VerifyL4(b, &in) {
			t.Fatalf("a datagram is wrong: %v", r)
		}
		payloads = append(payloads, b[28:])
	}
	return payloads
}

// runs is how many datagrams each frame has.
func runs(t *testing.T, frames [][]byte) (list []int) {
	t.Helper()
	for _, f := range frames {
		list = append(list, len(whole(t, f)))
	}
	return list
}

func TestUDPSuperframesOut(t *testing.T) {
	var equal, mixed [][]byte
	for i := range 200 {
		equal = append(equal, espInUDP(4500, payloadOf(i, 100)))
	}
	var big [][]byte
	for i := range 100 {
		big = append(big, espInUDP(4500, payloadOf(i, 1444)))
	}
	tcp := frame(0, macB, macA, 0x0800, 46)
	other := espInUDP(4500, payloadOf(4, 100))
	copy(other[wire.VirtioNetLen:], macA)
	mixed = [][]byte{
		espInUDP(4500, payloadOf(0, 100)), espInUDP(4500, payloadOf(1, 100)), espInUDP(4500, payloadOf(2, 60)),
		espInUDP(4500, payloadOf(3, 60)), espInUDP(4501, payloadOf(4, 60)), espInUDP(4501, payloadOf(5, 60)), tcp, other,
		espInUDP(4500, payloadOf(6, 100)),
	}
	for _, tt := range []struct {
		name   string
		on     bool
		frames [][]byte
		want   []int
	}{
		{"off", false, equal[:5], []int{1, 1, 1, 1, 1}},
		{"one", true, equal[:1], []int{1}},
		{"some", true, equal[:5], []int{5}},
		{"128 at most", true, equal, []int{128, 72}},
		{"64 KB at most", true, big, []int{45, 45, 10}},
		{"a short one ends, other flows, other frames", true, mixed, []int{3, 1, 2, 0, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, k := newSuper(t, nil, nil)
			e.SetUDPSuperframes(tt.on)
			if n := write(t, e, tt.frames...); n != len(tt.want) {
				t.Errorf("%d written", n)
			}
			var got [][]byte
			var lengths []int
			for _, f := range k.frames {
				if bytes.Equal(f, tcp) {
					lengths = append(lengths, 0)
					continue
				}
				if f[wire.VirtioNetLen+5] != macB[5] {
					lengths = append(lengths, 1)
					continue
				}
				p := whole(t, f)
				got, lengths = append(got, p...), append(lengths, len(p))
			}
			if !slices.Equal(lengths, tt.want) {
				t.Errorf("frames of %v datagrams, expected %v", lengths, tt.want)
			}
			i := 0
			for _, f := range tt.frames {
				if bytes.Equal(f, tcp) || bytes.Equal(f, other) {
					continue
				}
				if !bytes.Equal(got[i], f[HeaderLen+28:]) {
					t.Fatalf("datagram %d is another", i)
				}
				i++
			}
		})
	}
}

// TestUDPSuperframesRefused: with a kernel that takes none, or only short ones, nothing is
// lost, and they turn themselves off, or get shorter.
func TestUDPSuperframesRefused(t *testing.T) {
	refusing := func(most int) func([]byte) error {
		return func(f []byte) error {
			_, off := datagramIn(f)
			if off.GSOKind() == wire.GSOUDPL4 && (len(f)-HeaderLen-28+int(off.GSOSize())-1)/int(off.GSOSize()) > most {
				return fmt.Errorf("send: %w", syscall.EINVAL)
			}
			return nil
		}
	}
	for _, tt := range []struct {
		name          string
		most          int
		first, second []int
		on            bool
	}{
		{"none", 0, nil, nil, false},
		{"64", 64, nil, []int{64, 36}, true},
		{"128", 128, []int{100}, []int{100}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var drops wire.DropCounters
			e, k := newSuper(t, refusing(tt.most), &drops)
			e.SetUDPSuperframes(true)
			var frames [][]byte
			for i := range 100 {
				frames = append(frames, espInUDP(4500, payloadOf(i, 50)))
			}
			ones := slices.Repeat([]int{1}, 100)
			for round, want := range [][]int{tt.first, tt.second, tt.second} {
				if want == nil {
					want = ones
				}
				k.frames = nil
				write(t, e, frames...)
				if tt.most == 0 && round == 0 {
					// Longer than 64 is tried shorter first.
					if on := e.UDPSuperframes(); !on {
						t.Error("off before shorter ones were tried")
					}
				}
				if got := runs(t, k.frames); !slices.Equal(got, want) {
					t.Errorf("round %d: frames of %v datagrams, expected %v", round, got, want)
				}
				i := 0
				for _, f := range k.frames {
					for _, p := range whole(t, f) {
						if !bytes.Equal(p, payloadOf(i, 50)) {
							t.Fatalf("round %d: datagram %d is another", round, i)
						}
						i++
					}
				}
			}
			if e.UDPSuperframes() != tt.on || (e.RefusedUDP() != nil) == tt.on {
				t.Errorf("on %v, refused %v", e.UDPSuperframes(), e.RefusedUDP())
			}
			if len(drops.Snapshot()) > 0 {
				t.Errorf("drops %v", drops.Snapshot())
			}
			e.SetUDPSuperframes(true)
			if !e.UDPSuperframes() || e.RefusedUDP() != nil {
				t.Error("they cannot be turned on again")
			}
		})
	}
}

// TestTCPSuperframesRefused: what a kernel does not take as a superframe it gets in
// segments.
func TestTCPSuperframesRefused(t *testing.T) {
	payload := make([]byte, 10000)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	f := frame(0, macB, macA, 0x0800, 40+len(payload))
	ip := f[HeaderLen:]
	clear(ip[:40])
	ip[0], ip[8], ip[9] = 0x45, 64, wire.ProtoTCP
	wire.SetSrc(ip, superSrc)
	wire.SetDst(ip, superDst)
	wire.SetIPv4TotalLen(ip, len(ip))
	header.TCP(ip[20:]).Encode(&header.TCPFields{SrcPort: 1, DstPort: 2, SeqNum: 77, DataOffset: 20, Flags: header.TCPFlagAck, WindowSize: 9})
	copy(ip[40:], payload)
	off := wire.VirtioNet(f[:wire.VirtioNetLen])
	off.SetFlags(wire.VirtioNetNeedsCsum)
	off.SetGSOType(wire.GSOTCPv4)
	off.SetGSOSize(1448)
	off.SetCsumStart(34)
	off.SetCsumOffset(16)
	var drops wire.DropCounters
	e, k := newSuper(t, func(f []byte) error {
		if _, off := datagramIn(f); off.GSOKind() != wire.GSONone {
			return fmt.Errorf("write: %w", syscall.EINVAL)
		}
		return nil
	}, &drops)
	if n := write(t, e, f); n != 7 || e.RefusedTCP() == nil {
		t.Errorf("%d segments written, refused %v", n, e.RefusedTCP())
	}
	at := 0
	for _, f := range k.frames {
		var in wire.Info
		b := f[HeaderLen:]
		if r := wire.Parse(b, &in); r != wire.DropNone || !wire.VerifyL4(b, &in) || binary.BigEndian.Uint32(b[24:]) != uint32(77+at) {
			t.Fatalf("a segment at %d is wrong: %v", at, r)
		}
		if !bytes.Equal(b[40:], payload[at:at+len(b)-40]) {
			t.Fatalf("a segment at %d has other octets", at)
		}
		at += len(b) - 40
	}
	if at != len(payload) || len(drops.Snapshot()) > 0 {
		t.Errorf("%d octets arrived, drops %v", at, drops.Snapshot())
	}
}

// superOf is a UDP superframe of those payloads, as a receiving kernel puts it together.
func superOf(port uint16, size int, payload []byte) []byte {
	f := espInUDP(port, payload)
	off := wire.VirtioNet(f[:wire.VirtioNetLen])
	off.SetGSOType(wire.GSOUDPL4)
	off.SetGSOSize(uint16(size))
	return f
}

// TestUDPSuperframesIn: what ends here is delivered as single datagrams would be, the rest
// as it came, and what contradicts itself is dropped.
func TestUDPSuperframesIn(t *testing.T) {
	payload := make([]byte, 1000)
	for i := range payload {
		payload[i] = byte(i)
	}
	spoil := func(change func(f []byte)) []byte {
		f := superOf(4500, 300, payload)
		change(f)
		return f
	}
	for _, tt := range []struct {
		name  string
		frame []byte
		want  []int // lengths of payloads
		drop  wire.DropReason
	}{
		{"three and a rest", superOf(4500, 300, payload), []int{300, 300, 300, 100}, 0},
		{"even", superOf(4500, 500, payload), []int{500, 500}, 0},
		{"one", superOf(4500, 1000, payload), []int{1000}, 0},
		{"gso_size beyond the datagram", superOf(4500, 65535, payload), []int{1000}, 0},
		{"128", superOf(4500, 1, payload[:128]), slices.Repeat([]int{1}, 128), 0},
		{"more than any kernel puts together", superOf(4500, 1, payload[:129]), nil, wire.DropBadOffload},
		{"empty", superOf(4500, 10, nil), []int{0}, 0},
		{"gso_size 0", superOf(4500, 0, payload), nil, wire.DropBadOffload},
		{"UDP length too short", spoil(func(f []byte) { f[HeaderLen+25] -= 9 }), nil, wire.DropBadOffload},
		{"UDP length too long", spoil(func(f []byte) { f[HeaderLen+25] += 9 }), nil, wire.DropBadOffload},
		{"csum_start elsewhere", spoil(func(f []byte) { wire.VirtioNet(f).SetCsumStart(20) }), nil, wire.DropBadOffload},
		{"csum_offset elsewhere", spoil(func(f []byte) { wire.VirtioNet(f).SetCsumOffset(16) }), nil, wire.DropBadOffload},
		{"no checksum left", spoil(func(f []byte) { wire.VirtioNet(f).SetFlags(0) }), []int{300, 300, 300, 100}, 0},
		{"padded behind the datagram", append(superOf(4500, 300, payload), make([]byte, 40)...), []int{300, 300, 300, 100}, 0},
		{"another port", superOf(53, 300, payload), []int{1000}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var drops wire.DropCounters
			a, b := Pipe(PipeOptions{})
			e, err := New(Options{
				Devices: []Device{a}, MAC: macB, MTU: 1500, Drops: &drops, Manual: true,
				Apart: func(dst netip.Addr, port uint16) bool { return dst == superDst && port == 4500 },
			})
			if err != nil {
				t.Fatal(err)
			}
			c := new(capturing)
			e.Attach(c)
			defer c.release()
			defer e.Close()
			if n, err := b.WriteFrames([][]byte{tt.frame}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			PumpAll(10, e)
			if n := drops.Load(tt.drop); tt.drop != wire.DropNone && n != 1 || tt.drop == wire.DropNone && len(drops.Snapshot()) > 0 {
				t.Errorf("drops %v, expected one %v", drops.Snapshot(), tt.drop)
			}
			if len(c.pkts) != len(tt.want) {
				t.Fatalf("%d packets delivered, expected %d", len(c.pkts), len(tt.want))
			}
			at := 0
			for i, pkt := range c.pkts {
				f, ok := Frame(pkt)
				if !ok {
					t.Fatal("no whole frame")
				}
				if tt.name == "another port" {
					if !bytes.Equal(f, tt.frame) {
						t.Error("it was changed")
					}
					continue
				}
				if pkt.PktType != 0 || cap(f)-len(f) < Tailroom || !bytes.Equal(f[wire.VirtioNetLen:HeaderLen], tt.frame[wire.VirtioNetLen:HeaderLen]) {
					t.Errorf("packet %d has type %v, capacity %d of %d", i, pkt.PktType, cap(f), len(f))
				}
				p := whole(t, f)
				if len(p) != 1 || len(p[0]) != tt.want[i] || !bytes.Equal(p[0], payload[at:at+len(p[0])]) {
					t.Fatalf("packet %d has %d payloads of %d octets", i, len(p), len(p[0]))
				}
				at += len(p[0])
			}
		})
	}
}

// FuzzUDPSuperframesIn: whatever a frame says of itself, no panic, and what is delivered is
// no superframe for the place that wants none.
func FuzzUDPSuperframesIn(f *testing.F) {
	f.Add(superOf(4500, 300, make([]byte, 1000)))
	f.Add(superOf(4500, 1, make([]byte, 100)))
	f.Add(espInUDP(4500, make([]byte, 100)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < HeaderLen || len(b) > MaxFrameLen {
			return
		}
		a, far := Pipe(PipeOptions{})
		e, err := New(Options{Devices: []Device{a}, MAC: macB, MTU: 1500, Manual: true, Apart: func(netip.Addr, uint16) bool { return true }})
		if err != nil {
			t.Fatal(err)
		}
		c := new(capturing)
		e.Attach(c)
		defer c.release()
		defer e.Close()
		if _, err := far.WriteFrames([][]byte{b}); err != nil {
			return
		}
		PumpAll(10, e)
		for _, pkt := range c.pkts {
			g, ok := Frame(pkt)
			if !ok {
				t.Fatal("no whole frame")
			}
			if d, off := datagramIn(g); off.GSOKind() == wire.GSOUDPL4 {
				var in wire.Info
				if wire.Parse(d, &in) == wire.DropNone && in.HasPorts && pkt.NetworkProtocolNumber == header.IPv4ProtocolNumber {
					t.Fatal("a superframe was delivered")
				}
			}
		}
	})
}
