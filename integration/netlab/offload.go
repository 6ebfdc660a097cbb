package netlab

import (
	"fmt"

	"bitw/appliance/netns"
)

// offloadsOff makes a device send and receive frames as a wire would have them.
func (n *Namespace) offloadsOff(device string) error {
	if err := n.Do(func() error { return netns.OffloadsOff(device) }); err != nil {
		return fmt.Errorf("netlab: offloads in %s: %w", n.name, err)
	}
	return nil
}
