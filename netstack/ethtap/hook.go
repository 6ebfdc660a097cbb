//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// point is one of the places where a program is attached.
type point struct {
	name    string // name of pin and filter
	ifindex int
	egress  bool
	prog    *ebpf.Program
	stays   bool // outlives the process under FailOpen too
	last    bool // stands behind all others, also at ingress
}

// points gives the four in the order in which they are attached: the taps'
// first, so that a written frame always finds its way. They are detached in the
// opposite order, the interface's first.
func points(p *programs, eth, htap, ltap int) []point {
	return []point{
		{name: "htap_in", ifindex: htap, prog: p.kernelIn},
		{name: "ltap_in", ifindex: ltap, prog: p.wireIn},
		{name: "eth_in", ifindex: eth, prog: p.ethIn},
		{name: "eth_out", ifindex: eth, egress: true, prog: p.ethOut},
	}
}

// pointsBetween is points for the two-NIC form; direct says whether the plain pair is
// wanted.
func pointsBetween(p *programs, in, eth, htap, ltap int, direct bool) []point {
	list := []point{
		{name: pinInsideOut, ifindex: in, egress: true, prog: p.insideOut, stays: true},
		{name: "eth_out", ifindex: eth, egress: true, prog: p.ethOut, stays: true},
		{name: "htap_in", ifindex: htap, prog: p.kernelIn},
		{name: "ltap_in", ifindex: ltap, prog: p.wireIn},
		{name: pinInsideIn, ifindex: in, prog: p.insideIn},
		{name: "eth_in", ifindex: eth, prog: p.ethIn},
	}
	if direct {
		list = append(list,
			point{name: pinInsideDirect, ifindex: in, prog: p.insideDirect, stays: true, last: true},
			point{name: pinOutsideDirect, ifindex: eth, prog: p.outsideDirect, stays: true, last: true})
	}
	return list
}

// hooker attaches programs. attach takes over what an earlier process left at
// the point, without a moment in which neither program runs.
type hooker interface {
	hook() Hook
	attach(point) (attachment, error)
}

// attachment is a program in its place.
type attachment interface {
	detach() error  // takes the program off
	release() error // lets go of the handle; what is pinned stays
	keep() error    // makes it outlive the process
	drop() error    // makes it end with the process where the hook can
	// holds tells whether the program is in its place on the interface with the index.
	holds(ifindex int) bool
	// moved says that the pins are in another directory.
	moved(dir string)
	// exchange puts the point's program in the place of what another process attached,
	// without a moment in which neither runs.
	exchange(point) error
}

// tcx attaches by links, pinned in dir.
type tcx struct {
	dir string
}

func (tcx) hook() Hook { return HookTCX }

func (t tcx) attach(p point) (attachment, error) {
	path := filepath.Join(t.dir, p.name)
	if l, err := link.LoadPinnedLink(path, nil); err == nil {
		if ifindex, ok := tcxIndex(l); ok && ifindex == p.ifindex {
			if err := l.Update(p.prog); err != nil {
				l.Close()
				return nil, fmt.Errorf("take over the link pinned at %s: %w", path, err)
			}
			return &tcxAttachment{l: l, path: path, pinned: true}, nil
		}
		// Its interface is gone, or it is no link of ours: it holds nothing.
		if err := errors.Join(l.Unpin(), l.Close()); err != nil {
			return nil, fmt.Errorf("remove the dead link pinned at %s: %w", path, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("load the link pinned at %s: %w", path, err)
	}
	// First, at egress too: behind a program that lets a frame pass no other runs.
	o := link.TCXOptions{Interface: p.ifindex, Program: p.prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Head()}
	if p.egress {
		o.Attach = ebpf.AttachTCXEgress
	}
	if p.last {
		o.Anchor = link.Tail()
	}
	l, err := link.AttachTCX(o)
	if err != nil {
		return nil, fmt.Errorf("attach %s by tcx: %w", p.name, permission(err))
	}
	return &tcxAttachment{l: l, path: path}, nil
}

// tcxIndex gives the interface to which a link is attached, 0 when that is gone.
func tcxIndex(l link.Link) (int, bool) {
	info, err := l.Info()
	if err != nil {
		return 0, false
	}
	t := info.TCX()
	if t == nil {
		return 0, false
	}
	return int(t.Ifindex), true
}

// holdsTCX tells whether a live link of an interface is pinned at path.
func holdsTCX(path string, ifindex int) bool {
	l, err := link.LoadPinnedLink(path, nil)
	if err != nil {
		return false
	}
	defer l.Close()
	i, ok := tcxIndex(l)
	return ok && i == ifindex
}

type tcxAttachment struct {
	l      link.Link
	path   string
	pinned bool
}

func (a *tcxAttachment) detach() error {
	return errors.Join(a.drop(), a.l.Close())
}

func (a *tcxAttachment) release() error { return a.l.Close() }

func (a *tcxAttachment) exchange(p point) error {
	if err := a.l.Update(p.prog); err != nil {
		return fmt.Errorf("take over the link of %s: %w", p.name, permission(err))
	}
	return nil
}

func (a *tcxAttachment) keep() error {
	if a.pinned {
		return nil
	}
	if err := a.l.Pin(a.path); err != nil {
		return fmt.Errorf("pin a link at %s: %w", a.path, permission(err))
	}
	a.pinned = true
	return nil
}

func (a *tcxAttachment) drop() error {
	if !a.pinned {
		return nil
	}
	a.pinned = false
	// An operator may have removed the pin by hand.
	if err := os.Remove(a.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin the link at %s: %w", a.path, err)
	}
	return nil
}

func (a *tcxAttachment) holds(ifindex int) bool {
	i, ok := tcxIndex(a.l)
	return ok && i == ifindex
}

func (a *tcxAttachment) moved(dir string) { a.path = filepath.Join(dir, filepath.Base(a.path)) }

// clsact attaches by BPF classifiers, which outlive the process by themselves.
type clsact struct {
	nl      *netlink.Handle
	onQdisc func(ifindex int) // told when the qdisc had to be made
}

func (clsact) hook() Hook { return HookCLSACT }

const (
	filterPrefix = "bitw_"
	filterHandle = 0xb17 // apart from the handles that the kernel hands out
	// Among filters the lowest priority runs first, and of one priority the last one made.
	filterFirst = 1
)

func (c clsact) attach(p point) (attachment, error) {
	err := c.nl.QdiscAdd(clsactQdisc(p.ifindex))
	switch {
	case err == nil:
		if c.onQdisc != nil {
			c.onQdisc(p.ifindex)
		}
	case !errors.Is(err, unix.EEXIST):
		return nil, noCLSACT("sch_clsact", "CONFIG_NET_SCH_INGRESS", err)
	}
	f := clsactFilter(p)
	if err := c.nl.FilterReplace(f); err != nil {
		return nil, noCLSACT("cls_bpf", "CONFIG_NET_CLS_BPF", err)
	}
	return &clsactAttachment{c.nl, f}, nil
}

// noCLSACT words the failure of one of the two modules that clsact needs.
func noCLSACT(module, config string, err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
		return because(ErrNoHook, "kernel %s has neither tcx (Linux 6.6, CONFIG_NET_XGRESS) nor %s (%s)", kernelRelease(), module, config)
	}
	return fmt.Errorf("attach by clsact (%s): %w", module, permission(err))
}

func clsactQdisc(ifindex int) netlink.Qdisc {
	return &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
}

func clsactFilter(p point) *netlink.BpfFilter {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if p.egress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: p.ifindex, Parent: parent, Handle: filterHandle,
			Protocol: unix.ETH_P_ALL, Priority: filterFirst,
		},
		Fd: p.prog.FD(), Name: filterPrefix + p.name, DirectAction: true,
	}
}

type clsactAttachment struct {
	nl *netlink.Handle
	f  *netlink.BpfFilter
}

func (a *clsactAttachment) detach() error {
	if err := a.nl.FilterDel(a.f); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete the filter %s: %w", a.f.Name, err)
	}
	return nil
}

func (a *clsactAttachment) exchange(p point) error {
	if err := a.nl.FilterReplace(a.f); err != nil {
		return fmt.Errorf("take over the filter of %s: %w", p.name, permission(err))
	}
	return nil
}

func (a *clsactAttachment) release() error { return nil }
func (a *clsactAttachment) keep() error    { return nil }
func (a *clsactAttachment) drop() error    { return nil }
func (a *clsactAttachment) moved(string)   {}

func (a *clsactAttachment) holds(ifindex int) bool {
	if a.f.LinkIndex != ifindex {
		return false
	}
	l, err := a.nl.LinkByIndex(ifindex)
	if err != nil {
		return false
	}
	fs, err := ownFilters(a.nl, l)
	return err == nil && slices.ContainsFunc(fs, func(f netlink.Filter) bool { return f.(*netlink.BpfFilter).Name == a.f.Name })
}

// ownFilters lists this package's filters on an interface.
func ownFilters(nl *netlink.Handle, l netlink.Link) ([]netlink.Filter, error) {
	var own []netlink.Filter
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		fs, err := nl.FilterList(l, parent)
		if err != nil {
			return nil, fmt.Errorf("list the filters of %s: %w", l.Attrs().Name, err)
		}
		for _, f := range fs {
			if b, ok := f.(*netlink.BpfFilter); ok && b.Handle == filterHandle && strings.HasPrefix(b.Name, filterPrefix) {
				own = append(own, f)
			}
		}
	}
	return own, nil
}

// removeQdisc removes the clsact qdisc that this package made, unless others
// have put filters on it since.
func removeQdisc(nl *netlink.Handle, l netlink.Link) error {
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		if fs, err := nl.FilterList(l, parent); err != nil || len(fs) > 0 {
			return err
		}
	}
	if err := nl.QdiscDel(clsactQdisc(l.Attrs().Index)); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("delete the clsact qdisc of %s: %w", l.Attrs().Name, err)
	}
	return nil
}
