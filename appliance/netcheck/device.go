//go:build linux

package netcheck

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// device is about the interface itself. It returns its MTU in octets, or 0 if there is
// no interface to look at further.
func (r *Report) device(name string) int {
	l, err := netlink.LinkByName(name)
	if err != nil {
		var names []string
		if all, err := netlink.LinkList(); err == nil {
			for _, x := range all {
				if x.Attrs().EncapType == "ether" {
					names = append(names, x.Attrs().Name)
				}
			}
		}
		r.add("interface", Bad, "name one of "+strings.Join(names, ", "), "there is no interface %s", name)
		return 0
	}
	a := l.Attrs()
	if a.EncapType != "ether" {
		r.add("interface", Bad, "bitw cuts Ethernet interfaces only", "%s carries %s, not Ethernet", name, a.EncapType)
		return 0
	}
	switch {
	case a.RawFlags&unix.IFF_UP == 0:
		r.add("interface", Warning, "ip link set "+name+" up", "%s is down", name)
	case a.RawFlags&unix.IFF_LOWER_UP == 0:
		r.add("interface", Warning, "see to its cable, or its other end", "%s has no carrier", name)
	default:
		r.add("interface", Good, "", "%s (%s) is up with %v, mtu %d", name, l.Type(), a.HardwareAddr, a.MTU)
	}
	if a.MTU < 1280 {
		r.add("interface", Warning, fmt.Sprintf("ip link set %s mtu 1500, if the link allows it", name), "%s has mtu %d, and IPv6 needs 1280", name, a.MTU)
	}
	if a.MasterIndex != 0 {
		r.add("interface", Warning, "cut the master, or take "+name+" out of it", "%s belongs to a bridge or bond, whose traffic passes before the cut", name)
	}
	if a.GSOMaxSize > 65536 || a.GROMaxSize > 65536 {
		r.add("offload", Warning, fmt.Sprintf("ip link set %s gso_max_size 65536 gro_max_size 65536", name), "%s takes superframes of more than 64 KiB (BIG TCP), which do not fit the taps", name)
	}
	return a.MTU
}

// Commands of the ioctl SIOCETHTOOL that read one number (linux/ethtool.h).
const (
	ethtoolGetTxCsum = 0x16
	ethtoolGetSG     = 0x18
	ethtoolGetTSO    = 0x1e
	ethtoolGetGSO    = 0x23
	ethtoolGetFlags  = 0x25
	ethtoolGetGRO    = 0x2b
	flagLRO          = 1 << 15 // of ethtoolGetFlags
)

// offloads is about what the NIC, or the kernel for it, does for us.
func (r *Report) offloads(name string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.add("offload", Warning, "", "the offloads cannot be read: %v", err)
		return
	}
	defer unix.Close(fd)
	for _, x := range []struct {
		cmd        uint32
		name, flag string
		why        string
	}{
		{ethtoolGetTSO, "TCP segmentation", "tso", "the host then hands over each segment instead of superframes"},
		{ethtoolGetGSO, "generic segmentation", "gso", "the host then hands over each segment instead of superframes"},
		{ethtoolGetTxCsum, "transmit checksums", "tx", "the host then makes checksums that bitw makes anew"},
		{ethtoolGetSG, "scatter-gather", "sg", "the host cannot segment late without"},
		{ethtoolGetGRO, "generic receive", "gro", "what arrives in the clear then comes in single packets"},
	} {
		v, err := ethtool(fd, name, x.cmd)
		switch {
		case err != nil:
			r.add("offload", Warning, "nothing, if this NIC has none", "%s of %s cannot be read: %v", x.name, name, err)
		case v == 0:
			r.add("offload", Warning, fmt.Sprintf("ethtool -K %s %s on; %s", name, x.flag, x.why), "%s (%s) is off", x.name, x.flag)
		default:
			r.add("offload", Good, "", "%s (%s) is on, and used", x.name, x.flag)
		}
	}
	if v, err := ethtool(fd, name, ethtoolGetFlags); err == nil && v&flagLRO != 0 {
		r.add("offload", Warning, "ethtool -K "+name+" lro off", "large receive offload (lro) is on: it joins packets in a way that cannot be undone")
	}
}

// ethtool asks for one number.
func ethtool(fd int, name string, cmd uint32) (uint32, error) {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	value := struct{ cmd, data uint32 }{cmd: cmd}
	// struct ifreq: the name, and then a pointer to the value.
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:], ifr.Name())
	req.data = unsafe.Pointer(&value)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(&value)
	if errno != 0 {
		return 0, errno
	}
	return value.data, nil
}

// company is who else has a hand in the interface.
func (r *Report) company(name string) {
	before := len(r.Lines)
	l, err := netlink.LinkByName(name)
	if err != nil {
		return // it was there a moment ago
	}
	a := l.Attrs()
	if a.Xdp != nil && a.Xdp.Attached {
		r.add("company", Warning, "see who it is: bpftool net show dev "+name, "an XDP program is attached; what it sends or redirects goes past bitw")
	}
	for _, at := range []struct {
		attach ebpf.AttachType
		words  string
	}{{ebpf.AttachTCXIngress, "ingress"}, {ebpf.AttachTCXEgress, "egress"}} {
		if q, err := link.QueryPrograms(link.QueryOptions{Target: a.Index, Attach: at.attach}); err == nil && len(q.Programs) > 0 {
			r.add("company", Warning, "nothing, if bitw runs; else see who it is: bpftool net show dev "+name, "%d tcx program(s) at %s", len(q.Programs), at.words)
		}
	}
	if list, err := netlink.QdiscList(l); err == nil {
		for _, q := range list {
			if kind := q.Type(); kind == "clsact" || kind == "ingress" {
				r.add("company", Warning, "see its filters: tc filter show dev "+name+" egress", "a %s qdisc is there, with whose filters bitw has to share", kind)
			}
		}
	}
	if tables, err := new(nftables.Conn).ListTables(); err == nil {
		for _, t := range tables {
			if t.Family == nftables.TableFamilyNetdev && !strings.HasPrefix(t.Name, "bitw-") {
				r.add("company", Warning, "see what it does: nft list table netdev "+t.Name, "nftables has the table %s of the family netdev, which sees frames beside the cut", t.Name)
			}
		}
	}
	if list, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL); err == nil {
		n := 0
		for _, p := range list {
			if len(p.Tmpls) > 0 {
				n++
			}
		}
		if n > 0 {
			r.add("company", Warning, "see them: ip xfrm policy; what the kernel protects, bitw would protect again or discard", "the kernel has %d IPsec policies of its own", n)
		}
	}
	for _, port := range daemons("/proc/thread-self/net/udp", "/proc/thread-self/net/udp6") {
		r.add("company", Warning, fmt.Sprintf("see who it is: ss -lunp 'sport = :%d'; it gets IKE only if a policy bypasses it", port), "somebody listens on UDP port %d: an IKE daemon?", port)
	}
	if len(r.Lines) == before {
		r.add("company", Good, "", "nobody else has a hand in %s", name)
	}
}

// daemons are the ports of IKE (RFC 7296 §2) on which somebody listens.
func daemons(paths ...string) (ports []int) {
	found := make(map[int]bool)
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, p := range ikePorts(text) {
			if !found[p] {
				found[p] = true
				ports = append(ports, p)
			}
		}
	}
	return ports
}

// ikePorts reads a table in the form of /proc/net/udp.
func ikePorts(table []byte) (ports []int) {
	for s := bufio.NewScanner(bytes.NewReader(table)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && (n == 500 || n == 4500) {
			ports = append(ports, int(n))
		}
	}
	return ports
}
