package observe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"bitw/appliance"
	"bitw/netstack/ethtap"
	"bitw/netstack/pcapng"
	"bitw/netstack/wire"
	"bitw/sa"
)

// DefaultMaxFlows is how many flows are kept unless Options say otherwise.
const DefaultMaxFlows = 4096

// ErrShut says that the interface was left shut by a bitw that has ended. Watching it
// would mean to open it.
var ErrShut = errors.New("the interface is shut")

// ErrTaken says that a bitw holds the interface.
var ErrTaken = ethtap.ErrBusy

// Options say what to watch. Only Interface is needed.
type Options struct {
	Interface string
	// Inside is the other interface of a box between two, of which Interface is the
	// outside. As long as they are watched each passes its frames to the other, in the
	// clear and past the box's own kernel, which has them back afterwards if it had them
	// before.
	Inside string
	// NetNS is the path of the interface's network namespace, "" for the caller's.
	NetNS string
	// Hook is how the eBPF programs are attached.
	Hook ethtap.Hook
	// Config is what to judge by; nil for counting only. Its interface does not matter.
	Config *appliance.Config
	// MaxFlows bounds how many flows are kept, DefaultMaxFlows if 0.
	MaxFlows int
	// Record takes all frames as pcapng, nil for none. It is not closed.
	Record io.Writer
	// Watching is called once both taps are Passive, and Tick every Interval after that,
	// by one goroutine that may take its time. Both may be nil.
	Watching func()
	Tick     func(*Report)
	Interval time.Duration // a second if 0
}

// An observer is an interface under watch.
type observer struct {
	device *ethtap.Device
	since  time.Time

	mu     sync.Mutex // of what is below, which both readers use
	table  *table
	record *pcapng.Writer
	failed error // of record
}

// Run watches until ctx ends and returns what it saw. It returns an error, and has
// disturbed nothing, if the interface cannot be watched: the errors are ethtap.Open's,
// among them ErrTaken, ErrShut, and those of
// appliance.NewDatabases. A Report is returned beside an error of Record.
func Run(ctx context.Context, o Options) (*Report, error) {
	ob, closeAll, err := open(&o)
	if err != nil {
		return nil, err
	}
	failed := make(chan error, 3)
	var readers sync.WaitGroup
	for dir, tap := range []*ethtap.Tap{sa.Outbound: ob.device.Kernel(), sa.Inbound: ob.device.Wire()} {
		readers.Go(func() {
			if err := ob.read(sa.Direction(dir), tap); err != nil {
				failed <- err
			}
		})
	}
	if o.Watching != nil {
		o.Watching()
	}
	tick := time.NewTicker(o.Interval)
	defer tick.Stop()
	for err == nil {
		select {
		case <-ctx.Done():
		case err = <-failed:
		case <-tick.C:
			err = ob.flush()
			if o.Tick != nil && err == nil {
				o.Tick(ob.report())
			}
			continue
		}
		break
	}
	ob.catchUp()
	closeErr := ob.device.SetStates(ethtap.Closed, ethtap.Closed)
	readers.Wait()
	closeErr = errors.Join(closeErr, ob.flush())
	r := ob.report()
	return r, errors.Join(err, closeErr, closeAll())
}

// open gets everything ready; the taps are Passive then.
func open(o *Options) (_ *observer, _ func() error, err error) {
	if o.MaxFlows == 0 {
		o.MaxFlows = DefaultMaxFlows
	}
	if o.Interval == 0 {
		o.Interval = time.Second
	}
	if o.MaxFlows < 0 || o.Interval < 0 {
		return nil, nil, fmt.Errorf("observe: MaxFlows %d and Interval %v: expected 0 or more", o.MaxFlows, o.Interval)
	}
	var closers []func() error
	closeAll := func() error {
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll())
		}
	}()
	var j *judge
	if o.Config != nil {
		db, err := appliance.NewDatabases(*o.Config)
		if err != nil {
			return nil, nil, err
		}
		closers = append(closers, db.Close)
		j = &judge{db: db}
	}
	cut := ethtap.Options{Interface: o.Interface, Inside: o.Inside, NetNS: o.NetNS, Hook: o.Hook, OnFailure: ethtap.FailOpen}
	if left, err := ethtap.Left(cut); err != nil {
		return nil, nil, err
	} else if left {
		return nil, nil, fmt.Errorf("%s: %w", o.Interface, ErrShut)
	}
	ob := &observer{}
	if ob.device, err = ethtap.Open(cut); err != nil {
		return nil, nil, err
	}
	end := ob.device.Close
	if ob.device.TookOverOpen() {
		end = ob.device.Leave
	}
	closers = append(closers, end)
	info := ob.device.Info()
	if j != nil {
		j.mtu = info.MTU
		if o.Config.MTU != 0 {
			j.mtu = min(j.mtu, o.Config.MTU)
		}
	}
	if o.Inside != "" {
		info.MAC = nil // what the hosts send each other has their addresses
	}
	ob.table = newTable(j, info.MAC, o.MaxFlows)
	if o.Record != nil {
		if ob.record, err = pcapng.NewWriter(o.Record, ethtap.MaxFrame); err != nil {
			return nil, nil, fmt.Errorf("record: %w", err)
		}
		ob.table.words = true
	}
	ob.since = time.Now()
	return ob, closeAll, ob.device.SetStates(ethtap.Passive, ethtap.Passive)
}

// catchUpTime bounds how long the end waits for copies of what has passed before it.
const catchUpTime = time.Second

// catchUp waits until the readers have seen what waits for them: on a busy machine they
// are behind.
func (ob *observer) catchUp() {
	for end := time.Now().Add(catchUpTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		waiting := false
		for _, tap := range []*ethtap.Tap{ob.device.Kernel(), ob.device.Wire()} {
			for _, q := range tap.Queues() {
				waiting = waiting || q.Waiting()
			}
		}
		if !waiting {
			return
		}
	}
}

// read looks at the copies of one side until the tap is Closed.
func (ob *observer) read(dir sa.Direction, tap *ethtap.Tap) error {
	b := make([]byte, ethtap.MaxFrame)
	for {
		n, err := tap.Read(b)
		switch {
		case err == nil:
			ob.see(dir, b[:n])
		case errors.Is(err, ethtap.ErrClosed):
			return nil
		case !errors.Is(err, io.ErrShortBuffer): // too long a frame: dropped, and missed
			return err
		}
	}
}

func (ob *observer) see(dir sa.Direction, b []byte) {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	now := time.Now()
	comment := ob.table.see(dir, b, now)
	if ob.record != nil && ob.failed == nil && len(b) > wire.VirtioNetLen {
		frame := b[wire.VirtioNetLen:]
		ob.failed = ob.record.Write(&pcapng.Frame{
			At: now, Interface: int(dir), Sent: dir == sa.Outbound, Data: frame, Length: len(frame), Comment: comment,
		})
	}
}

// flush writes what was recorded, and returns the error of the first write that failed.
func (ob *observer) flush() error {
	ob.mu.Lock()
	defer ob.mu.Unlock()
	if ob.record == nil {
		return nil
	}
	if ob.failed == nil {
		ob.failed = ob.record.Flush()
	}
	if ob.failed != nil {
		return fmt.Errorf("record: %w", ob.failed)
	}
	return nil
}

func (ob *observer) report() *Report {
	info := ob.device.Info()
	r := &Report{Interface: info.Name, Inside: info.Inside, MTU: info.MTU, Since: ob.since, Until: time.Now(), Missed: ob.missed()}
	ob.mu.Lock()
	defer ob.mu.Unlock()
	if ob.table.judge != nil {
		r.MTU = ob.table.judge.mtu
	}
	ob.table.report(r)
	return r
}

// missed counts the copies that were lost.
func (ob *observer) missed() Missed {
	var m Missed
	for _, side := range []struct {
		tap *ethtap.Tap
		n   *uint64
	}{{ob.device.Kernel(), &m.Inside}, {ob.device.Wire(), &m.Outside}} {
		if s, err := side.tap.Stats(); err == nil {
			*side.n = s.Overflow + s.Oversize + s.Discarded
		}
	}
	return m
}
