//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Readers wait for frames by poll(2) on a thread of their own. The runtime's poller
// would be woken for each frame that the kernel queues, even while the reader is busy.

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

// A waiter is how one reader waits.
type waiter struct{ scheduled time.Time }

// rescheduled is how often a reader that waits goes through Go's scheduler before. A system
// call does not: of one who has not for 10 ms the runtime takes the processor away in the
// next call that it finds him in, and looks every 20 µs from then on.
const rescheduled = 5 * time.Millisecond

// wait returns when fd, of a socket or a TAP, has something to read or an error, or the
// eventfd wakes is set, and which of the two it was.
func (w *waiter) wait(fd, wakes int) (ready int16, woken bool, err error) {
	if now := time.Now(); now.Sub(w.scheduled) > rescheduled {
		w.scheduled = now
		runtime.Gosched()
	}
	fds := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wakes), Events: unix.POLLIN}}
	if _, err := unix.Poll(fds[:], -1); err != nil {
		if errors.Is(err, unix.EINTR) {
			err = nil
		}
		return 0, false, err
	}
	return fds[0].Revents, fds[1].Revents != 0, nil
}
