package hook

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

type packet struct {
	intf    int
	dir     pcapgo.NgEpbFlag
	data    []byte
	length  int
	at      time.Time
	comment string
}

// readCapture reads a pcapng file back.
func readCapture(t *testing.T, file []byte) (names []string, packets []packet) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(file), pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	for {
		data, ci, opts, err := r.ReadPacketDataWithOptions()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		p := packet{intf: ci.InterfaceIndex, data: data, length: ci.Length, at: ci.Timestamp}
		if opts.Flags != nil {
			p.dir = opts.Flags.Direction
		}
		if len(opts.Comments) > 0 {
			p.comment = opts.Comments[0]
		}
		packets = append(packets, p)
	}
	for i := range r.NInterfaces() {
		intf, err := r.Interface(i)
		if err != nil || intf.LinkType != layers.LinkTypeEthernet {
			t.Errorf("interface %d: %v, %v", i, intf.LinkType, err)
		}
		names = append(names, intf.Name)
	}
	return names, packets
}

// What crosses the bump is in the file, both sides and both ways, with the capture
// begun and ended while frames flow.
func TestCaptureBothSides(t *testing.T) {
	b := newBump(t, ClassRule{"lldp", true})
	lldp := func(n byte, size int) []byte {
		return ethernet("\x01\x80\xc2\x00\x00\x0e", macPeer, 0x88cc, bytes.Repeat([]byte{n}, size))
	}
	b.send(b.dev, lldp(0, 46)) // before
	var file bytes.Buffer
	if err := b.capture.Start(&file, CaptureOptions{Snaplen: 1000}); err != nil {
		t.Fatal(err)
	}
	if err := b.capture.Start(&file, CaptureOptions{}); err == nil {
		t.Error("two captures at once")
	}
	b.send(b.dev, lldp(1, 46))
	b.send(b.kern, lldp(2, 3000))
	stp := ethernet("\x01\x80\xc2\x00\x00\x00", macPeer, 38, append([]byte{0x42, 0x42, 3}, make([]byte, 57)...))
	b.send(b.dev, stp)
	stats, err := b.capture.Stop()
	if err != nil || stats != (CaptureStats{Written: [2]uint64{2, 3}}) {
		t.Errorf("%+v, %v", stats, err)
	}
	b.send(b.dev, lldp(3, 46)) // after
	names, got := readCapture(t, file.Bytes())
	if len(names) != 2 || names[0] != "inside" || names[1] != "outside" {
		t.Errorf("interfaces %q", names)
	}
	in, out := pcapgo.NgEpbFlagDirectionInbound, pcapgo.NgEpbFlagDirectionOutbound
	want := []packet{
		{intf: 1, dir: in, data: lldp(1, 46), length: 60, comment: "bypass as lldp"},
		{intf: 0, dir: out, data: lldp(1, 46), length: 60, comment: "bypass as lldp"},
		{intf: 0, dir: in, data: lldp(2, 3000)[:1000], length: 3014, comment: "bypass as lldp"},
		{intf: 1, dir: out, data: lldp(2, 3000)[:1000], length: 3014, comment: "bypass as lldp"},
		{intf: 1, dir: in, data: stp, length: len(stp), comment: "dropped: class_discard; discard as stp"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d packets, want %d", len(got), len(want))
	}
	for i, w := range want {
		g := got[i]
		if g.intf != w.intf || g.dir != w.dir || !bytes.Equal(g.data, w.data) || g.length != w.length || g.comment != w.comment ||
			!g.at.Equal(b.clock.Now()) {
			t.Errorf("packet %d: %+v", i, g)
		}
	}
}

// recordTo returns a function that has a packet come from a side and go nowhere.
func recordTo(w *Watch, b *bump) func(Side, *stack.PacketBuffer) {
	hooks := [2]*WatchHook{w.Wrap(b.left, Left), w.Wrap(b.right, Right)}
	return func(side Side, pkt *stack.PacketBuffer) {
		hooks[side].DeliverNetworkPacket(pkt.NetworkProtocolNumber, pkt)
	}
}

// blocked is a writer that waits for the test after the head of the file.
type blocked struct {
	bytes.Buffer
	head    bool
	reached chan struct{}
	release chan error
}

func (w *blocked) Write(p []byte) (int, error) {
	if !w.head {
		w.head = true
		return w.Buffer.Write(p)
	}
	select {
	case w.reached <- struct{}{}:
	default:
	}
	if err := <-w.release; err != nil {
		return 0, err
	}
	return w.Buffer.Write(p)
}

// A writer that hangs delays nobody: the queue fills, the rest is counted.
func TestCaptureOverflow(t *testing.T) {
	before := runtime.NumGoroutine()
	b := newBump(t)
	watch := NewWatch(b.clock)
	c, record := NewCapture(watch), recordTo(watch, b)
	w := &blocked{reached: make(chan struct{}, 1), release: make(chan error)}
	if err := c.Start(w, CaptureOptions{Queue: 8}); err != nil {
		t.Fatal(err)
	}
	pkt, _ := newFrame(macHost, macPeer, wire.EtherTypeIPv4, 40)
	defer pkt.DecRef()
	record(Left, pkt)
	<-w.reached // its flush hangs
	for range 20 {
		record(Left, pkt)
	}
	if s := c.Stats(); s.Lost[Left] != 12 {
		t.Errorf("%+v", s)
	}
	close(w.release)
	s, err := c.Stop()
	if err != nil || s.Written[Left] != 9 || s.Lost[Left] != 12 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, got := readCapture(t, w.Bytes()); len(got) != 9 {
		t.Errorf("%d packets", len(got))
	}
	waitGoroutines(t, before)
}

// A failed write ends the capture and is told by Stop.
func TestCaptureWriteError(t *testing.T) {
	b := newBump(t)
	watch := NewWatch(b.clock)
	c, record := NewCapture(watch), recordTo(watch, b)
	w := &blocked{reached: make(chan struct{}, 1), release: make(chan error, 1)}
	if err := c.Start(w, CaptureOptions{}); err != nil {
		t.Fatal(err)
	}
	full := errors.New("disk full")
	w.release <- full
	pkt, _ := newFrame(macHost, macPeer, wire.EtherTypeIPv4, 40)
	defer pkt.DecRef()
	record(Left, pkt)
	<-w.reached
	for watch.active.Load() != nil {
		runtime.Gosched()
	}
	record(Left, pkt)
	if _, err := c.Stop(); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
	if _, err := c.Stop(); err != nil {
		t.Errorf("second Stop: %v", err)
	}
	if err := c.Start(failing{}, CaptureOptions{}); err == nil {
		t.Error("a file without a head")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// Superframes bound the queue by their octets.
func TestCaptureMemory(t *testing.T) {
	b := newBump(t)
	watch := NewWatch(b.clock)
	c, record := NewCapture(watch), recordTo(watch, b)
	w := &blocked{reached: make(chan struct{}, 1), release: make(chan error)}
	if err := c.Start(w, CaptureOptions{Queue: 1 << 16}); err != nil {
		t.Fatal(err)
	}
	pkt, _ := newFrame(macHost, macPeer, wire.EtherTypeIPv4, 65000)
	defer pkt.DecRef()
	for range 600 {
		record(Right, pkt)
	}
	if s := c.Stats(); s.Lost[Right] < 600-maxCaptureOctets/65014-2 {
		t.Errorf("%+v", s)
	}
	close(w.release)
	if _, err := c.Stop(); err != nil {
		t.Error(err)
	}
}
