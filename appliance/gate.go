package appliance

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"bitw/netstack/ethtap"
	"bitw/netstack/link"
)

// A tapGate stands between a tap and those who read it for the engine. A tap whose
// state is set by hand may be Closed or Passive for a while: its readers wait here
// then, or throw away the copies of what has passed already.
type tapGate struct {
	// live says that what is read goes to the engine.
	live atomic.Bool
	// changes counts the changes of state after which a reader has to look again.
	changes atomic.Uint64

	mu      sync.Mutex
	moved   sync.Cond
	readers int
	waiting int // readers in await
	ended   bool
}

func newTapGate() *tapGate {
	g := new(tapGate)
	g.moved.L = &g.mu
	g.live.Store(true)
	return g
}

// await returns once the tap's state has changed after the count seen, or false
// when the gate has ended.
func (g *tapGate) await(seen uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting++
	g.moved.Broadcast()
	for g.changes.Load() == seen && !g.ended {
		g.moved.Wait()
	}
	g.waiting--
	return !g.ended
}

// change sends the readers to look at the tap again.
func (g *tapGate) change() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.changes.Add(1)
	g.moved.Broadcast()
}

// settle waits until no reader is under way with a frame. The tap is Closed.
func (g *tapGate) settle(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.moved.Broadcast()
	})
	defer stop()
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.waiting < g.readers && !g.ended && ctx.Err() == nil {
		g.moved.Wait()
	}
	if g.ended {
		return os.ErrClosed
	}
	return ctx.Err()
}

// end lets all readers go for good.
func (g *tapGate) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
	g.moved.Broadcast()
}

// tapQueue is a queue of a tap as a link reads it: it waits while the tap is
// Closed. Closing the queue itself is left to the device, which closes all at once.
type tapQueue struct {
	queue batches
	gate  *tapGate
}

// batches is an *ethtap.Queue.
type batches interface {
	ReadBatch(frames [][]byte) (int, error)
	WriteBatch(frames [][]byte) (int, error)
}

var _ link.Lender = tapQueue{}

func newTapQueue(q batches, g *tapGate) tapQueue {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readers++
	return tapQueue{q, g}
}

// LendFrames implements link.Lender.
func (q tapQueue) LendFrames(frames [][]byte) (int, error) {
	for {
		// Counted before the read, so that a change during it is not slept over.
		seen := q.gate.changes.Load()
		n, err := q.queue.ReadBatch(frames)
		switch {
		case err == nil && q.gate.live.Load():
			return n, nil
		case err == nil:
			// Copies: the frames themselves have passed.
		case !errors.Is(err, ethtap.ErrClosed):
			return n, err
		case !q.gate.await(seen):
			return 0, err
		}
	}
}

// ReadFrames implements link.Device.
func (q tapQueue) ReadFrames(bufs [][]byte, sizes []int) (int, error) {
	frames := make([][]byte, min(len(bufs), len(sizes)))
	n, err := q.LendFrames(frames)
	for i, f := range frames[:n] {
		sizes[i] = copy(bufs[i], f)
	}
	return n, err
}

// WriteFrames implements link.Device.
func (q tapQueue) WriteFrames(frames [][]byte) (int, error) { return q.queue.WriteBatch(frames) }

func (q tapQueue) Close() error {
	q.gate.end()
	return nil
}
