package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

// CaptureOptions bound what a Capture keeps. Everything is classified, counted
// and shown to Watch before it may be cut or left out.
type CaptureOptions struct {
	// Watch are matches for which every frame is tried as it comes in; Watched
	// tells how many were found by each.
	Watch []Match
	// MaxBytes bounds the octets of the frames that are kept; 0 is 64 MiB.
	// What comes after that is counted only.
	MaxBytes int
	// SnapLen is how much of a frame is kept at most; 0 is all of it.
	SnapLen int
}

// Counts are what has been seen on a wire.
type Counts struct {
	Frames  int   // all
	Bytes   int64 // of all, on the wire
	ByClass [numClasses]int
	NotKept int // counted, but no longer in Frames
	Lost    int // never seen: the listener was too slow. Zero, or nothing is proven.
}

// Of adds up the frames of some classes.
func (c Counts) Of(classes ...Class) int {
	sum := 0
	for _, class := range classes {
		sum += c.ByClass[class]
	}
	return sum
}

// Clear is the number of frames with anything but ESP and what carries no
// host's data: ARP, neighbour discovery, multicast listener reports, IKE.
func (c Counts) Clear() int { return c.Of(Other, AH) }

func (c Counts) String() string {
	s := fmt.Sprintf("%d frames, %d octets", c.Frames, c.Bytes)
	for class, n := range c.ByClass {
		if n > 0 {
			s += fmt.Sprintf(", %d %v", n, Class(class))
		}
	}
	if c.Lost > 0 {
		s += fmt.Sprintf(", %d LOST", c.Lost)
	}
	return s
}

// Watched is what one of CaptureOptions.Watch has found.
type Watched struct {
	Frames int     // how many
	First  []Frame // the first few
}

// watchedFrames is how many frames a Watched keeps.
const watchedFrames = 16

// Capture is a third party that listens on a wire with a packet socket. It sees
// each frame once, where it comes in from its sender, before the bridge does.
type Capture struct {
	wire *Wire
	o    CaptureOptions
	fd   int
	stop atomic.Bool
	done chan struct{}

	mu      sync.Mutex
	counts  Counts
	kept    int // octets in frames
	frames  []Frame
	watched []Watched
	err     error
}

// Capture starts to listen: it sees every frame that a host sends after the
// call. It stops at the latest when the test ends.
func (w *Wire) Capture(o CaptureOptions) *Capture {
	w.lab.t.Helper()
	if o.MaxBytes == 0 {
		o.MaxBytes = 64 << 20
	}
	c := &Capture{wire: w, o: o, done: make(chan struct{}), watched: make([]Watched, len(o.Watch))}
	if err := w.Do(func() (err error) { c.fd, err = packetSocket(); return err }); err != nil {
		w.lab.t.Fatalf("netlab: listening on %s: %v", w.name, err)
	}
	go c.listen()
	w.lab.t.Cleanup(func() { _, _ = c.Stop() })
	return c
}

// receiveBuffer holds what comes in while the listener is busy, in octets of
// kernel memory: enough for all of a bulk transfer of a test, should the
// listener not get a processor while it lasts.
const receiveBuffer = 256 << 20

func packetSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		// A reader that wakes up now and then can be asked to end.
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL)}),
	)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }

// listen reads until Stop has been called and the socket is empty.
func (c *Capture) listen() {
	defer close(c.done)
	// It comes before who sends, on a thread that ends with it.
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -10)
	buffer := make([]byte, 1<<18) // a superframe and more
	control := make([]byte, 256)
	for {
		// Asked before the read: then an empty socket has stayed empty since.
		stopping, flags := c.stop.Load(), unix.MSG_TRUNC
		if stopping { // hosts that go on talking must not keep it from the end
			flags |= unix.MSG_DONTWAIT
		}
		n, cn, _, from, err := unix.Recvmsg(c.fd, buffer, control, flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			if stopping {
				c.finish(nil)
				return
			}
			continue
		case err != nil:
			c.finish(err)
			return
		}
		if n > len(buffer) {
			c.finish(fmt.Errorf("a frame of %d octets", n))
			return
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok {
			continue
		}
		// The bridge hands some frames to its own device, too.
		port, ok := c.wire.port(link.Ifindex)
		if !ok {
			continue
		}
		when, data := readControl(control[:cn], buffer[:n])
		c.add(Frame{Time: when, Port: port, Length: len(data), Data: data})
	}
}

// readControl takes the time from the control messages, and puts a VLAN tag
// that the kernel has taken out of the frame back into it.
func readControl(control, data []byte) (time.Time, []byte) {
	when := time.Now()
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return when, data
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_TIMESTAMPNS &&
			len(m.Data) >= int(unsafe.Sizeof(unix.Timespec{})):
			stamp := *(*unix.Timespec)(unsafe.Pointer(&m.Data[0]))
			when = time.Unix(stamp.Unix())
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA &&
			len(m.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
			aux := *(*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
			if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 && len(data) >= 14 {
				tpid := aux.Vlan_tpid
				if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
					tpid = typeVLAN
				}
				tagged := make([]byte, 0, len(data)+4)
				tagged = append(tagged, data[:12]...)
				tagged = append(tagged, byte(tpid>>8), byte(tpid), byte(aux.Vlan_tci>>8), byte(aux.Vlan_tci))
				data = append(tagged, data[12:]...)
			}
		}
	}
	return when, data
}

// add takes note of a frame whose Data is only borrowed.
func (c *Capture) add(f Frame) {
	f.Class, f.Flow = Classify(f.Data)
	found := make([]bool, len(c.o.Watch))
	for i, match := range c.o.Watch {
		found[i] = match(&f)
	}
	if c.o.SnapLen > 0 && len(f.Data) > c.o.SnapLen {
		f.Data = f.Data[:c.o.SnapLen]
	}
	f.Data = append([]byte(nil), f.Data...)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Frames++
	c.counts.Bytes += int64(f.Length)
	c.counts.ByClass[f.Class]++
	for i, yes := range found {
		if yes {
			c.watched[i].Frames++
			if len(c.watched[i].First) < watchedFrames {
				c.watched[i].First = append(c.watched[i].First, f)
			}
		}
	}
	if c.kept+len(f.Data) > c.o.MaxBytes {
		c.counts.NotKept++
		return
	}
	c.kept += len(f.Data)
	c.frames = append(c.frames, f)
}

func (c *Capture) finish(err error) {
	stats, statErr := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	closeErr := unix.Close(c.fd)
	c.mu.Lock()
	defer c.mu.Unlock()
	if statErr == nil {
		c.counts.Lost += int(stats.Drops)
	}
	c.err = errors.Join(err, statErr, closeErr)
}

// Stop ends the listening once everything sent so far has been taken in. The
// counts are final. An error tells that the capture is not complete; so do
// frames lost. More calls return the same.
func (c *Capture) Stop() (Counts, error) {
	c.stop.Store(true)
	<-c.done
	counts := c.Counts()
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.err
	if err == nil && counts.Lost > 0 {
		err = fmt.Errorf("the listener was too slow for %d of %d frames", counts.Lost, counts.Lost+counts.Frames)
	}
	if err != nil {
		err = fmt.Errorf("netlab: capture on %s: %w", c.wire.name, err)
	}
	return counts, err
}

// Counts are the numbers so far. A frame that has just been sent may not be in
// them yet, and losses show only after Stop.
func (c *Capture) Counts() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Watched tells what the i-th of CaptureOptions.Watch has found so far.
func (c *Capture) Watched(i int) Watched {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.watched[i]
	w.First = append([]Frame(nil), w.First...)
	return w
}

// Frames are the frames kept so far, oldest first. Their Data is not to be
// written to.
func (c *Capture) Frames() []Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Frame(nil), c.frames...)
}

// Find returns the kept frames that match.
func (c *Capture) Find(match Match) []Frame {
	var found []Frame
	for _, f := range c.Frames() {
		if match(&f) {
			found = append(found, f)
		}
	}
	return found
}

// WritePcapng writes the kept frames to a file, with one interface for each of
// the wire's ports.
func (c *Capture) WritePcapng(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	frames := c.Frames()
	interfaces := make(map[string]int)
	var writer *pcapgo.NgWriter
	for _, f := range frames {
		if _, ok := interfaces[f.Port]; ok {
			continue
		}
		intf := pcapgo.NgInterface{Name: f.Port, LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}
		if writer == nil {
			writer, err = pcapgo.NewNgWriterInterface(file, intf, pcapgo.NgWriterOptions{})
			interfaces[f.Port] = 0
		} else {
			interfaces[f.Port], err = writer.AddInterface(intf)
		}
		if err != nil {
			return fmt.Errorf("netlab: writing %s: %w", path, err)
		}
	}
	if writer == nil { // an empty capture is a file, too
		if writer, err = pcapgo.NewNgWriter(file, layers.LinkTypeEthernet); err != nil {
			return fmt.Errorf("netlab: writing %s: %w", path, err)
		}
	}
	for _, f := range frames {
		info := gopacket.CaptureInfo{
			Timestamp: f.Time, Length: f.Length, CaptureLength: len(f.Data),
			InterfaceIndex: interfaces[f.Port],
		}
		if err := writer.WritePacket(info, f.Data); err != nil {
			return fmt.Errorf("netlab: writing %s: %w", path, err)
		}
	}
	if err := writer.Flush(); err != nil {
		return fmt.Errorf("netlab: writing %s: %w", path, err)
	}
	return nil
}
