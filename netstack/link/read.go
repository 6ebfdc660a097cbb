package link

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// reader reads frames, either in a goroutine for each device or when pumped.
type reader struct {
	*base
	devices []Device
	// handle takes a frame and, if it likes, some of the rest, which came behind it, and
	// returns how many of these.
	handle   func(frame []byte, rest [][]byte, queue int) int
	lend     func() bool     // Options.Lend
	endBatch func(queue int) // may be nil
	clock    tcpip.Clock
	log      logrus.FieldLogger
	batch    int
	manual   bool
	turns    []turn // of the readers, in the order of devices
	started  bool   // written by attach only, which the stack does not call concurrently
	pump     []func(frames [][]byte) (int, error)
	frames   [][]byte
}

// A turn is odd while its reader works on the frames of one read, and even while it
// waits for more. It has a cache line for itself.
type turn struct {
	atomic.Uint64
	train wire.Train // of the packet that is delivered
	lends bool       // while the frames of this read may be delivered where they lie
	// What a UDP superframe was taken apart to.
	room   []byte
	pieces [][]byte
	_      [8]byte
}

// Turns appends to list how far each reader has come, in the order of the devices: a
// number that grows with every batch taken and with every batch done, and so is odd
// while the reader works on one.
func (r *reader) Turns(list []uint64) []uint64 {
	for i := range r.turns {
		list = append(list, r.turns[i].Load())
	}
	return list
}

// retryMin and retryMax bound the wait after reads that failed: a link that goes
// down and up again must be found again, without a busy loop in between.
const (
	retryMin = 10 * time.Millisecond
	retryMax = time.Second
)

func (r *reader) init(b *base, o Options, handle func(frame []byte, rest [][]byte, queue int) int) {
	r.base, r.devices, r.handle, r.endBatch = b, o.Devices, handle, o.EndBatch
	r.manual, r.clock, r.batch, r.lend = o.Manual, o.Clock, o.Batch, o.Lend
	if r.clock == nil {
		r.clock = tcpip.NewStdClock()
	}
	if r.batch <= 0 {
		r.batch = DefaultBatch
	}
	if o.Logger != nil {
		r.log = o.Logger.WithField("link", o.Name)
	}
	r.turns = make([]turn, len(r.devices))
	if r.manual {
		r.frames = make([][]byte, r.batch)
		bufs := r.buffers() // one pump at a time
		for _, d := range r.devices {
			r.pump = append(r.pump, lend(d.(Poller).PollFrames, bufs))
		}
	}
}

// lentBatch is the least number of frames for one read from a Lender, which costs no
// buffers: as many segments as make several superframes, so that few of these are short.
const lentBatch = 128

func (r *reader) buffers() [][]byte {
	bufs := make([][]byte, r.batch)
	for i := range bufs {
		bufs[i] = make([]byte, MaxFrameLen)
	}
	return bufs
}

// lend makes of a read into buffers one that lends the frames in bufs. A frame that
// cannot be is lent as nil.
func lend(read func([][]byte, []int) (int, error), bufs [][]byte) func(frames [][]byte) (int, error) {
	sizes := make([]int, len(bufs))
	return func(frames [][]byte) (int, error) {
		n, err := read(bufs, sizes)
		n = max(0, min(n, len(bufs)))
		for i, size := range sizes[:n] {
			frames[i] = nil
			if size >= 0 && size <= len(bufs[i]) {
				frames[i] = bufs[i][:size]
			}
		}
		return n, err
	}
}

func (r *reader) attach(d stack.NetworkDispatcher) {
	if d == nil {
		r.dispatcher.Store(nil)
		return
	}
	r.dispatcher.Store(&d)
	if r.started || r.manual || r.isClosed() {
		return
	}
	r.started = true
	for queue, dev := range r.devices {
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			if l, ok := dev.(Lender); ok {
				r.loop(queue, max(r.batch, lentBatch), l.LendFrames)
			} else {
				r.loop(queue, r.batch, lend(dev.ReadFrames, r.buffers()))
			}
		}()
	}
}

func (r *reader) loop(queue, batch int, read func(frames [][]byte) (int, error)) {
	frames := make([][]byte, batch)
	wait := time.Duration(0)
	for !r.isClosed() {
		n, err := read(frames)
		r.take(frames[:n], queue)
		if n > 0 {
			wait = 0
		}
		if err == nil {
			continue
		}
		if r.isClosed() || errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
			return
		}
		if wait == 0 && r.log != nil {
			r.log.WithError(err).Warn("read failed, trying again")
		}
		wait = min(max(2*wait, retryMin), retryMax)
		r.sleep(wait)
	}
}

// sleep returns after d or on Close.
func (r *reader) sleep(d time.Duration) {
	done := make(chan struct{})
	t := r.clock.AfterFunc(d, func() { close(done) })
	select {
	case <-done:
	case <-r.closed:
		t.Stop()
	}
}

// headLen is how much of a frame is wanted first, in octets.
const headLen = 1536

func (r *reader) take(frames [][]byte, queue int) {
	if len(frames) == 0 {
		return
	}
	t := &r.turns[queue]
	t.Add(1)
	t.lends = r.lend != nil && r.lend()
	for len(frames) > 0 {
		f, rest := frames[0], frames[1:]
		frames = rest
		if len(rest) > 0 {
			// Headers and the first segment are on their way from memory.
			wire.Prefetch(rest[0][:min(len(rest[0]), headLen)])
		}
		if len(f) < HeaderLen || len(f) > MaxFrameLen {
			r.drops.Add(wire.DropBadFrame)
			continue
		}
		frames = frames[r.handle(f, rest, queue):]
	}
	if r.endBatch != nil {
		r.endBatch(queue)
	}
	t.Add(1)
}

// Pump reads what is there from every device, once and without waiting, hands it
// to the stack on this goroutine and returns the number of frames. It works on
// endpoints with Options.Manual and for one caller at a time.
func (r *reader) Pump() int {
	total := 0
	for queue, poll := range r.pump {
		n, _ := poll(r.frames)
		r.take(r.frames[:n], queue)
		total += n
	}
	return total
}

// A Pumper is an endpoint that is read by hand.
type Pumper interface{ Pump() int }

// PumpAll pumps the endpoints in turn until none has anything left, and returns how
// many frames were moved. It ends after limit frames at the latest, because two
// stacks may never fall silent.
func PumpAll(limit int, ps ...Pumper) int {
	total := 0
	for total < limit {
		n := 0
		for _, p := range ps {
			n += p.Pump()
		}
		if n == 0 {
			break
		}
		total += n
	}
	return total
}
