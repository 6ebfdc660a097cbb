package sa

import (
	"sync"
	"sync/atomic"

	"bitw/netstack/wire"
)

// Sizes of the replay window, in packets.
const (
	MinReplayWindow     = 32
	MaxReplayWindow     = 65536
	DefaultReplayWindow = 64
)

const wordBits = 64

// A replayWindow remembers which of the last size sequence numbers were seen, in
// the ring of words of RFC 6479: the ring has at least one word more than the
// window needs, so that moving on clears whole words and shifts none.
//
// check takes no lock. It may see the window as it was before an accept that is
// under way, and so let a packet through to the ICV that accept then refuses; it
// never refuses a number that accept would take, because a word that still holds,
// or already holds, the bits of another block of numbers belongs to a number that
// is left of the window after that accept.
type replayWindow struct {
	size uint64
	mask uint64 // number of words - 1
	top  atomic.Uint64
	mu   sync.Mutex // held by accept
	ring []atomic.Uint64
}

func newReplayWindow(size int) *replayWindow {
	words := 1
	for words < (size+wordBits-1)/wordBits+1 {
		words *= 2
	}
	w := &replayWindow{size: uint64(size), mask: uint64(words - 1), ring: make([]atomic.Uint64, words)}
	w.ring[0].Store(1) // number 0 is never sent (RFC 4303 §2.2), so it counts as seen
	return w
}

// check says whether seq is new: DropReplayOld left of the window, DropReplay if
// it was seen.
func (w *replayWindow) check(seq uint64) wire.DropReason {
	top := w.top.Load()
	if seq > top {
		return wire.DropNone
	}
	if top-seq >= w.size {
		return wire.DropReplayOld
	}
	if w.ring[seq/wordBits&w.mask].Load()&(1<<(seq%wordBits)) != 0 {
		return wire.DropReplay
	}
	return wire.DropNone
}

// accept checks seqs again, one after the other, and marks as seen those that are new. The
// reason of each goes to reasons. Of two calls with one number, one gets DropNone.
func (w *replayWindow) accept(seqs []uint64, reasons []wire.DropReason) {
	reasons = reasons[:len(seqs)]
	w.mu.Lock()
	old := w.top.Load()
	top := old
	// The word of the block that the last one was in, which is written when another's turn
	// comes: those of a run are close together.
	block, bits, dirty := top/wordBits, w.ring[top/wordBits&w.mask].Load(), false
	for i, seq := range seqs {
		if seq <= top && top-seq >= w.size {
			reasons[i] = wire.DropReplayOld
			continue
		}
		if b := seq / wordBits; b != block {
			if dirty {
				w.ring[block&w.mask].Store(bits)
			}
			if seq > top {
				w.clear(top/wordBits, b)
			}
			block, bits, dirty = b, w.ring[b&w.mask].Load(), false
		}
		bit := uint64(1) << (seq % wordBits)
		if seq <= top && bits&bit != 0 {
			reasons[i] = wire.DropReplay
			continue
		}
		bits, dirty = bits|bit, true
		top = max(top, seq)
		reasons[i] = wire.DropNone
	}
	if dirty {
		w.ring[block&w.mask].Store(bits)
	}
	if top != old {
		w.top.Store(top) // after the words: see check
	}
	w.mu.Unlock()
}

// clear readies the words of the blocks behind the one up to the other, right of the
// window, for numbers that come into it.
func (w *replayWindow) clear(from, to uint64) {
	for i := range min(to-from, w.mask+1) {
		w.ring[(from+1+i)&w.mask].Store(0)
	}
}

// inferESN returns the full number of which seq is the low half, as RFC 4303
// Appendix A2.2 has it: the one that makes it lie in the window or right of it by
// less than 2^32 - size. ok is false where that number would be negative or beyond
// 64 bits, which no honest sender sends.
func (w *replayWindow) inferESN(seq uint32) (full uint64, ok bool) {
	top := w.top.Load()
	tl, th := uint32(top), uint32(top>>32)
	bottom := tl - uint32(w.size) + 1 // modulo 2^32
	h := th
	if uint64(tl) >= w.size-1 { // case A: the window lies in one subspace
		if seq < bottom {
			h = th + 1
			ok = h != 0
			return uint64(h)<<32 | uint64(seq), ok
		}
	} else if seq >= bottom { // case B: the window spans two subspaces
		h = th - 1
		return uint64(h)<<32 | uint64(seq), th != 0
	}
	return uint64(h)<<32 | uint64(seq), true
}
