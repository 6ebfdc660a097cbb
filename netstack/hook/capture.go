package hook

import (
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bitw/netstack/pcapng"
	"bitw/netstack/trace"
)

const (
	// DefaultSnaplen is that of a capture of whole frames.
	DefaultSnaplen = pcapng.MaxSnaplen
	// DefaultCaptureQueue is how many frames wait for the file.
	DefaultCaptureQueue = 1024
	// maxCaptureOctets bounds what waits for the file, for they may be superframes.
	maxCaptureOctets = 16 << 20
)

// CaptureOptions describe one capture.
type CaptureOptions struct {
	// Snaplen is how many octets of each frame are kept, DefaultSnaplen if 0.
	Snaplen int
	// Queue is how many frames wait to be written, DefaultCaptureQueue if 0. Frames that
	// find it full are counted and missing in the file; they are never delayed.
	Queue int
	// Filter chooses packets; nil takes all.
	Filter *trace.Filter
}

// CaptureStats are what one capture came to, by Side.
type CaptureStats struct {
	Written [2]uint64 `json:"written"`
	Lost    [2]uint64 `json:"lost"`
}

// A Capture copies the frames of both sides to a file as package pcapng writes it, where
// Left is inside. A superframe is written as it is, its virtio-net header
// is not. What became of a packet, trace.Trail.Verdict, is the comment of the frame that
// brought it and of those that it became. What is lost is counted, and told with the next
// frame of its side.
type Capture struct {
	watch *Watch

	mu  sync.Mutex
	run *captureRun // from Start to Stop, also after a failed write
}

// NewCapture returns a Capture that is off.
func NewCapture(watch *Watch) *Capture { return &Capture{watch: watch} }

// Start begins to write to w, which is used by one goroutine until Stop returns. What
// crosses once the head of the file is written is captured. It
// fails if a capture was started and not stopped, or the head of the file cannot
// be written.
func (c *Capture) Start(w io.Writer, o CaptureOptions) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil {
		return errors.New("capture is running already")
	}
	if o.Snaplen <= 0 {
		o.Snaplen = DefaultSnaplen
	}
	if o.Queue <= 0 {
		o.Queue = DefaultCaptureQueue
	}
	r := &captureRun{
		snaplen: o.Snaplen, filter: o.Filter, queue: make(chan captured, o.Queue),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	c.watch.Add(r)
	var err error
	if r.file, err = pcapng.NewWriter(w, o.Snaplen); err != nil {
		c.watch.Remove(r)
		return err
	}
	go func() {
		defer close(r.done)
		if r.err = r.write(); r.err != nil {
			c.watch.Remove(r)
		}
	}()
	c.run = r
	return nil
}

// Stop writes what was captured until now and returns what it came to. The error is
// that of the first write that failed, since when nothing was written. Without a
// capture it does nothing.
func (c *Capture) Stop() (CaptureStats, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.run
	if r == nil {
		return CaptureStats{}, nil
	}
	c.watch.Remove(r)
	close(r.stop)
	<-r.done
	c.run = nil
	return r.stats(), r.err
}

// Ended returns a channel that is closed once nothing more is written: after Stop, or after a
// write that failed, which Stop tells. It is nil without a capture.
func (c *Capture) Ended() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return nil
	}
	return c.run.done
}

// Stats returns what the capture came to so far.
func (c *Capture) Stats() CaptureStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil {
		return CaptureStats{}
	}
	return c.run.stats()
}

// captureRun is one capture: the packet path puts copies into its queue, one goroutine
// takes them out.
type captureRun struct {
	file    *pcapng.Writer
	snaplen int
	filter  *trace.Filter
	queue   chan captured
	octets  atomic.Int64 // in the queue
	buffers sync.Pool    // of *[]byte
	written [2]atomic.Uint64
	lost    [2]atomic.Uint64
	told    [2]uint64 // how many of the lost the file tells of

	stop, done chan struct{}
	err        error // valid after done
}

type captured struct {
	pcapng.Frame
	memory *[]byte // of its data
}

var _ Observer = (*captureRun)(nil)

// Snaplen implements Observer.
func (r *captureRun) Snaplen() int { return r.snaplen }

// Packet implements Observer.
func (r *captureRun) Packet(t *trace.Trail) {
	if !r.filter.Match(t) {
		return
	}
	for left, n := range t.Missing {
		r.lost[sideOf(left == 1)].Add(uint64(n))
	}
	if len(r.queue) == cap(r.queue) { // no comment is made for it
		for i := range t.Frames {
			r.lost[sideOf(t.Frames[i].Left)].Add(1)
		}
		return
	}
	comment := t.Verdict()
	for i := range t.Frames {
		r.add(&t.Frames[i], comment)
	}
}

// Loose implements Observer.
func (r *captureRun) Loose(f *trace.Frame) {
	if !r.filter.MatchFrame(f) {
		return
	}
	comment := ""
	if f.Trail != nil {
		comment = f.Trail.Verdict()
	}
	r.add(f, comment)
}

// add copies a frame into the queue, or counts it as lost.
func (r *captureRun) add(f *trace.Frame, comment string) {
	side := sideOf(f.Left)
	n := min(len(f.Data), r.snaplen)
	// No copy is made for a queue that looks full already.
	if r.octets.Add(int64(n)) <= maxCaptureOctets && len(r.queue) < cap(r.queue) {
		memory, _ := r.buffers.Get().(*[]byte)
		if memory == nil {
			memory = new([]byte)
		}
		*memory = append((*memory)[:0], f.Data[:n]...)
		c := captured{pcapng.Frame{
			At: f.At, Interface: int(side), Sent: f.Written, Data: *memory, Length: f.Length, Comment: comment,
			Lost: r.lost[side].Load(),
		}, memory}
		select {
		case r.queue <- c:
			return
		default:
		}
	}
	r.octets.Add(-int64(n))
	r.lost[side].Add(1)
}

func sideOf(left bool) Side {
	if left {
		return Left
	}
	return Right
}

// write takes frames out of the queue until stop, and flushes when it is empty, so
// that a reader of the file sees what happened.
func (r *captureRun) write() error {
	for {
		select {
		case f := <-r.queue:
			if err := r.writeOne(f); err != nil {
				return err
			}
			continue
		default:
		}
		if err := r.file.Flush(); err != nil {
			return err
		}
		select {
		case f := <-r.queue:
			if err := r.writeOne(f); err != nil {
				return err
			}
		case <-r.stop:
			return r.finish()
		}
	}
}

// finish writes what is left, and the counters.
func (r *captureRun) finish() error {
	for len(r.queue) > 0 {
		if err := r.writeOne(<-r.queue); err != nil {
			return err
		}
	}
	now := time.Now()
	for side := range r.lost {
		lost := r.lost[side].Load()
		if err := r.file.Count(side, r.written[side].Load()+lost, lost, now); err != nil {
			return err
		}
	}
	return r.file.Flush()
}

func (r *captureRun) writeOne(c captured) error {
	side := c.Interface
	lost := max(c.Lost, r.told[side]) // others may have come in between
	c.Lost = lost - r.told[side]
	err := r.file.Write(&c.Frame)
	r.octets.Add(-int64(len(c.Data)))
	r.buffers.Put(c.memory)
	if err == nil {
		r.told[side] = lost
		r.written[side].Add(1)
	}
	return err
}

func (r *captureRun) stats() CaptureStats {
	var s CaptureStats
	for i := range s.Written {
		s.Written[i], s.Lost[i] = r.written[i].Load(), r.lost[i].Load()
	}
	return s
}
