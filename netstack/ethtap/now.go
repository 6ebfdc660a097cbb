//go:build linux

package ethtap

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// System calls that carry frames never wait, and last no longer than a computation may. The
// runtime is not told of them: it would wake its monitor thread for each that comes after a
// time of rest, which takes longer than the call.

func readNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

func writeNow(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}

// sendNow is sendmmsg(2) of the first n messages.
func sendNow(fd int, msgs *sendings) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msgs.msgs[0])), uintptr(msgs.n), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// yieldNow lets other threads go first that want this processor of the machine.
func yieldNow() { _, _, _ = unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
