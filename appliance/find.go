package appliance

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"bitw/appliance/hostnet"
)

// A FoundInterface is what a first configuration wants to know of an interface.
type FoundInterface struct {
	Name      string
	MTU       int // octets
	Addresses []netip.Prefix
}

// FindInterface reads an interface of this network namespace: that of the name, or for ""
// the one by which the default route of IPv4, or else of IPv6, goes. It changes nothing.
func FindInterface(name string) (*FoundInterface, error) {
	if name == "" {
		var err error
		if name, err = defaultInterface(); err != nil {
			return nil, err
		}
	}
	i, err := hostnet.Read("", name)
	if err != nil {
		return nil, err
	}
	return &FoundInterface{Name: i.Name, MTU: i.MTU, Addresses: slices.Clone(i.Addresses)}, nil
}

// defaultInterface is the one of the default route with the least metric.
func defaultInterface() (string, error) {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteList(nil, family)
		if err != nil {
			return "", fmt.Errorf("routes: %w", err)
		}
		best := -1
		for i, r := range routes {
			isDefault := r.Dst == nil
			if r.Dst != nil {
				ones, _ := r.Dst.Mask.Size()
				isDefault = ones == 0 && r.Dst.IP.IsUnspecified()
			}
			if isDefault && r.LinkIndex != 0 && (best < 0 || r.Priority < routes[best].Priority) {
				best = i
			}
		}
		if best >= 0 {
			link, err := netlink.LinkByIndex(routes[best].LinkIndex)
			if err != nil {
				return "", fmt.Errorf("the interface of the default route: %w", err)
			}
			return link.Attrs().Name, nil
		}
	}
	return "", errors.New("there is no default route that would tell the interface; name one: bitw init IFACE")
}
