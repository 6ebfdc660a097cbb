package confine

import "golang.org/x/sys/unix"

const archToken = unix.AUDIT_ARCH_X86_64

// archCalls are calls that newer machines have only under other names.
var archCalls = []uintptr{
	unix.SYS_EPOLL_WAIT, unix.SYS_POLL, unix.SYS_OPEN, unix.SYS_STAT, unix.SYS_LSTAT, unix.SYS_READLINK, unix.SYS_ACCESS,
	unix.SYS_MKDIR, unix.SYS_RMDIR, unix.SYS_UNLINK, unix.SYS_RENAME, unix.SYS_CHMOD, unix.SYS_TIME,
}
