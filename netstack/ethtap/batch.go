//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchReads is how many frames ReadBatch takes from a TAP at once.
const batchReads = 32

// ReadBatch waits for at least one frame as Read does, and sets frames[0] to
// frames[n-1] to those that are there. They lie in the queue's memory, may be changed,
// and are good until the next read. One goroutine may read a queue by it.
func (q *Queue) ReadBatch(frames [][]byte) (n int, err error) {
	if len(frames) == 0 {
		return 0, nil
	}
	if q.ring == nil {
		return q.readTAP(frames)
	}
	t := q.tap
	if !q.ring.enter() {
		return 0, ErrClosed
	}
	defer q.ring.leave()
	yielded := false
	for {
		if q.park() {
			continue
		}
		if !t.readable.Load() {
			return 0, ErrClosed
		}
		if n = q.ring.lend(frames); n > 0 {
			return n, nil
		}
		if !yielded {
			// Where others want the processor, who may be about to send more, being woken
			// for each of their frames costs more than letting them go first.
			yielded = true
			yieldNow()
			continue
		}
		q.reading.Store(true)
		err := q.ring.wait()
		q.reading.Store(false)
		if err != nil {
			return 0, fmt.Errorf("read from the ring of %s: %w", t.Name(), err)
		}
	}
}

// readTAP is ReadBatch by the TAP's own queue, one system call a frame.
func (q *Queue) readTAP(frames [][]byte) (n int, err error) {
	if q.bufs == nil {
		// In one piece, of which the kernel gives what is used.
		all := make([]byte, batchReads*MaxFrame)
		q.bufs = make([][]byte, batchReads)
		for i := range q.bufs {
			q.bufs[i] = all[i*MaxFrame:][:MaxFrame:MaxFrame]
		}
	}
	size, err := q.Read(q.bufs[0])
	if err != nil {
		return 0, err
	}
	frames[0] = q.bufs[0][:size]
	for n = 1; n < min(len(frames), len(q.bufs)); n++ {
		size, err := readNow(q.fd, q.bufs[n])
		if err != nil || size == 0 {
			break // nothing there; what else there is the next Read finds
		}
		if size == len(q.bufs[n]) {
			q.tap.oversize.Add(1)
			break
		}
		frames[n] = q.bufs[n][:size]
	}
	return n, nil
}

// WriteBatch sends frames in order, each as Write does, and keeps nothing of them.
// It returns how many were sent; if those are not all, err says why frames[n] was not.
func (q *Queue) WriteBatch(frames [][]byte) (n int, err error) {
	if !q.batches() {
		for i, f := range frames {
			if _, err := q.Write(f); err != nil {
				return i, err
			}
		}
		return len(frames), nil
	}
	t := q.tap
	for i, f := range frames {
		if len(f) < minFrame || len(f) > MaxFrame {
			err = fmt.Errorf("%w: %d octets, expected %d to %d", ErrFrame, len(f), minFrame, MaxFrame)
			frames = frames[:i]
			break
		}
	}
	if !t.writable.Load() {
		if t.State() == Passive {
			return 0, ErrPassive
		}
		return 0, ErrClosed
	}
	n, sendErr := q.send.send(frames)
	t.frames.Add(uint64(n))
	if errors.Is(sendErr, unix.EINVAL) && q.insteadOfBatch(frames[n], sendErr) {
		more, err := q.WriteBatch(frames[n+1:])
		return n + 1 + more, err
	}
	switch {
	case sendErr == nil:
		return n, err
	case errors.Is(sendErr, os.ErrClosed):
		return n, ErrClosed
	case errors.Is(sendErr, unix.EINVAL) || errors.Is(sendErr, unix.EMSGSIZE):
		return n, fmt.Errorf("%w: send on %s: %w", ErrFrame, t.dev.info.Name, sendErr)
	}
	return n, fmt.Errorf("send on %s: %w", t.dev.info.Name, sendErr)
}

// batches says whether the queue sends many frames at once.
func (q *Queue) batches() bool { return q.send != nil && !q.tap.dev.oneByOne.Load() }

// insteadOfBatch sends a frame that the packet socket does not take by the TAP. If that
// takes it, and it is nothing special, the socket is at fault, and is used no more.
func (q *Queue) insteadOfBatch(frame []byte, why error) bool {
	const gsoType = 1
	if frame[gsoType] != unix.VIRTIO_NET_HDR_GSO_NONE {
		return false
	}
	if _, err := q.write(frame); err != nil {
		return false
	}
	d := q.tap.dev
	q.tap.frames.Add(1)
	d.oneByOne.Store(true)
	d.batchRefused.CompareAndSwap(nil, &why)
	return true
}

// SetBatches has the wire tap send many frames in one system call, if the kernel has what
// it takes, or each by the TAP.
func (d *Device) SetBatches(on bool) {
	d.batchRefused.Store(nil)
	d.oneByOne.Store(!on)
}

// SetSuperframes lets the taps have superframes with their checksums left to the reader, or
// has the kernel cut them before. Checksums are left in both cases. After an error the taps
// are as they were.
func (d *Device) SetSuperframes(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	for _, t := range []*Tap{d.kernel, d.wire} {
		if _, err := setOffloads(t.queues[0].fd, on); err != nil {
			return fmt.Errorf("set the offloads of %s: %w", t.Name(), permission(err))
		}
	}
	return nil
}

// openBatches gives the wire tap its rings and senders, if the kernel has them; else
// frames go through the TAP one by one, and Info tells why. It runs inside the namespace.
func (d *Device) openBatches() error {
	d.oneByOne.Store(d.opts.NoBatches)
	for _, q := range d.wire.queues {
		var err error
		if q.send, err = newSender(d.info.Index, d.cut.get(offMark)); err != nil {
			d.wire.closeSenders()
			d.info.NoBatches = err.Error()
			break
		}
	}
	if d.info.NoBatches != "" {
		for _, q := range d.wire.queues {
			q.send = nil
		}
	}
	if !d.opts.NoRing {
		for _, q := range d.wire.queues {
			var err error
			if q.ring, err = newRing(d.wire.tap.index, d.info.MTU, len(d.wire.queues)); err != nil {
				d.wire.closeRings()
				d.info.NoRing = err.Error()
				break
			}
		}
	}
	if d.info.NoRing != "" {
		for _, q := range d.wire.queues {
			q.ring = nil
		}
	}
	if d.wire.queues[0].ring != nil {
		d.info.Rings = len(d.wire.queues)
	}
	return d.wire.tap.takeFrames(d.info.Rings == 0)
}

func (t *Tap) closeBatches() {
	t.closeSenders()
	t.closeRings()
}

func (t *Tap) closeSenders() {
	for _, q := range t.queues {
		if q.send != nil {
			q.send.close()
		}
	}
}

func (t *Tap) closeRings() {
	for _, q := range t.queues {
		if q.ring != nil {
			q.ring.close()
		}
	}
}

// adoptBatches goes on with the rings of a device that was handed over, with frames
// that wait in them; the sender is a new one.
func (d *Device) adoptBatches(h *Handover) (err error) {
	d.oneByOne.Store(d.opts.NoBatches)
	d.info.Rings = h.Info.Rings
	if h.Info.Rings == 0 && !d.opts.NoRing {
		d.info.NoRing = "handed over without"
	}
	for i, q := range d.wire.queues {
		if q.send, err = newSender(d.info.Index, d.cut.get(offMark)); err != nil {
			return fmt.Errorf("%w", permission(err))
		}
		if i >= h.Info.Rings {
			continue
		}
		if q.ring, err = adoptRing(h.take(), h.Info.Slot); err != nil {
			return fmt.Errorf("take over a packet ring: %w", permission(err))
		}
	}
	return nil
}

// takeFrames lets the TAP queue what is redirected to it, or not, when a ring takes
// that.
func (t *tapDevice) takeFrames(on bool) error {
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	prog := unix.SockFprog{Len: 1, Filter: &nothing}
	req := unix.TUNATTACHFILTER
	if on {
		req = unix.TUNDETACHFILTER
	}
	return control(t.queues[0], func(fd int) error {
		// One filter is for all queues. A tap that was left may have one already.
		if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(unsafe.Pointer(&prog))); e != 0 && !on {
			return fmt.Errorf("filter what %s queues: %w", *t.name.Load(), e)
		}
		return nil
	})
}
