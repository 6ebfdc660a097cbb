//go:build linux

package ethtap

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a process that holds a device until it dies.
const childEnv = "BITW_ETHTAP_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(senderEnv); path != "" {
		rawSender(path)
		return
	}
	if os.Getenv(pageEnv) != "" {
		Page()
		return
	}
	if os.Getenv(mountsEnv) != "" {
		tellMounts()
		return
	}
	if spec := os.Getenv(childEnv); spec != "" {
		if err := child(spec); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

type childSpec struct {
	Options       Options
	Activate      bool // set both taps Active; a takeover needs not
	Pump, Release bool
	Forward       bool // ask for UDP forwarding
	HideTUN       bool // hide /dev/net/tun first, in a mount namespace of its own
}

// child opens the device, says so and copies until standard input ends.
func child(spec string) error {
	var s childSpec
	if err := json.Unmarshal([]byte(spec), &s); err != nil {
		return err
	}
	if s.HideTUN {
		if err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			unix.Mount("none", "/dev/net", "tmpfs", 0, "")); err != nil {
			return err
		}
	}
	d, err := Open(s.Options)
	if s.HideTUN {
		if !errors.Is(err, ErrNoTUN) {
			return fmt.Errorf("without %s: %v, expected ErrNoTUN", tunPath, err)
		}
		fmt.Println("ready", err)
		return nil
	}
	if err != nil {
		return err
	}
	if s.Activate {
		if err := d.SetStates(Active, Active); err != nil {
			return err
		}
	}
	if s.Forward {
		if err := d.SetUDPForwarding(true); err != nil {
			return err
		}
	}
	p := new(pump)
	if s.Pump {
		p.copy(d.Kernel(), d.Wire())
		p.copy(d.Wire(), d.Kernel())
	}
	fmt.Println("ready", d.TookOver(), d.Kernel().State(), d.Wire().State())
	io.Copy(io.Discard, os.Stdin)
	if s.Release {
		return d.Release()
	}
	return d.Close()
}

// process is a running child.
type process struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	says  string // its first line
}

func startChild(t testing.TB, s childSpec) *process {
	t.Helper()
	spec, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(spec))
	p.cmd.Stderr = os.Stderr
	if s.HideTUN {
		p.cmd.SysProcAttr = &unix.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "ready") {
		t.Fatalf("the child says %q (%v)", line, err)
	}
	p.says = strings.TrimSpace(line)
	return p
}

// kill ends the child by SIGKILL.
func (p *process) kill() {
	p.cmd.Process.Signal(unix.SIGKILL)
	p.cmd.Wait()
}

// end lets the child end by itself.
func (p *process) end(t testing.TB) {
	t.Helper()
	p.stdin.Close()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatalf("the child ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the child does not end")
	}
}
