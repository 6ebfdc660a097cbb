//go:build linux

package ethtap

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
		w := waiter{looks: maxLooks}
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

// TestWaiterStaysAwake: a reader looks before he sleeps as long as that pays, and no more
// when what he waits for comes later than that, again and again.
func TestWaiterStaysAwake(t *testing.T) {
	frames, err := newWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer frames.close()
	idle, err := newWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer idle.close()
	var w waiter
	wait := func() {
		ready, woken, err := w.wait(int(frames.file.Fd()), int(idle.file.Fd()))
		if err != nil || woken || ready != unix.POLLIN && ready != 0 {
			t.Fatalf("ready %#x, woken %v, %v", ready, woken, err)
		}
	}
	frames.set(true)
	until(t, "a reader who finds frames at once to stay awake", func() bool {
		wait()
		return w.looks == maxLooks
	})
	// A reader who was held up may find a frame before he sleeps, and stays awake again: then
	// the next ones are later.
	for before, late, asleep := w.looks, 20*time.Millisecond, 0; asleep < 2; before = w.looks {
		frames.set(false)
		time.AfterFunc(late, func() { frames.set(true) })
		switch wait(); {
		case w.looks == 0:
			asleep++
		case w.looks != before/2:
			if late *= 2; late > 5*time.Second {
				t.Fatalf("%d looks after %d that did not pay", w.looks, before)
			}
			asleep = 0
		}
	}
}

// TestWaitersLeaveTheProcessors: readers who wait, awake or asleep, keep neither the
// collector nor others from running, though they are more than there are processors.
func TestWaitersLeaveTheProcessors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	stop, err := newWaker()
	if err != nil {
		t.Fatal(err)
	}
	defer stop.close()
	var fds [2]*waker // one that never has a frame, and one that always does
	for i := range fds {
		if fds[i], err = newWaker(); err != nil {
			t.Fatal(err)
		}
		defer fds[i].close()
		fds[i].set(i == 1)
	}
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			w := waiter{looks: maxLooks}
			for woken := false; !woken; {
				var err error
				if _, woken, err = w.wait(int(fds[i%2].file.Fd()), int(stop.file.Fd())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 20 {
		runtime.GC()
	}
	stop.set(true)
	readers.Wait()
}
