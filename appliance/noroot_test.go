package appliance

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// TestR49_NoPrivilege runs two appliances in one process that has no privilege.
func TestR49_NoPrivilege(t *testing.T) {
	// By this name the program can be run wherever it is.
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestR49_TwoAppliancesInOneProcess$", "-test.v")
	cmd.Dir = "/"
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
