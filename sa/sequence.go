package sa

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"bitw/netstack/wire"
)

// DefaultSequenceBlock is how many sequence numbers are reserved in the store at
// once. A crash loses at most that many of them.
const DefaultSequenceBlock = 1 << 20

// retryAfter is how long the store is left alone after it has failed.
const retryAfter = int64(time.Second)

// sentWindow is how far back Sent believes a number: what a fast link can have in
// flight.
const sentWindow = 1 << 20

// A sequence hands out the sequence numbers of one outbound SA. Numbers up to
// limit are reserved; when half a block is left, a goroutine reserves the next, so
// that the packet path never waits for the disk.
type sequence struct {
	used  atomic.Uint64 // last number handed out
	limit atomic.Uint64 // last number that may be handed out
	first uint64        // first number of this SA
	last  uint64        // last number that there is
	ended atomic.Uint64 // after close: last number handed out
	low   uint64        // number after which few are left

	block   uint64
	clock   func() int64
	busy    atomic.Bool  // one goroutine reserves
	retryAt atomic.Int64 // after a failure
	mu      sync.Mutex   // guards claim against close
	claim   SequenceClaim
	failed  atomic.Pointer[error]
}

// closedUsed in sequence.used stands for a closed SA.
const closedUsed = math.MaxUint64

// open claims the numbers of the key. was is what a predecessor has become, or nil.
func (q *sequence) open(cfg *SAConfig, keyID string, was *State, clock func() int64) error {
	q.configure(cfg, clock)
	floor, err := cfg.Resume.floor(keyID)
	if err != nil {
		return err
	}
	var claim SequenceClaim
	next := uint64(1)
	if cfg.Store != nil && !cfg.Algorithm.NoSequence {
		if claim, next, err = cfg.Store.Claim(keyID); err != nil {
			return err
		}
	}
	if next != 0 {
		next = max(next, floor)
	}
	if next == 0 || next > q.last {
		if claim != nil {
			return errors.Join(ErrSequenceExhausted, claim.Release(next))
		}
		return ErrSequenceExhausted
	}
	q.claim, q.first = claim, next
	if was != nil {
		q.first = min(was.First, next)
	}
	q.used.Store(next - 1)
	if claim == nil {
		q.limit.Store(q.last)
		return nil
	}
	q.limit.Store(next - 1)
	if err := q.reserve(next - 1 + q.block); err != nil {
		return errors.Join(err, claim.Release(next))
	}
	return nil
}

// configure sets what does not depend on the numbers used.
func (q *sequence) configure(cfg *SAConfig, clock func() int64) {
	q.clock, q.block = clock, cfg.SequenceBlock
	if q.block == 0 {
		q.block = DefaultSequenceBlock
	}
	q.last = lastNumber(cfg.ESN, cfg.Algorithm.NoSequence)
	q.low = q.last - q.last/8
}

// lastNumber is the last sequence number that there is. Where packets carry none, they
// are counted all the same, for the lifetime.
func lastNumber(esn, noSequence bool) uint64 {
	if esn || noSequence {
		return closedUsed - 1
	}
	return math.MaxUint32
}

// reserve raises the limit to limit, or to the last number that there is.
func (q *sequence) reserve(limit uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.claim == nil {
		return nil
	}
	if limit > q.last || limit < q.block { // the sum may have wrapped
		limit = q.last
	}
	if limit <= q.limit.Load() {
		return nil
	}
	if err := q.claim.Reserve(limit + 1); err != nil {
		return fmt.Errorf("reserve sequence numbers: %w", err)
	}
	q.limit.Store(limit)
	return nil
}

// reserveAhead starts a goroutine that reserves the next block, unless one is at
// work or the store failed a moment ago.
func (q *sequence) reserveAhead() {
	if t := q.retryAt.Load(); t != 0 && q.clock() < t || !q.busy.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer q.busy.Store(false)
		if err := q.reserve(max(q.limit.Load(), q.used.Load()) + q.block); err != nil {
			q.failed.Store(&err)
			q.retryAt.Store(q.clock() + retryAfter)
			return
		}
		q.failed.Store(nil)
		q.retryAt.Store(0)
	}()
}

// close hands back what was not used. Nothing can be taken after it.
func (q *sequence) close() error {
	used := q.used.Swap(closedUsed)
	q.ended.Store(used)
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.claim == nil {
		return nil
	}
	claim := q.claim
	q.claim = nil
	return claim.Release(used + 1)
}

// TakeSeq takes a run of n sequence numbers, first to first+n-1; n is at least 1.
// The first of a new key is 1, and no number is ever given twice or wraps. It
// takes no lock and does not wait. For the packet path. Where the algorithm has no
// sequence numbers they only count the packets.
//
// The reasons are DropSeqExhausted (fewer than n are left; RFC 4303 §3.3.3),
// DropLifetimeExpired (n more packets would go beyond the hard lifetime),
// DropSeqUnreserved (the store failed or is late) and DropKeyInvalid (the SA is
// closed, has no key or is inbound). A caller may then ask for fewer.
func (s *SA) TakeSeq(n int) (first uint64, reason wire.DropReason) {
	q := &s.seq
	if n < 1 || q.last == 0 {
		return 0, wire.DropKeyInvalid
	}
	run := uint64(n)
	for {
		used := q.used.Load()
		if used == closedUsed {
			return 0, wire.DropKeyInvalid
		}
		if run > q.last-used {
			return 0, wire.DropSeqExhausted
		}
		if h := s.Hard.Packets; h != 0 {
			if gone := used - (q.first - 1); run > h-gone {
				if gone == h {
					s.expire(stateHard)
				}
				return 0, wire.DropLifetimeExpired
			}
		}
		limit := q.limit.Load()
		if limit < q.last && limit-min(limit, used) < q.block/2+run {
			q.reserveAhead()
		}
		if used+run > limit {
			return 0, wire.DropSeqUnreserved
		}
		if q.used.CompareAndSwap(used, used+run) {
			if used+run > q.low {
				s.expire(stateSeqLow)
			}
			return used + 1, wire.DropNone
		}
	}
}

// LastSeq returns the last sequence number that TakeSeq gave, 0 if none yet.
func (s *SA) LastSeq() uint64 {
	used := s.seq.used.Load()
	if used == closedUsed || used < s.seq.first {
		return 0
	}
	return used
}

// Sent says whether a packet with that sequence number (host order, as in the
// header) left by this SA not long ago: the test that an ICMP error which quotes
// it must pass before it may change anything (RFC 4301 §8.2.1). A packet without
// sequence number proves nothing, so it is never known to have left.
func (s *SA) Sent(seq uint32) bool {
	if s.Algorithm.NoSequence {
		return false
	}
	last := s.LastSeq()
	back := uint64(uint32(last) - seq) // modulo 2^32
	return last != 0 && back < sentWindow && back <= last-s.seq.first
}

// SequenceError returns why the store refused to reserve more numbers, nil if it
// did not or has recovered. For status.
func (s *SA) SequenceError() error {
	if err := s.seq.failed.Load(); err != nil {
		return *err
	}
	return nil
}
