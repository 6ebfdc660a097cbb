package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

// needed are the capabilities that bitw up needs.
var needed = map[uintptr]string{unix.CAP_NET_ADMIN: "CAP_NET_ADMIN", unix.CAP_NET_RAW: "CAP_NET_RAW", unix.CAP_BPF: "CAP_BPF"}

// only leaves the calling thread, and what it starts, these capabilities.
func only(keep map[uintptr]string, but uintptr) error {
	for c := uintptr(0); ; c++ {
		in, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if err != nil {
			return nil // there are no more
		}
		if _, stays := keep[c]; in == 0 || stays && c != but {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil {
			return fmt.Errorf("capability %d: %w", c, err)
		}
	}
}

// noCapability is none of needed.
const noCapability = ^uintptr(0)

// threads checks what every thread of a process has.
func threads(t testing.TB, pid int, want map[string]string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) < 3 {
		t.Fatalf("threads of process %d: %q, %v", pid, files, err)
	}
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			key, value, _ := strings.Cut(line, ":")
			if w, ok := want[key]; ok && strings.TrimSpace(value) != w {
				t.Errorf("%s: %s is %s, expected %s", path, key, strings.TrimSpace(value), w)
			}
		}
	}
}

// confined is what a thread of bitw up has that began with the capabilities needed.
func confined() map[string]string {
	var mask uint64
	for c := range needed {
		mask |= 1 << c
	}
	set, none := fmt.Sprintf("%016x", mask), fmt.Sprintf("%016x", 0)
	return map[string]string{"CapInh": none, "CapPrm": set, "CapEff": set, "CapBnd": set, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2"}
}

// TestR07_R12_R48_WholeLifeWithThreeCapabilities begins with the capabilities of the
// service alone, ends up confined on all threads, and then does all that may come: another
// configuration, by apply and by SIGHUP, an interface that is created anew, a takeover,
// and a clean end.
func TestR07_R12_R48_WholeLifeWithThreeCapabilities(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := protected()
	p.settings = "forbid_bypass: true\nbypass_cgroup: " + newCgroup(t) + "\n"
	a, b := newBox(t, pair.A, p.yaml(true)), newBox(t, pair.B, p.yaml(false))
	a.prepare = func() error { return only(needed, noCapability) }
	a.up()
	b.up()
	check := func() { t.Helper(); threads(t, a.proc.Pid(), confined()) }
	check()
	c := watchClear(pair, 128)
	s := startStream(t, pair.A, pair.B, b4)
	s.moves("at first")

	text, err := os.ReadFile(a.file)
	if err != nil {
		t.Fatal(err)
	}
	change := func(mtu string) {
		t.Helper()
		if err := os.WriteFile(a.file, append(bytes.Clone(text), "mtu: "+mtu+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change("1400")
	if _, stderr, err := a.run("apply", a.file); err != nil {
		t.Errorf("bitw apply: %v\n%s", err, stderr)
	}
	change("1380")
	if err := a.proc.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP has the file read", func() bool { return a.status().MTU == 1380 })
	s.moves("after another configuration")

	for range 2 {
		last := a.sequence("v4-ab")
		unplug(t, pair.A)
		plug(t, pair)
		eventually(t, "the interface is cut again", func() bool { return a.sequence("v4-ab") > last })
		s.moves("after the interface came back")
	}

	old := a.proc
	a.up("--takeover")
	if err := old.Wait(); err != nil {
		t.Errorf("the process that was taken over from: %v", err)
	}
	check()
	unplug(t, pair.A)
	plug(t, pair)
	s.moves("after a takeover, and an interface that came back")

	a.down()
	silent(t, pair.A, b4)
	a.up()
	check()
	s.moves("after a clean end and another start")
	t.Logf("on the wire: %v", allESP(t, c))
	b.giveBack()
	a.giveBack()
}

// TestR07_EachCapabilityIsNeeded takes one away: the start fails with its name, and the
// interface is as it was.
func TestR07_EachCapabilityIsNeeded(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a := newBox(t, pair.A, protected().yaml(true))
	before := links(t, pair.A)
	for c, name := range needed {
		out := new(netlab.Output)
		cmd := exec.CommandContext(deadline(t, patience), bitwPath(t), "up", "-c", a.file)
		cmd.Stdout, cmd.Stderr = out, out
		proc, err := pair.A.StartPrepared(cmd, func() error { return only(needed, c) })
		if err != nil {
			t.Fatal(err)
		}
		if err := proc.Wait(); exitCode(err) != 1 || !strings.Contains(out.String(), "missing "+name) {
			t.Errorf("without %s: %v\n%s", name, err, out)
		}
		if now := links(t, pair.A); now != before {
			t.Errorf("without %s it left\n%s\nand there was\n%s", name, now, before)
		}
	}
}

// What bitw gives up can be chosen, by the configuration and by the command line, which
// counts for more.
func TestConfineChosen(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	for _, c := range []struct {
		key     string
		flags   []string
		seccomp string
		nnp     string
	}{
		{"", nil, "2", "1"},
		{"confine: capabilities\n", nil, "0", "1"},
		{"confine: off\n", nil, "0", "0"},
		{"confine: off\n", []string{"--confine", "full"}, "2", "1"},
		{"", []string{"--confine", "off"}, "0", "0"},
	} {
		p := protected()
		p.settings = c.key
		a := newBox(t, pair.A, p.yaml(true))
		a.up(c.flags...)
		threads(t, a.proc.Pid(), map[string]string{"Seccomp": c.seccomp, "NoNewPrivs": c.nnp})
		a.giveBack()
	}
}
