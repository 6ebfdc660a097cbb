package keyer

import (
	"context"
	"sync"

	"bitw/sa"
)

// Events hands events from the packet path to a key manager's goroutine. Put never
// waits for the manager, and nothing is lost however slow it is: an event that
// happens again before it was taken replaces the earlier one, so there are at most as
// many as there are SAs and lineages to speak of. Make it with NewEvents.
type Events struct {
	mu      sync.Mutex
	order   []subject // of what is in pending, the oldest first
	pending map[subject]sa.Event
	more    chan struct{} // has an element if there is something to take
}

// subject is what an event is about.
type subject struct {
	kind    sa.EventKind
	sa      *sa.SA
	lineage *sa.Lineage
}

// NewEvents returns an empty queue.
func NewEvents() *Events {
	return &Events{pending: make(map[subject]sa.Event), more: make(chan struct{}, 1)}
}

// Put takes an event. It is fit to be a lineage's Notify.
func (q *Events) Put(ev sa.Event) {
	s := subject{ev.Kind, ev.SA, ev.Lineage}
	q.mu.Lock()
	if _, again := q.pending[s]; !again {
		q.order = append(q.order, s)
	}
	q.pending[s] = ev
	q.mu.Unlock()
	q.signal()
}

// Next returns the oldest event, and waits for one until ctx ends, whose error it
// then returns.
func (q *Events) Next(ctx context.Context) (sa.Event, error) {
	for {
		if ev, ok := q.take(); ok {
			return ev, nil
		}
		select {
		case <-q.more:
		case <-ctx.Done():
			return sa.Event{}, ctx.Err()
		}
	}
}

func (q *Events) take() (sa.Event, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.order) == 0 {
		return sa.Event{}, false
	}
	s := q.order[0]
	q.order = q.order[1:]
	ev := q.pending[s]
	delete(q.pending, s)
	if len(q.order) > 0 {
		q.signal() // for another that waits
	}
	return ev, true
}

func (q *Events) signal() {
	select {
	case q.more <- struct{}{}:
	default:
	}
}
