package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// TestMain lets the test's own executable be the program bitw, too.
func TestMain(m *testing.M) {
	if os.Getenv("BITW_TEST_AS_PROGRAM") != "" {
		os.Unsetenv("BITW_TEST_AS_PROGRAM")
		p := newProgram()
		if os.Getenv("BITW_TEST_HANG") != "" {
			hangOnSignal(p)
		}
		os.Exit(p.run(context.Background(), os.Args[1:]))
	}
	os.Exit(m.Run())
}

// A liveHost is a host with the program and its configuration.
type liveHost struct {
	*netlab.Host
	program, dir, config, socket string
}

func newLiveHost(t *testing.T, h *netlab.Host, own, other netip.Addr, spiOut, spiIn int) *liveHost {
	t.Helper()
	// Readable by others: one test starts the program as another user.
	dir, err := os.MkdirTemp("", "bitw-live-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l := &liveHost{
		Host: h, dir: dir, program: filepath.Join(dir, "program"),
		config: filepath.Join(dir, "bitw.yaml"), socket: filepath.Join(dir, "sock"),
	}
	copyFile(t, "/proc/self/exe", l.program)
	key := strings.Repeat("00112233", 5)
	text := fmt.Sprintf(`interface: eth0
control: %s
state_dir: %s
security_associations:
  - {name: out, direction: out, protocol: esp, mode: transport, spi: %d, source: %s, destination: %s, algorithm: aes128gcm16, encryption_key: %s}
  - {name: in, direction: in, protocol: esp, mode: transport, spi: %d, source: %s, destination: %s, algorithm: aes128gcm16, encryption_key: %s}
policies:
  - {name: peer, local: %s, remote: %s, action: protect, out: [out], in: [in]}
`, l.socket, filepath.Join(dir, "state"), spiOut, own, other, fmt.Sprintf("%08x", spiOut)+key[8:], spiIn, other, own, fmt.Sprintf("%08x", spiIn)+key[8:], own, other)
	if err := os.WriteFile(l.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return l
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// command is the program with arguments, as user uid.
func (l *liveHost) command(uid uint32, args ...string) (cmd *exec.Cmd, out, err *safeBuffer) {
	cmd, out, err = exec.Command(l.program, args...), new(safeBuffer), new(safeBuffer)
	cmd.Env = append(os.Environ(), "BITW_TEST_AS_PROGRAM=1")
	cmd.Stdout, cmd.Stderr = out, err
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	return cmd, out, err
}

// up starts bitw up and waits until the interface is cut.
func (l *liveHost) up(t *testing.T, flags ...string) (*netlab.Process, *safeBuffer) {
	t.Helper()
	cmd, out, errs := l.command(0, append([]string{"up", "-c", l.config}, flags...)...)
	p, err := l.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	limit := time.After(time.Minute)
	for !strings.Contains(out.String(), "eth0 is cut and protected") {
		select {
		case <-p.Done():
			t.Fatalf("bitw up: %v: %s", p.Wait(), errs.String())
		case <-limit:
			t.Fatalf("bitw up does not get there: %s", errs.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return p, out
}

// call runs a verb to its end.
func (l *liveHost) call(t *testing.T, uid uint32, status int, want string, args ...string) string {
	t.Helper()
	cmd, out, errs := l.command(uid, args...)
	p, err := l.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	if err := p.Wait(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			t.Fatal(err)
		}
		got = exit.ExitCode()
	}
	text := out.String() + errs.String()
	if got != status || !strings.Contains(text, want) {
		t.Errorf("bitw %s: status %d, expected %d with %q:\n%s", strings.Join(args, " "), got, status, want, text)
	}
	return text
}

// state is what a program could have changed of the interfaces of a host.
func (l *liveHost) state(t *testing.T) []string {
	t.Helper()
	links, err := l.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	var state []string
	for _, link := range links {
		qdiscs, err := l.Netlink().QdiscList(link)
		if err != nil {
			t.Fatal(err)
		}
		s := link.Attrs().Name
		for _, q := range qdiscs {
			s += " " + q.Type()
		}
		state = append(state, s)
	}
	return state
}

func livePair(t *testing.T) (a, b *liveHost, addrB netip.Addr) {
	t.Helper()
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces())
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	addrA, addrB := netlab.DefaultA()[0].Addr(), netlab.DefaultB()[0].Addr()
	return newLiveHost(t, pair.A, addrA, addrB, 0x1001, 0x2001), newLiveHost(t, pair.B, addrB, addrA, 0x2001, 0x1001), addrB
}

// The verbs on real interfaces: up, status, a kill, up again, down and recover.
func TestLive(t *testing.T) {
	a, b, addrB := livePair(t)
	before := a.state(t)
	pa, _ := a.up(t)
	pb, outB := b.up(t, "--open-on-stop", "--hook", "clsact")
	answered(t, a.Host, addrB, "both are up")
	for end := time.Now().Add(patience); ; {
		// What has arrived is counted a moment later.
		text := a.call(t, 0, 0, "security association: out\n", "status", "-c", a.config)
		if !strings.Contains(text, "  out: 0 packets") && !strings.Contains(text, "  in: 0 packets") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("status does not count what passed:\n%s", text)
		}
	}
	b.call(t, 0, 0, `"cut": "clsact"`, "status", "--socket", b.socket, "-o", "json")
	a.call(t, 0, 1, "already taken", "up", "-c", a.config)
	a.call(t, 0, 1, "already taken", "recover", "eth0")
	a.call(t, 65534, 1, "is not for this user", "status", "--socket", a.socket)

	pa.Kill()
	silent(t, a.Host, addrB, "killed")
	a.call(t, 0, 1, "nobody answers", "status", "--socket", a.socket)
	pa, _ = a.up(t)
	answered(t, a.Host, addrB, "taken over")
	a.call(t, 0, 0, "taken over from a process", "status", "--socket", a.socket)

	a.call(t, 0, 0, "bitw on eth0 is down", "down", "--socket", a.socket)
	if err := pa.Wait(); err != nil {
		t.Errorf("bitw up ended by down: %v", err)
	}
	silent(t, a.Host, addrB, "down")
	a.call(t, 0, 0, "nothing of bitw is left", "recover", "eth0")
	if err := pb.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := pb.Wait(); err != nil {
		t.Errorf("bitw up ended by SIGTERM: %v", err)
	}
	if !strings.Contains(outB.String(), "carries its traffic without protection now") {
		t.Errorf("bitw up --open-on-stop said: %s", outB.String())
	}
	answered(t, a.Host, addrB, "without protection, by the operator's word")
	for _, h := range []*liveHost{a, b} {
		if after := h.state(t); !slices.Equal(before, after) {
			t.Errorf("interfaces before %q, after %q", before, after)
		}
	}
}

// What cannot be done is told in one sentence, and nothing is changed.
func TestLiveRefusals(t *testing.T) {
	a, _, _ := livePair(t)
	before := a.state(t)
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	other := func(name, from, to string, mode os.FileMode, uid int) string {
		path := filepath.Join(a.dir, name)
		if err := errors.Join(
			os.WriteFile(path, bytes.ReplaceAll(text, []byte(from), []byte(to)), mode),
			os.Chown(path, uid, uid),
		); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct {
		name, config, want string
		uid                uint32
	}{
		{"no interface", other("1.yaml", "interface: eth0", "interface: eth7", 0o600, 0), `:1:12: no such interface: "eth7"`, 0},
		{"no Ethernet", other("2.yaml", "interface: eth0", "interface: lo", 0o600, 0), "thernet", 0},
		{"not root", other("3.yaml", "", "", 0o600, 65534), "needs root", 65534},
		{"keys of another user", a.config, "permission denied", 65534},
		{"keys for everybody", other("4.yaml", "", "", 0o644, 0), "chmod 600", 0},
		{"state_dir is a file", other("5.yaml", a.dir+"/state", a.program, 0o600, 0), "state_dir", 0},
		{"control is a file", other("6.yaml", "control: "+a.socket, "control: "+a.program, 0o600, 0), "control socket", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := a.call(t, c.uid, 1, c.want, "up", "-c", c.config)
			if n := strings.Count(text, "bitw: "); n != 1 {
				t.Errorf("%d sentences, expected one:\n%s", n, text)
			}
			if after := a.state(t); !slices.Equal(before, after) {
				t.Errorf("interfaces before %q, after %q", before, after)
			}
		})
	}
}
