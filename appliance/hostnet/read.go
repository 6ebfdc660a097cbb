//go:build linux

package hostnet

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often a dump is taken anew that a change interrupted.
const dumpAttempts = 10

// Read returns the interface with that name as it is now, in the network
// namespace with that path ("" is the calling thread's). Link, addresses and
// routes are read one after the other; who must not miss a change in between
// uses Watch. errors.Is(err, ErrNoInterface) tells that there is none.
func Read(netns, name string) (*Interface, error) {
	var r *reader
	err := inNamespace(netns, func(ns nsHandle) (err error) {
		r, err = openReader(ns)
		return err
	})
	if err != nil {
		return nil, err
	}
	defer r.close()
	return r.named(name, func(int) {})
}

type nsHandle = netns.NsHandle

// inNamespace hands the namespace's handle to f, which opens sockets by it. The
// empty path gives the closed handle, which netlink takes as "here", and keeps f
// on the calling thread.
func inNamespace(path string, f func(nsHandle) error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if path == "" {
		return f(netns.None())
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := f(ns); err != nil {
		return fmt.Errorf("network namespace %s: %w", path, err)
	}
	return nil
}

// reader asks rtnetlink of one namespace. It is used by one goroutine at a time.
type reader struct {
	nl   *netlink.Handle
	dump *nl.SocketHandle // for what the library does not show: next hop objects
}

func openReader(ns nsHandle) (*reader, error) {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open rtnetlink: %w", err)
	}
	return &reader{nl: h, dump: &nl.SocketHandle{Socket: s}}, nil
}

func (r *reader) close() {
	r.nl.Close()
	r.dump.Close()
}

// named reads the interface with a name. It calls found with the index before it
// reads addresses and routes.
func (r *reader) named(name string, found func(index int)) (*Interface, error) {
	link, err := r.nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, r.noInterface(name)
	}
	if err != nil {
		return nil, fmt.Errorf("read interface %s: %w", name, err)
	}
	found(link.Attrs().Index)
	return r.rest(link)
}

// numbered reads the interface with an index; errors.Is(err, ErrNoInterface) when
// there is none.
func (r *reader) numbered(index int) (*Interface, error) {
	link, err := r.nl.LinkByIndex(index)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, fmt.Errorf("%w: index %d", ErrNoInterface, index)
	}
	if err != nil {
		return nil, fmt.Errorf("read interface %d: %w", index, err)
	}
	return r.rest(link)
}

func (r *reader) noInterface(name string) error {
	var links []netlink.Link
	err := uninterrupted(func() (err error) {
		links, err = r.nl.LinkList()
		return err
	})
	if err != nil {
		return fmt.Errorf("%w: %q", ErrNoInterface, name)
	}
	var names []string
	for _, l := range links {
		if l.Attrs().EncapType == "ether" && !ownTap(l) {
			names = append(names, l.Attrs().Name)
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: %q; there is no Ethernet interface here", ErrNoInterface, name)
	}
	return fmt.Errorf("%w: %q; name one of %s", ErrNoInterface, name, strings.Join(names, ", "))
}

// ownTap says that l is a tap of a bitw.
func ownTap(l netlink.Link) bool {
	name := l.Attrs().Name
	return l.Type() == "tuntap" && (strings.HasPrefix(name, "htap") || strings.HasPrefix(name, "ltap"))
}

// rest completes what the link says with addresses and routes. The link comes
// first on purpose: asking for it waits for a change that the kernel has under
// way, such as the interface being set down with its routes.
func (r *reader) rest(link netlink.Link) (*Interface, error) {
	a := link.Attrs()
	i := &Interface{
		Name: a.Name, Index: a.Index, MAC: slices.Clone(a.HardwareAddr), MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
	}
	if err := r.addresses(link, i); err != nil {
		return nil, fmt.Errorf("read addresses of %s: %w", a.Name, err)
	}
	if err := r.routes(i); err != nil {
		return nil, fmt.Errorf("read routes of %s: %w", a.Name, err)
	}
	return i, nil
}

func (r *reader) addresses(link netlink.Link, i *Interface) error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var list []netlink.Addr
		err := uninterrupted(func() (err error) {
			list, err = r.nl.AddrList(link, family)
			return err
		})
		if err != nil {
			return err
		}
		for _, a := range list {
			if a.IPNet == nil {
				continue
			}
			addr, ok := netip.AddrFromSlice(a.IP)
			bits, _ := a.Mask.Size()
			if !ok {
				continue
			}
			i.Addresses = append(i.Addresses, netip.PrefixFrom(addr, bits))
			if a.Flags&unix.IFA_F_TENTATIVE != 0 {
				i.Tentative = append(i.Tentative, addr)
			}
		}
	}
	return nil
}

// routes reads the routes of both families that leave by the interface.
func (r *reader) routes(i *Interface) error {
	var all []route
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, rtMsgLen)
		request[0] = family
		list, err := dump(r.dump, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, request, parseRoute)
		if err != nil {
			return err
		}
		for _, rt := range list {
			// A kernel without IPv6 answers with the routes of all families.
			if rt.family == family && rt.counts() {
				all = append(all, rt)
			}
		}
	}
	var objects map[uint32]nexthop
	if slices.ContainsFunc(all, route.unresolved) {
		list, err := dump(r.dump, unix.RTM_GETNEXTHOP, unix.RTM_NEWNEXTHOP, make([]byte, nhMsgLen), parseNexthop)
		if err != nil {
			return err
		}
		objects = make(map[uint32]nexthop, len(list))
		for _, n := range list {
			objects[n.id] = n
		}
	}
	i.Routes = routesBy(i.Index, all, objects)
	return nil
}

// counts tells whether the route is one that Interface.Routes may hold.
func (r route) counts() bool {
	return r.table == unix.RT_TABLE_MAIN && r.kind == unix.RTN_UNICAST && !r.special &&
		r.flags&unix.RTM_F_CLONED == 0 && !r.dst.Addr().IsMulticast()
}

// unresolved tells whether the route names a next hop object without telling what
// is in it, as a kernel does whose net.ipv4.nexthop_compat_mode is 0.
func (r route) unresolved() bool { return r.nhid != 0 && len(r.hops) == 0 }

// routesBy picks the routes by one output device and orders them for a look-up.
func routesBy(index int, all []route, objects map[uint32]nexthop) []Route {
	type candidate struct {
		Route
		pref int
	}
	var list []candidate
	for _, rt := range all {
		hops := rt.hops
		if rt.unresolved() {
			hops = resolve(rt.nhid, objects)
		}
		for _, h := range hops {
			if h.oif != index || h.flags&unix.RTNH_F_DEAD != 0 {
				continue
			}
			list = append(list, candidate{
				Route{Destination: rt.dst, Via: h.via, MTU: rt.mtu, Metric: rt.metric}, preference(rt.pref),
			})
		}
	}
	slices.SortStableFunc(list, func(a, b candidate) int {
		return cmp.Or(
			cmp.Compare(a.Destination.Addr().BitLen(), b.Destination.Addr().BitLen()),
			cmp.Compare(b.Destination.Bits(), a.Destination.Bits()),
			a.Destination.Addr().Compare(b.Destination.Addr()),
			cmp.Compare(a.Metric, b.Metric),
			cmp.Compare(b.pref, a.pref),
		)
	})
	var routes []Route
	for _, c := range list {
		routes = append(routes, c.Route)
	}
	return routes
}

// preference makes the two bits of RFC 4191 section 2.1 comparable: 01 is high,
// 00 medium, 11 low.
func preference(bits byte) int {
	switch bits {
	case 1:
		return 1
	case 3:
		return -1
	}
	return 0
}

// resolve gives the ways out that a next hop object stands for. Groups hold no
// groups, so one step down is enough.
func resolve(id uint32, objects map[uint32]nexthop) []hop {
	n, ok := objects[id]
	switch {
	case !ok:
		return nil
	case len(n.group) == 0:
		return []hop{n.hop}
	}
	var hops []hop
	for _, member := range n.group {
		if m, ok := objects[member]; ok && len(m.group) == 0 {
			hops = append(hops, m.hop)
		}
	}
	return hops
}

// dump asks for all objects of a kind; header is the fixed part of the request.
func dump[T any](s *nl.SocketHandle, ask int, answer uint16, header []byte, parse func([]byte) (T, error)) ([]T, error) {
	var list []T
	err := uninterrupted(func() error {
		list = list[:0]
		req := nl.NewNetlinkRequest(ask, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s}
		req.AddRawData(header)
		var failed error
		err := req.ExecuteIter(unix.NETLINK_ROUTE, answer, func(m []byte) bool {
			var v T
			if v, failed = parse(m); failed != nil {
				return false
			}
			list = append(list, v)
			return true
		})
		return errors.Join(err, failed)
	})
	return list, err
}

// uninterrupted repeats a dump that the kernel marks as interrupted by a change.
func uninterrupted(dump func() error) (err error) {
	for range dumpAttempts {
		if err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return err
		}
	}
	return err
}
