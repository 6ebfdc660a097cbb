package appliance

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/appliance/hostnet"
	"bitw/config"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
)

// The two-NIC form differs from the other in three things: the hosts on the left are
// known by configuration instead of by their kernel, their Ethernet addresses have to
// be found, and there are two NICs to follow.

// twoNIC tells which form it is.
func (b *bump) twoNIC() bool { return b.cfg.Inside != "" }

// watchBoth begins to follow both NICs. b.host is set when it returns.
func (b *bump) watchBoth(ctx context.Context, netNS string) error {
	b.mu.Lock() // a change is for when both are known
	defer b.mu.Unlock()
	b.nics.outside, b.nics.inside = new(nic), new(nic)
	for _, n := range []struct {
		*nic
		key, name string
	}{{b.nics.outside, "outside", b.cfg.Interface}, {b.nics.inside, "inside", b.cfg.Inside}} {
		w, err := hostnet.Watch(ctx, netNS, n.name, func(i *hostnet.Interface, ev hostnet.Event) { b.nicChanged(n.nic, i, ev) })
		if err != nil {
			return b.positioned(n.key, err)
		}
		n.watcher = w
	}
	b.nics.mirror = newLinkMirror(b.cfg, b.log, b.nics.inside, b.nics.outside)
	b.host.Store(b.hostBetween())
	return nil
}

// A nic is one of the two.
type nic struct {
	watcher *hostnet.Watcher
}

// nics are both.
type nics struct {
	inside, outside *nic
	mirror          *linkMirror
	hosts           *hook.Hosts
	left            *hook.Inside
	right           *hook.Outside
	probes          *hook.Probes
}

// hostBetween describes what is behind the box as far as it is known now.
func (b *bump) hostBetween() *hostState {
	out, in := b.nics.outside.watcher.Current(), b.nics.inside.watcher.Current()
	s := &hostState{
		name: out.Name, index: out.Index, carrier: out.Carrier, mac: tcpip.LinkAddress(out.MAC), mtu: out.MTU,
		inside:    insideNIC{in.Name, in.Index, tcpip.LinkAddress(in.MAC), in.MTU},
		addresses: b.cfg.Protected, own: make(map[netip.Addr]struct{}),
	}
	if out.Gone {
		s.index = 0
	}
	if in.Gone {
		s.inside.index = 0
	}
	for _, a := range askers(b.cfg) {
		s.own[a] = struct{}{}
	}
	return s
}

// askers are the addresses with which the stack asks for its neighbours on the outside:
// those of the box, or of a protected host. No other station has them.
func askers(c *config.Config) []netip.Addr {
	list := c.OutsideAddresses()
	for _, p := range c.Protected {
		a := p.Addr()
		if slices.ContainsFunc(list, func(x netip.Addr) bool { return x.BitLen() == a.BitLen() }) {
			continue
		}
		if !p.IsSingleIP() {
			a = a.Next() // the first is the network's own
		}
		list = append(list, a)
	}
	return list
}

// nicChanged follows one of the two NICs.
func (b *bump) nicChanged(n *nic, i *hostnet.Interface, ev hostnet.Event) {
	if ev.Has(hostnet.Initial) {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if ev.Has(hostnet.Recreated) {
		b.nics.mirror.fresh(i.Index)
	}
	b.nics.mirror.look()
	if b.host.Load() == nil {
		return // not both are known
	}
	b.changed(b.hostBetween(), i.Name, ev, n == b.nics.inside)
}

// announceBox has the stations of each side send to the box: under proxy they have its
// NICs' addresses for each other. The inside takes no frame for another station.
func (b *bump) announceBox() {
	host := b.host.Load()
	b.announce(func(a netip.Addr) (net.HardwareAddr, bool) {
		if b.cfg.IsProtected(a) {
			return net.HardwareAddr(host.mac), true
		}
		return net.HardwareAddr(host.inside.mac), true
	})
}

// setMACs tells the hooks of both NICs what their Ethernet addresses are.
func (n *nics) setMACs(now *hostState) {
	if n.hosts == nil {
		return
	}
	n.hosts.SetMAC(now.inside.mac)
	n.left.SetMACs(now.inside.mac, now.mac)
	n.right.SetMAC(now.mac)
}

// find readies the search for the hosts on the left.
func (n *nics) find(b *bump, mac tcpip.LinkAddress, clock tcpip.Clock, probes *hook.Probes) {
	n.probes = probes
	n.hosts = hook.NewHosts(hook.HostsOptions{MAC: mac, Clock: clock, Probes: probes, Drops: &b.drops[hook.Left]})
	for _, x := range b.cfg.StaticNeighbors {
		if b.cfg.IsProtected(x.Address) {
			n.hosts.Fix(x.Address, tcpip.LinkAddress(x.MAC))
		}
	}
}

// neighbors is what the engine finds the hosts on the left by; nil in the other form.
func (n *nics) neighbors() ipsec.Neighbors {
	if n.hosts == nil {
		return nil
	}
	return n.hosts
}

// waiting is how many datagrams wait for a host on the inside.
func (n *nics) waiting() int {
	if n.hosts == nil {
		return 0
	}
	return n.hosts.Waiting()
}

// heard is what was heard of the hosts on the inside.
func (n *nics) heard() (hosts map[string]net.HardwareAddr, stations []net.HardwareAddr) {
	hosts = make(map[string]net.HardwareAddr)
	for _, h := range n.hosts.List() {
		if h.MAC != "" {
			hosts[h.Address.String()] = net.HardwareAddr(h.MAC)
		}
	}
	for _, mac := range n.left.Stations() {
		stations = append(stations, mac[:])
	}
	return hosts, stations
}

// learn takes over what another process has heard of them.
func (n *nics) learn(last *goMessage) {
	if n.hosts == nil {
		return
	}
	for _, h := range neighbors(last.Hosts) {
		n.hosts.Heard(h.Address, tcpip.LinkAddress(h.MAC))
	}
	for _, mac := range last.Stations {
		if len(mac) == 6 {
			n.left.Note([6]byte(mac))
		}
	}
}

// between wraps the link of one side: on the left for hosts of which there may be
// several, on the right to answer for these and for the box.
func (b *bump) between(end stack.LinkEndpoint, side hook.Side, other *hook.Relay) stack.LinkEndpoint {
	host, relay := b.host.Load(), b.cfg.Neighbors == config.Relay
	if side == hook.Left {
		b.nics.hosts.Bind(end)
		b.nics.left = hook.NewInside(end, hook.InsideOptions{
			MAC: host.inside.mac, WireMAC: host.mac, Own: b.own, Cross: relay,
			Hosts: b.nics.hosts, Wire: other, Probes: b.nics.probes, Drops: &b.drops[side],
		})
		return b.nics.left
	}
	own := b.cfg.OutsideAddresses()
	b.nics.right = hook.NewOutside(end, hook.OutsideOptions{
		MAC: host.mac, Probes: b.nics.probes,
		Answers: func(a netip.Addr) bool { return !b.crossing.Load() && b.own(a) || slices.Contains(own, a) },
	})
	return b.nics.right
}

// stop ends what follows the NICs.
func (n *nics) stop() {
	n.mirror.end()
	for _, x := range []*nic{n.inside, n.outside} {
		if x != nil && x.watcher != nil {
			x.watcher.Close()
		}
	}
}
