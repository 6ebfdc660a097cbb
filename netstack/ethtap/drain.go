//go:build linux

package ethtap

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Drain brings both taps to Closed without losing a frame that an Active tap has
// accepted: as soon as all that was queued has been read and written out, new frames
// pass by themselves, so that none overtakes another; if the readers are behind for so
// long that this does not come to pass within two seconds, or half of ctx's time, they do
// so nevertheless. It returns when the queues have been empty,
// and nothing was written, for some milliseconds, or with an error when ctx ends
// first; the taps are Closed then too. The readers must keep on copying until they
// get ErrClosed.
func (d *Device) Drain(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.drainable(); err != nil {
		return err
	}
	return d.drain(ctx, Closed, Closed)
}

// Drain brings this tap to Closed without losing a frame that it has accepted, and
// leaves the other as it is. While the other is Active nothing passes by itself:
// frames that come from then on are stopped, and counted as Severed. Otherwise it is as
// Device.Drain.
func (t *Tap) Drain(ctx context.Context) error {
	d := t.dev
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.drainable(); err != nil {
		return err
	}
	if t == d.kernel {
		return d.drain(ctx, Closed, d.wire.State())
	}
	return d.drain(ctx, d.kernel.State(), Closed)
}

func (d *Device) drainable() error {
	if d.closed {
		return ErrClosed
	}
	if d.held.Load() != nil {
		return ErrHeld
	}
	return nil
}

// drain brings the taps to the states, of which each is Closed or the present one.
func (d *Device) drain(ctx context.Context, kernel, wire State) error {
	f := d.cut.flow()
	next := flow{kernel: kernel, wire: wire, kernelWrite: f.kernelWrite, wireWrite: f.wireWrite}
	begun, leaving := next, make([]*Tap, 0, 2)
	direct := kernel != Active && wire != Active
	// The wire first: the kernel's next question for a neighbour needs a way back.
	for _, t := range []struct {
		*Tap
		was, to State
		begun   *State
	}{{d.wire, f.wire, wire, &begun.wire}, {d.kernel, f.kernel, kernel, &begun.kernel}} {
		if t.was == Active && t.to != Active {
			leaving = append(leaving, t.Tap)
			if direct {
				*t.begun = draining
			}
		}
	}
	if len(leaving) == 0 {
		d.apply(kernel, wire)
		return nil
	}
	d.kernel.state.Store(uint32(kernel))
	d.wire.state.Store(uint32(wire))
	d.cut.setDone(offKernelDone, 0)
	d.cut.setDone(offWireDone, 0)
	d.cut.setFlow(begun)
	if direct {
		d.handOver(ctx, leaving)
		d.cut.setFlow(next)
	}
	err := d.settle(ctx, leaving)
	d.apply(kernel, wire)
	return err
}

const (
	// handOverTime bounds the wait for a moment at which a tap is idle. Nothing is lost by
	// waiting; after it the frames of a flow that never pauses may change places.
	handOverTime = 2 * time.Second
	// handOverLook is how long a tap must be idle to be taken for it: what a program has
	// counted, or a reader has written, may be on its way through the kernel yet.
	handOverLook = 50 * time.Microsecond
)

// handOver waits until all that the taps were handed is dealt with and lets new frames
// pass from then on, for each tap as soon as that is so.
func (d *Device) handOver(ctx context.Context, leaving []*Tap) {
	end := time.Now().Add(handOverTime)
	if at, ok := ctx.Deadline(); ok {
		// What comes after it needs time as well.
		end = time.Now().Add(min(handOverTime, time.Until(at)/2))
	}
	leaving = slices.Clone(leaving)
	// The runtime's timers sleep for a millisecond at least.
	look := unix.NsecToTimespec(int64(handOverLook))
	for len(leaving) > 0 && time.Now().Before(end) && ctx.Err() == nil {
		var before [2]uint64
		for i, t := range leaving {
			before[i] = d.cut.count(t.offTaken())
		}
		_ = unix.Nanosleep(&look, nil) // cut short, the look is short
		left := leaving[:0]
		for i, t := range leaving {
			// If one more is taken meanwhile this says nothing to the programs.
			if n := before[i]; t.idle() {
				d.cut.setDone(t.offDone(), n+1)
				if d.cut.count(t.offTaken()) == n {
					continue
				}
			}
			left = append(left, t)
		}
		leaving = left
	}
}

func (t *Tap) offTaken() int {
	if t == t.dev.wire {
		return offWireTaken
	}
	return offKernelTaken
}

func (t *Tap) offDone() int {
	if t == t.dev.wire {
		return offWireDone
	}
	return offKernelDone
}

// settle waits until nothing was queued in the taps, their readers were back for the
// next frame, and nothing was written to the opposite ones for a while: a frame may be
// on its way from one goroutine to another.
func (d *Device) settle(ctx context.Context, leaving []*Tap) error {
	// Looks in a row, a millisecond apart. A reader that does not come back may have a
	// frame, or may be gone.
	const quiet, late = 5, 50
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	count := func() (n uint64) {
		for _, t := range leaving {
			if t == d.kernel {
				n += d.wire.frames.Load()
			} else {
				n += d.kernel.frames.Load()
			}
		}
		return n
	}
	written := count()
	for calm, enough := 0, quiet; calm < enough; {
		select {
		case <-ctx.Done():
			return fmt.Errorf("drain of %s: frames still queued or written: %w", d.info.Name, ctx.Err())
		case <-tick.C:
		}
		calm, enough = calm+1, quiet
		for _, t := range leaving {
			if t.queued() {
				calm = 0
			} else if !t.idle() {
				enough = late
			}
		}
		if now := count(); now != written {
			calm, written = 0, now
		}
	}
	return nil
}
