package integration

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/appliance"
	"bitw/config"
	"bitw/integration/netlab"
)

// A hangingClock can make the side that comes from the host hang: the engine asks it for
// the time while it has a frame in hand.
type hangingClock struct{ stuck atomic.Pointer[chan struct{}] }

func (h *hangingClock) now() int64 {
	if c := h.stuck.Load(); c != nil {
		var pcs [16]uintptr
		frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
		for more := true; more; {
			var f runtime.Frame
			if f, more = frames.Next(); strings.HasSuffix(f.Function, "ipsec.(*Engine).outbound") {
				<-*c
				break
			}
		}
	}
	return time.Now().UnixNano()
}

// hang makes it hang until the returned function is called.
func (h *hangingClock) hang() (free func()) {
	c := make(chan struct{})
	h.stuck.Store(&c)
	return sync.OnceFunc(func() {
		h.stuck.Store(nil)
		close(c)
	})
}

// inProcess runs an appliance on a host's eth0 inside of this process.
func inProcess(t *testing.T, host *netlab.Host, yaml string, opts ...appliance.Option) *appliance.Appliance {
	t.Helper()
	dir := t.TempDir()
	cfg, _, err := config.Parse("bitw.yaml", []byte(yaml+"state_dir: "+filepath.Join(dir, "state")+"\n"), appliance.ConfigOptions())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Control = ""
	log := logrus.New()
	written := new(netlab.Output)
	log.SetOutput(written)
	a, err := appliance.New(*cfg, append(opts, appliance.WithLogger(log), appliance.WithNetNS(host.NetNSPath()), appliance.WithOpenOnStop())...)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(context.Background()) }()
	t.Cleanup(func() {
		_ = a.Close()
		if err := <-ended; err != nil {
			t.Errorf("the appliance on %s: %v", host.Name(), err)
		}
		if t.Failed() {
			t.Logf("the appliance on %s wrote:\n%s", host.Name(), written)
		}
	})
	select {
	case <-a.Ready():
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return a
}

// TestR47_Watchdog has the way from the host hang in the middle of a frame. Under shut
// nothing passes, under open all passes by itself, until it goes on.
func TestR47_Watchdog(t *testing.T) {
	for _, onFailure := range []string{"shut", "open"} {
		t.Run(onFailure, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			// Long enough for a reader that does not get a processor for a while.
			const watchdog = 2 * time.Second
			p := &plan{settings: fmt.Sprintf("watchdog: %v\non_failure: %s\n", watchdog, onFailure)}
			state := "clear"
			if onFailure == "shut" {
				state = "severed"
				p.flows = []*flow{newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4)}
			} else {
				p.last = bypassAll
			}
			clock := new(hangingClock)
			box := inProcess(t, pair.A, p.yaml(true), appliance.WithClock(clock.now))
			if onFailure == "shut" {
				inProcess(t, pair.B, p.yaml(false))
			}
			seen := watchClear(pair, 256)
			goes := func(what string) {
				t.Helper()
				pings(t, pair.A, b4, netlab.PingOptions{Count: 3})
				pings(t, pair.B, a4, netlab.PingOptions{Count: 3})
				if t.Failed() {
					t.Fatal(what)
				}
			}
			goes("at first")

			// A reader at the gate of a Closed tap is not stalled, nor is one with nothing to do.
			set := func(state string) {
				t.Helper()
				ctx := deadline(t, patience)
				if _, err := box.SetTaps(ctx, appliance.TapRequest{Kernel: state, Wire: "active", Clear: true}); err != nil {
					t.Fatal(err)
				}
			}
			set("closed")
			silent(t, pair.B, a4)
			time.Sleep(3 * watchdog / 2)
			if s := box.Status(); len(s.Stalled) > 0 || s.State != "severed" {
				t.Errorf("one tap is Closed by hand: the appliance is %s, stalled are %v", s.State, s.Stalled)
			}
			set("active")
			goes("after a tap was closed by hand")

			free := clock.hang()
			defer free()
			silent(t, pair.A, b4) // the frames that it hangs with
			eventually(t, "the watchdog acts", func() bool { return box.Status().State == state })
			if s := box.Status(); !slices.Equal(s.Stalled, []string{"left"}) || len(s.Health) == 0 {
				t.Errorf("stalled are %v, findings %q", s.Stalled, s.Health)
			}
			if onFailure == "shut" {
				silent(t, pair.A, b4)
				silent(t, pair.B, a4)
			} else {
				goes("while it hangs")
			}
			free()
			eventually(t, "it is back in service", func() bool { s := box.Status(); return s.State == "active" && len(s.Stalled) == 0 })
			before := box.Status().Links["right"].FramesOut
			goes("after it hung")
			if box.Status().Links["right"].FramesOut == before {
				t.Error("nothing goes by the appliance")
			}
			if onFailure == "shut" {
				allESP(t, seen)
			} else if _, err := seen.Stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}
