package xfrmpeer

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of linux/elf.h and linux/seccomp.h.
const (
	ntX86XState     = 0x202
	seccompDataNr   = 0  // offset of the system call's number in struct seccomp_data
	seccompDataArg0 = 16 // of its first argument's low half, little-endian
	seccompDataArg2 = 32
)

// narrowRegisters has the kernel refuse the calling thread, and all that it
// starts, to read and set the extended processor state of a process that it
// traces.
//
// User-Mode Linux 6.1 keeps that state of the guest's processes in a
// buffer with room for AVX-512, but a host whose processor has more (AMX tiles)
// accepts nothing but a state of its full size: the guest dies with "ptrace set
// fp regs failed". Refused from the start, it keeps to the registers of SSE.
// Programs in the guest must then leave the wider ones alone, which C libraries
// are told by the environment; a guest is the same on every host so.
func narrowRegisters() error {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	// Goes on when the loaded word is k, else skips that many instructions.
	unless := func(k uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jf: skip}
	}
	answer := func(k uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
	}
	program := []unix.SockFilter{
		load(seccompDataNr),
		unless(unix.SYS_PTRACE, 6),
		load(seccompDataArg2),
		unless(ntX86XState, 4),
		load(seccompDataArg0),
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.PTRACE_GETREGSET, Jt: 1},
		unless(unix.PTRACE_SETREGSET, 1),
		answer(unix.SECCOMP_RET_ERRNO | uint32(unix.EIO)),
		answer(unix.SECCOMP_RET_ALLOW),
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter)))
	runtime.KeepAlive(program)
	if errno != 0 {
		return fmt.Errorf("seccomp filter: %w", errno)
	}
	return nil
}
