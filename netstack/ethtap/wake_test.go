//go:build linux

package ethtap

import (
	"runtime"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// A reader that finds a frame each time that it waits goes through Go's scheduler all the
// same, where others who are ready to run have their turn. Else the runtime takes its
// processor away, and looks for that every 20 µs, which costs more than the frames.
func TestR11_ReadersAreScheduled(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	fd, err := unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) // always ready
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	const trials = 100
	had := 0
	for range trials {
		var other atomic.Bool
		go other.Store(true)
		w := waiter{}
		if _, _, err := w.wait(fd, fd); err != nil {
			t.Fatal(err)
		}
		if other.Load() {
			had++
		}
		at := w.scheduled
		if _, _, err := w.wait(fd, fd); err != nil || w.scheduled.Sub(at) != 0 && w.scheduled.Sub(at) <= rescheduled {
			t.Fatalf("again %v later: %v", w.scheduled.Sub(at), err)
		}
	}
	if had < trials/2 { // the scheduler need not take the other first
		t.Errorf("others had their turn %d times of %d", had, trials)
	}
}
