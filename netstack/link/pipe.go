package link

import (
	"os"
	"sync"

	"bitw/netstack/wire"
)

// DefaultQueue is how many frames one direction of a Pipe holds.
const DefaultQueue = 1024

// PipeOptions describe a link in memory.
type PipeOptions struct {
	// Queue is how many frames wait in each direction, DefaultQueue if 0. As with a NIC,
	// a frame that finds the queue full is dropped, and the writer is not told.
	Queue int
	// Drops counts frames that found the queue full; may be nil.
	Drops *wire.DropCounters
	// Wiretap, if not nil, sees every frame that an end writes, before the queue, on the
	// writer's goroutine. The frame begins with its virtio-net header and is borrowed for
	// the call.
	Wiretap func(from *PipeEnd, frame []byte)
	// Lose, if not nil, is asked for each frame after Wiretap; the frame is lost, as on a
	// bad cable, if it returns true.
	Lose func(from *PipeEnd, frame []byte) bool
}

// Pipe returns the two ends of a link in memory. What one end writes the other reads,
// frame by frame, virtio-net header included. It has no goroutines and no clock.
func Pipe(o PipeOptions) (a, b *PipeEnd) {
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	p := &pipe{PipeOptions: o}
	p.small.New = func() any { return newBuf(smallFrame) }
	p.large.New = func() any { return newBuf(MaxFrameLen) }
	a, b = newEnd(p), newEnd(p)
	a.peer, b.peer = b, a
	return a, b
}

// smallFrame is the size of the buffers for frames that are not superframes.
const smallFrame = 2048

type pipe struct {
	PipeOptions
	small, large sync.Pool // of *[]byte
}

func newBuf(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// copyOf returns a pooled buffer that holds a copy of frame.
func (p *pipe) copyOf(frame []byte) *[]byte {
	pool := &p.small
	if len(frame) > smallFrame {
		pool = &p.large
	}
	b := pool.Get().(*[]byte)
	*b = (*b)[:copy((*b)[:cap(*b)], frame)]
	return b
}

func (p *pipe) release(b *[]byte) {
	if cap(*b) == smallFrame {
		p.small.Put(b)
	} else {
		p.large.Put(b)
	}
}

// A PipeEnd is one end of a Pipe: a Device and a Poller.
type PipeEnd struct {
	pipe *pipe
	peer *PipeEnd

	mu     sync.Mutex
	ready  sync.Cond
	queue  []*[]byte // a ring: n frames from head on, waiting for this end's reader
	head   int
	n      int
	closed bool
	lost   uint64
}

var _ Poller = (*PipeEnd)(nil)

func newEnd(p *pipe) *PipeEnd {
	e := &PipeEnd{pipe: p, queue: make([]*[]byte, p.Queue)}
	e.ready.L = &e.mu
	return e
}

// ReadFrames implements Device.
func (e *PipeEnd) ReadFrames(bufs [][]byte, sizes []int) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.n == 0 && !e.closed {
		e.ready.Wait()
	}
	return e.take(bufs, sizes)
}

// PollFrames implements Poller.
func (e *PipeEnd) PollFrames(bufs [][]byte, sizes []int) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.take(bufs, sizes)
}

// take moves frames from the queue to bufs, with e.mu held. A frame that does not fit
// its buffer is cut, as a read from a TAP would.
func (e *PipeEnd) take(bufs [][]byte, sizes []int) (int, error) {
	if e.closed {
		return 0, os.ErrClosed
	}
	n := min(e.n, len(bufs))
	for i := range n {
		b := e.queue[e.head]
		e.queue[e.head] = nil
		sizes[i] = copy(bufs[i], *b)
		e.pipe.release(b)
		e.head = (e.head + 1) % len(e.queue)
	}
	e.n -= n
	return n, nil
}

// WriteFrames implements Device. It fails with ErrLinkDown when the other end is
// closed, and with ErrClosed of package os when this one is.
func (e *PipeEnd) WriteFrames(frames [][]byte) (int, error) {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return 0, os.ErrClosed
	}
	for i, f := range frames {
		if e.pipe.Wiretap != nil {
			e.pipe.Wiretap(e, f)
		}
		if e.pipe.Lose != nil && e.pipe.Lose(e, f) {
			continue
		}
		if !e.peer.put(f) {
			return i, ErrLinkDown
		}
	}
	return len(frames), nil
}

// put queues a copy of frame for e's reader; it returns false if e is closed.
func (e *PipeEnd) put(frame []byte) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	if len(frame) > MaxFrameLen || e.n == len(e.queue) {
		e.lost++
		if e.pipe.Drops != nil {
			e.pipe.Drops.Add(wire.DropQueueFull)
		}
		return true
	}
	e.queue[(e.head+e.n)%len(e.queue)] = e.pipe.copyOf(frame)
	e.n++
	e.ready.Signal()
	return true
}

// Lost returns how many frames to this end found its queue full.
func (e *PipeEnd) Lost() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

// Close implements Device. What waits for this end is dropped; the other end's
// writes fail with ErrLinkDown from now on, its reads wait on.
func (e *PipeEnd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return os.ErrClosed
	}
	e.closed = true
	clear(e.queue)
	e.n = 0
	e.ready.Broadcast()
	return nil
}
