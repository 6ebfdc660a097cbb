//go:build linux

package ethtap

import (
	"errors"
	"fmt"
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
