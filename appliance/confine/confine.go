//go:build linux

package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Options of Process.
type Options struct {
	// Seccomp says that the filter is wanted.
	Seccomp bool
}

// A Report is what Process has done.
type Report struct {
	// Capabilities are those that remain, by name.
	Capabilities []string
	// Seccomp says that the filter is in force. Otherwise NoSeccomp says why not, nil if
	// it was not wanted.
	Seccomp   bool
	NoSeccomp error
}

// Process confines the calling process. After an error some of it may be in force. A
// machine on which there is no seccomp, or none for this process, is none, see Report.
func Process(o Options) (*Report, error) {
	if err := each(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1); err != nil {
		return nil, fmt.Errorf("no_new_privs: %w", err)
	}
	kept, err := dropCapabilities()
	if err != nil {
		return nil, err
	}
	// Not before: of a process that is not, who is not root cannot list the threads.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("not dumpable: %w", err)
	}
	r := &Report{Capabilities: kept}
	if !o.Seccomp {
		return r, nil
	}
	switch err := installFilter(); {
	case err == nil:
		r.Seccomp = true
	case errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EINVAL), errors.Is(err, errors.ErrUnsupported):
		r.NoSeccomp = fmt.Errorf("this machine has no seccomp filters for all threads (CONFIG_SECCOMP_FILTER, Linux 4.14): %w", err)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		r.NoSeccomp = fmt.Errorf("whoever started this process forbids it the system call seccomp: %w", err)
	default:
		return nil, fmt.Errorf("seccomp: %w", err)
	}
	return r, nil
}

// each makes a system call in every thread.
func each(nr uintptr, args ...uintptr) error {
	var a [6]uintptr
	copy(a[:], args)
	if _, _, errno := psx.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
		return errno
	}
	return nil
}
