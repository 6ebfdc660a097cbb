package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 and the netns module keep named namespaces.
const netnsDir = "/run/netns"

// Namespace is a network namespace of a lab. Its methods may be used by several
// goroutines at once, until the lab's test ends.
type Namespace struct {
	lab  *Lab
	name string
	ns   netns.NsHandle
	nl   *netlink.Handle
}

// namespace makes a namespace with "lo" up and without IPv6 duplicate address
// detection and router solicitation, so that addresses work at once and the
// wire stays quiet.
func (l *Lab) namespace(name string) (*Namespace, error) {
	if err := l.claim(name); err != nil {
		return nil, err
	}
	n := &Namespace{lab: l, name: name}
	full := l.name + "-" + name
	var err error
	if n.ns, err = makeNamed(full); err != nil {
		return nil, fmt.Errorf("netlab: making the namespace %s: %w", full, err)
	}
	l.t.Cleanup(func() {
		if n.nl != nil {
			n.nl.Close()
		}
		n.ns.Close()
		if err := netns.DeleteNamed(full); err != nil {
			l.t.Errorf("netlab: removing the namespace %s: %v", full, err)
		}
	})
	if n.nl, err = netlink.NewHandleAt(n.ns, unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("netlab: netlink in %s: %w", full, err)
	}
	for _, where := range []string{"all", "default"} {
		for _, key := range []string{"accept_dad", "dad_transmits", "router_solicitations", "accept_ra", "autoconf"} {
			if err := n.Sysctl("net/ipv6/conf/"+where+"/"+key, "0"); err != nil {
				return nil, err
			}
		}
	}
	lo, err := n.nl.LinkByName("lo")
	if err == nil {
		err = n.nl.LinkSetUp(lo)
	}
	if err != nil {
		return nil, fmt.Errorf("netlab: lo in %s: %w", full, err)
	}
	return n, nil
}

// makeNamed makes a namespace with a name in /run/netns. The thread that does it
// stays in the new namespace, so it ends with its goroutine.
func makeNamed(name string) (netns.NsHandle, error) {
	type result struct {
		ns  netns.NsHandle
		err error
	}
	done := make(chan result)
	go onOwnThread(func() {
		ns, err := netns.NewNamed(name)
		done <- result{ns, err}
	})
	r := <-done
	return r.ns, r.err
}

// probeNamespace reports whether the kernel gives us a namespace with a bridge
// and a veth pair in it. The namespace has no name and goes with its thread.
func probeNamespace() error {
	done := make(chan error)
	go onOwnThread(func() {
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
			if err != nil {
				return fmt.Errorf("netlink: %w", err)
			}
			defer nl.Close()
			if err := nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs("probe0")}); err != nil {
				return fmt.Errorf("making a bridge: %w", err)
			}
			if err := nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs("probe1"), PeerName: "probe2"}); err != nil {
				return fmt.Errorf("making a veth pair: %w", err)
			}
			return nil
		}()
	})
	return <-done
}

// onOwnThread runs f on a thread that ends with it and so cannot carry a namespace
// into somebody else's goroutine. The process's first thread never ends: if the
// scheduler gives that one, it is held while another does the work.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f() // never unlocked
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go onOwnThread(func() {
		defer close(done)
		f()
	})
	<-done
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// Name is the namespace's name in the lab, such as "a".
func (n *Namespace) Name() string { return n.name }

// NetNSPath is a path that opens the namespace, as "ip netns" and setns(2) take it.
func (n *Namespace) NetNSPath() string {
	return filepath.Join(netnsDir, n.lab.name+"-"+n.name)
}

// Netlink configures the namespace's devices. The lab closes it.
func (n *Namespace) Netlink() *netlink.Handle { return n.nl }

// Do runs f in the namespace on a thread of its own. What f opens (sockets,
// TAP devices, files of /proc/sys/net) belongs to the namespace for good;
// goroutines that f starts are outside of it.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go onOwnThread(func() {
		if err := netns.Set(n.ns); err != nil {
			done <- fmt.Errorf("netlab: entering %s: %w", n.name, err)
			return
		}
		done <- f()
	})
	return <-done
}

// Sysctl writes a value of the namespace's /proc/sys; key is a path such as
// "net/ipv4/ip_forward".
func (n *Namespace) Sysctl(key, value string) error {
	err := n.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
	})
	if err != nil {
		return fmt.Errorf("netlab: sysctl in %s: %w", n.name, err)
	}
	return nil
}

// RetryOften has TCP try again at least once a second, where the kernel can be told so (Linux
// 6.15); a test that has to wait takes longer without, that is all. By that alone it would
// give up a connection after 14 s, and an attempt at one after 7; it has minutes.
func (n *Namespace) RetryOften() error {
	if err := n.Sysctl("net/ipv4/tcp_rto_max_ms", "1000"); errors.Is(err, os.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(n.Sysctl("net/ipv4/tcp_retries2", "255"), n.Sysctl("net/ipv4/tcp_syn_retries", "127"))
}

// Listen listens in the namespace; network and address are those of net.Listen,
// the address without a host name.
func (n *Namespace) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var l net.Listener
	err := n.Do(func() (err error) {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // a plain TCP handshake, as an unmodified program sends it
		l, err = config.Listen(ctx, network, address)
		return err
	})
	return l, err
}

// ListenPacket is Listen for datagrams.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := n.Do(func() (err error) {
		var config net.ListenConfig
		c, err = config.ListenPacket(ctx, network, address)
		return err
	})
	return c, err
}

// Dial connects from the namespace. The address must be numeric: a name would
// be resolved, and its addresses tried, on other threads.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if strings.HasPrefix(network, "tcp") || strings.HasPrefix(network, "udp") {
		if _, err := netip.ParseAddrPort(address); err != nil {
			return nil, fmt.Errorf("netlab: dialing from %s: the address must be numeric: %w", n.name, err)
		}
	}
	var c net.Conn
	err := n.Do(func() (err error) {
		var dialer net.Dialer
		c, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// TAP makes a persistent TAP device in the namespace (no packet information, no
// virtio-net header, one queue), without addresses, and sets it up. Whoever
// wants its frames opens /dev/net/tun in the namespace under the same name. It
// goes with the namespace.
func (n *Namespace) TAP(name string) error {
	err := n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		request, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1)
	})
	if err != nil {
		return fmt.Errorf("netlab: making the TAP device %s in %s: %w", name, n.name, err)
	}
	// Nothing but the TAP's reader is to speak on it.
	if err := n.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return n.setUp(name)
}

func (n *Namespace) setUp(name string) error {
	link, err := n.nl.LinkByName(name)
	if err == nil {
		err = n.nl.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("netlab: setting %s up in %s: %w", name, n.name, err)
	}
	return nil
}
