//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runDir holds one lock file for each cut interface.
const runDir = "/run/bitw"

// key names an interface on the whole machine: names and indexes repeat from
// one namespace to the next.
type key struct {
	netns   uint64 // inode of the network namespace
	ifindex int
}

func (k key) String() string { return fmt.Sprintf("%d-%d", k.netns, k.ifindex) }

// lockFile is a held flock. It dies with the process, so a file left behind by
// SIGKILL blocks nobody.
type lockFile struct {
	f    *os.File
	path string
}

// lockPatience is how long a process may hold the interface that does not keep it: a start
// that fails, a guard, a recovery, a look at what was left. A service that cannot start has
// ten of them a second.
const lockPatience = time.Second

// awaitLock is takeLock for who is to have the interface: it waits for patience until it is
// free.
func awaitLock(k key, name string, patience time.Duration) (*lockFile, error) {
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		l, err := takeLock(k, name)
		if !errors.Is(err, ErrBusy) || !time.Now().Before(end) {
			return l, err
		}
	}
}

// takeLock takes the interface or tells by which process it is held.
func takeLock(k key, name string) (*lockFile, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of locks: %w", permission(err))
	}
	path := filepath.Join(runDir, k.String()+".lock")
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
		if err != nil {
			return nil, fmt.Errorf("open the lock file: %w", permission(err))
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			b, _ := os.ReadFile(path)
			f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, because(ErrBusy, "interface %s is already taken by the bitw of process %s", name, holder(b))
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The holder before us may have removed the file between our open and
		// our flock; then another process may lock a new file of this name.
		var mine, there unix.Stat_t
		if unix.Fstat(int(f.Fd()), &mine) == nil && unix.Stat(path, &there) == nil && mine.Ino == there.Ino && mine.Dev == there.Dev {
			l := &lockFile{f: f, path: path}
			if err := l.write(name); err != nil {
				l.release()
				return nil, fmt.Errorf("write %s: %w", path, err)
			}
			return l, nil
		}
		f.Close()
	}
}

func (l *lockFile) write(name string) error {
	if err := l.f.Truncate(0); err != nil {
		return err
	}
	_, err := l.f.WriteAt([]byte(strconv.Itoa(os.Getpid())+" "+name+"\n"), 0)
	return err
}

// release removes the file while the lock is still held, then lets go. A file that
// another process holds as well, by a handover, has no path here and stays.
func (l *lockFile) release() error {
	if l.path == "" {
		return l.f.Close()
	}
	return errors.Join(os.Remove(l.path), l.f.Close())
}

// holder gives the pid in a lock file's text.
func holder(b []byte) string {
	pid, _, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if _, err := strconv.Atoi(pid); err != nil {
		return "unknown"
	}
	return pid
}
