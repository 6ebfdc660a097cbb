package appliance

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"bitw/netstack/ethtap"
)

// A fakeQueue gives a frame for each value in frames, and ErrClosed while closed.
type fakeQueue struct {
	mu     sync.Mutex
	cond   sync.Cond
	closed bool
	frames []byte
}

func newFakeQueue() *fakeQueue {
	q := new(fakeQueue)
	q.cond.L = &q.mu
	return q
}

func (q *fakeQueue) ReadBatch(frames [][]byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && len(q.frames) == 0 {
		q.cond.Wait()
	}
	if q.closed {
		return 0, ethtap.ErrClosed
	}
	frames[0] = q.frames[:1]
	q.frames = q.frames[1:]
	return 1, nil
}

func (q *fakeQueue) WriteBatch([][]byte) (int, error) { return 0, io.ErrClosedPipe }

func (q *fakeQueue) set(closed bool, frames ...byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = closed
	q.frames = append(q.frames, frames...)
	q.cond.Broadcast()
}

// A reader waits while its tap is Closed, throws copies away, goes on when the tap
// is Active again, and ends with the gate.
func TestTapGate(t *testing.T) {
	q, g := newFakeQueue(), newTapGate()
	dev := newTapQueue(q, g)
	got := make(chan byte)
	ended := make(chan error, 1)
	go func() {
		frames := make([][]byte, 1)
		for {
			if _, err := dev.LendFrames(frames); err != nil {
				ended <- err
				return
			}
			got <- frames[0][0]
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	next := func(want byte) {
		t.Helper()
		select {
		case b := <-got:
			if b != want {
				t.Fatalf("frame %d, expected %d", b, want)
			}
		case err := <-ended:
			t.Fatalf("the reader ended: %v", err)
		case <-ctx.Done():
			t.Fatal("no frame")
		}
	}
	q.set(false, 1)
	next(1)
	for i := range byte(100) {
		q.set(true)
		if err := g.settle(ctx); err != nil {
			t.Fatal(err)
		}
		g.live.Store(false)
		q.set(false, 200, 201) // copies
		g.change()
		if i%2 == 0 {
			for len(q.left()) > 0 {
				time.Sleep(time.Microsecond)
			}
		}
		q.set(true)
		if err := g.settle(ctx); err != nil {
			t.Fatal(err)
		}
		q.drop()
		g.live.Store(true)
		q.set(false, i)
		g.change()
		next(i)
	}
	// A reader that holds a frame keeps settle waiting.
	q.set(false, 7)
	for len(q.left()) > 0 {
		time.Sleep(time.Microsecond)
	}
	q.set(true)
	short, stop := context.WithTimeout(ctx, 20*time.Millisecond)
	defer stop()
	if err := g.settle(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("settle while a frame is under way: %v", err)
	}
	next(7)
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("the reader ended with %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the reader does not end")
	}
	if err := g.settle(ctx); !errors.Is(err, os.ErrClosed) {
		t.Errorf("settle after the end: %v", err)
	}
}

func (q *fakeQueue) left() []byte {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.frames
}

func (q *fakeQueue) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.frames = nil
}
