//go:build linux && (amd64 || arm64)

package confine

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data. Only the lower half of an argument is looked at, which
// lies first on the machines of archToken; what the kernel takes there are 32 bits, or flags.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

func argument(i int) bpf.Instruction {
	return bpf.LoadAbsolute{Off: uint32(offArgs + 8*i), Size: 4}
}

// What becomes of a call (linux/seccomp.h).
var (
	allow  = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	refuse = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}
	absent = bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)}
	kill   = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

// x32 marks calls of amd64's other ABI, which have the same arch token.
const x32 = 0x40000000

// filter makes the program: the numbers of calls in their order in the table. The kernel
// runs it once for each call that is allowed whatever its arguments, and remembers
// (Linux 5.11).
func filter(pid int) []bpf.Instruction {
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: archToken, SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offNumber, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: x32, SkipFalse: 1},
		kill,
	}
	is := func(nr uintptr, then ...bpf.Instruction) {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(nr), SkipFalse: uint8(len(then))})
		p = append(p, then...)
	}
	for _, nr := range slices.Concat(calls, archCalls) {
		is(nr, allow)
	}
	for _, c := range looked(pid) {
		is(c.nr, c.check...)
	}
	for _, nr := range fatal {
		is(nr, kill)
	}
	return append(p, refuse)
}

// installFilter puts the filter on all threads.
func installFilter() error {
	raw, err := bpf.Assemble(filter(os.Getpid()))
	if err != nil {
		return err
	}
	code := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		code[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC|unix.SECCOMP_FILTER_FLAG_LOG, uintptr(unsafe.Pointer(&program)))
	runtime.KeepAlive(code)
	if errno != 0 {
		return errno
	}
	if thread != 0 {
		return fmt.Errorf("thread %d has a filter of its own", thread)
	}
	return nil
}
