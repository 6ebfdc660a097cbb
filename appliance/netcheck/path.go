//go:build linux

package netcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/appliance/observe"
	"bitw/sa"
)

const (
	// maxPeers is how many peers are probed; the others are left out.
	maxPeers = 8
	// maxProbes bounds the echo requests to one peer.
	maxProbes = 16
)

// paths is what fits: by arithmetic for each policy that protects, and by echo requests to
// each peer.
func (r *Report) paths(ctx context.Context, o *Options, mtu int) {
	if o.Config == nil {
		return
	}
	if o.Config.MTU != 0 {
		if o.Config.MTU > mtu {
			r.add("path", Warning, fmt.Sprintf("set mtu: %d or less", mtu), "the configuration says mtu %d, and the interface %d", o.Config.MTU, mtu)
		}
		mtu = min(mtu, o.Config.MTU)
	}
	db, err := appliance.NewDatabases(*o.Config)
	if err != nil {
		r.add("path", Bad, "see bitw check", "the configuration cannot be used: %v", err)
		return
	}
	defer db.Close()
	if o.Inside != "" && r.running && o.Probe {
		r.add("path", Warning, "to measure the paths, ask once more while bitw does not run", "peers are not probed: while bitw runs between %s and %s, this box itself cannot send there", o.Inside, o.Interface)
		o.Probe = false
	}
	limits := make(map[netip.Addr]int)
	for _, p := range db.SPD.Policies() {
		if p.Action != sa.Protect || len(p.Out) == 0 {
			continue
		}
		inner, peer, err := observe.Room(p, mtu)
		if err != nil {
			r.add("path", Warning, "see bitw check", "policy %s: what fits cannot be told (%v)", p.Name, err)
			continue
		}
		limit, probed := limits[peer]
		if !probed && o.Probe && len(limits) < maxPeers {
			limit = r.probe(ctx, o, db.SPD, peer, mtu)
			limits[peer] = limit
		}
		words := ""
		if limit != 0 && limit < mtu {
			inner, _, _ = observe.Room(p, limit)
			words = " on that path"
		}
		switch {
		case inner < 0:
			r.add("path", Bad, "the link is too small for these SAs", "policy %s: nothing fits%s", p.Name, words)
		case peer.Is6() && inner < 1280:
			r.add("path", Warning, "IPv6 packets of 1280 octets are then fragmented after they are protected; a larger MTU avoids that", "policy %s: packets of up to %d octets fit%s, TCP segments of %d", p.Name, inner, words, mss(p, inner))
		default:
			r.add("path", Good, "", "policy %s: of %d octets on the wire %d are left for the packet%s, %d for TCP", p.Name, cmpLimit(limit, mtu), inner, words, mss(p, inner))
		}
	}
}

func cmpLimit(limit, mtu int) int {
	if limit == 0 {
		return mtu
	}
	return min(limit, mtu)
}

// mss is what is left for a TCP segment without options.
func mss(p *sa.Policy, inner int) int {
	first := p.Out[0].Outbound()
	dst := first.Key.Dst
	if first.Mode == sa.BEET {
		dst = first.InnerDst
	}
	if dst.Is6() {
		return max(0, inner-60)
	}
	return max(0, inner-40)
}

// probe finds the path MTU to a peer with echo requests that must not be fragmented, and
// says what it found. It returns 0 if nothing was learned. Sizes are of what is on the wire:
// where bitw runs and protects the requests, they are the smaller for it.
func (r *Report) probe(ctx context.Context, o *Options, spd *sa.SPD, peer netip.Addr, mtu int) int {
	e, err := newEcho(peer)
	if err != nil {
		r.add("path", Warning, "run as root", "peer %v: it cannot be probed: %v", peer, err)
		return 0
	}
	defer e.close()
	inner := func(wire int) int { return wire }
	if r.running {
		switch p := spd.Lookup(sa.Outbound, e.flow()); {
		case p == nil || p.Action == sa.Discard:
			r.add("path", Warning, "add a policy with action bypass for ICMP to it, or ask once more while bitw does not run", "peer %v is not probed: bitw runs, and no policy lets a ping to it pass", peer)
			return 0
		case p.Action == sa.Protect:
			inner = func(wire int) int {
				n, _, err := observe.Room(p, wire)
				if err != nil {
					return wire
				}
				return n
			}
		}
	}
	budget := maxProbes
	try := func(size int) (bool, error) {
		for range 2 { // one may be lost
			if budget--; budget < 0 {
				return false, errors.New("too many probes")
			}
			if ok, err := e.ask(ctx, inner(size), o.Timeout); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	low := 576
	if peer.Is6() {
		low = 1280
	}
	low = min(low, mtu)
	switch ok, err := try(low); {
	case err != nil:
		r.add("path", Warning, "see the route to it: ip route get "+peer.String(), "peer %v: it cannot be probed: %v", peer, err)
		return 0
	case !ok && r.running:
		r.add("path", Warning, "is it up, and has it the same keys? See bitw status here and there", "peer %v does not answer a ping of %d octets, so its path cannot be measured", peer, low)
		return 0
	case !ok:
		r.add("path", Warning, "nothing, if it discards pings or bitw runs there; else see whether it is up", "peer %v does not answer a ping of %d octets, so its path cannot be measured", peer, low)
		return 0
	}
	if ok, err := try(mtu); ok && err == nil {
		r.add("path", Good, "", "peer %v: the path takes %d octets, as the interface does", peer, mtu)
		return mtu
	}
	high := mtu
	for high-low > 1 && budget >= 2 {
		mid := (low + high) / 2
		ok, err := try(mid)
		switch {
		case err != nil:
			high = low
		case ok:
			low = mid
		default:
			high = mid
		}
	}
	for inner(low-1) == inner(low) {
		low-- // padding made it no larger
	}
	r.add("path", Warning, fmt.Sprintf("set mtu: %d in the configuration, here and there, and bitw apply it, if routers on the way do not tell senders of it", low), "peer %v: the path takes about %d octets, less than the %d of the interface", peer, low, mtu)
	return low
}

// An echo asks one station.
type echo struct {
	to   netip.Addr
	conn net.PacketConn
	raw  bool
	id   int
	seq  int
}

// newEcho opens a socket for which every datagram has DF and what the kernel has learned of
// the path does not count (ip(7), IP_PMTUDISC_PROBE): of the kernel's own ICMP, or where
// net.ipv4.ping_group_range leaves this group out, a raw one.
func newEcho(to netip.Addr) (*echo, error) {
	family, proto, level, option, value := unix.AF_INET, unix.IPPROTO_ICMP, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	var local unix.Sockaddr = &unix.SockaddrInet4{}
	if to.Is6() {
		family, proto, level, option, value = unix.AF_INET6, unix.IPPROTO_ICMPV6, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
		local = &unix.SockaddrInet6{}
	}
	e := &echo{to: to}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		e.raw, e.id = true, os.Getpid()&0xffff
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	}
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "echo")
	defer file.Close() // FilePacketConn has a descriptor of its own
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, local); err != nil {
		return nil, err
	}
	if e.conn, err = net.FilePacketConn(file); err != nil {
		return nil, err
	}
	return e, nil
}

func (e *echo) close() { _ = e.conn.Close() }

// flow is what policies see of the requests.
func (e *echo) flow() *sa.Flow {
	f := &sa.Flow{Remote: e.to, Proto: unix.IPPROTO_ICMP, ICMPType: uint8(ipv4.ICMPTypeEcho), HasPorts: true}
	if e.to.Is6() {
		f.Proto, f.ICMPType = unix.IPPROTO_ICMPV6, uint8(ipv6.ICMPTypeEchoRequest)
	}
	// A connected socket of UDP sends nothing, and has the address that the route gives.
	if c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.to, 9))); err == nil {
		f.Local = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		_ = c.Close()
	}
	return f
}

// ask sends a datagram of size octets, its IP header included, and says whether it was
// answered in time. One that the interface itself does not take is not.
func (e *echo) ask(ctx context.Context, size int, timeout time.Duration) (bool, error) {
	header := ipv4.HeaderLen
	var kind icmp.Type = ipv4.ICMPTypeEcho
	if e.to.Is6() {
		header, kind = ipv6.HeaderLen, ipv6.ICMPTypeEchoRequest
	}
	e.seq++
	text, err := (&icmp.Message{Type: kind, Body: &icmp.Echo{ID: e.id, Seq: e.seq, Data: make([]byte, max(0, size-header-8))}}).Marshal(nil)
	if err != nil {
		return false, err
	}
	end := time.Now().Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(end) {
		end = d
	}
	if err := e.conn.SetDeadline(end); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	var to net.Addr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.to, 0))
	if e.raw {
		to = &net.IPAddr{IP: e.to.AsSlice()}
	}
	if _, err := e.conn.WriteTo(text, to); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			return false, nil
		}
		return false, err
	}
	buf := make([]byte, 1<<16)
	for {
		n, _, err := e.conn.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, err
		}
		if e.answers(buf[:n]) {
			return true, nil
		}
	}
}

// answers reports whether a message is the answer to the last request. A raw socket gets
// all that come here, of other programs too.
func (e *echo) answers(text []byte) bool {
	proto := unix.IPPROTO_ICMP
	var reply icmp.Type = ipv4.ICMPTypeEchoReply
	if e.to.Is6() {
		proto, reply = unix.IPPROTO_ICMPV6, ipv6.ICMPTypeEchoReply
	}
	m, err := icmp.ParseMessage(proto, text)
	if err != nil || m.Type != reply {
		return false
	}
	body, ok := m.Body.(*icmp.Echo)
	return ok && body.Seq == e.seq && (!e.raw || body.ID == e.id)
}
