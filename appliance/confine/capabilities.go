//go:build linux

package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A capability of linux/capability.h that is kept.
type capability struct {
	bit  uint
	name string
	// root says that only root keeps it.
	root bool
}

// keep are the capabilities that the work after the cut needs. Each was taken away in a
// test, which then failed:
//
//   - CAP_NET_ADMIN: programs at an interface that is created anew, taps, the guard in
//     nftables, the kernel's neighbour table.
//   - CAP_NET_RAW: packet sockets at an interface that is created anew.
//   - CAP_BPF: the system call bpf, where unprivileged_bpf_disabled is set.
//   - CAP_DAC_OVERRIDE, root's only: the files of root may lie in folders of the user as
//     whom the service runs, and a configuration that SIGHUP reads may be anybody's. Root
//     owns what matters on a machine with it or without.
var keep = []capability{
	{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN", false},
	{unix.CAP_NET_RAW, "CAP_NET_RAW", false},
	{unix.CAP_BPF, "CAP_BPF", false},
	{unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", false}, // in CAP_BPF's place below Linux 5.8
	{unix.CAP_DAC_OVERRIDE, "CAP_DAC_OVERRIDE", true},
}

// lastCap is as far as the kernel's capabilities go, which may be more than this program
// knows.
const lastCap = 63

// A set is a set of capabilities.
type set [2]uint32

func (s *set) has(bit uint) bool { return s[bit/32]&(1<<(bit%32)) != 0 }
func (s *set) add(bit uint)      { s[bit/32] |= 1 << (bit % 32) }

// dropCapabilities leaves those in keep, and returns their names.
func dropCapabilities() (names []string, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("capget: %w", err)
	}
	permitted := set{data[0].Permitted, data[1].Permitted}
	var kept set
	for _, c := range keep {
		switch {
		case !permitted.has(c.bit), c.root && unix.Geteuid() != 0:
		case c.bit == unix.CAP_SYS_ADMIN && hasBPF():
		default:
			kept.add(c.bit)
			names = append(names, c.name)
		}
	}
	// Before CAP_SETPCAP goes. Without it the bounding set is the service manager's matter.
	if permitted.has(unix.CAP_SETPCAP) {
		for bit := uint(0); bit <= lastCap; bit++ {
			if in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(bit), 0, 0, 0); err != nil || in == 0 || kept.has(bit) {
				continue
			}
			if err := each(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, uintptr(bit)); err != nil {
				return nil, fmt.Errorf("capability %d leaves the bounding set: %w", bit, err)
			}
		}
	}
	if err := each(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL); err != nil {
		return nil, fmt.Errorf("no ambient capabilities: %w", err)
	}
	for i := range data {
		data[i] = unix.CapUserData{Effective: kept[i], Permitted: kept[i]}
	}
	header.Pid = 0 // the thread that asks
	err = each(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])))
	runtime.KeepAlive(&header)
	runtime.KeepAlive(&data)
	if err != nil {
		return nil, fmt.Errorf("capset: %w", err)
	}
	return names, nil
}

// hasBPF tells whether the kernel knows CAP_BPF (Linux 5.8).
func hasBPF() bool {
	_, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_BPF, 0, 0, 0)
	return err == nil
}
