package sa

import "fmt"

// A SA may take the place of another in the same process and go on where that was: with
// its key, and other parameters beside. Three steps keep that from failing half way, and
// from using a number twice:
//
//  1. Prepare makes the new SA, all but its numbers. It can fail; nothing has changed.
//  2. Continues says whether it may go on where another is.
//  3. Succeed ends the old one and moves what it has become. It cannot fail.

// Prepare is New for an SA that will Succeed another: it has neither claimed sequence
// numbers nor anything of Resume, and takes no number until it does. The errors are those
// of New, but for the store's.
func Prepare(cfg SAConfig) (*SA, error) {
	s, err := newSA(&cfg, true)
	if err != nil {
		return nil, fmt.Errorf("SA %q: %w", cfg.Name, err)
	}
	return s, nil
}

// Continues says whether s, from Prepare, has the key of old in the same direction, so that
// it must not begin anew while old is there: an inbound one with the same SPI and
// destination, whose replay window goes on, or an outbound one whose numbers do, under
// whatever SPI if they make nonces.
func (s *SA) Continues(old *SA) bool {
	if s.keyID == "" || s.keyID != old.keyID || s.Direction != old.Direction {
		return false
	}
	return s.Direction == Outbound || s.Key == old.Key
}

// Succeed closes old, which s Continues, and lets s go on where it was: with its sequence
// numbers, and where SPI and kind of sequence numbers are the same, with its replay
// window, counters, age, path MTU and peer. It is exact if nobody uses old meanwhile;
// otherwise what comes in between is dropped as DropKeyInvalid. No number is used twice in
// either case.
func (s *SA) Succeed(old *SA) {
	old.state.Or(stateClosed)
	same := s.Key == old.Key && s.ESN == old.ESN
	if s.Direction == Outbound {
		s.seq.inherit(&old.seq, same)
	}
	if !same {
		return
	}
	st := old.State()
	s.restore(&st)
	s.DummiesSent.Store(old.DummiesSent.Load())
	s.KeepalivesSent.Store(old.KeepalivesSent.Load())
}

// prepare makes a sequence that gives no number before inherit.
func (q *sequence) prepare(cfg *SAConfig, clock func() int64) {
	q.configure(cfg, clock)
	q.used.Store(closedUsed)
}

// inherit takes the numbers of old, and the claim of them, from it. same says that they go
// on as those of one SA.
func (q *sequence) inherit(old *sequence, same bool) {
	used := old.used.Swap(closedUsed)
	if used == closedUsed {
		return // it was closed by somebody else, who has given the claim back
	}
	old.ended.Store(used)
	old.mu.Lock()
	claim := old.claim
	old.claim = nil
	limit := old.limit.Load()
	old.mu.Unlock()

	q.mu.Lock()
	defer q.mu.Unlock()
	q.claim = claim
	q.first = used + 1
	if same {
		q.first = old.first
	}
	if claim == nil {
		limit = q.last
	}
	q.limit.Store(min(limit, q.last))
	q.used.Store(min(used, q.last))
}
