//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Recover restores the flow of an interface that a process left shut, without
// taking it over: it removes programs, pins and taps. Of two NICs, of which Interface
// names the outside, it leaves the programs that let each pass its frames to the
// other; Remove ends those as well. Of o it uses Interface, NetNS, PinDir and
// FlushNeighborsOnClose, by which it deletes those neighbour entries
// alone that hold the interface's own Ethernet address: it cannot know who taught the
// kernel what. If nothing was left it does nothing; if a process holds the
// interface it returns ErrBusy.
func Recover(o Options) error { return giveBack(o, leaveDirect) }

// Remove is Recover, but removes all that was left in the two-NIC form too: both NICs
// are the box's own kernel's again, and nothing passes between them.
func Remove(o Options) error {
	return giveBack(o, func(*netlink.Handle, netlink.Link, string) (bool, error) { return false, nil })
}

// giveBack removes what was left unless keep says that it has seen to it.
func giveBack(o Options, keep func(*netlink.Handle, netlink.Link, string) (bool, error)) error {
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
			return fmt.Errorf("ethtap: open netlink: %w", permission(err))
		}
		defer nl.Close()
		eth, err := findInterface(nl, o.Interface)
		if err != nil {
			return err
		}
		k := key{ino, eth.Attrs().Index}
		lock, err := takeLock(k, o.Interface)
		if err != nil {
			return err
		}
		pins := pinPath(o.PinDir, k)
		_, notLeft := os.Stat(pins)
		if outer, ok := insideOf(nl, eth, pins); ok {
			return errors.Join(because(ErrOccupied, "ethtap: %s is the inside of interface %d; recover that one", o.Interface, outer), lock.release())
		}
		// What cannot be understood can still be removed.
		if kept, err := keep(nl, eth, pins); kept {
			return errors.Join(err, lock.release())
		}
		err = clearLeft(nl, eth, pins)
		if o.FlushNeighborsOnClose && notLeft == nil {
			ns, lerr := dynamicNeighbors(nl, k.ifindex)
			ns = slices.DeleteFunc(ns, func(n netlink.Neigh) bool { return !bytes.Equal(n.HardwareAddr, eth.Attrs().HardwareAddr) })
			err = errors.Join(err, lerr, deleteNeighbors(nl, ns))
		}
		return errors.Join(err, lock.release())
	})
}

// clearLeft removes whatever a process may have left of a cut, the interface's
// programs first. The caller holds the interface's lock, so nobody uses it.
func clearLeft(nl *netlink.Handle, eth netlink.Link, pins string) error {
	qdisc := false
	var errs []error
	if c, err := loadCut(filepath.Join(pins, cutPin)); err == nil {
		qdisc = c.get(offQdisc) != 0
		if int(c.get(offEthIndex)) == eth.Attrs().Index {
			errs = append(errs, clearInside(nl, c, pins))
		}
		c.close()
	}
	for _, pin := range []string{"eth_out", "eth_in"} {
		if err := os.Remove(filepath.Join(pins, pin)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("ethtap: unpin: %w", permission(err)))
		}
	}
	fs, err := ownFilters(nl, eth)
	errs = append(errs, err)
	for _, f := range fs {
		if err := nl.FilterDel(f); err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("ethtap: delete a filter of %s: %w", eth.Attrs().Name, permission(err)))
		}
	}
	if qdisc {
		errs = append(errs, removeQdisc(nl, eth))
	}
	htap, ltap := tapNames(eth.Attrs().Index)
	errs = append(errs, removeTap(nl, htap), removeTap(nl, ltap), removePinDir(pins))
	return errors.Join(errs...)
}
