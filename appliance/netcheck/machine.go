//go:build linux

package netcheck

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"bitw/netstack/ethtap"
)

// Capabilities (linux/capability.h).
const (
	capNetAdmin = 12
	capNetRaw   = 13
	capSysAdmin = 21
	capBPF      = 39
)

// privileges is about this process, which may be another user's than bitw up's.
func (r *Report) privileges() {
	has, err := effective("/proc/self/status")
	if err != nil {
		r.add("privileges", Warning, "mount /proc", "the capabilities of this process cannot be read: %v", err)
		return
	}
	var missing []string
	for _, c := range []struct {
		bit  uint
		name string
	}{{capNetAdmin, "CAP_NET_ADMIN"}, {capNetRaw, "CAP_NET_RAW"}, {capBPF, "CAP_BPF"}} {
		// Who has CAP_SYS_ADMIN needs no CAP_BPF (capabilities(7)).
		if has&(1<<c.bit) == 0 && !(c.bit == capBPF && has&(1<<capSysAdmin) != 0) {
			missing = append(missing, c.name)
		}
	}
	if len(missing) > 0 {
		r.add("privileges", Bad, "run bitw as root", "this process lacks %s", strings.Join(missing, ", "))
		return
	}
	r.add("privileges", Good, "", "this process has what bitw up needs")
}

// effective reads CapEff.
func effective(path string) (uint64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), "CapEff:"); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 16, 64)
		}
	}
	return 0, errors.New("no CapEff")
}

// kernel is about features; forbid says that forbid_bypass is wanted.
func (r *Report) kernel(forbid bool) {
	major, minor, release := kernelVersion()
	at := func(a, b int) bool { return major > a || major == a && minor >= b }
	switch {
	case at(6, 6):
		r.add("kernel", Good, "", "Linux %s has tcx", release)
	case at(5, 8):
		r.add("kernel", Warning, "Linux 6.6 or later has tcx, which stays in its place when a tc command replaces qdiscs", "Linux %s has clsact, not tcx", release)
	default:
		r.add("kernel", Bad, "install Linux 5.8 or later, better 6.6", "Linux %s is too old", release)
	}
	switch err := features.HaveProgramType(ebpf.SchedCLS); {
	case err == nil:
		r.add("kernel", Good, "", "eBPF classifiers can be loaded")
	case errors.Is(err, ebpf.ErrNotSupported):
		r.add("kernel", Bad, "the kernel needs CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_ACT", "the kernel has no eBPF classifiers")
	default:
		r.add("kernel", Bad, "run as root; in a container, allow the system call bpf", "eBPF classifiers cannot be loaded: %v", err)
	}
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		_ = unix.Close(fd)
		r.add("kernel", Good, "", "/dev/net/tun can be opened")
	} else if errors.Is(err, fs.ErrPermission) {
		r.add("kernel", Bad, "run as root", "/dev/net/tun: %v", err)
	} else {
		r.add("kernel", Bad, "modprobe tun, and in a container give it /dev/net/tun", "/dev/net/tun: %v", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/bpf", &st); err == nil && uint32(st.Type) == unix.BPF_FS_MAGIC {
		r.add("kernel", Good, "", "bpffs is mounted, so that the interface stays shut when bitw dies")
	} else {
		r.add("kernel", Warning, "mount -t bpf bpf /sys/fs/bpf; bitw up does so itself as root, but not among mounts of its own, such as those of ip netns exec", "no bpffs at /sys/fs/bpf, where what keeps the interface shut is pinned")
	}
	if dir, err := ethtap.DefaultCgroup(); err == nil {
		r.add("kernel", Good, "", "cgroup2 is at %s, for forbid_bypass", dir)
	} else if forbid {
		r.add("kernel", Bad, "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or name another place as bypass_cgroup", "no cgroup2, which forbid_bypass needs: %v", err)
	}
	if _, err := new(nftables.Conn).ListTables(); errors.Is(err, fs.ErrPermission) {
		r.add("kernel", Warning, "run as root", "nftables cannot be asked: %v", err)
	} else if err != nil {
		r.add("kernel", Warning, "load nf_tables; without it an interface that is created anew is open until bitw has cut it", "nftables cannot be asked: %v", err)
	} else {
		r.add("kernel", Good, "", "nftables is there, for the guard")
	}
}

// kernelVersion returns zeros where the kernel does not tell.
func kernelVersion() (major, minor int, release string) {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return 0, 0, "of unknown version"
	}
	release = unix.ByteSliceToString(u.Release[:])
	major, minor = parseRelease(release)
	return major, minor, release
}

// parseRelease reads the first two numbers of such as "6.18.5-amd64", 0 for what is none.
func parseRelease(release string) (major, minor int) {
	number := func(s string) int {
		n := 0
		for _, c := range s {
			if c < '0' || c > '9' || n > 1<<16 {
				break
			}
			n = 10*n + int(c-'0')
		}
		return n
	}
	first, rest, _ := strings.Cut(release, ".")
	return number(first), number(rest)
}

// oldest is a time before which no clock can be that is right.
var oldest = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clock is about what the logs and the status say of when.
func (r *Report) clock(now time.Time) {
	if now.Before(oldest) {
		r.add("clock", Bad, "set it (date -s), and run an NTP client: logs, captures and what the status says of when go by it", "the clock says that it is %s", now.UTC().Format(time.DateOnly))
		return
	}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		r.add("clock", Warning, "nothing, if it is right", "the kernel does not tell whether the clock is kept: %v", err)
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		r.add("clock", Warning, "run an NTP client (systemd-timesyncd, chrony): logs, captures and what the status says of when go by the clock", "the clock is not kept by anybody")
	default:
		r.add("clock", Good, "", "the clock is kept, to about %v", time.Duration(t.Maxerror)*time.Microsecond)
	}
}
