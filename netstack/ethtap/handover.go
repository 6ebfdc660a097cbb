//go:build linux

package ethtap

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Handover is a living cut on its way from one process to another, which gets the
// files by SCM_RIGHTS and makes a Device of them by Adopt. The taps, the map with the
// states and the mark, and the programs' places are the same afterwards, so that there
// is no moment at which a frame could pass or fall between the two:
//
//  1. The old process sends what Device.Handover returns, and goes on.
//  2. The new one calls Adopt, prepares the rest, and says that it is ready.
//  3. The old one calls Hold: from then on frames wait in the queues of the taps. It
//     gives up what must not be in two hands, and says so.
//  4. The new one calls Begin, and reads.
//  5. The old one calls Yield, and the new one Settle.
//
// Until Begin everything can be taken back: the new process closes its device, the old
// one calls Resume.
type Handover struct {
	Info HandoverInfo
	// FDs are the descriptors of the lock of each interface, the map, each tap's control and
	// queues, the wire tap's packet rings and the programs' links where there are any. They are raw, since an os.File would make
	// queues blocking for both processes. Whoever has a Handover closes it.
	FDs []int
}

// HandoverInfo describes a Handover. It has a JSON form.
type HandoverInfo struct {
	Layout    uint32 `json:"layout"` // of the map
	Interface string `json:"interface"`
	Index     int    `json:"index"`
	Inside    string `json:"inside,omitempty"`
	NetNS     uint64 `json:"netns"` // inode
	Hook      Hook   `json:"hook"`
	Queues    int    `json:"queues"` // of each tap
	Rings     int    `json:"rings"`  // of the wire tap, one for each queue, or none
	Slot      int    `json:"slot"`   // of a ring, octets
	Links     int    `json:"links"`  // among the descriptors
	Pins      string `json:"pins"`   // this interface's directory of pins
	UDP       bool   `json:"udp"`    // as Info.UDPSuperframes
}

// MaxHandoverFDs is how many descriptors a Handover has at most.
const MaxHandoverFDs = 2 + 1 + 2*(1+64) + 64 + 8

// ErrHeld: the device's readers are held for a handover.
var ErrHeld = errors.New("the taps are being handed over")

// Close closes the descriptors.
func (h *Handover) Close() {
	for _, fd := range h.FDs {
		_ = unix.Close(fd)
	}
	h.FDs = nil
}

// take gives the next descriptor away.
func (h *Handover) take() int {
	fd := h.FDs[0]
	h.FDs = h.FDs[1:]
	return fd
}

// Handover gives duplicates of all that another process needs to go on with the cut.
// The device goes on undisturbed.
func (d *Device) Handover() (*Handover, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil, ErrClosed
	case d.adopted:
		return nil, ErrHeld
	case d.gone != [2]bool{}:
		return nil, because(ErrNoInterface, "%s is gone for now", d.goneNames())
	}
	h := &Handover{Info: HandoverInfo{
		Layout: layoutVersion, Interface: d.info.Name, Index: d.info.Index, Inside: d.info.Inside, NetNS: d.info.NetNS,
		Hook: d.info.Hook, Queues: len(d.kernel.queues), Pins: d.pins, UDP: d.info.UDPSuperframes,
	}}
	var fds []int
	for _, l := range d.locks() {
		fds = append(fds, int(l.f.Fd()))
	}
	fds = append(fds, d.cut.m.FD())
	for _, t := range []*Tap{d.kernel, d.wire} {
		fds = append(fds, t.tap.ctl)
		for _, q := range t.queues {
			fds = append(fds, q.fd)
		}
	}
	for _, q := range d.wire.queues {
		if q.ring != nil {
			fds = append(fds, q.ring.fd)
			h.Info.Rings, h.Info.Slot = h.Info.Rings+1, q.ring.slot
		}
	}
	for _, a := range d.attached {
		if t, ok := a.(*tcxAttachment); ok {
			l, ok := t.l.(interface{ FD() int })
			if !ok {
				return nil, fmt.Errorf("a %T has no descriptor", t.l)
			}
			fds = append(fds, l.FD())
			h.Info.Links++
		}
	}
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			h.Close()
			return nil, fmt.Errorf("duplicate a descriptor: %w", err)
		}
		h.FDs = append(h.FDs, dup)
	}
	return h, nil
}

// locks are those of the interfaces.
func (d *Device) locks() []*lockFile {
	if d.insideLock == nil {
		return []*lockFile{d.lock}
	}
	return []*lockFile{d.lock, d.insideLock}
}

// Hold has every Read wait as if no frame came, and returns when no reader of a tap
// that is not Closed is busy any more with a frame that it got, or with ctx's error,
// after which nothing is held. Each queue has one reader. Meanwhile Active taps remain
// so, and frames wait in the kernel; the states cannot be changed.
func (d *Device) Hold(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.held.Load() != nil:
		return ErrHeld
	}
	d.hold()
	look := unix.NsecToTimespec(int64(handOverLook))
	for !d.parked() {
		if ctx.Err() != nil {
			d.unhold()
			return fmt.Errorf("the readers of %s do not come back: %w", d.info.Name, ctx.Err())
		}
		_ = unix.Nanosleep(&look, nil)
	}
	return nil
}

// Resume ends Hold.
func (d *Device) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.closed && d.held.Load() != nil {
		d.unhold()
	}
}

func (d *Device) hold() {
	until := make(chan struct{})
	d.held.Store(&until)
	for _, t := range []*Tap{d.kernel, d.wire} {
		t.wake(true)
	}
}

func (d *Device) unhold() {
	for _, t := range []*Tap{d.kernel, d.wire} {
		t.wake(!t.readable.Load())
	}
	close(*d.held.Swap(nil))
}

// parked tells whether every reader waits for the end of the hold.
func (d *Device) parked() bool {
	for _, t := range []*Tap{d.kernel, d.wire} {
		for _, q := range t.queues {
			if t.readable.Load() && !q.parked.Load() {
				return false
			}
		}
	}
	return true
}

// Yield ends the device in this process and leaves all of the cut, whatever OnFailure
// says, to the process that has taken it over.
func (d *Device) Yield() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	return d.yield()
}

// yield is Yield on an open device.
func (d *Device) yield() error {
	d.silence()
	d.end()
	for _, l := range d.locks() {
		l.path = "" // it is the other's
	}
	return d.letGo()
}
