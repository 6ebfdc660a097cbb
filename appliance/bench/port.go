package bench

import (
	"errors"
	"os"
	"sync"
	"time"

	"bitw/netstack/link"
)

// A port is a link in memory that measures. Its reader gets frames when feed is
// called, and lends them where they lie, as a ring that a kernel fills would; what is
// written to it is weighed, and let go.
type port struct {
	feeds  chan [][]byte
	closed chan struct{}
	once   sync.Once
	batch  [][]byte // what the reader has not had yet

	mu    sync.Mutex
	began time.Time // when the reader had the first frame of a feed
	weigh func(frame []byte) int
	want  int           // weight that is still expected
	done  chan struct{} // told when nothing is, cap 1
	ended time.Time     // when
	keep  *arena        // nil to let frames go
	timer *time.Timer   // of feed
}

var _ link.Lender = (*port)(nil)

func newPort(weigh func([]byte) int) *port {
	return &port{feeds: make(chan [][]byte), closed: make(chan struct{}), weigh: weigh, done: make(chan struct{}, 1), timer: time.NewTimer(feedTimeout)}
}

// wait returns when there are frames to read.
func (p *port) wait() error {
	for len(p.batch) == 0 {
		select {
		case p.batch = <-p.feeds:
			p.mu.Lock()
			p.began = time.Now()
			p.mu.Unlock()
		case <-p.closed:
			return os.ErrClosed
		}
	}
	return nil
}

// LendFrames implements link.Lender.
func (p *port) LendFrames(frames [][]byte) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	n := copy(frames, p.batch)
	p.batch = p.batch[n:]
	return n, nil
}

// ReadFrames implements link.Device.
func (p *port) ReadFrames(bufs [][]byte, sizes []int) (int, error) {
	if err := p.wait(); err != nil {
		return 0, err
	}
	n := min(len(bufs), len(p.batch))
	for i := range n {
		sizes[i] = copy(bufs[i], p.batch[i])
	}
	p.batch = p.batch[n:]
	return n, nil
}

// WriteFrames implements link.Device.
func (p *port) WriteFrames(frames [][]byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range frames {
		w := p.weigh(f)
		if w == 0 || p.want <= 0 {
			continue
		}
		if p.keep != nil {
			p.keep.add(f)
		}
		if p.want -= w; p.want <= 0 {
			p.ended = time.Now()
			p.done <- struct{}{}
		}
	}
	return len(frames), nil
}

// Close implements link.Device.
func (p *port) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// feedTimeout is long enough for every machine on which something is worth measuring.
const feedTimeout = 5 * time.Second

var errLost = errors.New("what was sent has not all arrived")

// feed gives frames to the reader of from, and returns the time from when that has the
// first until what was written to p weighs as much as wanted. Where keep is not nil it
// takes copies of what was written.
func (p *port) feed(from *port, frames [][]byte, want int, keep *arena) (time.Duration, error) {
	p.mu.Lock()
	p.want, p.keep = want, keep
	p.mu.Unlock()
	p.timer.Reset(feedTimeout)
	defer p.timer.Stop()
	select {
	case from.feeds <- frames:
	case <-p.timer.C:
		return 0, errLost
	}
	select {
	case <-p.done:
	case <-p.timer.C:
		return 0, errLost
	}
	from.mu.Lock()
	began := from.began
	from.mu.Unlock()
	// The frames are the reader's until it comes for the next ones, of which there are none.
	select {
	case from.feeds <- nil:
	case <-p.timer.C:
		return 0, errLost
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended.Sub(began), nil
}

// An arena keeps copies of frames, in memory that it uses again.
type arena struct {
	room   []byte
	frames [][]byte
}

func newArena(octets, frames int) *arena {
	return &arena{room: make([]byte, 0, octets), frames: make([][]byte, 0, frames)}
}

func (a *arena) reset() { a.room, a.frames = a.room[:0], a.frames[:0] }

func (a *arena) add(frame []byte) {
	at := len(a.room)
	a.room = append(a.room, frame...)
	a.frames = append(a.frames, a.room[at:len(a.room):len(a.room)])
}
