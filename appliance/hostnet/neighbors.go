//go:build linux

package hostnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Neighbor is a station that the kernel knows on an interface.
type Neighbor struct {
	Address netip.Addr
	MAC     net.HardwareAddr // 6 octets
}

// learned are the states of entries that the kernel sends by and has itself found out
// (RFC 4861 §7.3.2); permanent ones and those that need no finding out are not among them.
const learned = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE

// Neighbors lists the stations that the kernel has found by the interface with that
// index and sends to, IPv4 and then IPv6. netns is as at Read.
func Neighbors(path string, index int) (list []Neighbor, err error) {
	err = inNamespace(path, func(ns nsHandle) error {
		h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("open rtnetlink: %w", err)
		}
		defer h.Close()
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			var entries []netlink.Neigh
			if err := uninterrupted(func() (err error) {
				entries, err = h.NeighList(index, family)
				return err
			}); err != nil {
				return fmt.Errorf("list neighbours: %w", err)
			}
			for _, e := range entries {
				a, ok := netip.AddrFromSlice(e.IP)
				if !ok || e.State&learned == 0 || len(e.HardwareAddr) != 6 || e.HardwareAddr[0]&1 != 0 {
					continue
				}
				list = append(list, Neighbor{a.Unmap(), e.HardwareAddr})
			}
		}
		return nil
	})
	return list, err
}
