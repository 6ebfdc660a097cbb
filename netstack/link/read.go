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
	handle  func(frame []byte)
	clock   tcpip.Clock
	log     logrus.FieldLogger
	batch   int
	manual  bool
	turns   []turn // of the readers, in the order of devices
	started bool   // written by attach only, which the stack does not call concurrently
	bufs    [][]byte
	sizes   []int
}

// A turn is odd while its reader works on a frame, and even while it waits for one. It
// has a cache line for itself.
type turn struct {
	atomic.Uint64
	_ [56]byte
}

// Turns appends to list how far each reader has come, in the order of the devices: a
// number that grows with every frame taken and with every frame done, and so is odd while
// the reader works on one. Reading by hand does not count.
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

func (r *reader) init(b *base, o Options, handle func([]byte)) {
	r.base, r.devices, r.handle = b, o.Devices, handle
	r.manual, r.clock, r.batch = o.Manual, o.Clock, o.Batch
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
		r.bufs, r.sizes = r.buffers()
	}
}

func (r *reader) buffers() ([][]byte, []int) {
	bufs := make([][]byte, r.batch)
	for i := range bufs {
		bufs[i] = make([]byte, MaxFrameLen)
	}
	return bufs, make([]int, r.batch)
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
	for i, dev := range r.devices {
		r.wg.Add(1)
		go func() {
			defer r.wg.Done()
			r.loop(dev, &r.turns[i])
		}()
	}
}

func (r *reader) loop(dev Device, t *turn) {
	bufs, sizes := r.buffers()
	wait := time.Duration(0)
	for !r.isClosed() {
		n, err := dev.ReadFrames(bufs, sizes)
		r.take(bufs, sizes, n, t)
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

// take handles n frames; t may be nil.
func (r *reader) take(bufs [][]byte, sizes []int, n int, t *turn) {
	for i := range min(max(n, 0), len(bufs)) {
		size := sizes[i]
		if size < HeaderLen || size > len(bufs[i]) {
			r.drops.Add(wire.DropBadFrame)
			continue
		}
		if t == nil {
			r.handle(bufs[i][:size])
			continue
		}
		t.Add(1)
		r.handle(bufs[i][:size])
		t.Add(1)
	}
}

// Pump reads what is there from every device, once and without waiting, hands it
// to the stack on this goroutine and returns the number of frames. It works on
// endpoints with Options.Manual and for one caller at a time.
func (r *reader) Pump() int {
	total := 0
	for _, d := range r.devices {
		p, ok := d.(Poller)
		if !ok || !r.manual {
			continue
		}
		n, _ := p.PollFrames(r.bufs, r.sizes)
		r.take(r.bufs, r.sizes, n, nil)
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
