//go:build linux

package ethtap

import (
	"errors"

	"github.com/vishvananda/netlink"
)

// Left tells whether a process that has ended left the interface shut, so that Open
// would take it over. It changes nothing. Of o it uses Interface, NetNS and PinDir. An
// interface is left shut also when it is kept shut by a guard, since it was created anew or
// by KeepShut, and a name when the interface that had it is gone or has another name, or
// when a guard waits for one. If a process
// holds the interface it returns ErrBusy; its other errors are Open's.
func Left(o Options) (bool, error) {
	left := false
	err := o.lookAt(func(nl *netlink.Handle, ino uint64) error {
		eth, missing := findInterface(nl, o.Interface)
		if missing != nil && !errors.Is(missing, ErrNoInterface) {
			return missing
		}
		if eth != nil {
			k := key{ino, eth.Attrs().Index}
			lock, err := takeLock(k, o.Interface)
			if err != nil {
				return err
			}
			c, err := findLeft(nl, eth, pinPath(o.PinDir, k))
			if c != nil {
				// Of two that pass their frames to each other nothing is shut.
				left = c.get(offInsideIndex) == 0 || FailState(c.get(offFail)) == FailShut
				if o.Inside == "" {
					err = fits(nl, c, o.Interface, "", 0)
				}
				c.close()
			}
			if err := errors.Join(err, lock.release()); err != nil || left {
				return err
			}
		}
		rs, err := recordsOf(o.PinDir, ino, o.Interface)
		if err != nil {
			return err
		}
		for _, r := range rs {
			renamed := eth == nil && r.fail == FailShut && linkThere(nl, r.key.ifindex)
			if !renamed && !r.orphaned(nl) {
				continue
			}
			lock, err := takeLock(r.key, o.Interface)
			if err != nil {
				return err
			}
			left = true
			return lock.release()
		}
		index := -1
		if eth != nil {
			index = eth.Attrs().Index
		}
		if left = guardBlocks(o.Interface, index); left {
			return nil
		}
		return missing
	})
	return left, err
}

// guardBlocks tells whether a guard keeps the interface with the index shut.
func guardBlocks(name string, index int) bool {
	kind, only := findGuard(name)
	return kind != GuardNone && only != index
}
