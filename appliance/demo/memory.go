package demo

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"bitw/appliance"
	"bitw/netstack/link"
	"bitw/netstack/wire"
)

// mtu is Ethernet's.
const mtu = 1500

// queue is how many frames each link in memory holds: more than the largest window
// of TCP, 4 MB, in segments. A cable would slow its sender down; a link in memory
// loses what does not fit.
const queue = 8192

// memoryNetwork joins two gVisor hosts by links in memory.
type memoryNetwork struct {
	hosts [2]*memoryHost
	links [2][2]link.Device // by host: the appliance's left and right
	seen  *evidence
}

// newMemoryNetwork cannot fail for want of privilege.
func newMemoryNetwork() (_ network, err error) {
	n := &memoryNetwork{seen: newEvidence([2]net.HardwareAddr{mac(a), mac(b)})}
	defer func() {
		if err != nil {
			_ = n.close()
		}
	}()
	var ends [2]*link.PipeEnd
	ends[a], ends[b] = link.Pipe(link.PipeOptions{Queue: queue, Wiretap: func(from *link.PipeEnd, frame []byte) {
		sender := a
		if from == ends[b] {
			sender = b
		}
		if len(frame) >= wire.VirtioNetLen {
			n.seen.add(sender, frame[wire.VirtioNetLen:])
		}
	}})
	for i := range n.hosts {
		outer, inner := link.Pipe(link.PipeOptions{Queue: queue})
		n.links[i] = [2]link.Device{outer, ends[i]}
		if n.hosts[i], err = newMemoryHost(inner, i); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *memoryNetwork) host(i int) host     { return n.hosts[i] }
func (n *memoryNetwork) evidence() *evidence { return n.seen }

// settle has nothing to wait for: a frame is counted before it is sent.
func (n *memoryNetwork) settle() error { return nil }

func (n *memoryNetwork) options(i int) (string, []appliance.Option) {
	return "", []appliance.Option{appliance.WithLinks(n.links[i][0], n.links[i][1], appliance.Host{
		MAC: mac(i), Addresses: addresses(i), MTU: mtu,
	})}
}

func (n *memoryNetwork) close() error {
	for i, h := range n.hosts {
		if h != nil {
			h.close()
		}
		for _, l := range n.links[i] {
			if l != nil {
				_ = l.Close() // the appliance has done so if it ran
			}
		}
	}
	return nil
}

// memoryHost is an ordinary netstack host.
type memoryHost struct {
	stack *stack.Stack
	nic   *link.HostEndpoint
}

// nic is the number of a host's only NIC.
const nic tcpip.NICID = 1

func newMemoryHost(d link.Device, i int) (*memoryHost, error) {
	e, err := link.NewHost(link.Options{
		Devices: []link.Device{d}, MAC: tcpip.LinkAddress(mac(i)), MTU: mtu, Name: "host " + hostName(i),
	})
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	h := &memoryHost{nic: e, stack: stack.New(stack.Options{
		NetworkProtocols: []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{
			tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6,
		},
	})}
	if err := h.configure(i); err != nil {
		h.close()
		return nil, fmt.Errorf("demo: host %s in memory: %v", hostName(i), err)
	}
	return h, nil
}

func (h *memoryHost) configure(i int) tcpip.Error {
	if err := h.stack.CreateNIC(nic, h.nic); err != nil {
		return err
	}
	for _, p := range addresses(i) {
		full := tcpip.ProtocolAddress{Protocol: protocolOf(p.Addr()), AddressWithPrefix: tcpip.AddressWithPrefix{
			Address: tcpip.AddrFromSlice(p.Addr().AsSlice()), PrefixLen: p.Bits(),
		}}
		if err := h.stack.AddProtocolAddress(nic, full, stack.AddressProperties{}); err != nil {
			return err
		}
		h.stack.AddRoute(tcpip.Route{Destination: full.AddressWithPrefix.Subnet(), NIC: nic})
	}
	return nil
}

// close returns when nothing of the host runs any more.
func (h *memoryHost) close() {
	h.nic.Close()
	h.nic.Wait()
	h.stack.Destroy()
}

func protocolOf(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is4() {
		return header.IPv4ProtocolNumber
	}
	return header.IPv6ProtocolNumber
}

func fullAddress(ap netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(ap.Addr().AsSlice()), Port: ap.Port()}
}

func (h *memoryHost) ListenTCP(_ context.Context, at netip.AddrPort) (net.Listener, error) {
	l, err := gonet.ListenTCP(h.stack, fullAddress(at), protocolOf(at.Addr()))
	if err != nil {
		return nil, err
	}
	return l, nil
}

func (h *memoryHost) DialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := gonet.DialContextTCP(ctx, h.stack, fullAddress(to), protocolOf(to.Addr()))
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (h *memoryHost) ListenUDP(_ context.Context, at netip.AddrPort) (net.PacketConn, error) {
	c, err := h.udp(at.Addr(), func(ep tcpip.Endpoint) tcpip.Error { return ep.Bind(fullAddress(at)) })
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (h *memoryHost) DialUDP(_ context.Context, to netip.AddrPort) (net.Conn, error) {
	c, err := h.udp(to.Addr(), func(ep tcpip.Endpoint) tcpip.Error { return ep.Connect(fullAddress(to)) })
	if err != nil {
		return nil, err
	}
	return c, nil
}

// udp opens a socket of the address's family. Its datagrams may be fragmented on
// the way: netstack sets DF, but does not learn from the answers.
func (h *memoryHost) udp(addr netip.Addr, place func(tcpip.Endpoint) tcpip.Error) (*gonet.UDPConn, error) {
	wq := new(waiter.Queue)
	ep, err := h.stack.NewEndpoint(udp.ProtocolNumber, protocolOf(addr), wq)
	if err != nil {
		return nil, fmt.Errorf("UDP socket: %v", err)
	}
	if addr.Is4() {
		err = ep.SetSockOptInt(tcpip.MTUDiscoverOption, int(tcpip.PMTUDiscoveryDont))
	}
	if err == nil {
		err = place(ep)
	}
	if err != nil {
		ep.Close()
		return nil, fmt.Errorf("UDP socket: %v", err)
	}
	return gonet.NewUDPConn(wq, ep), nil
}

// DialPing opens netstack's own ICMP endpoint, which reads and writes messages as
// a UDP endpoint does datagrams.
func (h *memoryHost) DialPing(_ context.Context, to netip.Addr) (net.Conn, error) {
	proto := icmp.ProtocolNumber4
	if to.Is6() {
		proto = icmp.ProtocolNumber6
	}
	wq := new(waiter.Queue)
	ep, err := h.stack.NewEndpoint(proto, protocolOf(to), wq)
	if err != nil {
		return nil, fmt.Errorf("ping socket: %v", err)
	}
	if err := ep.Connect(fullAddress(netip.AddrPortFrom(to, 0))); err != nil {
		ep.Close()
		return nil, fmt.Errorf("ping socket: %v", err)
	}
	return gonet.NewUDPConn(wq, ep), nil
}
