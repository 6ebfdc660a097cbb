//go:build linux

package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

// TestMain lets the test's executable be a process to confine.
func TestMain(m *testing.M) {
	if what := os.Getenv("BITW_TEST_CONFINE"); what != "" {
		confined(what)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// account is what a confined process tells of itself.
type account struct {
	Report  *Report
	Threads []map[string]string // the lines of /proc/self/task/*/status
	Tried   map[string]string   // what became of calls
}

// confined is the process: it has threads that wait in the kernel, confines itself, starts
// more of them, and tries.
func confined(what string) {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(3)
	}
	threads := func(n int) {
		for range n {
			started := make(chan bool)
			go func() {
				runtime.LockOSThread()
				var p [2]int
				if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
					fail(err)
				}
				close(started)
				_, _ = unix.Read(p[0], make([]byte, 1)) // for good
			}()
			<-started
		}
	}
	threads(8)
	r, err := Process(Options{Seccomp: what != "capabilities"})
	if err != nil {
		fail(err)
	}
	threads(8)
	a := account{Report: r, Tried: make(map[string]string)}
	switch what {
	case "execute":
		fail(errors.Join(errors.New("it could"), syscall.Exec("/bin/true", []string{"true"}, nil)))
	case "enter":
		fail(errors.Join(errors.New("it could"), unix.Unshare(unix.CLONE_NEWNET)))
	}
	try := func(what string, err error) { a.Tried[what] = fmt.Sprint(err) }
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	unix.Close(fd)
	try("netlink", err)
	fd, err = unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	unix.Close(fd)
	try("alg", err)
	_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	try("code", err)
	try("signal to another", unix.Kill(os.Getppid(), 0))
	status, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		fail(err)
	}
	for _, path := range status {
		b, err := os.ReadFile(path)
		if err != nil {
			fail(err)
		}
		lines := make(map[string]string)
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			lines[key] = strings.TrimSpace(value)
		}
		a.Threads = append(a.Threads, lines)
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		fail(err)
	}
}

// runConfined runs a process to be confined, as root or with only the ambient capabilities.
func runConfined(t *testing.T, what string, ambient []uintptr) (*account, error) {
	t.Helper()
	// Where nobody can execute it.
	exe := filepath.Join(t.TempDir(), "program")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, b, 0o755)
	}
	for dir := filepath.Dir(exe); err == nil && dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "BITW_TEST_CONFINE="+what)
	if ambient != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, AmbientCaps: ambient}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	a := new(account)
	if err := json.Unmarshal(out.Bytes(), a); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	return a, nil
}

// Every thread has the reduced sets, those that were there and wait, and those that come
// later.
func TestEveryThread(t *testing.T) {
	netlab.Require(t, netlab.Root())
	for _, c := range []struct {
		name, what string
		ambient    []uintptr
		kept       []string
	}{
		{"root", "full", nil, []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_DAC_OVERRIDE"}},
		{"root, capabilities alone", "capabilities", nil, []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_DAC_OVERRIDE"}},
		{"a user with too much", "full", []uintptr{unix.CAP_NET_ADMIN, unix.CAP_BPF, unix.CAP_SYS_PTRACE, unix.CAP_DAC_OVERRIDE}, []string{"CAP_NET_ADMIN", "CAP_BPF"}},
		{"a user with nothing", "full", []uintptr{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := runConfined(t, c.what, c.ambient)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(a.Report.Capabilities, c.kept) {
				t.Errorf("kept %q, expected %q", a.Report.Capabilities, c.kept)
			}
			var mask uint64
			for _, k := range keep {
				if slices.Contains(c.kept, k.name) {
					mask |= 1 << k.bit
				}
			}
			if len(a.Threads) < 17 {
				t.Errorf("%d threads", len(a.Threads))
			}
			want := map[string]string{
				"CapInh": fmt.Sprintf("%016x", 0), "CapPrm": fmt.Sprintf("%016x", mask), "CapEff": fmt.Sprintf("%016x", mask), "CapAmb": fmt.Sprintf("%016x", 0),
				"NoNewPrivs": "1", "Seccomp": "2",
			}
			if c.ambient == nil { // who has no CAP_SETPCAP cannot change it
				want["CapBnd"] = want["CapPrm"]
			}
			refused := unix.EPERM.Error()
			if c.what != "full" {
				want["Seccomp"], refused = a.Threads[0]["Seccomp"], "<nil>"
			}
			for i, lines := range a.Threads {
				for key, value := range want {
					if lines[key] != value {
						t.Errorf("thread %d: %s is %s, expected %s", i, key, lines[key], value)
					}
				}
			}
			if a.Tried["netlink"] != "<nil>" {
				t.Errorf("a netlink socket: %s", a.Tried["netlink"])
			}
			if a.Tried["code"] != refused || a.Tried["alg"] != refused && c.what == "full" {
				t.Errorf("what was tried: %v", a.Tried)
			}
		})
	}
}

// What only an intruder does ends the process.
func TestKilled(t *testing.T) {
	netlab.Require(t, netlab.Root())
	for _, what := range []string{"execute", "enter"} {
		_, err := runConfined(t, what, nil)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != unix.SIGSYS {
			t.Errorf("%s: %v, expected the end by SIGSYS", what, err)
		}
	}
}
