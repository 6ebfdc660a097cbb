package appliance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/config"
	"bitw/netstack/link"
	"bitw/netstack/wire"
)

// A stuckDevice is a link whose writes can be made to hang.
type stuckDevice struct {
	link.Device
	stuck   atomic.Pointer[chan struct{}]
	written atomic.Uint64
}

func (d *stuckDevice) WriteFrames(frames [][]byte) (int, error) {
	if c := d.stuck.Load(); c != nil {
		<-*c
	}
	n, err := d.Device.WriteFrames(frames)
	d.written.Add(uint64(n))
	return n, err
}

// hang makes writes hang until the returned function is called.
func (d *stuckDevice) hang() (free func()) {
	c := make(chan struct{})
	d.stuck.Store(&c)
	return sync.OnceFunc(func() {
		d.stuck.Store(nil)
		close(c)
	})
}

// bypassFrame is a UDP datagram between two hosts as a link carries it.
func bypassFrame(dst, src net.HardwareAddr, from, to string) []byte {
	f := make([]byte, link.HeaderLen+28)
	copy(f[wire.VirtioNetLen:], dst)
	copy(f[wire.VirtioNetLen+6:], src)
	copy(f[wire.VirtioNetLen+12:], "\x08\x00\x45\x00\x00\x1c\x00\x01\x00\x00\x40\x11\x00\x00")
	a, b := netip.MustParseAddr(from).As4(), netip.MustParseAddr(to).As4()
	ip := f[link.HeaderLen:]
	copy(ip[12:], a[:])
	copy(ip[16:], b[:])
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	ip[10], ip[11] = byte(^sum>>8), byte(^sum)
	copy(ip[20:], "\x00\x07\x00\x07\x00\x08\x00\x00")
	return f
}

// TestR47_R10_StalledSide hangs the write towards one side: the watchdog tells, the
// other direction goes on, the heartbeat stops; and all that ends when the write does. The
// watchdog's time is long enough for readers that wait for a processor.
func TestR47_R10_StalledSide(t *testing.T) {
	hostMAC, peerMAC := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	const host, peer = "192.0.2.1", "192.0.2.2"
	for _, side := range []string{"left", "right"} {
		t.Run(side, func(t *testing.T) {
			left, hostEnd := link.Pipe(link.PipeOptions{})
			right, wireEnd := link.Pipe(link.PipeOptions{})
			toHost, toWire := &stuckDevice{Device: left}, &stuckDevice{Device: right}
			var logged safeLog
			log := logrus.New()
			log.SetOutput(&logged)
			var beats atomic.Uint64
			cfg := Config{
				Watchdog: 2 * time.Second, Neighbors: config.Relay,
				Policies: []config.Policy{{Name: "all", Action: config.Bypass}},
			}
			box, err := New(cfg, WithLogger(log), WithHeartbeat(20*time.Millisecond, func() { beats.Add(1) }),
				WithLinks(toHost, toWire, Host{MAC: hostMAC, Addresses: []netip.Prefix{netip.MustParsePrefix(host + "/24")}}))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- box.Run(context.Background()) }()
			<-box.Ready()
			for _, end := range []link.Device{hostEnd, wireEnd} {
				go drainLink(end)
			}
			out, in := bypassFrame(peerMAC, hostMAC, host, peer), bypassFrame(hostMAC, peerMAC, peer, host)
			send := func(end link.Device, f []byte) {
				if _, err := end.WriteFrames([][]byte{f}); err != nil {
					t.Error(err)
				}
			}
			passes := func(what string, end link.Device, f []byte, to *stuckDevice) {
				t.Helper()
				before := to.written.Load()
				send(end, f)
				soon(t, what, func() bool { return to.written.Load() > before })
			}
			passes("the way out", hostEnd, out, toWire)
			passes("the way in", wireEnd, in, toHost)
			soon(t, "the heartbeat", func() bool { return beats.Load() > 1 })
			if s := box.Status(); len(s.Stalled) != 0 {
				t.Errorf("idle, and stalled is %v", s.Stalled)
			}

			stuck, end, frame := toWire, link.Device(hostEnd), out
			if side == "right" { // what comes from the wire
				stuck, end, frame = toHost, wireEnd, in
			}
			free := stuck.hang()
			defer free()
			send(end, frame)
			soon(t, "the watchdog tells", func() bool { return slices.Equal(box.Status().Stalled, []string{side}) })
			s := box.Status()
			if len(s.Health) == 0 || !strings.Contains(s.Health[0].String(), "make no progress") {
				t.Errorf("findings %q", s.Health)
			}
			soon(t, "it is logged", func() bool { return strings.Contains(logged.String(), "event=stalled") })
			silent := beats.Load()
			for range 20 { // the other direction
				if side == "left" {
					passes("the way in while the way out is stalled", wireEnd, in, toHost)
				} else {
					passes("the way out while the way in is stalled", hostEnd, out, toWire)
				}
			}
			time.Sleep(60 * time.Millisecond)
			if n := beats.Load(); n != silent {
				t.Errorf("%d heartbeats while a side was stalled", n-silent)
			}
			free()
			soon(t, "progress is told", func() bool { return len(box.Status().Stalled) == 0 })
			soon(t, "it is logged", func() bool { return strings.Contains(logged.String(), "event=resumed") })
			soon(t, "the heartbeat", func() bool { return beats.Load() > silent+1 })
			passes("the way out", hostEnd, out, toWire)
			passes("the way in", wireEnd, in, toHost)
			if err := box.Close(); err != nil {
				t.Error(err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if n := strings.Count(logged.String(), "event=stalled"); n != 1 {
				t.Errorf("stalled was logged %d times:\n%s", n, logged.String())
			}
		})
	}
}

// A stop comes to an end although a reader hangs, and says so.
func TestR47_StopWhileStalled(t *testing.T) {
	hostMAC, peerMAC := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	left, hostEnd := link.Pipe(link.PipeOptions{})
	right, wireEnd := link.Pipe(link.PipeOptions{})
	toWire := &stuckDevice{Device: right}
	cfg := Config{Watchdog: 100 * time.Millisecond, Neighbors: config.Relay, Policies: []config.Policy{{Name: "all", Action: config.Bypass}}}
	box, err := New(cfg, WithLinks(left, toWire, Host{MAC: hostMAC, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")}}))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- box.Run(context.Background()) }()
	<-box.Ready()
	go drainLink(hostEnd)
	go drainLink(wireEnd)
	free := toWire.hang()
	defer free()
	if _, err := hostEnd.WriteFrames([][]byte{bypassFrame(peerMAC, hostMAC, "192.0.2.1", "192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	soon(t, "the watchdog tells", func() bool { return len(box.Status().Stalled) == 1 })
	if err := box.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, errHangs) {
		t.Errorf("it ended with %v", err)
	}
}

// TestR47_Pace has readers wait, work and stop.
func TestR47_Pace(t *testing.T) {
	never, always := func(int) bool { return false }, func(int) bool { return true }
	second := func(i int) bool { return i == 1 }
	for _, c := range []struct {
		name    string
		turns   [][]uint64
		waiting func(int) bool
		most    int
	}{
		{"idle", [][]uint64{{4}, {4}, {4}, {4}}, never, 0},
		{"at work on one frame", [][]uint64{{5}, {5}, {5}, {5}}, never, 3},
		{"at work on many", [][]uint64{{5}, {7}, {9}, {11}}, never, 0},
		{"done at last", [][]uint64{{5}, {5}, {5}, {6}}, never, 0},
		{"always one waits, and it reads", [][]uint64{{4}, {6}, {8}, {10}}, always, 0},
		{"one waits, and it does not read", [][]uint64{{4}, {4}, {4}, {4}}, always, 3},
		{"the second of two queues", [][]uint64{{4, 2}, {6, 2}, {8, 2}, {10, 2}}, second, 3},
		{"the first is idle, the second reads", [][]uint64{{4, 2}, {4, 4}, {4, 6}, {4, 8}}, second, 0},
		{"another number of readers", [][]uint64{{5}, {5}, {5, 1}, {5, 1}}, never, 1},
	} {
		var p pace
		most := 0
		for _, turns := range c.turns {
			most = p.look(turns, c.waiting)
		}
		if most != c.most {
			t.Errorf("%s: %d, expected %d", c.name, most, c.most)
		}
	}
}

// soon waits for something to become true.
func soon(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// drainLink reads a link to its end.
func drainLink(d link.Device) {
	bufs, sizes := [][]byte{make([]byte, link.MaxFrameLen)}, make([]int, 1)
	for {
		if _, err := d.ReadFrames(bufs, sizes); err != nil {
			return
		}
	}
}

// safeLog may be written and read by several goroutines.
type safeLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

var _ io.Writer = (*safeLog)(nil)

func (s *safeLog) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeLog) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
