package appliance

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"bitw/netstack/ethtap"
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
	io.ReadWriter // an *ethtap.Queue
	gate          *tapGate
}

func newTapQueue(q io.ReadWriter, g *tapGate) tapQueue {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.readers++
	return tapQueue{q, g}
}

func (q tapQueue) Read(p []byte) (int, error) {
	for {
		// Counted before the read, so that a change during it is not slept over.
		seen := q.gate.changes.Load()
		n, err := q.ReadWriter.Read(p)
		switch {
		case err == nil && q.gate.live.Load():
			return n, nil
		case err == nil:
			// A copy: the frame itself has passed.
		case !errors.Is(err, ethtap.ErrClosed):
			return n, err
		case !q.gate.await(seen):
			return 0, err
		}
	}
}

func (q tapQueue) Close() error {
	q.gate.end()
	return nil
}
