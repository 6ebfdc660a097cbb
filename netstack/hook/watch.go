package hook

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/trace"
	"bitw/netstack/wire"
)

// An Observer is told what crosses the bump, on the goroutines that carry it: it must not
// wait, and what it is given is borrowed for the call.
type Observer interface {
	// Packet gets the trail of a packet once its way has ended.
	Packet(t *trace.Trail)
	// Loose gets a frame that was written apart from the way of a packet: what waited for a
	// neighbour or was joined of several, which may have a Trail, what waited for an SA,
	// what bitw says itself. It is called only if frames are wanted.
	Loose(f *trace.Frame)
	// Snaplen is how many octets of each frame are wanted, 0 if none are. It does not change.
	Snaplen() int
}

// A Watch is where observers look at both links. While there are none it costs the packet
// path one load.
type Watch struct {
	clock  tcpip.Clock
	active atomic.Pointer[watching]
	trails sync.Pool

	mu sync.Mutex
}

// watching is who looks now. It does not change.
type watching struct {
	observers []Observer
	snaplen   int
}

// Idle says whether there are no observers now.
func (w *Watch) Idle() bool { return w.active.Load() == nil }

// NewWatch returns a Watch without observers.
func NewWatch(clock tcpip.Clock) *Watch {
	w := &Watch{clock: clock}
	w.trails.New = func() any { return new(trace.Trail) }
	return w
}

// Add has o see what comes from now on.
func (w *Watch) Add(o Observer) {
	w.change(func(list []Observer) []Observer { return append(list, o) })
}

// Remove undoes Add. What is under way may still be told to o.
func (w *Watch) Remove(o Observer) {
	w.change(func(list []Observer) []Observer {
		return slices.DeleteFunc(list, func(x Observer) bool { return x == o })
	})
}

func (w *Watch) change(f func([]Observer) []Observer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := new(watching)
	if now := w.active.Load(); now != nil {
		next.observers = slices.Clone(now.observers)
	}
	if next.observers = f(next.observers); len(next.observers) == 0 {
		w.active.Store(nil)
		return
	}
	for _, o := range next.observers {
		next.snaplen = max(next.snaplen, o.Snaplen())
	}
	w.active.Store(next)
}

// A WatchHook wraps the link of one side. Below it is only the link.
type WatchHook struct {
	under
	child stack.LinkEndpoint
	w     *Watch
	left  bool
}

var _ stack.LinkEndpoint = (*WatchHook)(nil)

// Wrap wraps the link of a side.
func (w *Watch) Wrap(child stack.LinkEndpoint, side Side) *WatchHook {
	h := &WatchHook{child: child, w: w, left: side == Left}
	h.Init(child, h)
	return h
}

// DeliverNetworkPacket implements stack.NetworkDispatcher. The packet takes its trail along
// as its owner; whoever keeps the packet takes that off. While nobody looks it and
// WritePackets call what is above and below at once: a call between costs nearly as much as they do.
func (h *WatchHook) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	now := h.w.active.Load()
	if now == nil || wire.TrainOf(pkt.Owner) != nil {
		if d := h.above.Load(); d != nil {
			(*d).DeliverNetworkPacket(proto, pkt)
		}
		return
	}
	t := h.w.begin(now, pkt, h.left)
	pkt.Owner = t
	h.under.DeliverNetworkPacket(proto, pkt)
	for _, o := range now.observers {
		o.Packet(t)
	}
	h.w.trails.Put(t)
}

// begin makes the trail of a packet that a link brought.
func (w *Watch) begin(now *watching, pkt *stack.PacketBuffer, left bool) *trace.Trail {
	t := w.trails.Get().(*trace.Trail)
	t.Reset(w.clock.Now(), left)
	t.Snaplen = now.snaplen
	noteFrame(t, pkt, left, false, t.At)
	setFlow(&t.Flow, pkt)
	t.Add(trace.Step{Station: trace.Link, Octets: frameLen(pkt), Left: left})
	return t
}

// setFlow says what a packet brings.
func setFlow(f *trace.Flow, pkt *stack.PacketBuffer) {
	f.EtherType = uint16(pkt.NetworkProtocolNumber)
	var in wire.Info
	if b := datagram(pkt); wire.Parse(b, &in) == wire.DropNone {
		f.SetInfo(&in, b)
	}
}

// WritePackets implements stack.LinkEndpoint.
func (h *WatchHook) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	if now := h.w.active.Load(); now != nil {
		for _, pkt := range pkts.AsSlice() {
			h.written(now, pkt)
		}
	}
	return h.child.WritePackets(pkts)
}

func (h *WatchHook) written(now *watching, pkt *stack.PacketBuffer) {
	kept := TrailOf(pkt)
	if t := kept; t != nil && !t.Kept() {
		t.Out(h.left, frameLen(pkt))
		noteFrame(t, pkt, h.left, true, h.w.clock.Now())
		return
	}
	if now.snaplen == 0 {
		return
	}
	train := wire.TrainOf(pkt.Owner)
	if train == nil || pkt.Size() > 0 {
		h.loose(now, pkt, kept)
	}
	if train != nil {
		for _, f := range train.Frames {
			p := PacketFrom(f)
			h.loose(now, p, nil)
			p.DecRef()
		}
	}
}

// loose tells the observers of a frame that was written apart from the way of a packet. kept is
// the trail that it takes along, or nil.
func (h *WatchHook) loose(now *watching, pkt *stack.PacketBuffer, kept *trace.Trail) {
	t := h.w.trails.Get().(*trace.Trail)
	t.Reset(h.w.clock.Now(), h.left)
	t.Snaplen = now.snaplen
	noteFrame(t, pkt, h.left, true, t.At)
	if t.Frames[0].Trail = kept; kept == nil {
		setFlow(&t.Frames[0].Flow, pkt)
	}
	for _, o := range now.observers {
		if o.Snaplen() > 0 {
			o.Loose(&t.Frames[0])
		}
	}
	h.w.trails.Put(t)
}

// TrailOf returns the trail that a packet takes along, or nil. Unless it is kept it is valid
// on the goroutine that delivers the packet, until that call returns.
func TrailOf(pkt *stack.PacketBuffer) *trace.Trail {
	if pkt.Owner == nil {
		return nil
	}
	t, _ := pkt.Owner.(*trace.Trail)
	return t
}

// drop counts a drop of pkt and notes it in its trail.
func drop(c *wire.DropCounters, pkt *stack.PacketBuffer, reason wire.DropReason) {
	c.Add(reason)
	TrailOf(pkt).Drop(reason, "", "", 0)
}

// frameLen is the length of a frame in octets, from its Ethernet header on.
func frameLen(pkt *stack.PacketBuffer) int { return pkt.Size() - len(pkt.VirtioNetHeader().Slice()) }

// noteFrame copies a frame into a trail, if frames are wanted.
func noteFrame(t *trace.Trail, pkt *stack.PacketBuffer, left, written bool, at time.Time) {
	if t.Snaplen == 0 {
		return
	}
	dst := t.AddFrame(at, left, written, frameLen(pkt))
	views, off := pkt.AsViewList()
	off += len(pkt.VirtioNetHeader().Slice())
	for v := views.Front(); v != nil && len(dst) > 0; v = v.Next() {
		s := v.AsSlice()
		if off >= len(s) {
			off -= len(s)
			continue
		}
		dst = dst[copy(dst, s[off:]):]
		off = 0
	}
}
