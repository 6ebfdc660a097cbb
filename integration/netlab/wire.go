package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is the wire's bridge.
const bridgeName = "br0"

// Host is a namespace with network cards.
type Host struct {
	Namespace
}

// Wire is an Ethernet segment: a namespace with a bridge in it that learns
// nothing of the layers above and says nothing itself.
type Wire struct {
	Namespace

	mu    sync.Mutex
	ports map[int]string // by interface index: the port's name
}

// CardOptions are the properties of a host's network card.
type CardOptions struct {
	// Addrs are its addresses with the length of the network's prefix.
	Addrs []netip.Prefix
	// MTU in octets, IP header included; 0 is 1500. Both ends of the cable get it.
	MTU int
	// NoOffload switches off checksum and segmentation offload on both ends of
	// the cable: frames are then complete and no longer than the MTU. With
	// offloads, which is how Linux comes, the wire sees superframes of up to
	// 64 KB with unfinished checksums.
	NoOffload bool
}

// Wire makes an empty wire.
func (l *Lab) Wire(name string) *Wire {
	l.t.Helper()
	ns, err := l.namespace(name)
	if err != nil {
		l.t.Fatal(err)
	}
	w := &Wire{Namespace: *ns, ports: make(map[int]string)}
	if err := w.build(); err != nil {
		l.t.Fatal(err)
	}
	return w
}

func (w *Wire) build() error {
	for _, where := range []string{"all", "default"} {
		if err := w.Sysctl("net/ipv6/conf/"+where+"/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	// A new bridge has spanning tree off, so a port forwards from its first
	// moment on. Without multicast snooping it floods every multicast, which is
	// what a plain cable does.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: attrs(bridgeName), MulticastSnooping: &snooping}
	if err := w.nl.LinkAdd(bridge); err != nil {
		return fmt.Errorf("netlab: making the bridge of %s: %w", w.name, err)
	}
	return w.setUp(bridgeName)
}

// Attach makes a device of the wire's namespace a port of the wire.
func (w *Wire) Attach(device string) error {
	bridge, err := w.nl.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("netlab: %w", err)
	}
	link, err := w.nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("netlab: no device %s in %s: %w", device, w.name, err)
	}
	if err := w.nl.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("netlab: making %s a port of %s: %w", device, w.name, err)
	}
	w.mu.Lock()
	w.ports[link.Attrs().Index] = device
	w.mu.Unlock()
	return w.setUp(device)
}

// port returns the name of the port with that interface index.
func (w *Wire) port(index int) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name, ok := w.ports[index]
	return name, ok
}

// AttachTAP makes a TAP device and a port of the wire out of it: what its opener
// writes is on the wire.
func (w *Wire) AttachTAP(name string) error {
	if err := w.TAP(name); err != nil {
		return err
	}
	return w.Attach(name)
}

// Host makes a host without network cards.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	ns, err := l.namespace(name)
	if err != nil {
		l.t.Fatal(err)
	}
	// Anybody may ping.
	if err := ns.Sysctl("net/ipv4/ping_group_range", "0 2147483647"); err != nil {
		l.t.Fatal(err)
	}
	return &Host{*ns}
}

// Plug gives the host a network card with that name and joins it to the wire,
// where its port is called "port-" and the host's name (and, unless the card is
// eth0, "-" and the card's name).
func (h *Host) Plug(w *Wire, card string, o CardOptions) error {
	port := "port-" + h.name
	if card != "eth0" {
		port += "-" + card
	}
	if len(port) >= unix.IFNAMSIZ {
		return fmt.Errorf("netlab: the port's name %s would be longer than the %d characters that Linux allows", port, unix.IFNAMSIZ-1)
	}
	link := attrs(card)
	if o.MTU != 0 {
		link.MTU = o.MTU
	}
	veth := &netlink.Veth{LinkAttrs: link, PeerName: port, PeerNamespace: netlink.NsFd(w.ns)}
	if err := h.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("netlab: joining %s's %s to %s: %w", h.name, card, w.name, err)
	}
	if o.MTU != 0 {
		far, err := w.nl.LinkByName(port)
		if err == nil {
			err = w.nl.LinkSetMTU(far, o.MTU)
		}
		if err != nil {
			return fmt.Errorf("netlab: MTU of %s: %w", port, err)
		}
	}
	if o.NoOffload {
		if err := h.offloadsOff(card); err != nil {
			return err
		}
		if err := w.offloadsOff(port); err != nil {
			return err
		}
	}
	if err := w.Attach(port); err != nil {
		return err
	}
	if err := h.setUp(card); err != nil {
		return err
	}
	for _, end := range []struct {
		n    *Namespace
		name string
	}{{&h.Namespace, card}, {&w.Namespace, port}} {
		if err := end.n.awaitUp(end.name); err != nil {
			return err
		}
	}
	return h.AddAddrs(card, o.Addrs...)
}

// awaitUp waits until the kernel has noticed that a device has a link, which it does some time
// after both ends are up. Before that the bridge drops what comes in by the device.
func (n *Namespace) awaitUp(name string) error {
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		link, err := n.nl.LinkByName(name)
		if err != nil {
			return fmt.Errorf("netlab: no device %s in %s: %w", name, n.name, err)
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("netlab: %s in %s does not come up: %v", name, n.name, link.Attrs().OperState)
		}
	}
}

// AddAddrs gives a device of the host more addresses; they are usable at once.
func (h *Host) AddAddrs(device string, addrs ...netip.Prefix) error {
	link, err := h.nl.LinkByName(device)
	if err != nil {
		return fmt.Errorf("netlab: no device %s in %s: %w", device, h.name, err)
	}
	for _, prefix := range addrs {
		addr, err := netlink.ParseAddr(prefix.String())
		if err != nil {
			return fmt.Errorf("netlab: %w", err)
		}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := h.nl.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("netlab: address %v for %s in %s: %w", prefix, device, h.name, err)
		}
	}
	return nil
}

// AddRoute adds a route to a prefix through a next hop.
func (h *Host) AddRoute(to netip.Prefix, via netip.Addr) error {
	destination := &net.IPNet{IP: to.Addr().AsSlice(), Mask: net.CIDRMask(to.Bits(), to.Addr().BitLen())}
	if err := h.nl.RouteAdd(&netlink.Route{Dst: destination, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("netlab: route to %v via %v in %s: %w", to, via, h.name, err)
	}
	return nil
}
