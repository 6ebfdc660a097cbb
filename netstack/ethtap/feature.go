//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udpForwarding is the name by which ethtool knows the feature that joins UDP datagrams
// which no socket of this host asked for, as bitw's are: generic receive offload joins
// them only with that (Linux 5.12), and only if they have a checksum.
const udpForwarding = "rx-udp-gro-forwarding"

// SetUDPForwarding has the interface join received UDP datagrams of a flow to superframes,
// where its generic receive offload is on, or no longer. What the device turns on is turned
// off again when it ends, by Close or Recover, and after a crash also by the next Open that
// takes nothing over; what was on before stays.
func (d *Device) SetUDPForwarding(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	d.udpForwarding = on
	if d.gone[outside] {
		return nil
	}
	return d.InNamespace(d.setUDPForwarding)
}

// setUDPForwarding makes the interface what was asked for. It runs inside the namespace.
func (d *Device) setUDPForwarding() error {
	if !d.udpForwarding {
		return undoUDPForwarding(d.pins, d.info.Name)
	}
	note, where := forwardingNote(d.pins), netnsCookie()
	if b, err := os.ReadFile(note); err == nil && string(b) == where {
		_, err := setFeature(d.info.Name, udpForwarding, true)
		return err // it was turned on by us before
	}
	if err := os.WriteFile(note, []byte(where), 0o644); err != nil {
		return fmt.Errorf("note what is turned on: %w", permission(err))
	}
	was, err := setFeature(d.info.Name, udpForwarding, true)
	if was || err != nil {
		return errors.Join(err, os.Remove(note))
	}
	return nil
}

// forwardingNote is the file that says that UDP forwarding of an interface was turned on by
// us. It outlives the process whatever the fail state, but no reboot, as the feature does, and
// has the cookie of the network namespace, whose number may have been another's. pins is
// the interface's directory of pins.
func forwardingNote(pins string) string {
	return filepath.Join(runDir, filepath.Base(pins)+".udp-forwarding")
}

// netnsCookie is that of the calling thread's network namespace, which no other has until the
// next boot (Linux 5.14); "0" where the kernel has none.
func netnsCookie() string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "0"
	}
	defer unix.Close(fd)
	cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	return strconv.FormatUint(cookie, 10)
}

// undoUDPForwarding turns the feature of the interface off if it was turned on by us. It runs
// inside the namespace.
func undoUDPForwarding(pins, name string) error {
	note := forwardingNote(pins)
	b, err := os.ReadFile(note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && string(b) == netnsCookie() {
		_, err = setFeature(name, udpForwarding, false)
	}
	return errors.Join(err, os.Remove(note))
}

const (
	featureStrings = 4  // ETH_SS_FEATURES of linux/ethtool.h
	featureName    = 32 // ETH_GSTRING_LEN
	featureMost    = 512
)

// setFeature turns a feature of an interface of the calling thread's namespace on or off,
// by the name that ethtool -k shows, and returns what it was.
func setFeature(iface, feature string, on bool) (was bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	fail := func(err error) (bool, error) {
		return false, fmt.Errorf("ethtool -K %s %s: %w", iface, feature, permission(err))
	}
	var names struct {
		cmd, set, n uint32
		text        [featureMost][featureName]byte
	}
	names.cmd, names.set, names.n = unix.ETHTOOL_GSTRINGS, featureStrings, 0
	count := struct {
		cmd, reserved uint32
		mask          uint64
		n             uint32
	}{cmd: unix.ETHTOOL_GSSET_INFO, mask: 1 << featureStrings}
	if err := ethtool(fd, iface, unsafe.Pointer(&count)); err != nil {
		return fail(err)
	}
	if count.n > featureMost {
		return fail(fmt.Errorf("the kernel has %d features", count.n))
	}
	if err := ethtool(fd, iface, unsafe.Pointer(&names)); err != nil {
		return fail(err)
	}
	bit := -1
	for i := range names.text[:min(names.n, featureMost)] {
		if unix.ByteSliceToString(names.text[i][:]) == feature {
			bit = i
		}
	}
	if bit < 0 {
		return fail(fmt.Errorf("kernel %s has no such feature: %w", kernelRelease(), unix.EOPNOTSUPP))
	}
	block, mask := bit/32, uint32(1)<<(bit%32)
	var now struct {
		cmd, blocks uint32
		features    [featureMost / 32]struct{ available, requested, active, never uint32 }
	}
	now.cmd, now.blocks = unix.ETHTOOL_GFEATURES, featureMost/32
	if err := ethtool(fd, iface, unsafe.Pointer(&now)); err != nil {
		return fail(err)
	}
	if was = now.features[block].active&mask != 0; was == on {
		return was, nil
	}
	if now.features[block].available&mask == 0 {
		return fail(fmt.Errorf("it is fixed: %w", unix.EOPNOTSUPP))
	}
	var next struct {
		cmd, blocks uint32
		features    [featureMost / 32]struct{ valid, requested uint32 }
	}
	next.cmd, next.blocks = unix.ETHTOOL_SFEATURES, (count.n+31)/32
	next.features[block].valid = mask
	if on {
		next.features[block].requested = mask
	}
	if err := ethtool(fd, iface, unsafe.Pointer(&next)); err != nil {
		return fail(err)
	}
	return was, nil
}

// ethtool issues the ioctl SIOCETHTOOL with what value points to.
func ethtool(fd int, iface string, value unsafe.Pointer) error {
	// struct ifreq: the name, and then a pointer.
	var req struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(req.name[:unix.IFNAMSIZ-1], iface)
	req.data = value
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	runtime.KeepAlive(value)
	if errno != 0 {
		return errno
	}
	return nil
}
