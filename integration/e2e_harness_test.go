// Package integration tests the program bitw whole: built, started as a process of
// its own on the interfaces of hosts with real kernels, and watched from the wire
// between them.
package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/integration/netlab"
)

var (
	a4, b4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// program builds bitw once. It lies in a folder that others may enter, because a
// test runs it as nobody.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "bitw-e2e-")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "bitw")
	out, err := exec.Command("go", "build", "-o", path, "bitw/cmd/bitw").CombinedOutput()
	if err != nil {
		return path, fmt.Errorf("building bitw: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, _ := builtAlready(); path != "" {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

var built bool

func builtAlready() (string, error) {
	if !built {
		return "", nil
	}
	return program()
}

func bitwPath(t testing.TB) string {
	t.Helper()
	built = true
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// patience is how long a test waits for what must happen; nothing is measured by it.
const patience = time.Minute

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// flow is a protected flow between a's address and b's: a policy and an SA each way.
type flow struct {
	name       string
	a, b       netip.Addr // of the policy
	endA, endB netip.Addr // of the SAs; zero: a and b
	mode       string
	algorithm  string
	spi        uint32 // from a to b; the way back has 0x1000 more
	enc, integ []byte // the keys of both ways after each other
}

var keyLengths = map[string][2]int{
	"aes128gcm16": {20, 0}, "aes256gcm16": {36, 0}, "chacha20poly1305": {36, 0},
	"aes128-sha256": {16, 32}, "aes256-sha256": {32, 32},
}

// newFlow is a flow with fresh keys.
func newFlow(name, mode, algorithm string, spi uint32, a, b netip.Addr) *flow {
	lengths, ok := keyLengths[algorithm]
	if !ok {
		panic("no key lengths for " + algorithm)
	}
	f := &flow{name: name, a: a, b: b, endA: a, endB: b, mode: mode, algorithm: algorithm, spi: spi,
		enc: make([]byte, 2*lengths[0]), integ: make([]byte, 2*lengths[1])}
	_, _ = rand.Read(f.enc)
	_, _ = rand.Read(f.integ)
	return f
}

// through sets the ends of the tunnel.
func (f *flow) through(a, b netip.Addr) *flow {
	f.endA, f.endB = a, b
	return f
}

// key is the half of both ways' keys that is for one way.
func key(both []byte, back bool) []byte {
	if back {
		return both[len(both)/2:]
	}
	return both[:len(both)/2]
}

// plan is what both hosts are told.
type plan struct {
	flows    []*flow
	settings string // lines of the top level
	first    string // policies that come before the flows'
	last     string // and after
}

// yaml is the plan as host a or b sees it.
func (p *plan) yaml(isA bool) string {
	var w strings.Builder
	w.WriteString("interface: eth0\n" + p.settings)
	if len(p.flows) > 0 {
		w.WriteString("security_associations:\n")
	}
	for _, f := range p.flows {
		for _, back := range []bool{false, true} {
			name, direction, src, dst, spi := f.name+"-ab", "out", f.endA, f.endB, f.spi
			if back {
				name, src, dst, spi = f.name+"-ba", dst, src, spi+0x1000
			}
			if back == isA {
				direction = "in"
			}
			fmt.Fprintf(&w, "  - {name: %s, direction: %s, protocol: esp, mode: %s, spi: %#x, source: %q, destination: %q, algorithm: %s, encryption_key: 0x%x",
				name, direction, f.mode, spi, src, dst, f.algorithm, key(f.enc, back))
			if len(f.integ) > 0 {
				fmt.Fprintf(&w, ", integrity_key: 0x%x", key(f.integ, back))
			}
			w.WriteString("}\n")
		}
	}
	if len(p.flows) == 0 && p.first+p.last == "" {
		w.WriteString("policies: []\n")
		return w.String()
	}
	w.WriteString("policies:\n" + p.first)
	for _, f := range p.flows {
		local, remote, out, in := f.a, f.b, f.name+"-ab", f.name+"-ba"
		if !isA {
			local, remote, out, in = remote, local, in, out
		}
		fmt.Fprintf(&w, "  - {name: %s, local: %q, remote: %q, action: protect, out: [%s], in: [%s]}\n", f.name, local, remote, out, in)
	}
	w.WriteString(p.last)
	return w.String()
}

// box is bitw on a host's eth0.
type box struct {
	t    testing.TB
	host *netlab.Host
	dir  string
	file string // its configuration
	// graph is the graph that it is composed by in the place of a configuration.
	graph string
	// prepare, if any, changes the thread that bitw up is started from.
	prepare func() error
	proc    *netlab.Process
	out     *netlab.Output
}

// newBox writes a configuration for the host; the lines for control socket and
// state are added. Nothing runs yet.
func newBox(t testing.TB, host *netlab.Host, yaml string) *box {
	t.Helper()
	b := &box{t: t, host: host, dir: t.TempDir()}
	b.file = filepath.Join(b.dir, "bitw.yaml")
	t.Cleanup(func() { // pins outlive both the process and the namespace
		if b.proc != nil {
			b.proc.Kill()
			b.giveBack()
		}
	})
	b.configure(yaml)
	return b
}

func (b *box) configure(yaml string) {
	b.t.Helper()
	yaml += fmt.Sprintf("control: %s\nstate_dir: %s\n", filepath.Join(b.dir, "c.sock"), filepath.Join(b.dir, "state"))
	if err := os.WriteFile(b.file, []byte(yaml), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// up starts bitw and waits until the interface is cut.
func (b *box) up(args ...string) {
	b.t.Helper()
	b.out = new(netlab.Output)
	cmd := exec.Command(bitwPath(b.t), append(append([]string{"up"}, b.from()...), args...)...)
	cmd.Stdout, cmd.Stderr = b.out, b.out
	proc, err := b.start(cmd)
	if err != nil {
		b.t.Fatal(err)
	}
	b.proc = proc
	for end := time.Now().Add(patience); !strings.Contains(b.out.String(), "is cut and protected"); {
		select {
		case <-proc.Done():
			b.t.Fatalf("bitw up on %s ended: %v\n%s", b.host.Name(), proc.Wait(), b.out)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(end) {
			b.t.Fatalf("bitw up on %s does not get ready:\n%s", b.host.Name(), b.out)
		}
	}
	out := b.out
	b.t.Cleanup(func() {
		if b.t.Failed() {
			b.t.Logf("bitw up on %s wrote:\n%s", b.host.Name(), out)
		}
	})
}

func (b *box) start(cmd *exec.Cmd) (*netlab.Process, error) {
	if b.prepare == nil {
		return b.host.Start(cmd)
	}
	return b.host.StartPrepared(cmd, b.prepare)
}

// from is what the box is made of.
func (b *box) from() []string {
	if b.graph != "" {
		return []string{"--graph", b.graph}
	}
	return []string{"-c", b.file}
}

// which names the running box to a verb.
func (b *box) which() []string {
	if b.graph != "" {
		return []string{"--socket", filepath.Join(b.dir, "c.sock")}
	}
	return []string{"-c", b.file}
}

// run runs a verb of bitw in the host's namespace to its end.
func (b *box) run(args ...string) (stdout, stderr string, err error) {
	b.t.Helper()
	cmd := exec.CommandContext(deadline(b.t, patience), bitwPath(b.t), args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	proc, err := b.host.Start(cmd)
	if err != nil {
		b.t.Fatal(err)
	}
	err = proc.Wait()
	return out.String(), errOut.String(), err
}

// down ends bitw by its own verb.
func (b *box) down() {
	b.t.Helper()
	if _, stderr, err := b.run(append([]string{"down"}, b.which()...)...); err != nil {
		b.t.Fatalf("bitw down on %s: %v\n%s", b.host.Name(), err, stderr)
	}
	if err := b.proc.Wait(); err != nil {
		b.t.Fatalf("bitw up on %s, told to end: %v\n%s", b.host.Name(), err, b.out)
	}
}

// giveBack ends bitw, if it runs, and takes the cut away.
func (b *box) giveBack() {
	b.t.Helper()
	if b.proc != nil {
		_ = b.proc.Signal(syscall.SIGTERM)
		_ = b.proc.Wait()
		b.proc = nil
	}
	if _, stderr, err := b.run("recover", "eth0"); err != nil {
		b.t.Fatalf("bitw recover on %s: %v\n%s", b.host.Name(), err, stderr)
	}
}

func (b *box) status() *appliance.Status {
	b.t.Helper()
	stdout, stderr, err := b.run(append([]string{"status", "-o", "json"}, b.which()...)...)
	if err != nil {
		b.t.Fatalf("bitw status on %s: %v\n%s", b.host.Name(), err, stderr)
	}
	var s appliance.Status
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		b.t.Fatalf("bitw status -o json on %s: %v\n%s", b.host.Name(), err, stdout)
	}
	return &s
}

// drops is how often the reasons were counted since before, those alone that grew.
func (b *box) drops(before *appliance.Status) map[string]uint64 {
	b.t.Helper()
	grown := make(map[string]uint64)
	for reason, n := range b.status().Drops {
		if n -= before.Drops[reason]; n > 0 {
			grown[reason] = n
		}
	}
	return grown
}

// unexpected are the drops beside those of working traffic: what a kernel says by itself
// (multicast listeners, router solicitations) is a class that nobody let through or has no
// policy, a datagram too big for the path was told so once, and taps lose what comes before
// their time or faster than a busy machine reads it.
func unexpected(drops map[string]uint64, also ...string) map[string]uint64 {
	odd := maps.Clone(drops)
	for _, reason := range append(also, "class_discard", "no_policy", "too_big", "tap_closed", "tap_full") {
		delete(odd, reason)
	}
	return odd
}

// boxes puts bitw on both hosts of a pair.
func boxes(t testing.TB, pair *netlab.Pair, p *plan) (a, b *box) {
	t.Helper()
	for _, h := range []*netlab.Host{pair.A, pair.B} {
		forgetPathMTUs(t, h)
	}
	a, b = newBox(t, pair.A, p.yaml(true)), newBox(t, pair.B, p.yaml(false))
	a.up()
	b.up()
	return a, b
}

// forgetPathMTUs has the host's kernel forget what it was told of paths: those of
// other modes and algorithms.
func forgetPathMTUs(t testing.TB, h *netlab.Host) {
	t.Helper()
	for _, family := range []string{"-4", "-6"} {
		if _, err := h.Run(deadline(t, patience), "ip", family, "route", "flush", "cache"); err != nil {
			t.Fatal(err)
		}
	}
}

// watchClear captures the wire and looks for what was to be hidden.
func watchClear(pair *netlab.Pair, snap int) *netlab.Capture {
	return pair.Wire.Capture(netlab.CaptureOptions{
		Watch: []netlab.Match{netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.Other, netlab.AH)}, SnapLen: snap,
	})
}

// allESP ends the capture and checks that nothing but ESP and the resolution of
// neighbours was on the wire.
func allESP(t testing.TB, c *netlab.Capture) netlab.Counts {
	t.Helper()
	counts, err := c.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.Watched(0).Frames; n > 0 {
		t.Errorf("%d frames on the wire hold what the hosts said, in the clear", n)
	}
	if w := c.Watched(1); w.Frames > 0 {
		t.Errorf("%d frames on the wire are no ESP; the first:\n%x", w.Frames, w.First[0].Data[:min(96, len(w.First[0].Data))])
	}
	if only := counts.Of(netlab.ESP, netlab.ARP, netlab.ND); only != counts.Frames || counts.Of(netlab.ESP) == 0 {
		t.Errorf("on the wire: %v; expected ESP, ARP and ND alone", counts)
	}
	return counts
}

// pings expects every ping to be answered.
func pings(t testing.TB, from *netlab.Host, to netip.Addr, o netlab.PingOptions) {
	t.Helper()
	r, err := netlab.Ping(deadline(t, patience), from, to, o)
	if err != nil || r.Lost > 0 || r.Duplicates > 0 || r.TooBig > 0 {
		t.Errorf("ping from %s to %v: %v, %v", from.Name(), to, r, err)
	}
}

// silent expects no ping to be answered.
func silent(t testing.TB, from *netlab.Host, to netip.Addr) {
	t.Helper()
	r, err := netlab.Ping(deadline(t, patience), from, to, netlab.PingOptions{Count: 3, Interval: 20 * time.Millisecond, Timeout: 200 * time.Millisecond})
	if err != nil || r.Received > 0 {
		t.Errorf("ping from %s to %v: %v, %v; expected no answer", from.Name(), to, r, err)
	}
}

// answers says whether one ping is answered soon.
func answers(t testing.TB, from *netlab.Host, to netip.Addr) bool {
	t.Helper()
	r, err := netlab.Ping(deadline(t, patience), from, to, netlab.PingOptions{Timeout: 200 * time.Millisecond})
	return err == nil && r.Received == 1
}

// reaches waits until pings are answered.
func reaches(t testing.TB, from *netlab.Host, to netip.Addr) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s has an answer from %v", from.Name(), to), func() bool { return answers(t, from, to) })
}

// eventually waits for something to become true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// links are the host's network devices, addresses, routes and rules as ip(8) has them.
func links(t testing.TB, h *netlab.Host) string {
	t.Helper()
	var all []string
	for _, args := range [][]string{{"-br", "link"}, {"-br", "addr"}, {"route"}, {"-6", "route"}} {
		out, err := h.Run(deadline(t, patience), "ip", args...)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, out)
	}
	return strings.Join(all, "")
}

// sender puts frames out on a device as they are.
type sender struct {
	t       testing.TB
	fd      int
	ifindex int
}

// toHost is a sender on the wire whose frames reach one host, and nobody else.
func toHost(t testing.TB, pair *netlab.Pair, host *netlab.Host) *sender {
	t.Helper()
	return rawOn(t, &pair.Wire.Namespace, "port-"+host.Name())
}

// rawOn is a sender on a device of a namespace.
func rawOn(t testing.TB, n *netlab.Namespace, device string) *sender {
	t.Helper()
	s := &sender{t: t}
	err := n.Do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s.fd) })
	link, err := n.Netlink().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	s.ifindex = link.Attrs().Index
	return s
}

func (s *sender) send(frame []byte) {
	s.t.Helper()
	if err := unix.Sendto(s.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: s.ifindex}); err != nil {
		s.t.Fatal(err)
	}
}

// mac is the address of a host's eth0.
func mac(t testing.TB, h *netlab.Host) []byte {
	t.Helper()
	link, err := h.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr
}

// exitCode is a process's exit status, -1 when a signal ended it.
func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}
