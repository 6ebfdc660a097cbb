//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Adopt makes a device of what another, living process has handed over. It changes
// nothing of the cut; until Begin each Read waits, and Close, Release, Leave and Yield
// only let go. Of o the number of queues is ignored, and so is Hook if it is HookAuto: these
// remain as they are. OnFailure may be another than before. h is used up.
//
// The errors are those of Open, ErrOccupied for a cut that this process cannot go on with.
func Adopt(o Options, h *Handover) (*Device, error) {
	defer h.Close()
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := checkCapabilities(); err != nil {
		return nil, err
	}
	liftMemlock()
	ns, ino, err := openNamespace(o.NetNS)
	if err != nil {
		return nil, err
	}
	d := &Device{opts: o, ns: ns, tookOver: true, adopted: true}
	d.info.NetNS = ino
	if err := inNamespace(ns, func() error {
		var u undo
		err := d.takeOver(h, &u)
		if err != nil {
			u.all()
		}
		return err
	}); err != nil {
		ns.Close()
		return nil, err
	}
	return d, nil
}

// takeOver runs inside the namespace.
func (d *Device) takeOver(h *Handover, u *undo) error {
	i := &h.Info
	if i.Layout != layoutVersion {
		return because(ErrOccupied, "the cut of %s is of layout version %d, this program's is %d", i.Interface, i.Layout, layoutVersion)
	}
	locks := 1
	if d.twoNIC() {
		locks = 2
	}
	if i.Inside != d.opts.Inside {
		return because(ErrOccupied, "%s is cut with the inside interface %q, expected %q", i.Interface, i.Inside, d.opts.Inside)
	}
	if i.Queues < 1 || i.Queues > 64 || len(h.FDs) != locks+3+2*i.Queues+i.Rings+i.Links ||
		i.Rings != 0 && i.Rings != i.Queues {
		return because(ErrOccupied, "a handover of %d queues, %d rings and %d links with %d descriptors", i.Queues, i.Rings, i.Links, len(h.FDs))
	}
	var err error
	if d.nl, err = netlink.NewHandle(); err != nil {
		return fmt.Errorf("open netlink: %w", permission(err))
	}
	u.add(d.nl.Close)
	eth, err := findInterface(d.nl, d.opts.Interface)
	if err != nil {
		return err
	}
	d.setInfo(eth)
	k := key{d.info.NetNS, d.info.Index}
	d.pins, d.info.Hook = pinPath(d.opts.PinDir, k), i.Hook
	switch {
	case i.NetNS != k.netns || i.Index != k.ifindex:
		return because(ErrOccupied, "the cut is of interface %d (%s) of network namespace %d, not of %d (%s) of %d", i.Index, i.Interface, i.NetNS, k.ifindex, d.info.Name, k.netns)
	case i.Pins != d.pins:
		return because(ErrOccupied, "the cut of %s has its pins in %s, not in %s", d.info.Name, i.Pins, d.pins)
	case i.Hook != HookTCX && i.Hook != HookCLSACT || d.opts.Hook != HookAuto && d.opts.Hook != i.Hook:
		return because(ErrOccupied, "%s is cut by %v, which %v cannot take over", d.info.Name, i.Hook, d.opts.Hook)
	}
	if d.lock, err = adoptLock(k, h.take(), u); err != nil {
		return err
	}
	if d.twoNIC() {
		if err := d.takeOverInside(h, u); err != nil {
			return err
		}
	}
	if err := d.adoptCut(h.take(), u); err != nil {
		return err
	}
	for _, s := range []struct {
		to   **Tap
		name string
		off  int
	}{{&d.kernel, d.info.KernelTap, offKernelIndex}, {&d.wire, d.info.WireTap, offWireIndex}} {
		t := &tapDevice{index: int(d.cut.get(s.off)), ctl: h.take()}
		t.name.Store(&s.name)
		u.add(t.close)
		for range i.Queues {
			f, err := unpolled(h.take(), s.name)
			if err != nil {
				return err
			}
			t.queues = append(t.queues, &water.Interface{ReadWriteCloser: f})
		}
		if l, err := d.nl.LinkByName(s.name); err != nil || l.Attrs().Index != t.index || !ownTap(l) {
			return because(ErrOccupied, "the tap %s that was handed over is not there any more (%v)", s.name, err)
		}
		if *s.to, err = newTap(d, t); err != nil {
			return err
		}
		u.add((*s.to).closeWakers)
	}
	d.info.UDPSuperframes = i.UDP
	u.add(d.wire.closeBatches)
	if err := d.adoptBatches(h); err != nil {
		return err
	}
	if d.progs, err = loadPrograms(d.cut, d.twoNIC()); err != nil {
		return permission(err)
	}
	u.add(d.progs.close)
	if err := d.adoptLinks(h, u); err != nil {
		return err
	}
	d.hold()
	return nil
}

// takeOverInside finds the inside NIC.
func (d *Device) takeOverInside(h *Handover, u *undo) error {
	l, err := findInterface(d.nl, d.opts.Inside)
	if err != nil {
		return err
	}
	k := d.setInside(l)
	d.insideLock, err = adoptLock(k, h.take(), u)
	return err
}

// adoptLock takes the held lock over; both processes hold it then.
func adoptLock(k key, fd int, u *undo) (*lockFile, error) {
	l := &lockFile{f: os.NewFile(uintptr(fd), "lock"), path: filepath.Join(runDir, k.String()+".lock")}
	u.add(func() { l.f.Close() })
	var mine, there unix.Stat_t
	if unix.Fstat(fd, &mine) != nil || unix.Stat(l.path, &there) != nil || mine.Ino != there.Ino || mine.Dev != there.Dev {
		return nil, because(ErrOccupied, "the lock that was handed over is not %s", l.path)
	}
	return l, nil
}

func (d *Device) adoptCut(fd int, u *undo) error {
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return fmt.Errorf("take over the map of the cut: %w", permission(err))
	}
	if d.cut, err = checkedCut(m, "that was handed over"); err != nil {
		return err
	}
	u.add(d.cut.close)
	if i := d.cut.get(offEthIndex); int(i) != d.info.Index {
		return because(ErrOccupied, "the map that was handed over is of interface %d, not of %d", i, d.info.Index)
	}
	d.fails = FailState(d.cut.get(offFail))
	return fits(d.nl, d.cut, d.info.Name, d.opts.Inside, d.info.InsideIndex)
}

// adoptLinks makes the attachments, which still hold the other process's programs.
func (d *Device) adoptLinks(h *Handover, u *undo) error {
	points := d.points()
	if want := len(points); d.info.Hook == HookTCX && len(h.FDs) != want {
		return because(ErrOccupied, "%d links were handed over, expected %d", len(h.FDs), want)
	}
	for _, p := range points {
		if d.info.Hook == HookCLSACT {
			d.attached = append(d.attached, &clsactAttachment{d.nl, clsactFilter(p)})
			continue
		}
		l, err := link.NewFromFD(h.take())
		if err != nil {
			return fmt.Errorf("take over the link of %s: %w", p.name, permission(err))
		}
		a := &tcxAttachment{l: l, path: filepath.Join(d.pins, p.name)}
		u.add(func() { a.release() })
		if ifindex, ok := tcxIndex(l); !ok || ifindex != p.ifindex {
			return because(ErrOccupied, "the link of %s that was handed over is on interface %d, not on %d", p.name, ifindex, p.ifindex)
		}
		if err := a.findPin(); err != nil {
			return err
		}
		d.attached = append(d.attached, a)
	}
	return nil
}

// findPin exchanges the link for its pinned self, which can be unpinned.
func (a *tcxAttachment) findPin() error {
	pinned, err := link.LoadPinnedLink(a.path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("load the link pinned at %s: %w", a.path, permission(err))
	}
	mine, err1 := a.l.Info()
	there, err2 := pinned.Info()
	if err := errors.Join(err1, err2); err != nil || mine.ID != there.ID {
		pinned.Close()
		return errors.Join(err, because(ErrOccupied, "another link is pinned at %s", a.path))
	}
	a.l.Close()
	a.l, a.pinned = pinned, true
	return nil
}

// Begin is the moment from which an adopted device is this process's: its programs
// take the places of the other's, one by one with the same map, the taps are in the
// states in which they were left, and Read gives what has waited. Under FailOpen the
// dead man's switch is fed by this process too.
func (d *Device) Begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.adopted {
		return ErrClosed
	}
	for i, p := range d.points() {
		if err := d.attached[i].exchange(p); err != nil {
			return err
		}
	}
	if FailState(d.cut.get(offFail)) == d.opts.OnFailure {
		// Before the other's ends.
		if err := d.forbidBypass(); err != nil {
			return err
		}
	}
	d.adopted = false
	if FailState(d.cut.get(offFail)) == FailOpen {
		d.feed()
	}
	d.showStates()
	d.unhold()
	for i, l := range d.locks() {
		if err := l.write([]string{d.info.Name, d.info.Inside}[i]); err != nil {
			return fmt.Errorf("write %s: %w", l.path, err)
		}
	}
	return nil
}

// StatesLeft are the states of both taps, the kernel's first, as the map has them: those
// that an adopted device will have with Begin.
func (d *Device) StatesLeft() [2]State {
	f := d.cut.flow()
	return [2]State{f.kernel, f.wire}
}

// Settle makes the fail state of an adopted device what the options say, once the
// other process has left.
func (d *Device) Settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.adopted {
		return ErrClosed
	}
	return d.InNamespace(d.settleAdopted)
}

// settleAdopted is Settle inside the namespace.
func (d *Device) settleAdopted() error {
	formerly := d.cut.guardNames()
	d.describe()
	switch was := FailState(d.cut.get(offFail)); {
	case was == d.opts.OnFailure:
	case was == FailShut:
		d.fails = FailOpen
		err := d.attachDirect()
		if err == nil {
			err = d.unshut()
		}
		if err != nil {
			d.reshut()
			d.fails = FailShut
			return errors.Join(err, d.detachDirect())
		}
		d.feed()
	default:
		if err := d.shut(); err != nil {
			return err
		}
		d.fails = FailShut
		if err := d.detachDirect(); err != nil {
			return err
		}
	}
	d.raiseGuard()
	return errors.Join(d.forbidBypass(), d.settleBan(), d.dropGuards(formerly))
}

// attachDirect attaches what only a cut has that fails open: of two NICs by tcx the plain
// pair.
func (d *Device) attachDirect() error {
	h := d.byHook(d.info.Hook)
	for _, p := range d.points()[len(d.attached):] {
		a, err := h.attach(p)
		if err != nil {
			return err
		}
		d.attached = append(d.attached, a)
		if err := a.keep(); err != nil {
			return err
		}
	}
	return nil
}

// detachDirect takes off what attachDirect has attached.
func (d *Device) detachDirect() error {
	var errs []error
	n := len(d.points())
	for _, a := range d.attached[n:] {
		errs = append(errs, a.detach())
	}
	d.attached = d.attached[:n]
	return errors.Join(errs...)
}

// shut makes a cut that ended with its process outlive this one.
func (d *Device) shut() error {
	if err := makePinDir(d.pins); err != nil {
		return err
	}
	path := filepath.Join(d.pins, cutPin)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := d.cut.pin(path); err != nil {
			return fmt.Errorf("pin the map of the cut in %s: %w", d.pins, permission(err))
		}
	}
	for _, t := range []*Tap{d.kernel, d.wire} {
		if err := t.tap.persistent(true); err != nil {
			return err
		}
	}
	for _, a := range d.attached {
		if err := a.keep(); err != nil {
			return err
		}
	}
	d.cut.set(offFail, uint32(FailShut))
	d.starve()
	d.cut.setDeadline(0)
	return nil
}
