//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Recover restores the flow of an interface that a process left shut, without
// taking it over: it removes programs, pins, taps and guard. Of two NICs, of which Interface
// names the outside, it leaves the programs that let each pass its frames to the
// other; Remove ends those as well. It also deletes the neighbour entries that hold the
// interface's own Ethernet address, as Device.CorrectNeighbors does. Of o it uses
// Interface, NetNS and PinDir. Interface may also be the name by which an interface was cut that has
// another since, that is gone, or that was created anew. If nothing was left it does
// nothing; if a process holds the interface it returns ErrBusy.
func Recover(o Options) error { return giveBack(o, leaveDirect) }

// Remove is Recover, but removes all that was left in the two-NIC form too: both NICs
// are the box's own kernel's again, and nothing passes between them.
func Remove(o Options) error {
	return giveBack(o, func(*netlink.Handle, netlink.Link, string) (bool, error) { return false, nil })
}

// giveBack removes what was left unless keep says that it has seen to it.
func giveBack(o Options, keep func(*netlink.Handle, netlink.Link, string) (bool, error)) error {
	return o.lookAt(func(nl *netlink.Handle, ino uint64) error {
		eth, missing := findInterface(nl, o.Interface)
		if missing != nil && !errors.Is(missing, ErrNoInterface) {
			return missing
		}
		found, guards := false, []string{o.Interface}
		var opened []int
		var errs []error
		one := func(k key, l netlink.Link) {
			lock, err := awaitLock(k, o.Interface, lockPatience)
			if err != nil {
				errs = append(errs, err)
				return
			}
			pins := pinPath(o.PinDir, k)
			if c, err := loadCut(filepath.Join(pins, cutPin)); err == nil {
				guards = append(guards, c.guardNames()...)
				c.close()
			}
			_, notLeft := os.Stat(pins)
			found = found || notLeft == nil
			if l != nil {
				if outer, ok := insideOf(nl, l, pins); ok {
					errs = append(errs, because(ErrOccupied, "%s is the inside of interface %d; recover that one", o.Interface, outer), lock.release())
					return
				}
				// What cannot be understood can still be removed.
				if kept, err := keep(nl, l, pins); kept {
					errs = append(errs, err, lock.release())
					return
				}
			}
			errs = append(errs, clearLeft(nl, l, k.ifindex, pins))
			if notLeft == nil && l != nil {
				_, err := correctNeighbors(nl, l, nil)
				errs = append(errs, err)
				opened = append(opened, k.ifindex)
			}
			errs = append(errs, lock.release())
		}
		if eth != nil {
			one(key{ino, eth.Attrs().Index}, eth)
		}
		rs, err := recordsOf(o.PinDir, ino, o.Interface)
		errs = append(errs, err)
		for _, r := range rs {
			l, err := nl.LinkByIndex(r.key.ifindex)
			if err != nil {
				l = nil
			}
			// One that lives under another name is not meant where the name is another's.
			if eth == nil || l == nil {
				one(r.key, l)
			}
		}
		if errors.Is(errors.Join(errs...), ErrBusy) {
			return errors.Join(errs...) // the guard is the holder's
		}
		slices.Sort(guards)
		for _, name := range slices.Compact(guards) {
			was, err := removeGuard(name)
			found = found || was
			errs = append(errs, err)
		}
		for _, index := range opened {
			errs = append(errs, askNeighborsAnew(nl, index))
		}
		if eth == nil && !found {
			errs = append(errs, missing)
		}
		return errors.Join(errs...)
	})
}

// lookAt checks the options, opens their namespace and runs fn in it.
func (o *Options) lookAt(fn func(nl *netlink.Handle, netns uint64) error) error {
	if err := o.complete(); err != nil {
		return err
	}
	if err := checkCapabilities(); err != nil {
		return err
	}
	ns, ino, err := openNamespace(o.NetNS)
	if err != nil {
		return err
	}
	defer ns.Close()
	return inNamespace(ns, func() error {
		nl, err := netlink.NewHandle()
		if err != nil {
			return fmt.Errorf("open netlink: %w", permission(err))
		}
		defer nl.Close()
		return fn(nl, ino)
	})
}

// clearLeft removes whatever a process may have left of a cut, the interface's
// programs first, but for the guard. The caller holds the interface's lock, so nobody
// uses it. eth is nil when the interface with that index is gone.
func clearLeft(nl *netlink.Handle, eth netlink.Link, index int, pins string) error {
	qdisc, was := false, index
	var errs []error
	if c, err := loadCut(filepath.Join(pins, cutPin)); err == nil {
		qdisc, was = c.get(offQdisc) != 0, int(c.get(offEthIndex))
		if was == index {
			errs = append(errs, clearInside(nl, c, pins))
		}
		c.close()
	}
	if eth != nil {
		errs = append(errs, undoUDPForwarding(pins, eth.Attrs().Name))
	}
	for _, pin := range []string{"eth_out", "eth_in"} {
		if err := os.Remove(filepath.Join(pins, pin)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unpin: %w", permission(err)))
		}
	}
	if eth != nil {
		errs = append(errs, clearFilters(nl, eth, qdisc))
	}
	for _, i := range slices.Compact([]int{index, was}) {
		if i != index && linkThere(nl, i) {
			continue // a move was cut short, and the number is another's now
		}
		htap, ltap := tapNames(i)
		errs = append(errs, removeTap(nl, htap), removeTap(nl, ltap))
	}
	return errors.Join(append(errs, removePinDir(pins))...)
}

// clearFilters removes our filters from an interface, and the qdisc if it is ours.
func clearFilters(nl *netlink.Handle, eth netlink.Link, qdisc bool) error {
	fs, err := ownFilters(nl, eth)
	errs := []error{err}
	for _, f := range fs {
		if err := nl.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("delete a filter of %s: %w", eth.Attrs().Name, permission(err)))
		}
	}
	if qdisc {
		errs = append(errs, removeQdisc(nl, eth))
	}
	return errors.Join(errs...)
}
