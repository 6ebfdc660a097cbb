//go:build linux && (amd64 || arm64)

package confine

import (
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// calls are allowed whatever their arguments.
var calls = []uintptr{
	// Frames, logs, sockets and files that are open.
	unix.SYS_READ, unix.SYS_WRITE, unix.SYS_READV, unix.SYS_WRITEV, unix.SYS_PREAD64, unix.SYS_PWRITE64,
	unix.SYS_SENDMMSG, unix.SYS_RECVMMSG, unix.SYS_SENDMSG, unix.SYS_RECVMSG, unix.SYS_SENDTO, unix.SYS_RECVFROM,
	unix.SYS_CLOSE, unix.SYS_CLOSE_RANGE, unix.SYS_FCNTL, unix.SYS_LSEEK, unix.SYS_FSTAT, unix.SYS_FTRUNCATE, unix.SYS_FSYNC, unix.SYS_FDATASYNC,
	unix.SYS_FLOCK, unix.SYS_GETDENTS64, unix.SYS_FSTATFS, unix.SYS_FCHMOD, unix.SYS_DUP3,
	unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT4, unix.SYS_CONNECT, unix.SYS_SHUTDOWN,
	unix.SYS_GETSOCKOPT, unix.SYS_SETSOCKOPT, unix.SYS_GETSOCKNAME, unix.SYS_GETPEERNAME,

	// Files by name: the configuration, state_dir, pins, locks.
	unix.SYS_OPENAT, unix.SYS_NEWFSTATAT, unix.SYS_STATX, unix.SYS_STATFS, unix.SYS_READLINKAT, unix.SYS_FACCESSAT, unix.SYS_FACCESSAT2,
	unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_FCHMODAT, unix.SYS_GETCWD,

	// Waiting.
	unix.SYS_FUTEX, unix.SYS_EPOLL_PWAIT, unix.SYS_EPOLL_PWAIT2, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_CREATE1, unix.SYS_EVENTFD2, unix.SYS_PIPE2, unix.SYS_PPOLL,
	unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_RESTART_SYSCALL, unix.SYS_SCHED_YIELD,
	unix.SYS_TIMERFD_CREATE, unix.SYS_TIMERFD_SETTIME,

	// Memory and threads.
	unix.SYS_MUNMAP, unix.SYS_MREMAP, unix.SYS_MADVISE, unix.SYS_MINCORE, unix.SYS_BRK, unix.SYS_MEMBARRIER,
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	unix.SYS_SET_ROBUST_LIST, unix.SYS_GET_ROBUST_LIST, unix.SYS_RSEQ, unix.SYS_SET_TID_ADDRESS, unix.SYS_SCHED_GETAFFINITY,
	unix.SYS_EXIT, unix.SYS_EXIT_GROUP,

	// What it asks about itself and the machine.
	unix.SYS_GETPID, unix.SYS_GETPPID, unix.SYS_GETTID, unix.SYS_GETUID, unix.SYS_GETEUID, unix.SYS_GETGID, unix.SYS_GETEGID, unix.SYS_GETGROUPS,
	unix.SYS_CAPGET, unix.SYS_GETRLIMIT, unix.SYS_GETRUSAGE, unix.SYS_SYSINFO, unix.SYS_UNAME,
	unix.SYS_CLOCK_GETTIME, unix.SYS_CLOCK_GETRES, unix.SYS_GETTIMEOFDAY, unix.SYS_TIMES, unix.SYS_GETRANDOM,
}

// A call is looked at with its arguments; check ends with what becomes of it.
type call struct {
	nr    uintptr
	check []bpf.Instruction
}

// looked are the calls that are allowed by their arguments.
func looked(pid int) []call {
	const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET
	noCode := []bpf.Instruction{
		argument(2),
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.PROT_EXEC, SkipFalse: 1},
		refuse, allow,
	}
	toItself := oneOf(0, uint32(pid))
	return []call{
		{unix.SYS_SOCKET, oneOf(0, unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK, unix.AF_PACKET)},
		{unix.SYS_BPF, oneOf(0,
			unix.BPF_MAP_CREATE, unix.BPF_MAP_LOOKUP_ELEM, unix.BPF_PROG_LOAD, unix.BPF_OBJ_PIN, unix.BPF_OBJ_GET,
			unix.BPF_OBJ_GET_INFO_BY_FD, unix.BPF_LINK_CREATE, unix.BPF_LINK_UPDATE)},
		{unix.SYS_IOCTL, oneOf(1, unix.TUNSETPERSIST, unix.TUNSETQUEUE, unix.TUNSETOFFLOAD, unix.TUNGETIFF, unix.SIOCETHTOOL, unix.TCGETS)},
		{unix.SYS_PRCTL, oneOf(0, unix.PR_SET_VMA, unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_CAPBSET_READ)},
		{unix.SYS_MMAP, noCode},
		{unix.SYS_MPROTECT, noCode},
		{unix.SYS_TGKILL, toItself},
		{unix.SYS_KILL, toItself},
		{unix.SYS_CLONE, []bpf.Instruction{ // threads, and nothing else
			argument(0),
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: namespaces, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.CLONE_THREAD, SkipFalse: 1},
			allow, kill,
		}},
		// Its flags are in memory, where a filter cannot look; libc then takes clone.
		{unix.SYS_CLONE3, []bpf.Instruction{absent}},
		// To read, not to set.
		{unix.SYS_PRLIMIT64, []bpf.Instruction{
			argument(2),
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
			refuse, allow,
		}},
	}
}

// oneOf allows a call with one of these values as its argument i.
func oneOf(i int, values ...uint32) []bpf.Instruction {
	p := []bpf.Instruction{argument(i)}
	for _, v := range values {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: 1}, allow)
	}
	return append(p, refuse)
}

// fatal kill the process.
var fatal = []uintptr{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT,
	unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETREUID, unix.SYS_SETREGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_SETGROUPS,
}
