//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// openNamespace opens the network namespace at path, or the calling thread's.
func openNamespace(path string) (*os.File, uint64, error) {
	if path == "" {
		path = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open the network namespace: %w", permission(err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("stat the network namespace %s: %w", path, err)
	}
	return f, st.Ino, nil
}

// inNamespace runs fn on an OS thread of its own inside the namespace and waits
// for it. The thread is never returned to the scheduler: it ends with fn, so no
// failure can leave another goroutine in a namespace that is not its own.
func inNamespace(ns *os.File, fn func() error) error {
	done := make(chan error, 1)
	go onOwnThread(ns, fn, done)
	return <-done
}

func onOwnThread(ns *os.File, fn func() error, done chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		// The process's first thread cannot end, and /proc/self shows its
		// namespace: do it on another while this one is held.
		defer runtime.UnlockOSThread()
		next := make(chan error, 1)
		go onOwnThread(ns, fn, next)
		done <- <-next
		return
	}
	// Entering takes CAP_SYS_ADMIN even where one is already.
	if !sameFile("/proc/thread-self/ns/net", ns) {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace %s: %w", ns.Name(), permission(err))
			return
		}
	}
	err := errors.New("the function ended its goroutine")
	defer func() { done <- err }()
	err = fn()
}

// sameFile tells whether path leads to the file that is open.
func sameFile(path string, open *os.File) bool {
	var a, b unix.Stat_t
	return unix.Stat(path, &a) == nil && unix.Fstat(int(open.Fd()), &b) == nil && a.Dev == b.Dev && a.Ino == b.Ino
}
