package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/netstack/ethtap"
)

// card is the interface of each host.
const card = "eth0"

// kernelNetwork joins two network namespaces by a veth.
type kernelNetwork struct {
	hosts    [2]*namespace
	sniffers [2]*sniffer
	seen     *evidence
}

// newKernelNetwork makes the hosts, and starts the capture of the wire. The error
// says in one sentence why this machine cannot have them; then nothing is left.
func newKernelNetwork() (_ network, err error) {
	if uid := os.Geteuid(); uid != 0 {
		return nil, fmt.Errorf("network namespaces need root, and the effective user id is %d", uid)
	}
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun cannot be opened (%w)", err)
	}
	_ = unix.Close(tun)
	n := &kernelNetwork{}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	for i := range n.hosts {
		if n.hosts[i], err = newNamespace(); err != nil {
			return nil, err
		}
	}
	if err := n.join(); err != nil {
		return nil, err
	}
	n.seen = newEvidence([2]net.HardwareAddr{mac(a), mac(b)})
	for i, h := range n.hosts {
		if n.sniffers[i], err = h.sniff(card, i, n.seen); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// cannotCut says that an error of the appliance is about what this machine lacks.
func cannotCut(err error) bool {
	return errors.Is(err, ethtap.ErrNoHook) || errors.Is(err, ethtap.ErrNoTUN) || errors.Is(err, ethtap.ErrPermission)
}

// join gives each host its eth0.
func (n *kernelNetwork) join() error {
	near := netlink.NewLinkAttrs()
	near.Name, near.HardwareAddr, near.MTU = card, mac(a), mtu
	veth := &netlink.Veth{
		LinkAttrs: near, PeerName: card, PeerHardwareAddr: mac(b), PeerMTU: mtu,
		PeerNamespace: netlink.NsFd(n.hosts[b].ns.Fd()),
	}
	if err := n.hosts[a].nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("no veth can be made (%w)", err)
	}
	for i, h := range n.hosts {
		if err := h.configure(i); err != nil {
			return fmt.Errorf("%s of host %s cannot be configured (%w)", card, hostName(i), err)
		}
	}
	return nil
}

func (n *kernelNetwork) host(i int) host     { return n.hosts[i] }
func (n *kernelNetwork) evidence() *evidence { return n.seen }

func (n *kernelNetwork) options(i int) (string, []appliance.Option) {
	return card, []appliance.Option{
		appliance.WithNetNS(n.hosts[i].path()),
		// The namespaces end with the demo, and the cut with them.
		appliance.WithOpenOnStop(),
	}
}

func (n *kernelNetwork) settle() error {
	var errs []error
	for i, s := range n.sniffers {
		if s != nil {
			errs = append(errs, s.stop())
			n.sniffers[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (n *kernelNetwork) close() error {
	err := n.settle()
	for _, h := range n.hosts {
		if h != nil {
			h.close()
		}
	}
	return err
}

// namespace is a network namespace without a name, which ends with its last
// descriptor and socket.
type namespace struct {
	ns *os.File
	nl *netlink.Handle
}

// newNamespace makes a namespace in which IPv6 addresses work at once.
func newNamespace() (_ *namespace, err error) {
	n := new(namespace)
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
		n.close()
		return nil, err
	}
	return n, nil
}

// configure gives eth0 the host's addresses, and sets it and lo up.
func (n *namespace) configure(host int) error {
	for _, name := range []string{"lo", card} {
		l, err := n.nl.LinkByName(name)
		if err != nil {
			return err
		}
		if name == card {
			for _, p := range addresses(host) {
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

// path opens the namespace in this process.
func (n *namespace) path() string { return fmt.Sprintf("/proc/self/fd/%d", n.ns.Fd()) }

func (n *namespace) close() {
	if n.nl != nil {
		n.nl.Close()
	}
	if n.ns != nil {
		_ = n.ns.Close()
	}
}

// do runs f in the namespace, to which what f opens then belongs. Goroutines
// that f starts are outside of it.
func (n *namespace) do(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Setns(int(n.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("demo: entering a network namespace: %w", err)
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

func (n *namespace) listenTCP(ctx context.Context, at netip.AddrPort) (l net.Listener, err error) {
	err = n.do(func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false) // a handshake as most programs have it
		l, err = c.Listen(ctx, "tcp", at.String())
		return err
	})
	return l, err
}

func (n *namespace) dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return n.dial(ctx, "tcp", to)
}

func (n *namespace) listenUDP(ctx context.Context, at netip.AddrPort) (c net.PacketConn, err error) {
	err = n.do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
		return err
	})
	return c, err
}

func (n *namespace) dialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return n.dial(ctx, "udp", to)
}

// dial makes its socket on the calling thread, as the address is numeric.
func (n *namespace) dial(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = n.do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, to.String())
		return err
	})
	return c, err
}

// dialPing opens the kernel's own ICMP socket.
func (n *namespace) dialPing(_ context.Context, to netip.Addr) (c net.Conn, err error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var far unix.Sockaddr
	if to.Is4() {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
		far = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		far = &unix.SockaddrInet6{Addr: to.As16()}
	}
	err = n.do(func() error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
		if err != nil {
			return fmt.Errorf("ping socket: %w", err)
		}
		f := os.NewFile(uintptr(fd), "ping")
		defer f.Close() // FileConn has a descriptor of its own
		if err := unix.Connect(fd, far); err != nil {
			return fmt.Errorf("ping socket: %w", err)
		}
		c, err = net.FileConn(f)
		return err
	})
	return c, err
}
