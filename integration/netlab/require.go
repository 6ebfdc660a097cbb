package netlab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A Need is something outside the module that a test cannot do without.
type Need struct {
	Name  string       // what it is, for the sentence of a skipped test
	Check func() error // nil when it is there
}

// Require skips the test, in a sentence that names everything that is missing,
// unless all needs are met. With BITW_REQUIRE=all in the environment it fails
// the test instead: that is for machines on which every test must have run.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	var missing []string
	for _, need := range needs {
		if err := need.Check(); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v)", need.Name, err))
		}
	}
	if len(missing) == 0 {
		return
	}
	sentence := "this test needs " + strings.Join(missing, ", and ")
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("%s; BITW_REQUIRE=all makes that a failure", sentence)
	}
	t.Skip(sentence)
}

// Root is the need to be root: of the capabilities, making namespaces takes
// CAP_SYS_ADMIN, devices CAP_NET_ADMIN and captures CAP_NET_RAW.
func Root() Need {
	return Need{"root", func() error {
		if uid := os.Geteuid(); uid != 0 {
			return fmt.Errorf("the effective user id is %d", uid)
		}
		return nil
	}}
}

// TUN is the need of TAP devices.
func TUN() Need {
	return Need{"/dev/net/tun", func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}}
}

// Namespaces is the need of network namespaces that can be made, of bridges and
// of virtual Ethernet pairs.
func Namespaces() Need {
	return Need{"network namespaces with bridges and veth pairs", func() error {
		if os.Geteuid() != 0 {
			return errors.New("not root")
		}
		return probeNamespace()
	}}
}

// Tool is the need of a program on PATH; pkg is the Debian package that has it.
func Tool(name, pkg string) Need {
	return Need{"the program " + name, func() error {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("not on PATH; Debian's package %s has it", pkg)
		}
		return nil
	}}
}
