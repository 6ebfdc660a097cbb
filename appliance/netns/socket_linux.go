package netns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ListenTCP listens in the namespace.
func (n *Namespace) ListenTCP(ctx context.Context, at netip.AddrPort) (l net.Listener, err error) {
	err = n.Do(func() (err error) {
		var c net.ListenConfig
		c.SetMultipathTCP(false) // a handshake as most programs have it
		l, err = c.Listen(ctx, "tcp", at.String())
		return err
	})
	return l, err
}

// DialTCP connects from the namespace.
func (n *Namespace) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return n.dial(ctx, "tcp", to)
}

// ListenUDP binds a socket in the namespace.
func (n *Namespace) ListenUDP(ctx context.Context, at netip.AddrPort) (c net.PacketConn, err error) {
	err = n.Do(func() (err error) {
		c, err = new(net.ListenConfig).ListenPacket(ctx, "udp", at.String())
		return err
	})
	return c, err
}

// DialUDP makes a socket in the namespace that talks to one other.
func (n *Namespace) DialUDP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	return n.dial(ctx, "udp", to)
}

// dial makes its socket on the calling thread, as the address is numeric.
func (n *Namespace) dial(ctx context.Context, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = n.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, network, to.String())
		return err
	})
	return c, err
}

// DialPing opens the kernel's own ICMP socket in the namespace, which reads and writes
// echo messages from their ICMP header on. Identifier and checksum are the kernel's.
func (n *Namespace) DialPing(_ context.Context, to netip.Addr) (c net.Conn, err error) {
	family, proto := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var far unix.Sockaddr
	if to.Is4() {
		family, proto = unix.AF_INET, unix.IPPROTO_ICMP
		far = &unix.SockaddrInet4{Addr: to.As4()}
	} else {
		far = &unix.SockaddrInet6{Addr: to.As16()}
	}
	err = n.Do(func() error {
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
