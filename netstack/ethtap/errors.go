//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// The errors of this package, to be matched with errors.Is. What is returned
// wraps one of them in a sentence that names what was found. It is meant for the
// operator, so it does not begin with the name of a package.
var (
	// ErrPermission: the caller lacks CAP_NET_ADMIN, CAP_NET_RAW or CAP_BPF.
	ErrPermission = errors.New("not permitted")
	// ErrNoTUN: the kernel offers no /dev/net/tun.
	ErrNoTUN = errors.New("no TUN/TAP driver")
	// ErrNoHook: the kernel has neither tcx nor clsact with BPF classifiers, or
	// not the one asked for.
	ErrNoHook = errors.New("no hook for the programs")
	// ErrBusy: a live process holds the interface.
	ErrBusy = errors.New("interface already taken")
	// ErrNoInterface: there is no interface of that name in the namespace.
	ErrNoInterface = errors.New("no such interface")
	// ErrNotEthernet: the interface carries no Ethernet frames.
	ErrNotEthernet = errors.New("not an Ethernet interface")
	// ErrOccupied: something that is not ours stands where the taps, pins or
	// filters must go.
	ErrOccupied = errors.New("name or place already in use")
	// ErrNoTap: somebody has taken a tap away.
	ErrNoTap = errors.New("no such tap")
	// ErrClosed: the tap is in state Closed, or the device was closed. It matches
	// os.ErrClosed too.
	ErrClosed = fmt.Errorf("the tap is closed: %w", os.ErrClosed)
	// ErrPassive: a write to a tap in state Passive.
	ErrPassive = errors.New("the tap is Passive, it takes no frames")
	// ErrFrame: a written frame is shorter than HeaderLen and an Ethernet header,
	// longer than MaxFrame, or its virtio-net header contradicts the frame.
	ErrFrame = errors.New("not a frame with its virtio-net header")
)

// permission turns the kernel's EPERM and EACCES into ErrPermission and leaves
// other errors as they are.
func permission(err error) error {
	if err == nil || errors.Is(err, ErrPermission) {
		return err
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%w (%w)", err, ErrPermission)
	}
	return err
}

// checkCapabilities asks before anything is touched, for the calling thread.
func checkCapabilities() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return fmt.Errorf("capget: %w", err)
	}
	has := func(c uint) bool { return data[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	if !has(unix.CAP_NET_ADMIN) {
		missing = append(missing, "CAP_NET_ADMIN")
	}
	if !has(unix.CAP_NET_RAW) {
		missing = append(missing, "CAP_NET_RAW")
	}
	if !has(unix.CAP_SYS_ADMIN) && !has(unix.CAP_BPF) {
		missing = append(missing, "CAP_BPF")
	}
	if missing == nil {
		return nil
	}
	return because(ErrPermission, "this needs root or the capabilities CAP_NET_ADMIN, CAP_NET_RAW and CAP_BPF; missing %s: run it as root", strings.Join(missing, " and "))
}

// kernelRelease is the running kernel's version for error texts.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// fault is a sentence that names what was found, and matches one of the errors of
// this package without saying it again.
type fault struct {
	text string
	kind error
}

func (f *fault) Error() string { return f.text }
func (f *fault) Unwrap() error { return f.kind }

// because makes a fault of one kind.
func because(kind error, format string, args ...any) error {
	return &fault{fmt.Sprintf(format, args...), kind}
}
