package link

import (
	"errors"
	"io"
	"os"
	"syscall"

	"bitw/netstack/wire"
)

// ErrLinkDown says that the link, or its other end, is not up. A Device returns it,
// or an error that wraps EIO or ENETDOWN, for frames that found nobody.
var ErrLinkDown = errors.New("link is down")

// A Device moves Ethernet frames in batches. Each frame begins with a virtio-net
// header of wire.VirtioNetLen octets that describes the Ethernet frame behind it.
// Both calls may run at the same time, and WriteFrames from several goroutines.
type Device interface {
	// ReadFrames waits for at least one frame, writes frame i to the start of bufs[i]
	// and its length in octets, virtio-net header included, to sizes[i], and returns
	// how many there are. The buffers are borrowed for the call. n frames are good even
	// when err is not nil. After Close it returns an error that wraps os.ErrClosed.
	ReadFrames(bufs [][]byte, sizes []int) (n int, err error)
	// WriteFrames writes the frames in order and returns how many it took. If that is
	// fewer than all, err says why frames[n] was refused, and those behind it were not
	// tried. The frames are borrowed for the call and not changed. It must not wait for
	// a slow receiver.
	WriteFrames(frames [][]byte) (n int, err error)
	// Close ends waiting and later calls.
	Close() error
}

// A Poller is a Device that can also be read without waiting: PollFrames is
// ReadFrames that returns 0 and no error when there is nothing.
type Poller interface {
	Device
	PollFrames(bufs [][]byte, sizes []int) (n int, err error)
}

// A Lender is a Device whose frames can be read where they lie. LendFrames waits as
// ReadFrames does, and sets frames[0] to frames[n-1] to the frames; they stay the
// device's, may be changed, and are good until the next call. Only one goroutine may
// read from a Lender, in one of the two ways.
type Lender interface {
	Device
	LendFrames(frames [][]byte) (n int, err error)
}

// FromReadWriter makes a Device of rw, whose Read and Write move one frame with its
// virtio-net header a call, such as one queue of a TAP. Close closes rw.
func FromReadWriter(rw io.ReadWriteCloser) Device { return singleFrame{rw} }

type singleFrame struct{ rw io.ReadWriteCloser }

func (d singleFrame) ReadFrames(bufs [][]byte, sizes []int) (int, error) {
	if len(bufs) == 0 {
		return 0, nil
	}
	n, err := d.rw.Read(bufs[0])
	if n > 0 {
		sizes[0] = n
		return 1, err
	}
	return 0, err
}

func (d singleFrame) WriteFrames(frames [][]byte) (int, error) {
	for i, f := range frames {
		n, err := d.rw.Write(f)
		if err == nil && n != len(f) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return i, err
		}
	}
	return len(frames), nil
}

func (d singleFrame) Close() error { return d.rw.Close() }

// writeDrop returns the reason to count for a frame that a Device refused with err.
func writeDrop(err error) wire.DropReason {
	switch {
	case errors.Is(err, os.ErrClosed):
		return wire.DropEndpointGone
	case errors.Is(err, ErrLinkDown), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENETDOWN):
		return wire.DropLinkDown
	}
	return wire.DropLinkWrite
}
