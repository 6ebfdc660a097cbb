package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Usable says in one sentence why this process cannot make namespaces and cut
// interfaces in them, nil if it seems that it can.
func Usable() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("network namespaces need root, and the effective user id is %d", uid)
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("/dev/net/tun cannot be opened (%w)", err)
	}
	_ = unix.Close(tun)
	return nil
}

// A Namespace is a network namespace without a name.
type Namespace struct {
	ns *os.File
	nl *netlink.Handle
}

// New makes a namespace in which IPv6 addresses work at once, and where everybody may
// open ping sockets.
func New() (_ *Namespace, err error) {
	n := new(Namespace)
	err = onOwnThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("no network namespace can be made (%w)", err)
		}
		if n.ns, err = os.Open("/proc/thread-self/ns/net"); err != nil {
			return fmt.Errorf("the new network namespace cannot be opened (%w)", err)
		}
		if n.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return fmt.Errorf("netlink cannot be opened in the new network namespace (%w)", err)
		}
		for _, s := range []struct{ key, value string }{
			{"ipv6/conf/default/accept_dad", "0"},
			{"ipv6/conf/default/router_solicitations", "0"},
			{"ipv6/conf/default/accept_ra", "0"},
			{"ipv4/ping_group_range", "0 2147483647"}, // ping sockets for all groups
		} {
			if err := os.WriteFile(filepath.Join("/proc/sys/net", s.key), []byte(s.value), 0o644); err != nil {
				return fmt.Errorf("sysctl in the new network namespace (%w)", err)
			}
		}
		return nil
	})
	if err != nil {
		n.Close()
		return nil, err
	}
	return n, nil
}

// Join gives each of two namespaces an interface of that name, Ethernet address and
// MTU in octets, the ends of a veth. They are down.
func Join(a, b *Namespace, name string, macA, macB net.HardwareAddr, mtu int) error {
	near := netlink.NewLinkAttrs()
	near.Name, near.HardwareAddr, near.MTU = name, macA, mtu
	veth := &netlink.Veth{
		LinkAttrs: near, PeerName: name, PeerHardwareAddr: macB, PeerMTU: uint32(mtu),
		PeerNamespace: netlink.NsFd(b.Fd()),
	}
	if err := a.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("no veth can be made (%w)", err)
	}
	return nil
}

// Up gives an interface its addresses, and sets it and lo up.
func (n *Namespace) Up(iface string, addresses ...netip.Prefix) error {
	for _, name := range []string{"lo", iface} {
		l, err := n.nl.LinkByName(name)
		if err != nil {
			return err
		}
		if name == iface {
			for _, p := range addresses {
				addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
				if p.Addr().Is6() {
					addr.Flags = unix.IFA_F_NODAD
				}
				if err := n.nl.AddrAdd(l, addr); err != nil {
					return fmt.Errorf("%v: %w", p, err)
				}
			}
		}
		if err := n.nl.LinkSetUp(l); err != nil {
			return err
		}
	}
	return nil
}

// Index returns the number of an interface.
func (n *Namespace) Index(iface string) (int, error) {
	l, err := n.nl.LinkByName(iface)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// Fd is the descriptor of the namespace, which stays n's.
func (n *Namespace) Fd() int { return int(n.ns.Fd()) }

// Path opens the namespace in this process.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/self/fd/%d", n.ns.Fd()) }

// Close lets the namespace go. It ends when the last socket in it is closed.
func (n *Namespace) Close() {
	if n.nl != nil {
		n.nl.Close()
	}
	if n.ns != nil {
		_ = n.ns.Close()
	}
}

// Do runs f in the namespace, to which what f opens then belongs. Goroutines
// that f starts are outside of it.
func (n *Namespace) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that ends with it, so that no other goroutine
// ever finds itself in a namespace that is not its own.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go threadOf(f, done)
	return <-done
}

func threadOf(f func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The process's first thread never ends, and would keep the namespace: do it on
		// another while this one is held.
		defer runtime.UnlockOSThread()
		next := make(chan error, 1)
		go threadOf(f, next)
		done <- <-next
		return
	}
	done <- f()
}
