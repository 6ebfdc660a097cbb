//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	tunPath = "/dev/net/tun"

	// aliasPrefix begins the alias of every tap of this package; by it a later
	// process knows a tap that was left behind.
	aliasPrefix = "bitw: "

	kernelQueueLen = 1000 // frames; more only adds latency under load
	wireQueueLen   = 8192 // frames; the wire comes in bursts of single frames
	tapMTU         = 65535 - 14
)

// tapNames gives the names of the two taps of an interface. They are unique in
// the namespace and the same after a restart, and fit in 15 octets.
func tapNames(ifindex int) (htap, ltap string) {
	return fmt.Sprintf("htap%d", ifindex), fmt.Sprintf("ltap%d", ifindex)
}

// checkTUN tells in a sentence when there is no TUN/TAP driver.
func checkTUN() error {
	fd, err := openTUN()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func openTUN() (int, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
		return -1, because(ErrNoTUN, "%s cannot be opened (%v); load the module tun or enable CONFIG_TUN", tunPath, err)
	}
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", tunPath, permission(err))
	}
	return fd, nil
}

// tapDevice is a TAP device with its control descriptor and its queues.
type tapDevice struct {
	name   atomic.Pointer[string]
	index  int
	ctl    int // detached queue: receives nothing, keeps the device's features
	queues []*water.Interface
	udp    bool  // takes superframes of UDP datagrams
	plain  error // why it has no superframes, if they were asked for
}

// makeTap makes the device or attaches to a persistent one of that name, and
// sets it up. It runs inside the namespace. The queues stay open in any
// namespace.
//
// The features of a TAP (virtio-net headers, offloads) are those of the
// descriptor that attaches first; water attaches without. So a control
// descriptor goes first and then detaches its queue, which keeps the features
// for the queues of water that follow.
func makeTap(nl *netlink.Handle, name, alias string, queues, queueLen int, persist, superframes bool) (t *tapDevice, err error) {
	t = &tapDevice{ctl: -1}
	t.name.Store(&name)
	defer func() {
		if err != nil {
			t.close()
		}
	}()
	if t.ctl, err = openTUN(); err != nil {
		return nil, err
	}
	if err := ifReq(t.ctl, unix.TUNSETIFF, name, unix.IFF_TAP|unix.IFF_NO_PI|unix.IFF_VNET_HDR|unix.IFF_MULTI_QUEUE); err != nil {
		return nil, fmt.Errorf("make the tap %s: %w", name, permission(err))
	}
	if err := unix.IoctlSetPointerInt(t.ctl, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		return nil, fmt.Errorf("set the header length of %s to %d: %w", name, HeaderLen, err)
	}
	t.udp, err = setOffloads(t.ctl, superframes)
	if superframes && errors.Is(err, unix.EINVAL) {
		t.plain = err
		_, err = setOffloads(t.ctl, false)
	}
	if err != nil {
		return nil, fmt.Errorf("set the offloads of %s: %w", name, err)
	}
	if err := ifReq(t.ctl, unix.TUNSETQUEUE, "", unix.IFF_DETACH_QUEUE); err != nil {
		return nil, fmt.Errorf("detach the control queue of %s: %w", name, err)
	}
	l, err := nl.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("find the tap %s: %w", name, err)
	}
	t.index = l.Attrs().Index
	if err := setUpTap(nl, l, alias, queueLen); err != nil {
		return nil, err
	}
	for range queues {
		q, err := openQueue(name, persist)
		if err != nil {
			return nil, fmt.Errorf("open a queue of %s: %w", name, permission(err))
		}
		t.queues = append(t.queues, q)
	}
	if err := nl.LinkSetUp(l); err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return t, nil
}

// setOffloads lets the kernel leave checksums to the reader, and segmentation if
// superframes are asked for. UDP segmentation, which works both ways, is Linux 6.2; udp
// says whether the kernel has it.
func setOffloads(fd int, superframes bool) (udp bool, err error) {
	if !superframes {
		return false, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	}
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp|unix.TUN_F_USO4|unix.TUN_F_USO6)
	if errors.Is(err, unix.EINVAL) {
		return false, unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tcp)
	}
	return err == nil, err
}

// ifReq issues an ioctl with a struct ifreq of name and flags.
func ifReq(fd int, req uint, name string, flags uint16) error {
	r, err := unix.NewIfreq(name)
	if name == "" {
		r, err = unix.NewIfreq("-") // TUNSETQUEUE reads only the flags
	}
	if err != nil {
		return err
	}
	r.SetUint16(flags)
	return unix.IoctlIfreq(fd, req, r)
}

// openQueue opens a queue by water. Persist is passed on because water clears
// the persistence of a device whenever it is not asked for.
func openQueue(name string, persist bool) (*water.Interface, error) {
	// water does not ask for close-on-exec; no child may start in between.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	q, err := water.New(water.Config{
		DeviceType:             water.TAP,
		PlatformSpecificParams: water.PlatformSpecificParams{Name: name, MultiQueue: true, Persist: persist},
	})
	if err != nil {
		return nil, err
	}
	if _, ok := q.ReadWriteCloser.(*os.File); !ok {
		q.Close()
		return nil, fmt.Errorf("water gave a %T, expected an *os.File", q.ReadWriteCloser)
	}
	// The runtime polls water's file until it is closed.
	var dup int
	err = control(q, func(fd int) (err error) {
		dup, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return err
	})
	q.Close()
	if err != nil {
		return nil, err
	}
	f, err := unpolled(dup, name)
	if err != nil {
		return nil, err
	}
	return &water.Interface{ReadWriteCloser: f}, nil
}

// control runs fn on the descriptor of a queue.
func control(q *water.Interface, fn func(fd int) error) error {
	rc, err := q.ReadWriteCloser.(*os.File).SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = fn(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

// setUpTap keeps the kernel from saying anything of its own on the tap and
// sizes its queue. It runs before the tap is up.
func setUpTap(nl *netlink.Handle, l netlink.Link, alias string, queueLen int) error {
	name := l.Attrs().Name
	// A host without IPv6 has no such file.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("disable IPv6 on %s: %w", name, err)
	}
	const addrGenNone = 1 // IN6_ADDR_GEN_MODE_NONE
	for _, s := range []struct {
		what     string
		err      error
		optional bool
	}{
		{"set the alias", nl.LinkSetAlias(l, aliasPrefix+alias), false},
		{"set addrgenmode none", nl.LinkSetIP6AddrGenMode(l, addrGenNone), true},
		{"turn ARP off", nl.LinkSetARPOff(l), false},
		{"set the MTU", nl.LinkSetMTU(l, tapMTU), false},
		{"set the queue length", nl.LinkSetTxQLen(l, queueLen), false},
		{"set the qdisc noqueue", nl.QdiscReplace(&netlink.GenericQdisc{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT},
			QdiscType:  "noqueue",
		}), true},
	} {
		if s.err != nil && !s.optional {
			return fmt.Errorf("%s of %s: %w", s.what, name, permission(s.err))
		}
	}
	return nil
}

// close closes all descriptors; a device that does not persist ends with them.
func (t *tapDevice) close() {
	for _, q := range t.queues {
		q.Close()
	}
	if t.ctl >= 0 {
		unix.Close(t.ctl)
	}
	t.queues, t.ctl = nil, -1
}

// persistent makes the device outlive its descriptors, or not.
func (t *tapDevice) persistent(on bool) error {
	v := 0
	if on {
		v = 1
	}
	if err := unix.IoctlSetInt(t.ctl, unix.TUNSETPERSIST, v); err != nil {
		return fmt.Errorf("set the persistence of %s: %w", *t.name.Load(), err)
	}
	return nil
}

// removeTap removes a tap of this package by name. A link of that name that is
// not ours stays, and is an error.
func removeTap(nl *netlink.Handle, name string) error {
	l, err := nl.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for the tap %s: %w", name, err)
	}
	if !ownTap(l) {
		return because(ErrOccupied, "a link %s (%s) stands where a tap must go", name, l.Type())
	}
	if err := nl.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete the tap %s: %w", name, permission(err))
	}
	return nil
}

// ownTap tells a tap of this package from other links.
func ownTap(l netlink.Link) bool {
	return l.Type() == "tuntap" && strings.HasPrefix(l.Attrs().Alias, aliasPrefix)
}
