package link

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const (
	macA = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x0a")
	macB = tcpip.LinkAddress("\x02\x00\x00\x00\x00\x0b")
)

// capturing is a NetworkDispatcher that keeps what it gets.
type capturing struct {
	mu   sync.Mutex
	pkts []*stack.PacketBuffer
	prot []tcpip.NetworkProtocolNumber
}

func (c *capturing) DeliverNetworkPacket(p tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pkts = append(c.pkts, pkt.IncRef())
	c.prot = append(c.prot, p)
}

func (*capturing) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

func (c *capturing) release() {
	for _, p := range c.pkts {
		p.DecRef()
	}
	c.pkts, c.prot = nil, nil
}

// frame returns a virtio-net header whose first octet is flags, an Ethernet header
// and n octets of payload.
func frame(flags byte, dst, src tcpip.LinkAddress, etherType uint16, n int) []byte {
	f := make([]byte, HeaderLen+n)
	f[0] = flags
	copy(f[wire.VirtioNetLen:], dst)
	copy(f[wire.VirtioNetLen+6:], src)
	binary.BigEndian.PutUint16(f[wire.VirtioNetLen+12:], etherType)
	for i := HeaderLen; i < len(f); i++ {
		f[i] = byte(i)
	}
	return f
}

func newManual(t *testing.T, d Device, drops *wire.DropCounters) (*Endpoint, *capturing) {
	t.Helper()
	e, err := New(Options{Devices: []Device{d}, MAC: macA, MTU: 1500, Drops: drops, Manual: true})
	if err != nil {
		t.Fatal(err)
	}
	c := new(capturing)
	e.Attach(c)
	t.Cleanup(func() { e.Close(); e.Wait(); c.release() })
	return e, c
}

func TestEndpointDelivers(t *testing.T) {
	for _, tt := range []struct {
		name  string
		frame []byte
		proto tcpip.NetworkProtocolNumber
		typ   tcpip.PacketType
	}{
		{"to us", frame(1, macA, macB, 0x0800, 46), header.IPv4ProtocolNumber, tcpip.PacketHost},
		{"to another", frame(0, macB, macB, 0x86dd, 60), header.IPv6ProtocolNumber, tcpip.PacketOtherHost},
		{"broadcast", frame(0, header.EthernetBroadcastAddress, macB, 0x0806, 28), arp.ProtocolNumber, tcpip.PacketBroadcast},
		{"multicast", frame(0, "\x01\x00\x5e\x00\x00\x01", macB, 0x0800, 46), header.IPv4ProtocolNumber, tcpip.PacketMulticast},
		{"vlan", frame(0, macA, macB, 0x8100, 50), 0x8100, tcpip.PacketHost},
		{"802.3", frame(0, "\x01\x80\xc2\x00\x00\x00", macB, 38, 46), Protocol8022, tcpip.PacketMulticast},
		{"no datagram", frame(0, macA, macB, 0x0800, 0), header.IPv4ProtocolNumber, tcpip.PacketHost},
		{"superframe", frame(1, macA, macB, 0x0800, 65200), header.IPv4ProtocolNumber, tcpip.PacketHost},
		{"longest", frame(1, macA, macB, 0x0800, 65535), header.IPv4ProtocolNumber, tcpip.PacketHost},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a, b := Pipe(PipeOptions{})
			e, c := newManual(t, a, nil)
			if n, err := b.WriteFrames([][]byte{tt.frame}); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			if PumpAll(100, e) != 1 || len(c.pkts) != 1 {
				t.Fatalf("%d packets delivered", len(c.pkts))
			}
			pkt := c.pkts[0]
			if c.prot[0] != tt.proto || pkt.NetworkProtocolNumber != tt.proto || pkt.PktType != tt.typ {
				t.Errorf("protocol %#x, type %v", c.prot[0], pkt.PktType)
			}
			if got := pkt.VirtioNetHeader().Slice(); !bytes.Equal(got, tt.frame[:12]) {
				t.Errorf("virtio-net header %x", got)
			}
			if got := pkt.LinkHeader().Slice(); !bytes.Equal(got, tt.frame[12:26]) {
				t.Errorf("Ethernet header %x", got)
			}
			if pkt.Data().Size() != len(tt.frame)-HeaderLen {
				t.Errorf("data of %d octets", pkt.Data().Size())
			}
			f, ok := Frame(pkt)
			if !ok || !bytes.Equal(f, tt.frame) || cap(f)-len(f) < Tailroom {
				t.Errorf("frame %v, %d octets, capacity %d", ok, len(f), cap(f))
			}
			if s := e.Stats(); s.FramesIn != 1 || s.OctetsIn != uint64(len(tt.frame)-12) {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestEndpointDropsShortFrames(t *testing.T) {
	a, b := Pipe(PipeOptions{})
	var drops wire.DropCounters
	e, c := newManual(t, a, &drops)
	b.WriteFrames([][]byte{make([]byte, 1), make([]byte, HeaderLen-1), make([]byte, HeaderLen)})
	PumpAll(10, e)
	if len(c.pkts) != 1 || drops.Load(wire.DropBadFrame) != 2 {
		t.Errorf("%d delivered, drops %v", len(c.pkts), drops.Snapshot())
	}
}

// A packet that came in one view leaves as the same octets, without a copy.
func TestEndpointPassesThrough(t *testing.T) {
	dev := new(fakeDevice)
	e, _ := newManual2(t, dev)
	f := frame(1, macB, macA, 0x0800, 9000)
	pkt := NewPacket(f, macA)
	defer pkt.DecRef()
	pkt.EgressRoute.RemoteLinkAddress = "\x02\x00\x00\x00\x00\xff" // must not matter
	e.AddHeader(pkt)
	var l stack.PacketBufferList
	l.PushBack(pkt)
	if n, err := e.WritePackets(l); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	own, _ := Frame(pkt)
	if got := dev.frames[0]; !bytes.Equal(got, f) || &dev.first[0] != &own[0] {
		t.Error("the frame was changed or copied")
	}
}

// The stack's own packets get both headers, whichever shape they have.
func TestEndpointAddsHeaders(t *testing.T) {
	for _, tt := range []struct {
		name    string
		reserve int
		payload int
	}{
		{"one view with room", HeaderLen + 28, 0},
		{"room for Ethernet only", header.EthernetMinimumSize + 28, 0},
		{"no room", 28, 0},
		{"two views", HeaderLen + 28, 3000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dev := new(fakeDevice)
			e, _ := newManual2(t, dev)
			want := make([]byte, 28+tt.payload)
			for i := range want {
				want[i] = byte(i + 1)
			}
			pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{
				ReserveHeaderBytes: tt.reserve,
				Payload:            buffer.MakeWithData(want[28:]),
			})
			defer pkt.DecRef()
			copy(pkt.NetworkHeader().Push(28), want)
			pkt.NetworkProtocolNumber = arp.ProtocolNumber
			pkt.EgressRoute.LocalLinkAddress = macA
			pkt.EgressRoute.RemoteLinkAddress = macB
			e.AddHeader(pkt)
			var l stack.PacketBufferList
			l.PushBack(pkt)
			if n, err := e.WritePackets(l); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			wantFrame := append(frame(0, macB, macA, 0x0806, 0), want...)
			if !bytes.Equal(dev.frames[0], wantFrame) {
				t.Errorf("wrote %x", dev.frames[0][:40])
			}
		})
	}
}

// An Ethernet header without destination is filled from the route.
func TestEndpointFillsEmptyEthernet(t *testing.T) {
	dev := new(fakeDevice)
	e, _ := newManual2(t, dev)
	pkt := NewPacket(frame(1, "\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00", 0x0800, 40), macA)
	defer pkt.DecRef()
	pkt.EgressRoute.LocalLinkAddress = macA
	pkt.EgressRoute.RemoteLinkAddress = macB
	e.AddHeader(pkt)
	var l stack.PacketBufferList
	l.PushBack(pkt)
	e.WritePackets(l)
	if want := frame(1, macB, macA, 0x0800, 40); !bytes.Equal(dev.frames[0], want) {
		t.Errorf("wrote %x", dev.frames[0])
	}
}

// fakeDevice keeps what is written; refuse says how it treats a frame.
type fakeDevice struct {
	frames [][]byte
	first  []byte // of the last call, not copied
	calls  int
	refuse func(f []byte) error
	silent bool // short writes without an error
}

func (d *fakeDevice) PollFrames([][]byte, []int) (int, error) { return 0, nil }
func (d *fakeDevice) ReadFrames([][]byte, []int) (int, error) { return 0, os.ErrClosed }
func (d *fakeDevice) Close() error                            { return nil }

func (d *fakeDevice) WriteFrames(fs [][]byte) (int, error) {
	d.calls++
	d.first = fs[0]
	for i, f := range fs {
		if d.refuse != nil {
			if err := d.refuse(f); err != nil {
				return i, err
			}
		}
		if d.silent {
			return i, nil
		}
		d.frames = append(d.frames, bytes.Clone(f))
	}
	return len(fs), nil
}

func newManual2(t *testing.T, d Device) (*Endpoint, *wire.DropCounters) {
	t.Helper()
	drops := new(wire.DropCounters)
	e, _ := newManual(t, d, drops)
	return e, drops
}

func TestEndpointWriteErrors(t *testing.T) {
	bad := func(f []byte) bool { return f[0] == 0xbb }
	for _, tt := range []struct {
		name   string
		dev    *fakeDevice
		sent   int
		calls  int
		reason wire.DropReason
		drops  uint64
		failed bool
	}{
		{"all good", &fakeDevice{}, 5, 1, wire.DropNone, 0, false},
		{"one malformed", &fakeDevice{refuse: func(f []byte) error {
			if bad(f) {
				return syscall.EINVAL
			}
			return nil
		}}, 4, 2, wire.DropLinkWrite, 1, false},
		{"down", &fakeDevice{refuse: func([]byte) error { return &os.PathError{Op: "write", Err: syscall.EIO} }}, 0, 1, wire.DropLinkDown, 5, true},
		{"down by name", &fakeDevice{refuse: func([]byte) error { return ErrLinkDown }}, 0, 1, wire.DropLinkDown, 5, true},
		{"closed", &fakeDevice{refuse: func([]byte) error { return os.ErrClosed }}, 0, 1, wire.DropEndpointGone, 5, true},
		{"full", &fakeDevice{refuse: func([]byte) error { return syscall.ENOBUFS }}, 0, 5, wire.DropLinkWrite, 5, true},
		{"short without error", &fakeDevice{silent: true}, 0, 5, wire.DropLinkWrite, 5, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, drops := newManual2(t, tt.dev)
			var l stack.PacketBufferList
			for i := range 5 {
				f := frame(0, macB, macA, 0x0800, 40)
				if i == 2 {
					f[0] = 0xbb
				}
				l.PushBack(NewPacket(f, macA))
			}
			defer l.DecRef()
			n, err := e.WritePackets(l)
			if n != tt.sent || (err != nil) != tt.failed || tt.dev.calls != tt.calls {
				t.Errorf("sent %d, error %v, %d calls", n, err, tt.dev.calls)
			}
			if tt.reason != wire.DropNone && drops.Load(tt.reason) != tt.drops {
				t.Errorf("drops %v", drops.Snapshot())
			}
			if s := e.Stats(); s.FramesOut != uint64(tt.sent) || s.OctetsOut != uint64(tt.sent)*54 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// The packets of one hash keep their queue, and one list reaches several queues.
func TestEndpointQueues(t *testing.T) {
	d0, d1 := new(fakeDevice), new(fakeDevice)
	e, err := New(Options{Devices: []Device{d0, d1}, MAC: macA, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	var l stack.PacketBufferList
	for i := range 6 {
		pkt := NewPacket(frame(byte(i), macB, macA, 0x0800, 40), macA)
		pkt.Hash = uint32(i / 2)
		l.PushBack(pkt)
	}
	defer l.DecRef()
	if n, err := e.WritePackets(l); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	if len(d0.frames) != 4 || len(d1.frames) != 2 || d1.frames[0][0] != 2 || d0.frames[3][0] != 5 {
		t.Errorf("%d and %d frames", len(d0.frames), len(d1.frames))
	}
}

func TestEndpointOptions(t *testing.T) {
	dev := FromReadWriter(nopRW{})
	for _, o := range []Options{
		{MAC: macA},
		{Devices: []Device{dev}, MAC: "short"},
		{Devices: []Device{dev}, MAC: macA, Manual: true},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) did not fail", o)
		}
		if _, err := NewHost(o); err == nil {
			t.Errorf("NewHost(%+v) did not fail", o)
		}
	}
	e, err := New(Options{Devices: []Device{dev}, MAC: macA, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	e.SetMTU(1400)
	e.SetLinkAddress(macB)
	if e.MTU() != 1400 || e.LinkAddress() != macB {
		t.Error(e.MTU(), e.LinkAddress())
	}
	if e.Capabilities()&stack.CapabilityResolutionRequired == 0 {
		t.Error("no link address resolution")
	}
	closed := 0
	e.SetOnCloseAction(func() { closed++ })
	e.Close()
	e.Close()
	e.Wait()
	if closed != 1 {
		t.Errorf("on-close action ran %d times", closed)
	}
}

type nopRW struct{}

func (nopRW) Read([]byte) (int, error)    { return 0, io.EOF }
func (nopRW) Write(b []byte) (int, error) { return len(b), nil }
func (nopRW) Close() error                { return nil }

// flaky fails some reads before each frame and ends when closed.
type flaky struct {
	fails  int
	frames chan []byte
	done   chan struct{}
	once   sync.Once
}

func (f *flaky) Read(b []byte) (int, error) {
	if f.fails > 0 {
		f.fails--
		return 0, syscall.ENETDOWN
	}
	select {
	case p := <-f.frames:
		return copy(b, p), nil
	case <-f.done:
		return 0, os.ErrClosed
	}
}
func (f *flaky) Write(b []byte) (int, error) { return len(b) - 1, nil }
func (f *flaky) Close() error                { f.once.Do(func() { close(f.done) }); return nil }

// A reader goes on after errors, ends on Close, and leaves no goroutine behind.
func TestReaderRecoversAndEnds(t *testing.T) {
	before := runtime.NumGoroutine()
	f := &flaky{fails: 3, frames: make(chan []byte, 1), done: make(chan struct{})}
	e, err := New(Options{Devices: []Device{FromReadWriter(f)}, MAC: macA, MTU: 1500})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan struct{}, 1)
	e.Attach(dispatcherFunc(func() { got <- struct{}{} }))
	f.frames <- frame(0, macA, macB, 0x0800, 40)
	<-got
	if n, err := FromReadWriter(f).WriteFrames([][]byte{make([]byte, 60)}); n != 0 || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("short write: %d, %v", n, err)
	}
	e.Attach(nil)
	e.Close()
	e.Wait()
	waitGoroutines(t, before)
}

type dispatcherFunc func()

func (f dispatcherFunc) DeliverNetworkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) { f() }
func (dispatcherFunc) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer)      {}

// waitGoroutines fails unless the number of goroutines falls back to n.
func waitGoroutines(t *testing.T, n int) {
	t.Helper()
	for range 3000 {
		if runtime.NumGoroutine() <= n {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines left, %d before:\n%s", runtime.NumGoroutine(), n,
		strings.TrimSpace(string(buf[:runtime.Stack(buf, true)])))
}

func TestPipeBounds(t *testing.T) {
	var drops wire.DropCounters
	seen := 0
	a, b := Pipe(PipeOptions{
		Queue: 4, Drops: &drops,
		Wiretap: func(from *PipeEnd, f []byte) { seen++ },
		Lose:    func(_ *PipeEnd, f []byte) bool { return f[0] == 1 },
	})
	var fs [][]byte
	for i := range 8 {
		fs = append(fs, frame(byte(i), macA, macB, 0x0800, 40+i*1000))
	}
	if n, err := a.WriteFrames(fs); n != 8 || err != nil {
		t.Fatal(n, err)
	}
	if seen != 8 || b.Lost() != 3 || drops.Load(wire.DropQueueFull) != 3 {
		t.Errorf("seen %d, lost %d, drops %v", seen, b.Lost(), drops.Snapshot())
	}
	bufs, sizes := [][]byte{make([]byte, MaxFrameLen), make([]byte, 100), make([]byte, MaxFrameLen)}, make([]int, 3)
	n, err := b.ReadFrames(bufs, sizes)
	if n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if !bytes.Equal(bufs[0][:sizes[0]], fs[0]) || sizes[1] != 100 || !bytes.Equal(bufs[2][:sizes[2]], fs[3]) {
		t.Errorf("read %v", sizes)
	}
	if n, err := a.PollFrames(bufs, sizes); n != 0 || err != nil {
		t.Errorf("poll of an empty queue: %d, %v", n, err)
	}
	b.Close()
	if n, err := a.WriteFrames(fs); n != 0 || !errors.Is(err, ErrLinkDown) {
		t.Errorf("write to a closed end: %d, %v", n, err)
	}
	if _, err := b.ReadFrames(bufs, sizes); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read from a closed end: %v", err)
	}
	if _, err := b.WriteFrames(fs); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write from a closed end: %v", err)
	}
}

func sum(b []byte) [32]byte { return sha256.Sum256(b) }
