//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// A record is what a process has pinned of a cut. It is kept under the interface's
// index, which a rename does not change; the map has its names, by which it is found
// when no interface of that index is there any more.
type record struct {
	key   key
	pins  string
	names []string // by which the cut was opened, and the last one known
	fail  FailState
	index int // of the interface cut last; another than key's in the midst of a move
}

func (c *cut) setName(off int, name string) {
	clear(c.mem[off : off+nameSize])
	copy(c.mem[off:off+nameSize-1], name)
}

func (c *cut) name(off int) string {
	b, _, _ := bytes.Cut(c.mem[off:off+nameSize], []byte{0})
	return string(b)
}

// guardNames are those of the tables of a cut's guards.
func (c *cut) guardNames() []string {
	names := c.names()
	if n := c.name(offInsideName); n != "" {
		names = append(names, n)
	}
	return names
}

func (c *cut) names() []string {
	return slices.DeleteFunc(slices.Compact([]string{c.name(offOpenedName), c.name(offName)}), func(n string) bool { return n == "" })
}

func (c *cut) record(k key, pins string) record {
	return record{k, pins, c.names(), FailState(c.get(offFail)), int(c.get(offEthIndex))}
}

// recordsOf finds the records of a namespace that have a name.
func recordsOf(dir string, netns uint64, name string) ([]record, error) {
	if dir == "" {
		dir = DefaultPinDir
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the directory of pins: %w", permission(err))
	}
	var found []record
	for _, e := range entries {
		ns, index, _ := strings.Cut(e.Name(), "-")
		k := key{netns: netns}
		if k.ifindex, err = strconv.Atoi(index); err != nil || ns != strconv.FormatUint(netns, 10) {
			continue
		}
		pins := filepath.Join(dir, e.Name())
		c, err := loadCut(filepath.Join(pins, cutPin))
		if err != nil {
			continue // of another version, or half removed; its own index finds it
		}
		// An inside NIC's directory has the map of its outside.
		if r := c.record(k, pins); slices.Contains(r.names, name) && int(c.get(offInsideIndex)) != k.ifindex {
			found = append(found, r)
		}
		c.close()
	}
	return found, nil
}

// orphaned tells whether a record is of a cut that was left shut and whose interface
// is gone. Its taps prove that it is of this namespace, and not of an ended one whose
// number this one was given.
func (r *record) orphaned(nl *netlink.Handle) bool {
	if r.fail != FailShut || linkThere(nl, r.key.ifindex) && r.index == r.key.ifindex {
		return false
	}
	return tapOf(nl, r.key.ifindex) != nil || tapOf(nl, r.index) != nil
}

func linkThere(nl *netlink.Handle, index int) bool {
	_, err := nl.LinkByIndex(index)
	return !errors.As(err, new(netlink.LinkNotFoundError))
}

// tapOf finds the kernel tap of the interface with an index, nil if there is none.
func tapOf(nl *netlink.Handle, index int) netlink.Link {
	htap, _ := tapNames(index)
	if l, err := nl.LinkByName(htap); err == nil && ownTap(l) {
		return l
	}
	return nil
}

// adopt looks for a cut left shut whose interface is gone and had the name that eth
// has, and makes it eth's: its pins and its taps. It returns nil if there is none. The
// caller holds eth's lock.
func (d *Device) adopt(eth netlink.Link) (*cut, error) {
	rs, err := recordsOf(d.opts.PinDir, d.info.NetNS, d.info.Name)
	if err != nil {
		return nil, err
	}
	for _, r := range rs {
		if r.key.ifindex == d.info.Index || !r.orphaned(d.nl) {
			continue
		}
		lock, err := takeLock(r.key, d.info.Name)
		if err != nil {
			return nil, err
		}
		c, err := d.takeRecord(eth, r)
		return c, errors.Join(err, lock.release())
	}
	return nil, nil
}

func (d *Device) takeRecord(eth netlink.Link, r record) (*cut, error) {
	if err := d.moveRecord(eth, r.pins); err != nil {
		return nil, err
	}
	return loadCut(filepath.Join(d.pins, cutPin))
}

// moveRecord makes the pins of another index those of eth. What eth had is dead.
func (d *Device) moveRecord(eth netlink.Link, from string) error {
	index := eth.Attrs().Index
	to := pinPath(d.opts.PinDir, key{d.info.NetNS, index})
	if err := clearLeft(d.nl, eth, index, to); err != nil {
		return err
	}
	if err := os.Rename(from, to); err != nil {
		return fmt.Errorf("move the pins of %s: %w", eth.Attrs().Name, permission(err))
	}
	d.pins = to
	return nil
}

// moveTaps gives the taps of one index the names that belong to another. It does
// nothing where that has been done.
func moveTaps(nl *netlink.Handle, from, to int) error {
	oldKernel, oldWire := tapNames(from)
	newKernel, newWire := tapNames(to)
	for _, n := range [][2]string{{oldKernel, newKernel}, {oldWire, newWire}} {
		l, err := nl.LinkByName(n[0])
		if n[0] == n[1] || errors.As(err, new(netlink.LinkNotFoundError)) {
			continue
		}
		if err == nil && !ownTap(l) {
			continue
		}
		if err == nil {
			err = renameLink(nl, l, n[1])
		}
		if err != nil {
			return fmt.Errorf("name the tap %s %s: %w", n[0], n[1], permission(err))
		}
	}
	return nil
}

// renameLink renames a link that may be up, for which kernels below 6.2 want it down.
func renameLink(nl *netlink.Handle, l netlink.Link, name string) error {
	if nl.LinkSetName(l, name) == nil {
		return nil
	}
	if err := nl.LinkSetDown(l); err != nil {
		return err
	}
	return errors.Join(nl.LinkSetName(l, name), nl.LinkSetUp(l))
}
