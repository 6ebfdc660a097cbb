package ipsec

import (
	"bytes"
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	// DefaultFragmentMemory caps the octets of incomplete datagrams on one side.
	DefaultFragmentMemory = 4 << 20
	// DefaultFragmentTimeout is how long a datagram may stay incomplete. RFC 1122
	// §3.3.2 asks for 60 to 120 s, RFC 8200 §4.5 for 60 s; hosts of today take 30 s,
	// and memory for strangers is dear.
	DefaultFragmentTimeout = 30 * time.Second
	// fragmentCost is what a fragment costs beside its octets.
	fragmentCost = 256
)

// A reassembler puts fragments together (RFC 791 §3.2, RFC 8200 §4.5). Overlap
// discards the datagram with all that may still come of it (RFC 5722), the very
// same fragment again is only counted.
type reassembler struct {
	mu      sync.Mutex
	sets    map[fragmentKey]*fragmentSet
	age     *list.List // of *fragmentSet, the oldest first
	memory  int
	cap     int
	timeout int64
	drops   *wire.DropCounters
}

// fragmentKey tells the fragments of one datagram. Inside a tunnel, the SAs that
// they came by belong to it.
type fragmentKey struct {
	src, dst netip.Addr
	id       uint32
	proto    uint8 // RFC 8200 §4.5 leaves it out, and so do we for IPv6
	came     [maxBundle]*sa.SA
}

// fragmentSet is what has come of one datagram. Once complete it belongs to the
// caller, who must release it.
type fragmentSet struct {
	key       fragmentKey
	element   *list.Element
	born      int64
	fragments []fragment // by offset, without overlap
	octets    int        // of payload
	total     int        // of payload in the whole datagram, -1 until the last one came
	memory    int
	poisoned  bool
}

type fragment struct {
	pkt     *stack.PacketBuffer
	bytes   []byte // the datagram that the fragment is, inside pkt
	info    wire.Info
	payload []byte
}

func (r *reassembler) init(memory int, timeout time.Duration, drops *wire.DropCounters) {
	r.sets, r.age = make(map[fragmentKey]*fragmentSet), list.New()
	r.cap, r.timeout, r.drops = memory, int64(timeout), drops
}

// add takes the fragment d, which is inside pkt, and returns the set if it is
// complete now. After a reason or a nil set the caller is done; add has counted.
func (r *reassembler) add(now int64, d *hook.Datagram, pkt *stack.PacketBuffer, came []*sa.SA) (*fragmentSet, wire.DropReason) {
	f := fragment{bytes: d.Bytes, info: d.Info, payload: wire.FragmentPayload(d.Bytes, &d.Info)}
	end := f.info.FragOffset + len(f.payload)
	key := fragmentKey{src: f.info.Src, dst: f.info.Dst, id: f.info.ID}
	if f.info.Version == 4 {
		key.proto = f.info.Proto
	}
	copy(key.came[:], came)

	r.mu.Lock()
	defer r.mu.Unlock()
	if len(f.payload) == 0 || end > maxDatagram {
		return nil, r.count(wire.DropMalformed, 1)
	}
	set := r.sets[key]
	if set != nil && set.poisoned {
		return nil, r.count(wire.DropFragOverlap, 1)
	}
	if set == nil {
		set = &fragmentSet{key: key, born: now, total: -1}
		set.element = r.age.PushBack(set)
		r.sets[key] = set
	}
	at, reason := set.place(&f, end)
	switch reason {
	case wire.DropNone:
	case wire.DropFragDuplicate:
		return nil, r.count(reason, 1)
	default:
		n := len(set.fragments) + 1
		r.empty(set)
		set.poisoned = true
		return nil, r.count(reason, n)
	}
	f.pkt = pkt.IncRef()
	set.fragments = slices.Insert(set.fragments, at, f)
	set.octets += len(f.payload)
	if !f.info.MoreFragments {
		set.total = end
	}
	cost := len(f.bytes) + fragmentCost
	set.memory += cost
	r.memory += cost
	if set.octets == set.total {
		r.forget(set)
		return set, wire.DropNone
	}
	for r.memory > r.cap {
		oldest := r.age.Front().Value.(*fragmentSet)
		r.count(wire.DropFragMemory, len(oldest.fragments))
		r.forget(oldest)
		oldest.release()
	}
	return nil, wire.DropNone
}

func (r *reassembler) count(reason wire.DropReason, n int) wire.DropReason {
	for range n {
		r.drops.Add(reason)
	}
	return reason
}

// place finds where f belongs, or why it does not.
func (s *fragmentSet) place(f *fragment, end int) (at int, reason wire.DropReason) {
	last := !f.info.MoreFragments
	if s.total >= 0 && (end > s.total || last && end != s.total) {
		return 0, wire.DropMalformed
	}
	if n := len(s.fragments); last && n > 0 && s.fragments[n-1].end() > end {
		return 0, wire.DropMalformed
	}
	at, _ = slices.BinarySearchFunc(s.fragments, f.info.FragOffset, func(g fragment, offset int) int {
		return g.info.FragOffset - offset
	})
	if at < len(s.fragments) {
		next := &s.fragments[at]
		if next.info.FragOffset == f.info.FragOffset && next.info.MoreFragments == f.info.MoreFragments &&
			bytes.Equal(next.payload, f.payload) {
			return 0, wire.DropFragDuplicate
		}
		if end > next.info.FragOffset {
			return 0, wire.DropFragOverlap
		}
	}
	if at > 0 && s.fragments[at-1].end() > f.info.FragOffset {
		return 0, wire.DropFragOverlap
	}
	return at, wire.DropNone
}

func (f *fragment) end() int { return f.info.FragOffset + len(f.payload) }

// empty frees the fragments of a set that stays known.
func (r *reassembler) empty(set *fragmentSet) {
	r.memory += fragmentCost - set.memory
	set.memory = fragmentCost
	set.release()
}

// forget takes a set out of the table.
func (r *reassembler) forget(set *fragmentSet) {
	r.memory -= set.memory
	set.memory = 0
	delete(r.sets, set.key)
	r.age.Remove(set.element)
}

// expire frees the sets that have been incomplete for too long.
func (r *reassembler) expire(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for el := r.age.Front(); el != nil; el = r.age.Front() {
		set := el.Value.(*fragmentSet)
		if now-set.born < r.timeout {
			return
		}
		r.count(wire.DropFragTimeout, len(set.fragments))
		r.forget(set)
		set.release()
	}
}

// clear frees everything, uncounted: the appliance is at its end.
func (r *reassembler) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for el := r.age.Front(); el != nil; el = r.age.Front() {
		set := el.Value.(*fragmentSet)
		r.forget(set)
		set.release()
	}
}

// release gives the fragments' buffers back.
func (s *fragmentSet) release() {
	for i := range s.fragments {
		s.fragments[i].pkt.DecRef()
	}
	s.fragments = nil
}

// join returns the whole datagram in a fresh buffer, and describes it in in.
func (s *fragmentSet) join(in *wire.Info) ([]byte, wire.DropReason) {
	first := &s.fragments[0]
	b := make([]byte, first.info.HeaderLen+s.total)
	n, reason := wire.WholeFromFirst(first.bytes, &first.info, s.total, b)
	if reason != wire.DropNone {
		return nil, reason
	}
	b = b[:n+s.total]
	for i := range s.fragments {
		f := &s.fragments[i]
		copy(b[n+f.info.FragOffset:], f.payload)
	}
	return b, wire.Parse(b, in)
}

// originals adds the fragments, as they came and in the order of their offsets,
// to a batch.
func (s *fragmentSet) originals(out *stack.PacketBufferList) {
	for i := range s.fragments {
		out.PushBack(s.fragments[i].pkt.IncRef())
	}
}

// incomplete counts the datagrams of which something is missing and may still come.
func (r *reassembler) incomplete() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, set := range r.sets {
		if !set.poisoned {
			n++
		}
	}
	return n
}
