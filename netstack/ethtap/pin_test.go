//go:build linux

package ethtap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// mountsEnv makes the test binary a process that says whether pins there outlive it.
const mountsEnv = "BITW_ETHTAP_MOUNTS"

func tellMounts() {
	fmt.Print(errors.Is(hostMounts(false, "/sys/fs"), ErrOccupied), errors.Is(hostMounts(true, bpfMount), ErrOccupied))
}

// TestR07_PinsOutliveTheProcess: a process in a mount namespace of its own, as ip netns exec
// makes one, or of one that has, mounts no bpf filesystem there that would end with it. The
// one that is there already may be used.
func TestR07_PinsOutliveTheProcess(t *testing.T) {
	newLab(t)
	for _, args := range [][]string{{"/proc/self/exe"}, {"sh", "-c", os.Args[0] + " && true"}} {
		for _, private := range []bool{false, true} {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Env = append(os.Environ(), mountsEnv+"=1")
			if private {
				cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
			}
			out, err := cmd.CombinedOutput()
			if want := fmt.Sprint(private, false); err != nil || string(out) != want {
				t.Errorf("%v, with mounts of its own %v: %s (%v), expected %s", args, private, out, err, want)
			}
		}
	}
}

// TestR07_PinsOutliveAnOrphan: the same where nobody is left of whom the process comes, as of
// one in the background of a script that has ended.
func TestR07_PinsOutliveAnOrphan(t *testing.T) {
	newLab(t)
	var st unix.Stat_t
	if !kernelThreads() && unix.Stat("/proc/1/ns/mnt", &st) != nil {
		missing(t, "a process that is not one of this test's and can be looked at")
	}
	for _, private := range []bool{false, true} {
		waits, goes, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		said, says, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("sh", "-c", "(cat <&3 >&2; exec "+os.Args[0]+") & exit 0")
		cmd.Env = append(os.Environ(), mountsEnv+"=1")
		cmd.Stdout, cmd.ExtraFiles = says, []*os.File{waits}
		if private {
			cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		}
		err = cmd.Run() // the shell leaves the other behind, who waits
		waits.Close()
		says.Close()
		goes.Close()
		out, rerr := io.ReadAll(said)
		said.Close()
		if want := fmt.Sprint(private, false); errors.Join(err, rerr) != nil || string(out) != want {
			t.Errorf("with mounts of its own %v: %s (%v, %v), expected %s", private, out, err, rerr, want)
		}
	}
}
