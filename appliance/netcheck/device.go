//go:build linux

package netcheck

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bitw/netstack/ethtap"
)

// device is about the interface itself. It returns its MTU in octets, or 0 if there is
// no interface to look at further.
func (r *Report) device(name string) int {
	l, err := netlink.LinkByName(name)
	if err != nil {
		var names []string
		if all, err := netlink.LinkList(); err == nil {
			for _, x := range all {
				if n := x.Attrs().Name; x.Attrs().EncapType == "ether" && !(x.Type() == "tuntap" && (strings.HasPrefix(n, "htap") || strings.HasPrefix(n, "ltap"))) {
					names = append(names, n)
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
		r.add("interface", Warning, "cut that in its place, or take "+name+" out of it", "%s is a port of a bridge or bond, which has the addresses and routes, and bitw goes by those of %[1]s", name)
	}
	if a.GSOMaxSize > 65536 || a.GROMaxSize > 65536 {
		r.add("offload", Warning, fmt.Sprintf("ip link set %s gso_max_size 65536 gro_max_size 65536", name), "%s takes superframes of more than 64 KiB (BIG TCP), which do not fit the taps", name)
	}
	return a.MTU
}

// between is about the form between two interfaces.
func (r *Report) between(inside, outside string, mtus map[string]int) {
	if a, b := mtus[inside], mtus[outside]; a != 0 && b != 0 && a != b {
		r.add("interface", Good, "", "%s has mtu %d and %s has %d: what is too long for the other side is cut, or its sender told", inside, a, outside, b)
	}
	for _, name := range []string{inside, outside} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			continue
		}
		list, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range list {
			if !a.IP.IsLinkLocalUnicast() {
				r.add("interface", Warning, "manage this box by a third interface, and take the address away: ip addr del "+a.IPNet.String()+" dev "+name,
					"%s has the address %v, which nobody reaches while bitw runs", name, a.IP)
			}
		}
	}
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
		{ethtoolGetGRO, "generic receive", "gro", "what arrives in the clear then comes in single packets, which costs more"},
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
		r.add("company", Warning, "what it sends or redirects goes past bitw; take it away with ip link set "+name+" xdp off, or see that it only passes and drops",
			"the XDP program %s is attached to %s", programName(ebpf.ProgramID(a.Xdp.ProgId)), name)
	}
	own := r.programs(name, a.Index)
	r.running = r.running || own
	if left, err := ethtap.Left(ethtap.Options{Interface: name}); err == nil && left {
		r.add("company", Warning, "bitw up takes it over, bitw recover "+name+" gives it back without protection", "a bitw that has ended, or bitw guard, has left %s shut: nothing passes", name)
	} else if own {
		r.add("company", Good, "", "bitw has cut %s", name)
	}
	r.filters(name, l)
	r.tables(name)
	r.kernelIPsec()
	for _, d := range daemons("/proc/thread-self/net/udp", "/proc/thread-self/net/udp6") {
		r.add("company", Warning, "if it is an IKE daemon, a policy that bypasses UDP on that port lets it work, but what it sets up in the kernel bitw protects again or discards; else end it",
			"%s listens on UDP port %d, which is IKE's", d.who(), d.port)
	}
	if len(r.Lines) == before {
		r.add("company", Good, "", "nobody else has a hand in %s", name)
	}
}

// ownProgram begins the names of bitw's eBPF programs, which the kernel cuts to 15
// characters, and of its tc filters.
const ownProgram = "bitw"

// programName is a name and number to find a program by with bpftool.
func programName(id ebpf.ProgramID) string {
	name := "without a name"
	if p, err := ebpf.NewProgramFromID(id); err == nil {
		defer p.Close()
		if info, err := p.Info(); err == nil && info.Name != "" {
			name = info.Name
		}
	}
	return fmt.Sprintf("%s (id %d)", name, id)
}

// programs is about tcx. It returns whether bitw's own are there.
func (r *Report) programs(name string, index int) (own bool) {
	for _, at := range []struct {
		attach ebpf.AttachType
		words  string
	}{{ebpf.AttachTCXIngress, "ingress"}, {ebpf.AttachTCXEgress, "egress"}} {
		q, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: at.attach})
		if err != nil {
			continue // a kernel without tcx has none
		}
		mine := -1
		for i, p := range q.Programs {
			if strings.HasPrefix(programName(p.ID), ownProgram) {
				own, mine = true, i
			}
		}
		for i, p := range q.Programs {
			who := programName(p.ID)
			switch {
			case strings.HasPrefix(who, ownProgram):
			case mine >= 0 && i < mine:
				r.add("company", Warning, "what it lets pass by itself goes past bitw: detach it (bpftool net show dev "+name+"), and attach it behind", "the tcx program %s stands before bitw's at %s of %s", who, at.words, name)
			default:
				r.add("company", Warning, "see that it does not send or redirect by itself: bpftool net show dev "+name, "the tcx program %s is at %s of %s, where bitw's are too", who, at.words, name)
			}
		}
	}
	return own
}

// filters is about tc.
func (r *Report) filters(name string, l netlink.Link) {
	list, err := netlink.QdiscList(l)
	if err != nil {
		return
	}
	for _, q := range list {
		kind := q.Type()
		if kind != "clsact" && kind != "ingress" {
			continue
		}
		n, mine := 0, false
		for _, at := range []struct {
			parent uint32
			words  string
		}{{netlink.HANDLE_MIN_INGRESS, "ingress"}, {netlink.HANDLE_MIN_EGRESS, "egress"}} {
			filters, err := netlink.FilterList(l, at.parent)
			if err != nil {
				continue
			}
			for _, f := range filters {
				who := f.Type()
				if b, ok := f.(*netlink.BpfFilter); ok {
					who = b.Name
				}
				if strings.HasPrefix(who, ownProgram) {
					mine = true
					continue
				}
				n++
				r.add("company", Warning, "what it sends or redirects goes past bitw: tc filter show dev "+name+" "+at.words, "the tc filter %s of priority %d is at %s of %s", who, f.Attrs().Priority, at.words, name)
			}
		}
		switch {
		case mine:
			r.running = true
		case n == 0:
			r.add("company", Warning, "nothing, as long as it has no filters; tc qdisc del dev "+name+" "+kind+" removes it", "%s has a %s qdisc without filters", name, kind)
		}
	}
}

// tables is about nftables.
func (r *Report) tables(name string) {
	list, err := new(nftables.Conn).ListTables()
	if err != nil {
		return // kernel has told
	}
	for _, t := range list {
		switch {
		case strings.HasPrefix(t.Name, "bitw-"):
		case t.Family == nftables.TableFamilyNetdev:
			r.add("company", Warning, "see what it does with frames of "+name+", which it sees beside the cut: nft list table netdev "+t.Name, "nftables has the table %s of the family netdev", t.Name)
		case t.Family == nftables.TableFamilyIPv4, t.Family == nftables.TableFamilyIPv6, t.Family == nftables.TableFamilyINet:
			r.add("company", Good, "", "nftables has the table %s, which sees what programs see: the packets in the clear", t.Name)
		}
	}
}

// kernelIPsec is about policies of the kernel itself.
func (r *Report) kernelIPsec() {
	list, err := netlink.XfrmPolicyList(netlink.FAMILY_ALL)
	if err != nil {
		return // a kernel without IPsec has none
	}
	n := uint64(0)
	for _, p := range list {
		if len(p.Tmpls) > 0 {
			n++
		}
	}
	switch {
	case n == 1:
		r.add("company", Warning, "see it: ip xfrm policy; what the kernel protects, bitw would protect again or discard", "the kernel has an IPsec policy of its own")
	case n > 1:
		r.add("company", Warning, "see them: ip xfrm policy; what the kernel protects, bitw would protect again or discard", "the kernel has %d IPsec policies of its own", n)
	}
}

// A daemon listens on a port of IKE.
type daemon struct {
	port  int
	inode string
}

// who is the daemon's name, if this user may know it.
func (d *daemon) who() string {
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "somebody"
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err == nil && to == "socket:["+d.inode+"]" {
			pid, _, _ := strings.Cut(strings.TrimPrefix(fd, "/proc/"), "/")
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err == nil {
				return fmt.Sprintf("%s (process %s)", strings.TrimSpace(string(name)), pid)
			}
		}
	}
	return "somebody"
}

// daemons are those that listen on the ports of IKE (RFC 7296 §2), one for each port.
func daemons(paths ...string) (list []daemon) {
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for _, d := range ikePorts(text) {
			if !slices.ContainsFunc(list, func(x daemon) bool { return x.port == d.port }) {
				list = append(list, d)
			}
		}
	}
	return list
}

// ikePorts reads a table in the form of /proc/net/udp.
func ikePorts(table []byte) (list []daemon) {
	for s := bufio.NewScanner(bytes.NewReader(table)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) < 2 {
			continue
		}
		_, hex, ok := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && (n == 500 || n == 4500) {
			d := daemon{port: int(n)}
			if len(f) > 9 {
				d.inode = f[9]
			}
			list = append(list, d)
		}
	}
	return list
}
