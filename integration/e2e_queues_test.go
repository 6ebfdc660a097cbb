package integration

import (
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/integration/netlab"
)

// A stumblingClock has the first frame from the host that it is armed for wait; the
// engine asks it for the time while it has a frame in hand.
type stumblingClock struct{ stone atomic.Pointer[chan struct{}] }

func (s *stumblingClock) now() int64 {
	if s.stone.Load() != nil {
		var pcs [16]uintptr
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
		for more := true; more; {
			var f runtime.Frame
			if f, more = frames.Next(); strings.HasSuffix(f.Function, "ipsec.(*Engine).outbound") {
				if c := s.stone.Swap(nil); c != nil {
					<-*c
				}
				break
			}
		}
	}
	return time.Now().UnixNano()
}

// TestR11_FlowsAreConcurrent has one frame of one flow wait in the middle of its way:
// flows of another queue go on, and of its own nothing overtakes it.
func TestR11_FlowsAreConcurrent(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	clock := new(stumblingClock)
	inProcess(t, pair.A, (&plan{settings: "watchdog: off\n", last: bypassAll}).yaml(true), appliance.WithClock(clock.now), appliance.WithQueues(2))
	pc, err := pair.B.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(b4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	came := make(map[string][]string) // by flow
	go func() {
		for b := make([]byte, 100); ; {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				return
			}
			mu.Lock()
			came[from.String()] = append(came[from.String()], string(b[:n]))
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { _ = pc.Close() })
	of := func(c net.Conn) []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(came[c.LocalAddr().String()])
	}
	open := func() net.Conn {
		c, err := pair.A.Dial(deadline(t, patience), "udp", pc.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	say := func(c net.Conn, what string) {
		if _, err := c.Write([]byte(what)); err != nil {
			t.Error(err)
		}
	}
	slow := open()
	eventually(t, "the flow goes", func() bool { say(slow, "first"); return len(of(slow)) > 0 })

	stone := make(chan struct{})
	free := sync.OnceFunc(func() { clock.stone.Store(nil); close(stone) })
	defer free()
	clock.stone.Store(&stone)
	eventually(t, "a frame of it waits", func() bool { say(slow, "asks"); return clock.stone.Load() == nil })
	const frames = 50
	for i := range frames {
		say(slow, strconv.Itoa(i))
	}
	var others []net.Conn
	for range 32 { // by their hashes some are of the other queue
		others = append(others, open())
	}
	eventually(t, "other flows go on meanwhile", func() bool {
		for _, c := range others {
			say(c, "past it")
		}
		return slices.ContainsFunc(others, func(c net.Conn) bool { return len(of(c)) > 0 })
	})
	if slices.Contains(of(slow), "0") {
		t.Error("a frame of the flow that waits has come")
	}
	free()
	last := func() []string {
		list := of(slow)
		return list[max(0, len(list)-frames):]
	}
	eventually(t, "the flow goes on", func() bool { return slices.Contains(last(), strconv.Itoa(frames-1)) })
	for i, s := range last() {
		if s != strconv.Itoa(i) {
			t.Fatalf("the flow came as %q", last())
		}
	}
}
