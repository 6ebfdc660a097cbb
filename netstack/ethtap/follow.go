//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// Follow brings the cut to what has become of the interface. With the index that the
// device has, the interface has another name or MAC, or nothing has changed. With
// another, an interface has taken the place of the former one, which is gone: it is
// cut, and taps, queues, states and counters stay as they are; the caller's readers
// notice nothing. With 0 there is no interface for now.
//
// After an error Follow can be called again; until it succeeds nothing that an
// Active tap stops passes, under FailShut as far as Guard says, unless FailOpen is
// chosen. The errors match ErrNoInterface, ErrNotEthernet, ErrBusy and ErrPermission, and
// ErrHeld during a handover.
func (d *Device) Follow(index int) error { return d.followSide(outside, index) }

// FollowInside is Follow for the inside NIC of two.
func (d *Device) FollowInside(index int) error { return d.followSide(inside, index) }

func (d *Device) followSide(side, index int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.held.Load() != nil:
		return ErrHeld
	case side == inside && !d.twoNIC():
		return because(ErrNoInterface, "%s is cut alone", d.info.Name)
	}
	if index == 0 {
		d.gone[side] = true
		d.pause()
		return d.InNamespace(func() error {
			d.raiseGuard()
			return nil
		})
	}
	return d.InNamespace(func() error {
		l, err := d.nl.LinkByIndex(index)
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return because(ErrNoInterface, "no interface with index %d for %s", index, d.guarded()[side].name)
		}
		if err != nil {
			return fmt.Errorf("look for the interface with index %d: %w", index, permission(err))
		}
		if err := fitToCut(l); err != nil {
			return err
		}
		was := d.gone[side]
		d.gone[side] = false
		if side == inside {
			err = d.followInside(l)
		} else {
			err = d.follow(l)
		}
		d.gone[side] = was && err != nil
		d.pause()
		return err
	})
}

// CheckCut puts the programs back in their places that somebody has taken off, as he does
// who deletes a qdisc, and tells whether there were any: what came since has passed by
// itself. An interface that is gone, or another, is for Follow.
func (d *Device) CheckCut() (restored bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return false, ErrClosed
	case d.held.Load() != nil:
		return false, nil
	}
	err = d.InNamespace(func() error {
		missing := false
		for i, p := range d.points() {
			if d.isGone(p.ifindex) || !linkThere(d.nl, p.ifindex) {
				return nil
			}
			missing = missing || !d.attached[i].holds(p.ifindex)
		}
		if !missing {
			return nil
		}
		err := d.attachAgain()
		restored = err == nil
		return err
	})
	return restored, err
}

// CheckTaps sets up the taps that somebody has set down, by which nothing passes, and
// tells whether there were any. A tap that was deleted or went to another namespace is
// ErrNoTap: what an Active tap stops does not pass until the device is opened anew.
func (d *Device) CheckTaps() (restored bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return false, ErrClosed
	case d.held.Load() != nil:
		return false, nil
	}
	err = d.InNamespace(func() error {
		for _, t := range []*Tap{d.kernel, d.wire} {
			l, err := d.nl.LinkByIndex(t.tap.index)
			if errors.As(err, new(netlink.LinkNotFoundError)) {
				return because(ErrNoTap, "%s was deleted, or moved to another network namespace", t.Name())
			}
			if err != nil {
				return fmt.Errorf("look for the tap %s: %w", t.Name(), permission(err))
			}
			if l.Attrs().Flags&net.FlagUp != 0 {
				continue
			}
			if err := d.nl.LinkSetUp(l); err != nil {
				return fmt.Errorf("set %s up: %w", t.Name(), permission(err))
			}
			restored = true
		}
		return nil
	})
	return restored, err
}

// pause keeps the programs from the taps while an interface is gone: one that went to
// another namespace took them with it, and the taps' numbers mean others there.
func (d *Device) pause() {
	if d.gone == [2]bool{} {
		return
	}
	d.cut.set(offKernelIndex, 0)
	d.cut.set(offWireIndex, 0)
}

// isGone tells whether the interface with an index is known to be gone.
func (d *Device) isGone(index int) bool {
	for side, g := range d.guarded() {
		if d.gone[side] && g.index == index {
			return true
		}
	}
	return false
}

// goneNames are the interfaces that are gone.
func (d *Device) goneNames() string {
	var names []string
	for side, g := range d.guarded() {
		if d.gone[side] {
			names = append(names, g.name)
		}
	}
	return strings.Join(names, " and ")
}

// follow runs inside the namespace.
func (d *Device) follow(eth netlink.Link) error {
	index := eth.Attrs().Index
	if index != d.info.Index {
		if err := d.move(eth); err != nil {
			return err
		}
	}
	d.note(eth)
	d.describe()
	for _, q := range d.wire.queues {
		if q.send != nil {
			if err := q.send.bind(index); err != nil {
				return fmt.Errorf("send by %s: %w", d.info.Name, permission(err))
			}
		}
	}
	if err := d.attachAgain(); err != nil {
		return err
	}
	if d.udpForwarding {
		_ = d.setUDPForwarding() // without, datagrams come one by one
	}
	d.raiseGuard()
	return d.lock.write(d.info.Name)
}

// followInside is follow for the inside NIC.
func (d *Device) followInside(l netlink.Link) error {
	a := l.Attrs()
	var former *lockFile
	if a.Index != d.info.InsideIndex {
		lock, err := takeLock(key{d.info.NetNS, a.Index}, a.Name)
		if err != nil {
			return err
		}
		if err := errors.Join(clearLeft(d.nl, l, a.Index, pinPath(d.opts.PinDir, key{d.info.NetNS, a.Index})), removePinDir(d.insidePins)); err != nil {
			return errors.Join(err, lock.release())
		}
		d.freshInside()
		former, d.insideLock = d.insideLock, lock
	}
	d.infoMu.Lock()
	d.setInside(l)
	d.infoMu.Unlock()
	d.describe()
	if err := d.attachAgain(); err != nil {
		return err
	}
	d.raiseGuard()
	if former != nil {
		if err := former.release(); err != nil {
			return err
		}
	}
	return d.insideLock.write(d.info.Inside)
}

// note takes over what the interface is now.
func (d *Device) note(eth netlink.Link) {
	d.infoMu.Lock()
	defer d.infoMu.Unlock()
	d.setInfo(eth)
}

// move makes all that is kept under the former interface's index eth's: lock, pins and
// the names of the taps.
func (d *Device) move(eth netlink.Link) error {
	index := eth.Attrs().Index
	lock, err := takeLock(key{d.info.NetNS, index}, eth.Attrs().Name)
	if err != nil {
		return err
	}
	_ = os.Remove(forwardingNote(d.pins)) // of an interface that is gone
	if _, err := os.Stat(d.pins); err == nil {
		if err := d.moveRecord(eth, d.pins); err != nil {
			return errors.Join(err, lock.release())
		}
		for _, a := range d.attached {
			a.moved(d.pins)
		}
	} else {
		d.pins = pinPath(d.opts.PinDir, key{d.info.NetNS, index})
	}
	former := d.info.Index
	d.note(eth)
	// From here on the device is the new interface's, whatever fails.
	d.lock, lock = lock, d.lock
	d.cut.set(offQdisc, 0)
	d.cut.set(offPromisc, d.cut.get(offPromisc)&^promiscOutside)
	err = moveTaps(d.nl, former, index)
	if err == nil {
		htap, ltap := tapNames(index)
		d.kernel.tap.name.Store(&htap)
		d.wire.tap.name.Store(&ltap)
	}
	return errors.Join(err, lock.release())
}

// attachAgain puts the programs in their places on the interface that are not there.
func (d *Device) attachAgain() error {
	if d.twoNIC() {
		if err := d.join(); err != nil {
			return err
		}
	}
	h := d.byHook(d.info.Hook)
	for i, p := range d.points() {
		former := d.attached[i]
		if former.holds(p.ifindex) || d.isGone(p.ifindex) {
			continue
		}
		a, err := h.attach(p) // which removes the former one's pin
		if err != nil {
			return err
		}
		d.attached[i] = a
		if err := former.release(); err != nil {
			return fmt.Errorf("let go of %s: %w", p.name, err)
		}
		if d.opts.OnFailure == FailShut || p.stays {
			if err := a.keep(); err != nil {
				return err
			}
		}
	}
	return nil
}
