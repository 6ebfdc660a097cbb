//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/songgao/water"
	"golang.org/x/sys/unix"
)

const (
	// HeaderLen is the length in octets of the virtio-net header (struct
	// virtio_net_hdr_v1, host byte order) in front of each frame.
	HeaderLen = 12
	// MaxFrame is the length in octets of the longest read or write: the header,
	// an Ethernet header with two VLAN tags and 64 KB, and room to tell a whole
	// frame from one cut off.
	MaxFrame = HeaderLen + 14 + 2*4 + 65536 + 2

	minFrame = HeaderLen + 14
)

// Tap is one of the two taps of a Device. All methods may be called from any
// number of goroutines; see Queues for reading in parallel.
type Tap struct {
	dev    *Device
	tap    *tapDevice
	queues []*Queue

	// What the map says, and what this process allows: while a device drains the
	// map is Closed already, but the queue can still be read and written out.
	state    atomic.Uint32
	readable atomic.Bool
	writable atomic.Bool

	frames    atomic.Uint64 // written
	oversize  atomic.Uint64
	discarded atomic.Uint64
}

// Queue is one queue of a tap, with reads and writes of its own. The kernel
// chooses the queue by the flow, so the frames of one flow keep their order.
type Queue struct {
	tap *Tap
	w   *water.Interface
	fd  int // of w, for polling under the device's lock

	// The ways of the wire tap that take many frames at once; nil where frames go
	// through w.
	ring *ring
	send *sender
	one  sync.Mutex // among readers of single frames from the ring

	bufs [][]byte // of ReadBatch without a ring

	// reading says that nobody who read a frame here is still busy with it: the queue was
	// seen empty by whoever reads, who waits for the next frame.
	reading atomic.Bool
	raw     syscall.RawConn // of w
	wakes   *waker          // of who waits for w
	reads   sync.Pool       // of *tapRead
	writes  sync.Pool       // of *tapWrite
	// parked says that the reader waits for the end of a hold.
	parked atomic.Bool
}

func newTap(d *Device, t *tapDevice) (*Tap, error) {
	tap := &Tap{dev: d, tap: t}
	for _, w := range t.queues {
		q := &Queue{tap: tap, w: w}
		err := control(w, func(fd int) error { q.fd = fd; return nil })
		if err == nil {
			q.raw, err = w.ReadWriteCloser.(*os.File).SyscallConn()
		}
		if err == nil {
			q.wakes, err = newWaker()
		}
		if err != nil {
			return nil, fmt.Errorf("queue of %s: %w", *t.name.Load(), err)
		}
		q.reads.New = func() any { return newTapRead(q) }
		q.writes.New = func() any { return newTapWrite() }
		tap.queues = append(tap.queues, q)
	}
	return tap, nil
}

// Name is the name of the TAP device in the namespace, such as "htap2". It has the
// interface's index, so Follow may change it.
func (t *Tap) Name() string { return *t.tap.name.Load() }

// State is what the tap does with frames now. During a Drain it is Closed
// already, though what was queued can still be read.
func (t *Tap) State() State { return State(t.state.Load()) }

// SetState changes this tap's state and leaves the other's. Like
// Device.SetStates it is at once and drops what is queued when it closes.
func (t *Tap) SetState(s State) error {
	d := t.dev
	d.mu.Lock()
	defer d.mu.Unlock()
	k, w := d.kernel.State(), d.wire.State()
	if t == d.kernel {
		k = s
	} else {
		w = s
	}
	return d.setStates(k, w)
}

// Queues gives the Options.Queues queues. With more than one, each must be read:
// Read and Write use the first only.
func (t *Tap) Queues() []*Queue { return t.queues }

// Read reads one frame from the first queue; see Queue.Read.
func (t *Tap) Read(p []byte) (int, error) { return t.queues[0].Read(p) }

// Write writes one frame by the first queue; see Queue.Write.
func (t *Tap) Write(p []byte) (int, error) { return t.queues[0].Write(p) }

// Read waits for one frame and copies it into p: HeaderLen octets of virtio-net
// header, then the Ethernet frame, without FCS and with its VLAN tags inline. The
// frame may be a superframe whose header tells how to segment it, and its
// checksum may be left for the reader to finish.
//
// If p is shorter than MaxFrame it returns io.ErrShortBuffer and consumes
// nothing. A frame longer than MaxFrame (an interface with a gso_max_size beyond
// 64 KB) is dropped, counted as Oversize, and io.ErrShortBuffer too. When the
// state is or becomes Closed, or the device is closed, it returns ErrClosed.
func (q *Queue) Read(p []byte) (int, error) {
	if len(p) < MaxFrame {
		return 0, io.ErrShortBuffer
	}
	if q.ring != nil {
		q.one.Lock()
		defer q.one.Unlock()
		var one [1][]byte
		if _, err := q.ReadBatch(one[:]); err != nil {
			return 0, err
		}
		return copy(p, one[0]), nil
	}
	t := q.tap
	for {
		if q.park() {
			continue
		}
		if !t.readable.Load() {
			return 0, ErrClosed
		}
		n, err := q.read(p)
		switch {
		case err == nil && n == len(p):
			t.oversize.Add(1)
			return 0, io.ErrShortBuffer
		case err == nil:
			return n, nil
		case errors.Is(err, errWoken):
			// By a change of state; look at it again.
		case errors.As(err, new(unix.Errno)):
			return 0, fmt.Errorf("read from %s: %w", t.Name(), err)
		default:
			return 0, ErrClosed // the file is
		}
	}
}

// park waits for the end of a hold, if there is one.
func (q *Queue) park() bool {
	held := q.tap.dev.held.Load()
	if held == nil {
		return false
	}
	q.parked.Store(true)
	<-*held
	q.parked.Store(false)
	return true
}

// errWoken says that a reader was made to look up.
var errWoken = errors.New("woken")

// tapRead is one read of a TAP's queue.
type tapRead struct {
	p   []byte
	n   int
	err error

	fd     int
	woke   error // of await
	waiter waiter

	// Made once, since they would be allocated.
	try, await func(fd uintptr)
}

func newTapRead(q *Queue) *tapRead {
	r := new(tapRead)
	r.try = func(fd uintptr) {
		r.fd = int(fd)
		// At no moment has a reader a frame while reading is true.
		q.reading.Store(false)
		for {
			r.n, r.err = readNow(r.fd, r.p)
			if errors.Is(r.err, unix.EAGAIN) {
				q.reading.Store(true)
				if r.err = q.wakes.raw.Control(r.await); r.err == nil {
					r.err = r.woke
				}
				q.reading.Store(false)
				if r.err == nil {
					continue
				}
			}
			if !errors.Is(r.err, unix.EINTR) {
				return
			}
		}
	}
	r.await = func(wakes uintptr) {
		_, woken, err := r.waiter.wait(r.fd, int(wakes))
		if err == nil && woken {
			err = errWoken
		}
		r.woke = err
	}
	return r
}

// read waits for a frame and reads it.
func (q *Queue) read(p []byte) (int, error) {
	r := q.reads.Get().(*tapRead)
	r.p = p
	err := q.raw.Control(r.try)
	n := r.n
	if err == nil {
		err = r.err
	}
	r.p = nil
	q.reads.Put(r)
	return max(n, 0), err
}

// Write sends one frame, HeaderLen octets of virtio-net header and the Ethernet
// frame, and keeps nothing of p. A superframe as it was read may be written as it
// is; the kernel segments it and finishes checksums where the device cannot.
//
// It returns ErrClosed or ErrPassive in those states, and ErrFrame for what
// cannot be a frame. The kernel may still drop the frame further on, as it may
// drop any frame that a host sends.
func (q *Queue) Write(p []byte) (int, error) {
	t := q.tap
	if len(p) < minFrame || len(p) > MaxFrame {
		return 0, fmt.Errorf("%w: %d octets, expected %d to %d", ErrFrame, len(p), minFrame, MaxFrame)
	}
	if !t.writable.Load() {
		if t.State() == Passive {
			return 0, ErrPassive
		}
		return 0, ErrClosed
	}
	if q.batches() {
		if _, err := q.WriteBatch([][]byte{p}); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	n, err := q.write(p)
	switch {
	case err == nil:
		t.frames.Add(1)
		return n, nil
	case errors.Is(err, os.ErrClosed):
		return 0, ErrClosed
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE):
		return 0, fmt.Errorf("%w: write to %s: %w", ErrFrame, t.Name(), err)
	}
	return 0, fmt.Errorf("write to %s: %w", t.Name(), err)
}

// tapWrite is one write to a TAP.
type tapWrite struct {
	p   []byte
	n   int
	err error

	try func(fd uintptr) // made once, since it would be allocated
}

func newTapWrite() *tapWrite {
	w := new(tapWrite)
	w.try = func(fd uintptr) { w.n, w.err = writeNow(int(fd), w.p) }
	return w
}

// write writes a frame to the TAP.
func (q *Queue) write(p []byte) (int, error) {
	w := q.writes.Get().(*tapWrite)
	defer q.writes.Put(w)
	w.p = p
	err := q.raw.Control(w.try)
	w.p = nil
	if err == nil {
		err = w.err
	}
	if err != nil {
		return 0, err
	}
	return w.n, nil
}

// Waiting tells whether frames wait in the queue to be read.
func (q *Queue) Waiting() bool {
	d := q.tap.dev
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.closed && q.queued()
}

// Stats counts frames of one tap since the device was opened, or for the first
// three since its taps were made, which a takeover does not change. A superframe
// counts once.
type Stats struct {
	Read     uint64 // read from the queue
	Overflow uint64 // lost because the queue was full
	Severed  uint64 // stopped because this tap is not Active but the other is
	Refused  uint64 // written without permission, dropped by the program
	Written  uint64 // accepted from Write
	// Own is, in the two-NIC form, what the box's own kernel tried to send by this side's
	// NIC, and was stopped.
	Own uint64
	// Open is what passed by itself because nobody had fed the dead man's switch in time
	// (see FailOpen).
	Open uint64

	Oversize  uint64 // longer than MaxFrame, dropped by Read
	Discarded uint64 // still queued when the state became Closed
}

// Stats asks the kernel for the tap's counters.
func (t *Tap) Stats() (Stats, error) {
	d := t.dev
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return Stats{}, ErrClosed
	}
	s := Stats{
		Written: t.frames.Load(), Oversize: t.oversize.Load(), Discarded: t.discarded.Load(),
		Severed: d.cut.count(offKernelCut), Refused: d.cut.count(offKernelDeny), Own: d.cut.count(offInsideOwn), Open: d.cut.count(offKernelOpen),
	}
	if t == d.wire {
		s.Severed, s.Refused = d.cut.count(offWireCut), d.cut.count(offWireDeny)
		s.Own, s.Open = d.cut.count(offOutsideOwn), d.cut.count(offWireOpen)
	}
	if t.queues[0].ring != nil {
		// What the TAP says is of a queue that takes nothing.
		for _, q := range t.queues {
			s.Read += q.ring.taken.Load()
			s.Overflow += q.ring.overflows()
			s.Oversize += q.ring.lost.Load()
		}
		return s, nil
	}
	l, err := d.nl.LinkByIndex(t.tap.index)
	if err != nil {
		return Stats{}, fmt.Errorf("counters of %s: %w", t.Name(), err)
	}
	if k := l.Attrs().Statistics; k != nil {
		s.Read, s.Overflow = k.TxPackets, k.TxDropped
	}
	return s, nil
}

// wake makes blocked reads return, or lets later ones block again.
func (t *Tap) wake(on bool) {
	for _, q := range t.queues {
		q.wakes.set(on)
		if q.ring != nil {
			q.ring.wake(on)
		}
	}
}

func (t *Tap) closeWakers() {
	for _, q := range t.queues {
		q.wakes.close()
	}
}

// discard drops what is queued, so that no frame of an earlier state is ever
// taken for one of a later state.
func (t *Tap) discard() {
	var b [64]byte // the kernel drops what does not fit
	for _, q := range t.queues {
		if q.ring != nil {
			t.discarded.Add(q.ring.discard())
			continue
		}
		for {
			if _, err := unix.Read(q.fd, b[:]); err != nil {
				if errors.Is(err, unix.EINTR) {
					continue
				}
				break
			}
			t.discarded.Add(1)
		}
	}
}

// idle tells whether no frame is queued and every reader is back for the next one. It
// takes for granted that each queue has one reader.
func (t *Tap) idle() bool {
	// In this order: who took the last frame out was busy before that, and is until it
	// comes back.
	if t.queued() {
		return false
	}
	for _, q := range t.queues {
		if !q.reading.Load() {
			return false
		}
	}
	return true
}

// queued tells whether a frame waits to be read.
func (t *Tap) queued() bool {
	return slices.ContainsFunc(t.queues, (*Queue).queued)
}

func (q *Queue) queued() bool {
	if q.ring != nil {
		return q.ring.waiting()
	}
	fds := []unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLIN != 0
}
