package ipsec

import (
	"bytes"
	"container/list"
	"hash/maphash"
	"math/bits"
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
	// DefaultFragmentMemory caps the octets of memory that incomplete datagrams take on
	// one side.
	DefaultFragmentMemory = 8 << 20
	// DefaultFragmentTimeout is how long a datagram may stay incomplete. RFC 1122
	// §3.3.2 asks for 60 to 120 s, RFC 8200 §4.5 for 60 s; hosts of today take 30 s,
	// and memory for strangers is dear.
	DefaultFragmentTimeout = 30 * time.Second
	// packetCost is what a packet that is kept takes beside its octets, setCost what an
	// incomplete datagram takes beside its fragments: both measured.
	packetCost = 1024
	setCost    = 768
	// chunkHead is what a chunk has room for beside a packet: the virtio-net header and
	// octets behind.
	chunkHead = 64 + wire.VirtioNetLen
)

// A reassembler puts fragments together (RFC 791 §3.2, RFC 8200 §4.5). Overlap
// discards the datagram with all that may still come of it (RFC 5722), the very
// same fragment again is only counted.
//
// Where memory is at its cap, whoever holds most of it loses his oldest datagram, so
// that one who sends fragments without end takes the place from himself only. Who that
// is is told by a hash of the origin: the SA that the fragments came by, or their source.
type reassembler struct {
	mu      sync.Mutex
	sets    map[fragmentKey]*fragmentSet
	shares  [fragmentShares]fragmentShare
	seed    maphash.Seed
	memory  int
	cap     int
	timeout int64
	drops   *wire.DropCounters
}

// fragmentShares is among how many shares origins are spread.
const fragmentShares = 64

// A fragmentShare is what the origins of one hash hold.
type fragmentShare struct {
	age    list.List // of *fragmentSet, the oldest first
	memory int
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
	share     *fragmentShare
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
	r.sets, r.seed = make(map[fragmentKey]*fragmentSet), maphash.MakeSeed()
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
		set = &fragmentSet{key: key, share: r.shareOf(&key), born: now, total: -1}
		set.element = set.share.age.PushBack(set)
		r.sets[key] = set
		r.charge(set, setCost)
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
	r.charge(set, memoryOf(pkt))
	if set.octets == set.total {
		r.forget(set)
		return set, wire.DropNone
	}
	for r.memory > r.cap {
		r.evict()
	}
	return nil, wire.DropNone
}

// shareOf returns the share of whoever sent the fragments.
func (r *reassembler) shareOf(key *fragmentKey) *fragmentShare {
	var h uint64
	if peer := key.came[0]; peer != nil {
		h = maphash.Comparable(r.seed, peer)
	} else {
		h = maphash.Comparable(r.seed, key.src)
	}
	return &r.shares[h%fragmentShares]
}

// memoryOf returns how many octets of memory a packet takes that is kept. Its octets lie
// in a chunk, whose size is a power of two.
func memoryOf(pkt *stack.PacketBuffer) int {
	return packetCost + 1<<bits.Len(uint(pkt.Size()+chunkHead))
}

// charge adds n octets, which may be negative, to what set holds.
func (r *reassembler) charge(set *fragmentSet, n int) {
	set.memory += n
	set.share.memory += n
	r.memory += n
}

// evict frees the oldest set of the largest share. Something must be held.
func (r *reassembler) evict() {
	largest := &r.shares[0]
	for i := range r.shares {
		if r.shares[i].memory > largest.memory {
			largest = &r.shares[i]
		}
	}
	r.free(largest.age.Front().Value.(*fragmentSet), wire.DropFragMemory)
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
	r.charge(set, setCost-set.memory)
	set.release()
}

// forget takes a set out of the table.
func (r *reassembler) forget(set *fragmentSet) {
	r.charge(set, -set.memory)
	delete(r.sets, set.key)
	set.share.age.Remove(set.element)
}

// free gives a set up for a reason.
func (r *reassembler) free(set *fragmentSet, reason wire.DropReason) {
	r.count(reason, len(set.fragments))
	r.forget(set)
	set.release()
}

// expire frees the sets that have been incomplete for too long.
func (r *reassembler) expire(now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.shares {
		age := &r.shares[i].age
		for el := age.Front(); el != nil; el = age.Front() {
			set := el.Value.(*fragmentSet)
			if now-set.born < r.timeout {
				break
			}
			r.free(set, wire.DropFragTimeout)
		}
	}
}

// clear frees everything, uncounted: the appliance is at its end.
func (r *reassembler) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, set := range r.sets {
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
	if reason := s.congestion(b, first.info.TOS); reason != wire.DropNone {
		return nil, reason
	}
	return b, wire.Parse(b, in)
}

// congestion marks the whole datagram b, whose first fragment came with tos, as having met
// congestion if a fragment has. Where another is not of an ECN transport the mark has
// nobody to tell, and the datagram is dropped (RFC 3168 §5.3).
func (s *fragmentSet) congestion(b []byte, tos uint8) wire.DropReason {
	met, deaf := false, false
	for i := range s.fragments {
		ecn := s.fragments[i].info.TOS & wire.ECNMask
		met = met || ecn == wire.ECNCE
		deaf = deaf || ecn == wire.ECNNotECT
	}
	switch {
	case !met:
		return wire.DropNone
	case deaf:
		return wire.DropECN
	}
	wire.SetTOS(b, tos|wire.ECNCE)
	return wire.DropNone
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
