// Package service tests bitw as a user has it who installs the package: on a machine with
// systemd, which is a real one in namespaces of its own.
package service

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

//go:embed boot.sh
var boot string

const systemd = "/lib/systemd/systemd"

// needs are those of a machine.
func needs() []netlab.Need {
	file := func(path, pkg string) netlab.Need {
		return netlab.Need{Name: path, Check: func() error {
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("%w; Debian's package %s has it", err, pkg)
			}
			return nil
		}}
	}
	return []netlab.Need{
		netlab.Root(), netlab.TUN(), netlab.Namespaces(), file(systemd, "systemd"), netlab.Tool("systemctl", "systemd"), netlab.Tool("dpkg", "dpkg"),
		netlab.Tool("unshare", "util-linux"), netlab.Tool("nsenter", "util-linux"), netlab.Tool("go", "golang"),
		{Name: "overlayfs", Check: func() error {
			b, err := os.ReadFile("/proc/filesystems")
			if err == nil && !strings.Contains(string(b), "\toverlay\n") {
				err = errors.New("not among /proc/filesystems")
			}
			return err
		}},
		{Name: "cgroup2", Check: func() error { _, err := ethtap.DefaultCgroup(); return err }},
	}
}

// packagesMade is the folder of packages, once there is one.
var packagesMade string

// packages are the package in two versions, made once.
var packages = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "bitw-service-"); err != nil {
		return "", err
	}
	packagesMade = dir
	for _, version := range []string{"0.1.0", "0.1.1"} {
		cmd := exec.Command("go", "run", "-C", "../../cmd/bitw/packaging", ".", "-o", dir, "-version", version)
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
		}
	}
	return dir, nil
})

// A machine is a host of a lab that systemd runs.
type machine struct {
	t    testing.TB
	host *netlab.Host
	pid  int // of its process 1
}

// newMachine boots one on a host of a lab, after lines of shell that find the packages in
// /run/packages. What they enable for idle.target is started with it.
func newMachine(t testing.TB, host *netlab.Host, before string) *machine {
	t.Helper()
	dir, err := packages()
	if err != nil {
		t.Fatal(err)
	}
	cgroups, err := ethtap.DefaultCgroup()
	if err != nil {
		t.Fatal(err)
	}
	cgroup, err := os.MkdirTemp(cgroups, "bitw-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeCgroup(t, cgroup) })
	cmd := exec.Command("sh", "-c", `echo 0 >"$1/cgroup.procs" && exec unshare --mount --pid --fork --kill-child --uts --ipc --cgroup sh -c "$2" boot.sh "$3" "$4" "$5"`,
		"sh", cgroup, boot, t.TempDir(), dir, before)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	p, err := host.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("systemd on %s wrote:\n%s", host.Name(), out.String())
		}
	})
	m := &machine{t: t, host: host}
	eventually(t, "systemd is up", func() bool {
		select {
		case <-p.Done():
			t.Fatalf("systemd ended: %v\n%s", p.Wait(), out.String())
		default:
		}
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.Pid()))
		if err != nil {
			return false
		}
		m.pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return false
		}
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", m.pid))
		if err != nil || filepath.Base(exe) != "systemd" {
			return false
		}
		_, err = m.try("systemctl", "is-active", "idle.target")
		return err == nil
	})
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := m.try("tail", "-n", "60", "/run/log")
			units, _ := m.try("systemctl", "status", "--no-pager", "bitw-guard@eth0", "bitw@eth0")
			t.Logf("the service on %s wrote:\n%s\n%s", host.Name(), log, units)
		}
	})
	return m
}

// removeCgroup removes a cgroup whose processes are ending.
func removeCgroup(t testing.TB, dir string) {
	var dirs []string
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		dirs = nil
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = unix.Rmdir(dirs[i])
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
	}
	t.Errorf("the cgroups %q remain", dirs)
}

// try runs a program on the machine.
func (m *machine) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", strconv.Itoa(m.pid), "-a", name}, args...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run is try for what must go well.
func (m *machine) run(name string, args ...string) string {
	m.t.Helper()
	out, err := m.try(name, args...)
	if err != nil {
		m.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// sh is run for a line of shell.
func (m *machine) sh(line string) string {
	m.t.Helper()
	return m.run("sh", "-ec", line)
}

// fails runs a line of shell that must fail, and say so.
func (m *machine) fails(line, says string) {
	m.t.Helper()
	if out, err := m.try("sh", "-ec", line); err == nil || !strings.Contains(out, says) {
		m.t.Errorf("%s: %v, expected a failure that says %q:\n%s", line, err, says, out)
	}
}

// property is one of the service on eth0.
func (m *machine) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl", "show", "-P", name, "bitw@eth0"))
}

// active waits until the service runs, with another main process than was, and returns
// that.
func (m *machine) active(was string) string {
	m.t.Helper()
	pid := ""
	eventually(m.t, "the service is active, with another process than "+was, func() bool {
		if m.property("ActiveState") != "active" {
			return false
		}
		pid = m.property("MainPID")
		return pid != was && pid != "0"
	})
	return pid
}

// eventually waits for something to become true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
