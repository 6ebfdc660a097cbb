package netns

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ethtoolValue is struct ethtool_value of linux/ethtool.h.
type ethtoolValue struct {
	command, data uint32
}

// ethtoolRequest is struct ifreq of linux/if.h with its pointer member.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte
}

// OffloadsOff makes an interface of the calling thread's namespace send and receive
// frames as a wire would have them: no segmentation or checksum left to the device,
// nothing merged.
func OffloadsOff(iface string) error {
	return turnOff(iface, tso, gso, gro, txChecksums)
}

// DeviceOffloadsOff leaves what the kernel does itself: segmentation just before an
// interface of the calling thread's namespace sends, and merging just after it received.
// On the wire frames are those of OffloadsOff.
func DeviceOffloadsOff(iface string) error { return turnOff(iface, tso, txChecksums) }

// An offload is what ethtool -K knows by its name.
type offload struct {
	name    string
	command uint32
}

var (
	tso         = offload{"tso", unix.ETHTOOL_STSO}
	gso         = offload{"gso", unix.ETHTOOL_SGSO}
	gro         = offload{"gro", unix.ETHTOOL_SGRO}
	txChecksums = offload{"tx checksums", unix.ETHTOOL_STXCSUM}
)

// turnOff turns offloads of an interface off.
func turnOff(iface string, features ...offload) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, feature := range features {
		value := &ethtoolValue{command: feature.command}
		request := ethtoolRequest{data: unsafe.Pointer(value)}
		copy(request.name[:unix.IFNAMSIZ-1], iface)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("switching %s of %s off: %w", feature.name, iface, errno)
		}
	}
	return nil
}
