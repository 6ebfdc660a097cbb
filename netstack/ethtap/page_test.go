//go:build linux

package ethtap

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Page is the package's example, the loop of the original page as another program would
// write it; pageEnv makes the test binary that program.
var Page func()

const pageEnv = "BITW_ETHTAP_PAGE"

// TestR09_ThePagesLoop runs the package's example as it stands, in a process of its own,
// inside a host's network namespace.
func TestR09_ThePagesLoop(t *testing.T) {
	l := newLab(t)
	t.Cleanup(func() { Recover(l.a.options(Options{})) })
	p := &process{cmd: exec.Command("/proc/self/exe")}
	p.cmd.Env = append(os.Environ(), pageEnv+"=1")
	p.cmd.Stderr = os.Stderr
	l.a.in(t, p.cmd.Start)
	t.Cleanup(p.kill)
	_, ino, err := openNamespace(l.a.path)
	if err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(pinPath("", key{ino, l.a.index}), cutPin)
	until(t, "both taps Active", func() bool {
		c, err := loadCut(pin)
		if err != nil {
			return false
		}
		defer c.close()
		return c.flow() == flowOf(Active, Active)
	})
	passes(t, l)
	transfer(t, l.a, l.b, addr4)
	transfer(t, l.b, l.a, addr6)
	p.kill()
	ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
	send(t, ub, ua, "past nobody")
	if s, err := nextWithin(ua, 100*time.Millisecond); err == nil {
		t.Errorf("%q passes, and nobody copies", s)
	}
	if err := Recover(l.a.options(Options{})); err != nil {
		t.Fatal(err)
	}
	passes(t, l)
	wantClean(t, l.a)
}
