//go:build linux

package ethtap

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/rawfile"
)

// Readers wait for frames by ppoll(2) on a thread of their own. The runtime's poller would
// be woken for each frame that the kernel queues, even while the reader is busy, and looks
// for others only when a thread has nothing else to do.

// unpolled makes a file of fd, which does not block and which it owns, that the runtime
// does not poll.
func unpolled(fd int, name string) (*os.File, error) {
	// A file that blocks is not polled.
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("let %s block: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.SetNonblock(fd, true); err != nil {
		f.Close()
		return nil, fmt.Errorf("keep %s from blocking: %w", name, err)
	}
	return f, nil
}

// A waker makes readers who wait look up, until it is set off again.
type waker struct {
	file *os.File
	raw  syscall.RawConn
}

func newWaker() (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	w := new(waker)
	if w.file, err = unpolled(fd, "eventfd"); err != nil {
		return nil, err
	}
	if w.raw, err = w.file.SyscallConn(); err != nil {
		w.file.Close()
		return nil, err
	}
	return w, nil
}

// close ends the waker when nobody waits for it any more; it is set before.
func (w *waker) close() { w.file.Close() }

// set makes those who wait return, and later ones return at once, or not.
func (w *waker) set(on bool) {
	_ = w.raw.Control(func(fd uintptr) { setEvent(int(fd), on) }) // closed, nobody waits
}

// setEvent sets an eventfd, or clears it.
func setEvent(fd int, on bool) {
	var b [8]byte
	if on {
		b[0], b[7] = 1, 1 // whatever the order of octets
		unix.Write(fd, b[:])
	} else {
		unix.Read(fd, b[:])
	}
}

// A waiter is how one reader waits. For a while after a frame he stays awake, since more
// may come, an answer above all: he looks at short intervals, between which neither the
// runtime nor a processor of the machine, which sleeps lightly, counts him as idle. One that
// sleeps deeply takes longer to wake up than a packet's whole way. Then he sleeps, and leaves
// his processor of Go's to others at once.
//
// He stays awake less long each time that nothing came, until it would have paid again.
type waiter struct {
	scheduled time.Time
	looks     int
}

const (
	// maxLooks of lookTime each, and what a thread's timer slack adds (50 µs), is how long a
	// reader stays awake at most.
	maxLooks = 20
	lookTime = 50 * time.Microsecond

	// rescheduled is how often a reader who stays awake goes through Go's scheduler. From one
	// who has not for 10 ms the runtime takes the processor away in the next system call that
	// it knows of, and looks every 20 µs from then on.
	rescheduled = 5 * time.Millisecond
)

// wait returns when fd, of a socket or a TAP, has something to read or an error, or the
// eventfd wakes is set, and which of the two it was; or neither.
func (w *waiter) wait(fd, wakes int) (ready int16, woken bool, err error) {
	since := time.Now()
	if since.Sub(w.scheduled) > rescheduled {
		w.scheduled = since
		runtime.Gosched()
	}
	fds := [...]rawfile.PollEvent{{FD: int32(fd), Events: unix.POLLIN}, {FD: int32(wakes), Events: unix.POLLIN}}
	n := 0
	for i := 0; i < w.looks && n == 0 && err == nil; i++ {
		n, err = look(&fds)
	}
	if n > 0 || err != nil {
		w.looks = maxLooks
	} else {
		if _, errno := rawfile.BlockingPoll(&fds[0], len(fds), nil); errno != 0 && errno != unix.EINTR {
			err = errno
		}
		w.scheduled = time.Now()
		if w.looks /= 2; w.scheduled.Sub(since) < maxLooks*lookTime {
			w.looks = maxLooks
		}
	}
	return fds[0].Revents, fds[1].Revents != 0, err
}

// look polls for at most lookTime and returns how many are ready. The runtime is not told
// of it; the signal by which it wants something ends the look.
func look(fds *[2]rawfile.PollEvent) (int, error) {
	limit := unix.NsecToTimespec(int64(lookTime))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(fds)), uintptr(len(fds)), uintptr(unsafe.Pointer(&limit)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		runtime.Gosched()
		return 0, nil
	}
	return 0, errno
}
