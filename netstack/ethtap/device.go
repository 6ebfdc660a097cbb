//go:build linux

package ethtap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
)

// Options say what to cut and how. Only Interface is needed.
type Options struct {
	Interface string // name of the interface, such as "eth0"
	// Inside is the name of a second interface, for the two-NIC form, in which
	// Interface is the outside. What Inside receives is read from the kernel tap, and what
	// is written there leaves by Inside. While both taps are Closed each of the two sends
	// what it receives out by the other. The box's own kernel neither receives nor sends by
	// them in any state. Both are in promiscuous mode.
	Inside string
	// NetNS is the path of the interface's network namespace, "" for that of the
	// calling goroutine's thread. A process can hold devices in several.
	NetNS string
	// Severed makes a new cut begin with both taps Active instead of Closed. Between two
	// interfaces Closed is a flow that was not there before.
	Severed   bool
	OnFailure FailState // what becomes of the flow when the process ends without Close
	Hook      Hook      // how the programs are attached
	// PinDir is the directory for pins on a bpf filesystem, DefaultPinDir if
	// empty. Each interface has a subdirectory. It is used under FailShut and with
	// clsact; if it lies under /sys/fs/bpf and nothing is mounted there, a bpf
	// filesystem is mounted, and stays.
	PinDir string
	// DeadMan is how long a process may hang under FailOpen before the flow is
	// restored; 0 is a second. It has no effect under FailShut.
	DeadMan time.Duration
	// ForbidBypass is the directory of a cgroup (version 2) whose processes are kept from
	// making sockets that send past the cut, see Device.Bypass; DefaultCgroup is that of
	// all. Empty forbids nothing. Under FailShut it outlives the process as the cut does.
	ForbidBypass string
	Queues       int // queues of each tap, 0 is 1, at most 64
	// NoRing has the wire tap read its frames one by one from the TAP instead of from a
	// packet ring, and NoBatches has it send them so instead of many in one system call.
	// NoSuperframes has the kernel cut superframes before a tap reads them. SetBatches and
	// SetSuperframes change the last two.
	NoRing, NoBatches, NoSuperframes bool
	// DrainTimeout bounds the drain in Close, 0 is a second.
	DrainTimeout time.Duration
}

// Info is what Open found and made, and Follow found since.
type Info struct {
	Name      string           // of the interface
	Index     int              // of the interface, in its namespace
	MAC       net.HardwareAddr // of the interface, at Open or the last Follow
	MTU       int              // of the interface at the same time, octets without the Ethernet header
	NetNS     uint64           // inode of the network namespace
	Hook      Hook             // the one in use, never HookAuto
	KernelTap string           // name of htap
	WireTap   string           // name of ltap
	// UDPSuperframes says that the kernel takes superframes of UDP datagrams.
	UDPSuperframes bool
	Rings          int // packet rings that the wire tap reads, 0 or one a queue
	// Why the kernel does without what Options did not forbid: the ring, batches, and
	// superframes on the taps; "" where it does not.
	NoRing, NoBatches, NoSuperframes string
	// Of the two-NIC form only; the others are of the outside.
	Inside      string
	InsideIndex int
	InsideMAC   net.HardwareAddr
}

// Device is a cut interface. All methods may be called from any goroutine.
type Device struct {
	opts     Options
	info     Info
	tookOver bool
	// guardKept says that the interface was kept shut by the guard alone.
	guardKept bool
	guard     [2]atomic.Pointer[guardState] // by side
	ban       *bypassBan                    // nil if nothing is forbidden
	ns        *os.File
	nl        *netlink.Handle // in the namespace
	lock      *lockFile
	pins      string // this interface's directory of pins
	// Of the two-NIC form.
	insideLock *lockFile
	insidePins string
	leftOpen   bool // what was taken over had been left open
	// fails is the fail state that the attached programs are for: of an adopted device,
	// until Settle, the one of before.
	fails    FailState
	cut      *cut
	progs    *programs
	attached []attachment
	kernel   *Tap
	wire     *Tap

	oneByOne     atomic.Bool           // the wire tap sends each frame by the TAP
	batchRefused atomic.Pointer[error] // why, if nobody asked for it

	// held is not nil while the readers wait for a handover, and is closed at its end.
	held atomic.Pointer[chan struct{}]

	mu     sync.Mutex // serializes changes of state, Close and the counters
	closed bool
	gone   [2]bool // by side: there is no interface now
	// udpForwarding is what SetUDPForwarding asked for.
	udpForwarding bool
	// infoMu is for info, which changes under mu too.
	infoMu  sync.RWMutex
	adopted bool    // by Adopt, and not yet by Begin
	feeder  *feeder // not nil while the dead man's switch is fed
}

// Kernel is htap: it reads what the kernel sends on the interface, and a frame
// written to it reaches the kernel as received on the interface.
func (d *Device) Kernel() *Tap { return d.kernel }

// Wire is ltap: it reads what the NIC received, and a frame written to it leaves
// by the NIC.
func (d *Device) Wire() *Tap { return d.wire }

// Info is what Open found and made, and Follow found since. The MAC is the caller's to
// keep.
func (d *Device) Info() Info {
	d.infoMu.RLock()
	defer d.infoMu.RUnlock()
	i := d.info
	if err := d.batchRefused.Load(); err != nil {
		i.NoBatches = (*err).Error()
	}
	i.MAC = append(net.HardwareAddr(nil), i.MAC...)
	i.InsideMAC = append(net.HardwareAddr(nil), i.InsideMAC...)
	return i
}

// TookOver tells that an earlier process left the interface shut and this device
// carries on: both taps are in the states in which that process left them (or
// Active, if only the guard was left), without a moment in between in which a frame
// could pass.
func (d *Device) TookOver() bool { return d.tookOver && !d.leftOpen || d.guardKept }

// InNamespace runs fn on an OS thread inside the interface's network namespace
// and waits for it. Descriptors opened there work anywhere afterwards. The thread
// ends with fn.
func (d *Device) InNamespace(fn func() error) error { return inNamespace(d.ns, fn) }

// SetStates changes both taps at once: no frame sees one state without the
// other. Frames that a tap has queued are dropped and counted when it becomes
// Closed; Drain delivers them first.
func (d *Device) SetStates(kernel, wire State) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.setStates(kernel, wire)
}

func (d *Device) setStates(kernel, wire State) error {
	if d.closed {
		return ErrClosed
	}
	if d.held.Load() != nil {
		return ErrHeld
	}
	if kernel > Active || wire > Active {
		return fmt.Errorf("no such state: kernel %v, wire %v", kernel, wire)
	}
	d.apply(kernel, wire)
	return nil
}

// apply is setStates on an open device.
func (d *Device) apply(kernel, wire State) {
	next := [...]struct {
		t *Tap
		s State
	}{{d.kernel, kernel}, {d.wire, wire}}
	f := d.cut.flow()
	f.kernelWrite, f.wireWrite = f.kernelWrite || kernel == Active, f.wireWrite || wire == Active
	d.cut.setFlow(f)
	for _, n := range next {
		// Before the first frame of a new state is read it can be written.
		n.t.writable.Store(n.s == Active)
		if n.s != Closed && !n.t.readable.Load() {
			n.t.discard()
			n.t.wake(false)
			n.t.readable.Store(true)
		}
	}
	d.cut.setFlow(flowOf(kernel, wire))
	for _, n := range next {
		n.t.state.Store(uint32(n.s))
		if n.s == Closed && n.t.readable.Load() {
			n.t.readable.Store(false)
			n.t.wake(true)
			n.t.discard()
		}
	}
}

// Close drains the taps while their readers still copy, restores the direct flow
// and removes all that Open made; of two NICs the box's own kernel has both again, and
// nothing passes between them (see Leave). It may be called more than once. After errors
// the device is closed nevertheless, and Recover removes what is left.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if more, err := d.beginEnd(); !more {
		return err
	}
	return d.InNamespace(d.remove)
}

// beginEnd is what Close and Leave have in common: it drains the taps and ends the device
// in this process. It returns false if that was all.
func (d *Device) beginEnd() (more bool, err error) {
	switch {
	case d.closed:
		return false, nil
	case d.adopted:
		return false, d.yield()
	case d.held.Load() != nil:
		d.unhold()
	}
	d.drainInTime()
	d.end()
	return true, nil
}

// drainInTime is the drain of an end. That the time was up is no failure of that:
// nobody may be reading.
func (d *Device) drainInTime() {
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.DrainTimeout)
	defer cancel()
	d.drain(ctx, Closed, Closed)
}

// Release ends the device but leaves under FailShut the cut as it stands, as the end
// of the process would: nothing that an Active tap stopped passes until a later
// Open takes over. Under FailOpen it is Leave.
func (d *Device) Release() error {
	if d.opts.OnFailure == FailOpen {
		return d.Leave()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return nil
	case d.adopted:
		return d.yield()
	}
	d.silence()
	d.end()
	return d.letGo()
}

// silence ends every read and write of this process, and leaves the map.
func (d *Device) silence() {
	for _, t := range []*Tap{d.kernel, d.wire} {
		t.readable.Store(false)
		t.writable.Store(false)
		t.state.Store(uint32(Closed))
		t.wake(true)
	}
	if d.held.Load() != nil {
		d.unhold()
	}
}

// end marks the device closed and ends what feeds the dead man's switch.
func (d *Device) end() {
	d.closed = true
	d.starve()
}

// remove takes everything off the machine, the interface's programs first so
// that frames flow before the taps go. It runs inside the namespace.
func (d *Device) remove() error {
	var errs []error
	for i := len(d.attached) - 1; i >= 0; i-- {
		errs = append(errs, d.attached[i].detach())
	}
	d.attached = nil
	if d.cut.get(offQdisc) != 0 {
		if l, err := d.nl.LinkByIndex(d.info.Index); err == nil {
			errs = append(errs, removeQdisc(d.nl, l))
		}
	}
	errs = append(errs, undoUDPForwarding(d.pins, d.info.Name), clearInside(d.nl, d.cut, d.pins))
	errs = append(errs, d.lowerGuard(), removePinDir(d.pins), removeTap(d.nl, d.info.KernelTap), removeTap(d.nl, d.info.WireTap))
	return errors.Join(append(errs, d.letGo())...)
}

// letGo closes every handle of this process.
func (d *Device) letGo() error {
	var errs []error
	for _, a := range d.attached {
		errs = append(errs, a.release())
	}
	d.wire.closeBatches()
	for _, t := range []*Tap{d.kernel, d.wire} {
		t.tap.close()
		t.closeWakers()
	}
	d.progs.close()
	d.ban.close()
	d.cut.close()
	errs = append(errs, d.lock.release())
	if d.insideLock != nil {
		errs = append(errs, d.insideLock.release())
	}
	d.nl.Close()
	d.ns.Close()
	return errors.Join(errs...)
}
