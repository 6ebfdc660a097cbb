//go:build linux

package ethtap

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// KeepShut raises the guard of an interface before it is cut, as at boot, also of one that
// is not there yet: nothing passes until Open has cut it, which begins with both taps
// Active, or Recover gives it back. Of o it uses Interface, Inside, of which the guard is
// then too, NetNS and PinDir. If a process holds either interface it returns ErrBusy and
// changes nothing; ErrNotEthernet is for what Open could never cut, and ErrOccupied also for
// two NICs that were left to each other, whose frames no guard sees.
func KeepShut(o Options) (kind GuardKind, err error) {
	names := []string{o.Interface}
	if o.Inside != "" {
		names = append(names, o.Inside)
	}
	err = o.lookAt(func(nl *netlink.Handle, ino uint64) error {
		var keys []key
		for _, name := range names {
			l, err := findInterface(nl, name)
			switch {
			case err == nil:
				keys = append(keys, key{ino, l.Attrs().Index})
			case !errors.Is(err, ErrNoInterface):
				return err
			}
			rs, err := recordsOf(o.PinDir, ino, name)
			if err != nil {
				return err
			}
			for _, r := range rs { // one that waits for its interface is busy too
				if !slices.Contains(keys, r.key) {
					keys = append(keys, r.key)
				}
			}
		}
		var held undo
		defer held.all()
		for _, k := range keys {
			lock, err := awaitLock(k, o.Interface, lockPatience)
			if err != nil {
				return err
			}
			held.add(func() { lock.release() })
			if c, err := loadCut(filepath.Join(pinPath(o.PinDir, k), cutPin)); err == nil {
				joined := c.get(offInsideIndex) != 0 && FailState(c.get(offFail)) == FailOpen
				c.close()
				if joined {
					return because(ErrOccupied, "%s was left as one of two interfaces that pass their frames to each other; recover it with --release first", o.Interface)
				}
			}
		}
		kind, err = setGuard(o.Interface, names, 0) // no interface has this index
		return err
	})
	return kind, err
}

// KeptShut are the names of the interfaces of the namespace at path netNS, "" for the
// calling thread's, that a guard keeps shut now, or would from their creation on; of two
// NICs that KeepShut was called with, the outside's. It changes nothing.
func KeptShut(netNS string) (names []string, err error) {
	o := Options{Interface: "lo", NetNS: netNS}
	err = o.lookAt(func(nl *netlink.Handle, _ uint64) error {
		for _, f := range guardFamilies {
			ts, err := new(nftables.Conn).ListTablesOfFamily(f.family)
			if err != nil {
				continue // a kernel without nftables has no guards
			}
			for _, t := range ts {
				name, ours := strings.CutPrefix(t.Name, guardPrefix)
				if !ours || name == "" {
					continue
				}
				index := -1
				if l, err := nl.LinkByName(name); err == nil {
					index = l.Attrs().Index
				}
				if guardBlocks(name, index) && !slices.Contains(names, name) {
					names = append(names, name)
				}
			}
		}
		return nil
	})
	return names, err
}
