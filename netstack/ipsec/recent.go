package ipsec

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

const (
	// recentFlows is how many flows are kept for each reason and side.
	recentFlows = 4
	// recentEvery is how often one of them is written at most, so that a flood costs
	// no more than looking at the time.
	recentEvery = 10 * time.Millisecond
)

// A DroppedFlow is an example of what was dropped: which flow it was and on whose account.
type DroppedFlow struct {
	From   hook.Side
	Reason wire.DropReason
	// Last is when, in nanoseconds since 1970.
	Last             int64
	Src, Dst         netip.Addr
	Proto            uint8
	HasPorts         bool
	SrcPort, DstPort uint16
	ICMPType         uint8 // instead of ports
	SPI              uint32
	// Policy and SA are empty where none is known.
	Policy, SA string
}

// recent are the last flows that were dropped for one reason. Whoever finds it in use
// goes on without: it is for examples, the counters count.
type recent struct {
	due  atomic.Int64
	mu   sync.Mutex
	n    int
	list [recentFlows]DroppedFlow
}

// note keeps f, in the place of the same flow or of the oldest.
func (r *recent) note(f *DroppedFlow) {
	due := r.due.Load()
	if f.Last < due || !r.due.CompareAndSwap(due, f.Last+int64(recentEvery)) || !r.mu.TryLock() {
		return
	}
	defer r.mu.Unlock()
	oldest := 0
	for i := range r.list[:r.n] {
		if x := &r.list[i]; x.same(f) {
			*x = *f
			return
		} else if x.Last < r.list[oldest].Last {
			oldest = i
		}
	}
	if r.n < recentFlows {
		oldest = r.n
		r.n++
	}
	r.list[oldest] = *f
}

// same says that the two differ at most in the port of whoever asked, which each
// attempt has anew.
func (f *DroppedFlow) same(o *DroppedFlow) bool {
	x, y := *f, *o
	x.Last, y.Last = 0, 0
	if x.HasPorts && x.SrcPort >= 1024 && y.SrcPort >= 1024 {
		x.SrcPort, y.SrcPort = 0, 0
	}
	return x == y
}

// dropped is drop for a datagram that w.d describes, of which an example is kept.
func (e *Engine) dropped(w *work, from hook.Side, reason wire.DropReason, p *sa.Policy, s *sa.SA) {
	e.drop(w, from, reason, p, s)
	in := &w.d.Info
	f := DroppedFlow{
		From: from, Reason: reason, Last: w.now, Src: in.Src, Dst: in.Dst, Proto: in.Proto,
	}
	switch in.Proto {
	case wire.ProtoESP, wire.ProtoAH:
		f.SPI, _, _ = spiAndSeq(w.d.Bytes, in)
	case wire.ProtoICMP, wire.ProtoICMPv6:
		f.ICMPType = in.ICMPType
	default:
		f.HasPorts, f.SrcPort, f.DstPort = in.HasPorts, in.SrcPort, in.DstPort
	}
	if p != nil {
		f.Policy = p.Name
	}
	if s != nil {
		f.SA = s.Name
	}
	e.sides[from].recent[reason].note(&f)
}

// RecentDrops returns examples of what was dropped, at most four for each reason and
// side, the newest first.
func (e *Engine) RecentDrops() []DroppedFlow {
	var list []DroppedFlow
	for i := range e.sides {
		for reason := range e.sides[i].recent {
			r := &e.sides[i].recent[reason]
			r.mu.Lock()
			list = append(list, r.list[:r.n]...)
			r.mu.Unlock()
		}
	}
	slices.SortStableFunc(list, func(a, b DroppedFlow) int { return cmp.Compare(b.Last, a.Last) })
	return list
}
