//go:build linux

package ethtap

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// DefaultPinDir is where pins are kept unless Options.PinDir says otherwise.
const DefaultPinDir = "/sys/fs/bpf/bitw"

const (
	bpfMount = "/sys/fs/bpf" // where every distribution mounts the bpf filesystem
	cutPin   = "cut"         // the pinned map; links are pinned under their point's name
)

// pinPath is the interface's own directory of pins.
func pinPath(dir string, k key) string {
	if dir == "" {
		dir = DefaultPinDir
	}
	return filepath.Join(dir, k.String())
}

// makePinDir makes the directory, mounting a bpf filesystem where every
// distribution has it if none is there.
func makePinDir(dir string) error {
	on, top, err := onBPF(dir)
	if err != nil {
		return err
	}
	if err := hostMounts(on, top); err != nil {
		return err
	}
	run, err := lockRunDir()
	if err != nil {
		return err
	}
	defer run.Close()
	if on, _, err = onBPF(dir); err != nil {
		return err
	}
	if !on {
		if !strings.HasPrefix(dir, bpfMount+"/") {
			return because(ErrOccupied, "the pin directory %s is not on a bpf filesystem; mount one with mount -t bpf", dir)
		}
		if err := unix.Mount("bpf", bpfMount, "bpf", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700"); err != nil {
			return fmt.Errorf("mount a bpf filesystem at %s: %w", bpfMount, permission(err))
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the pin directory: %w", permission(err))
	}
	return nil
}

// lockRunDir lets one process at a time make or remove what interfaces share: a
// second mount of the bpf filesystem would hide the first one's pins. The lock
// ends with the file.
func lockRunDir() (*os.File, error) {
	run, err := os.Open(runDir)
	if err != nil {
		return nil, fmt.Errorf("open the directory of locks: %w", err)
	}
	if err := unix.Flock(int(run.Fd()), unix.LOCK_EX); err != nil {
		run.Close()
		return nil, fmt.Errorf("lock %s: %w", runDir, err)
	}
	return run, nil
}

// onBPF tells whether dir, or what exists of the way to it, is on a bpf
// filesystem. top is what exists.
func onBPF(dir string) (on bool, top string, err error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Type == unix.BPF_FS_MAGIC, dir, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == "/" {
			return false, "", fmt.Errorf("statfs %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}

// hostMounts refuses a mount namespace that may end with this process, because
// its pins would end too and the interface would be open. "ip netns exec" makes
// such a one. A service manager's has the bpf filesystem of process 1, if any.
// Where process 1 cannot be looked at, the processes that this one comes of are instead, or
// if it has been left by all of them, as a program that a script put into the background,
// the kernel's own; where that cannot either, the question stays open.
func hostMounts(on bool, top string) error {
	var own, other unix.Stat_t
	if unix.Stat("/proc/self/ns/mnt", &own) != nil {
		return nil
	}
	others := append([]int{1}, ancestors()...)
	if len(others) == 1 && !on && kernelThreads() {
		others = append(others, kthreadd)
	}
	for _, pid := range others {
		proc := "/proc/" + strconv.Itoa(pid)
		switch {
		case unix.Stat(proc+"/ns/mnt", &other) != nil:
			continue
		case own.Ino == other.Ino && pid == 1:
			return nil
		case own.Ino == other.Ino:
			continue
		}
		var mine, its unix.Stat_t
		if on && unix.Stat(top, &mine) == nil && unix.Stat(proc+"/root"+top, &its) == nil && mine.Dev == its.Dev {
			return nil
		}
		return because(ErrOccupied, "failing shut needs pins that outlive the process, but this mount namespace is not that of process %d (ip netns exec makes its own) and has not its bpf filesystem: "+
			"enter the network namespace with nsenter --net=/run/netns/NAME, or as a library give its path", pid)
	}
	return nil
}

// kthreadd is the process of which all threads of the kernel come. It has the mounts with
// which the machine has started.
const kthreadd = 2

// kernelThreads says whether the kernel's own are among the processes seen here, as they
// are not in most containers.
func kernelThreads() bool {
	name, err := os.ReadFile("/proc/" + strconv.Itoa(kthreadd) + "/comm")
	return err == nil && string(name) == "kthreadd\n"
}

// ancestors are the processes from which this one comes, the nearest first, without process 1.
func ancestors() (pids []int) {
	for pid := os.Getppid(); pid > 1; {
		pids = append(pids, pid)
		text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			break
		}
		// The name before them may have anything in it, but they have no parenthesis.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(fields) < 2 {
			break
		}
		pid, _ = strconv.Atoi(fields[1]) // 0 for what is none
	}
	return pids
}

// removePinDir removes the interface's directory with all that is in it, and
// its parent if that is empty and not another user's, who has made it for more than this.
func removePinDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the pin directory: %w", err)
	}
	run, err := lockRunDir()
	if err != nil {
		return err
	}
	defer run.Close()
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	errs = append(errs, os.Remove(dir))
	var st unix.Stat_t
	if parent := filepath.Dir(dir); unix.Stat(parent, &st) == nil && int(st.Uid) == os.Geteuid() {
		os.Remove(parent)
	}
	return errors.Join(errs...)
}
