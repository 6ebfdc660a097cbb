//go:build linux

package hostnet

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// concerns tells whether a notification may mean a change of the interface with
// that index; index 0 stands for an interface that is gone. It leans to yes: a
// snapshot in vain costs little, a missed change is an error.
func concerns(m syscall.NetlinkMessage, index int) bool {
	if index == 0 {
		return m.Header.Type == unix.RTM_NEWLINK
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWADDR:
		// struct ifinfomsg and struct ifaddrmsg both have the index at octet 4.
		return len(m.Data) < 8 || int(order.Uint32(m.Data[4:])) == index
	case unix.RTM_DELADDR:
		// With an address of any interface the kernel takes away, silently, the
		// routes that prefer it as their source.
		return true
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r, err := parseRoute(m.Data)
		if err != nil {
			return true
		}
		return r.concerns(index, m.Header.Flags&unix.NLM_F_REPLACE != 0)
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP:
		// What routes by a next hop object do is told for the object alone.
		return true
	case unix.NLMSG_OVERRUN:
		return true
	}
	return false
}

// ends tells that the interface with an index was deleted or left the namespace. A bridge
// that lets a port go says so in its own family.
func ends(m syscall.NetlinkMessage, index int) bool {
	return m.Header.Type == unix.RTM_DELLINK && len(m.Data) >= 8 && m.Data[0] == unix.AF_UNSPEC && int(order.Uint32(m.Data[4:])) == index
}

// concerns tells whether news of a route may mean a change for a device. A route
// that replaces another may take one away from the device without naming it.
func (r route) concerns(index int, replaces bool) bool {
	if r.family != unix.AF_INET && r.family != unix.AF_INET6 || r.table != unix.RT_TABLE_MAIN {
		return false
	}
	if replaces || r.unresolved() {
		return true
	}
	for _, h := range r.hops {
		if h.oif == index {
			return true
		}
	}
	return false
}
