//go:build linux

package hostnet

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen; nothing is measured.
const patience = 30 * time.Second

// missing skips a test, or fails it where everything is required.
func missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("required but missing: "+format, args...)
	}
	t.Skipf(format, args...)
}

var spaces atomic.Uint32 // makes the names of namespaces unique in this process

// space is a network namespace with eth0, one end of a veth whose other end far is
// up in the same namespace.
type space struct {
	t    testing.TB
	name string
	path string
}

const veth = "link add eth0 address 02:00:00:00:00:01 type veth peer name far"

func newSpace(t testing.TB) *space {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		missing(t, "no program ip (Debian package iproute2)")
	}
	name := fmt.Sprintf("bitw-hostnet-%d-%d", os.Getpid(), spaces.Add(1))
	s := &space{t: t, name: name, path: "/run/netns/" + name}
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		missing(t, "make a network namespace: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("remove network namespace %s: %v: %s", name, err, out)
		}
	})
	// eth0 alone speaks IPv6, and without waiting for duplicates.
	s.sysctl("net.ipv6.conf.default.accept_dad", "0")
	s.ip(veth, "link set far up", "link set eth0 up")
	s.until("an IPv6 address of its own and its route", func(i *Interface) bool { return i.Carrier && len(i.Addresses) > 0 && len(i.Routes) > 0 })
	return s
}

// until waits until the interface is as said, and returns it: the kernel needs a moment to
// notice that there is a link, and none any more.
func (s *space) until(what string, satisfies func(*Interface) bool) *Interface {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		i := s.read()
		if satisfies(i) {
			return i
		}
		if time.Now().After(end) {
			s.t.Fatalf("waited in vain for %s: %+v", what, i)
		}
	}
}

// ip runs commands of the program ip in the namespace.
func (s *space) ip(commands ...string) {
	s.t.Helper()
	for _, c := range commands {
		out, err := exec.Command("ip", append([]string{"-n", s.name}, strings.Fields(c)...)...).CombinedOutput()
		if err != nil {
			s.t.Fatalf("ip %s: %v: %s", c, err, out)
		}
	}
}

// batch runs many commands in one process.
func (s *space) batch(commands []string) {
	s.t.Helper()
	cmd := exec.Command("ip", "-n", s.name, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("ip -batch: %v: %s", err, out)
	}
}

func (s *space) sysctl(key, value string) {
	s.t.Helper()
	file := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	out, err := exec.Command("ip", "netns", "exec", s.name, "sh", "-c", "echo "+value+" > "+file).CombinedOutput()
	if err != nil {
		missing(s.t, "set %s: %v: %s", key, err, out)
	}
}

func (s *space) read() *Interface {
	s.t.Helper()
	i, err := Read(s.path, "eth0")
	if err != nil {
		s.t.Fatal(err)
	}
	return i
}

// step is one call of changed.
type step struct {
	i     *Interface
	event Event
}

// log gathers the calls of changed.
type log struct {
	t     testing.TB
	steps chan step
}

func newLog(t testing.TB) *log { return &log{t: t, steps: make(chan step, 1000)} }

func (l *log) changed(i *Interface, e Event) { l.steps <- step{i, e} }

// until reads steps until one leads to a snapshot that satisfies, and returns that
// snapshot with all events that came on the way.
func (l *log) until(what string, satisfies func(*Interface) bool) (*Interface, Event) {
	l.t.Helper()
	var events Event
	deadline := time.After(patience)
	for {
		select {
		case s := <-l.steps:
			events |= s.event
			if satisfies(s.i) {
				return s.i, events
			}
		case <-deadline:
			l.t.Fatalf("not seen: %s (events so far: %v)", what, events)
		}
	}
}

// routes renders the routes without the IPv6 ones that every interface has.
func routesOf(i *Interface) string {
	var lines []string
	for _, r := range i.Routes {
		if r.Destination == netip.MustParsePrefix("fe80::/64") {
			continue
		}
		line := r.Destination.String()
		if r.Via.IsValid() {
			line += " via " + r.Via.String()
		}
		if r.Metric != 0 {
			line += fmt.Sprintf(" metric %d", r.Metric)
		}
		if r.MTU != 0 {
			line += fmt.Sprintf(" mtu %d", r.MTU)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func openFiles(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
