// Package netlab builds small networks out of network namespaces for tests that
// need real kernels: hosts with an "eth0" each, joined by a wire on which a
// third party can listen.
//
//	host A                 wire                    host B
//	eth0 ──veth── port-a │ bridge br0 │ port-b ──veth── eth0
//
// A wire is a namespace of its own that holds nothing but a bridge without
// addresses: a Capture there sees every frame that a host has sent, before any
// other host does, and neither end can tell.
//
// Everything that a Lab makes has a name with the process id in it and is gone
// after the test, also after a failed one. Nothing is made, changed or sent in
// the machine's own network namespace. The package knows nothing of bitw.
package netlab

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// prefix begins the name of every namespace of every lab:
// prefix, process id, number of the lab in the process, name in the lab.
const prefix = "bitwlab"

// labNumber tells the labs of one process apart. It only ever grows.
var labNumber atomic.Int64

// Lab is a set of namespaces that live as long as a test.
type Lab struct {
	t    testing.TB
	name string // prefix of its namespaces' names

	mu    sync.Mutex
	names map[string]bool // of namespaces in use
}

// New returns an empty lab for the test, which is skipped when the machine
// cannot have one (see Require). The lab's parts are removed in t.Cleanup in the
// reverse order of their making. Tests may have labs at the same time.
func New(t testing.TB) *Lab {
	t.Helper()
	Require(t, Root(), TUN(), Namespaces())
	removeStale()
	return &Lab{
		t:     t,
		name:  fmt.Sprintf("%s-%d-%d", prefix, os.Getpid(), labNumber.Add(1)),
		names: make(map[string]bool),
	}
}

// Name begins the names of the lab's namespaces in /run/netns.
func (l *Lab) Name() string { return l.name }

// claim reserves a name inside the lab.
func (l *Lab) claim(name string) error {
	if name == "" || len(name) > 8 || strings.ContainsAny(name, "/ -.") {
		return fmt.Errorf("netlab: a host or wire has a name of 1 to 8 letters and digits, not %q", name)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.names[name] {
		return fmt.Errorf("netlab: the lab has a %q already", name)
	}
	l.names[name] = true
	return nil
}

// removeStale removes the namespaces of test processes that were killed before
// they could. Only the names are left of those: a dead process's devices and
// sockets went with it, so nothing of anybody's is in use there.
func removeStale() {
	mounts, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"-*"))
	for _, mount := range mounts {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(mount), "-")[1])
		if err != nil {
			continue
		}
		// Signal 0 only asks whether there is such a process.
		if unix.Kill(pid, 0) == unix.ESRCH {
			// A second test process may be at the same: losing that race is fine.
			_ = netns.DeleteNamed(filepath.Base(mount))
		}
	}
}
