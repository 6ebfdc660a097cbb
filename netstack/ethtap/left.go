//go:build linux

package ethtap

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Left tells whether a process that has ended left the interface shut, so that Open
// would take it over. It changes nothing. Of o it uses Interface, NetNS and PinDir.
// If a process holds the interface it returns ErrBusy; its other errors are Open's.
func Left(o Options) (bool, error) {
	if err := o.complete(); err != nil {
		return false, err
	}
	if err := checkCapabilities(); err != nil {
		return false, err
	}
	ns, ino, err := openNamespace(o.NetNS)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	left := false
	err = inNamespace(ns, func() error {
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
		c, err := findLeft(nl, eth, pinPath(o.PinDir, k))
		if c != nil {
			left = true
			if o.Inside == "" {
				err = fits(c, o.Interface, "", 0)
			}
			c.close()
		}
		return errors.Join(err, lock.release())
	})
	return left, err
}
