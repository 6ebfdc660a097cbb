//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// CorrectNeighbors puts right those dynamic IPv4 and IPv6 entries of the interface in
// the kernel's neighbour table that hold the interface's own Ethernet address, and
// returns how many it found: no neighbour has that, but whoever answers the kernel's
// ARP and neighbour discovery in the neighbours' place tells it so. An entry gets the
// Ethernet address that truth gives for it, as one that the kernel has yet to confirm.
// Where truth is nil or knows none the entry is deleted, and the kernel asks anew.
// While an interface is gone there is nothing to do.
//
// Call it before the flow becomes direct, when nobody answers in that way any more.
func (d *Device) CorrectNeighbors(truth func(netip.Addr) (net.HardwareAddr, bool)) (found int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return 0, ErrClosed
	case d.gone[outside]:
		return 0, nil
	}
	eth, err := d.nl.LinkByIndex(d.info.Index)
	if err != nil {
		return 0, fmt.Errorf("look for the interface %s: %w", d.info.Name, permission(err))
	}
	return correctNeighbors(d.nl, eth, truth)
}

func correctNeighbors(nl *netlink.Handle, eth netlink.Link, truth func(netip.Addr) (net.HardwareAddr, bool)) (found int, err error) {
	var errs []error
	own := eth.Attrs().HardwareAddr
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		ns, err := nl.NeighList(eth.Attrs().Index, family)
		if err != nil {
			errs = append(errs, fmt.Errorf("list neighbours: %w", err))
			continue
		}
		for i := range ns {
			n := &ns[i]
			if n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || !bytes.Equal(n.HardwareAddr, own) {
				continue
			}
			found++
			errs = append(errs, correctNeighbor(nl, n, truth))
		}
	}
	return found, errors.Join(errs...)
}

// AskNeighborsAnew has the kernel ask at once for the neighbours that it has asked for in
// vain so far. What waits for them goes on with the answer, instead of a second later, or
// not at all when the last of the kernel's questions had been asked while nothing passed.
// While an interface is gone there is nothing to do.
//
// Call it when frames pass again after a time in which none did.
func (d *Device) AskNeighborsAnew() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.closed:
		return ErrClosed
	case d.gone[outside]:
		return nil
	}
	return askNeighborsAnew(d.nl, d.info.Index)
}

func askNeighborsAnew(nl *netlink.Handle, index int) error {
	var errs []error
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		ns, err := nl.NeighListExecute(netlink.Ndmsg{Family: uint8(family), Index: uint32(index), State: netlink.NUD_INCOMPLETE})
		if err != nil {
			errs = append(errs, fmt.Errorf("list neighbours: %w", err))
			continue
		}
		for _, n := range ns {
			// To be in no state ends the old questions and keeps what waits; to be used asks.
			for _, flags := range []int{0, netlink.NTF_USE} {
				err := nl.NeighSet(&netlink.Neigh{LinkIndex: index, Family: n.Family, IP: n.IP, State: netlink.NUD_NONE, Flags: flags})
				if err != nil {
					errs = append(errs, fmt.Errorf("ask for the neighbour %s anew: %w", n.IP, permission(err)))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func correctNeighbor(nl *netlink.Handle, n *netlink.Neigh, truth func(netip.Addr) (net.HardwareAddr, bool)) error {
	if a, ok := netip.AddrFromSlice(n.IP); ok && truth != nil {
		if mac, ok := truth(a.Unmap()); ok {
			err := nl.NeighSet(&netlink.Neigh{
				LinkIndex: n.LinkIndex, Family: n.Family, IP: n.IP, HardwareAddr: mac,
				State: netlink.NUD_STALE, Flags: n.Flags & netlink.NTF_ROUTER,
			})
			if err != nil {
				return fmt.Errorf("correct the neighbour %s: %w", n.IP, permission(err))
			}
			return nil
		}
	}
	if err := nl.NeighDel(n); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete the neighbour %s: %w", n.IP, permission(err))
	}
	return nil
}
