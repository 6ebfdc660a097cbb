package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket/pcapgo"
)

// testSize keeps the transfers short.
const testSize = 1_000_001

// missing skips a test for want of something, or fails it where nothing may be
// wanting.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("this test needs %s; BITW_REQUIRE=all makes that a failure", what)
	}
	t.Skipf("this test needs %s", what)
}

func needKernel(t *testing.T) {
	t.Helper()
	n, err := newKernelNetwork()
	if err != nil {
		missing(t, "network namespaces: "+err.Error())
	}
	if err := n.close(); err != nil {
		t.Fatal(err)
	}
}

// everyMode runs a test in memory and with kernels.
func everyMode(t *testing.T, f func(t *testing.T, memory bool)) {
	t.Run(ModeMemory, func(t *testing.T) { f(t, true) })
	t.Run(ModeKernel, func(t *testing.T) {
		needKernel(t)
		f(t, false)
	})
}

// R17, R18: the whole demo holds, which includes that servers see the other
// host's real address, that clients reach it under it, and that every frame on the
// wire has the Ethernet and IP source of its host.
func TestR17_R18_Demo(t *testing.T) {
	everyMode(t, func(t *testing.T, memory bool) {
		left := whatIsThere(t)
		dir := t.TempDir()
		var out, errs bytes.Buffer
		result, err := Run(t.Context(), Options{
			Memory: memory, Out: &out, Err: &errs, File: filepath.Join(dir, "demo.pcapng"), Size: testSize,
		})
		if err != nil {
			t.Fatal(err)
		}
		if !result.OK {
			t.Fatalf("not all held:\n%s%s", out.String(), errs.String())
		}
		if want := map[bool]string{true: ModeMemory, false: ModeKernel}[memory]; result.Mode != want || result.Fallback != "" {
			t.Errorf("mode %q, fallback %q, expected %q and none", result.Mode, result.Fallback, want)
		}
		w := result.Wire
		if w.ESPPackets < 1000 || w.ClearPackets != 0 || w.MarkedFrames != 0 || w.ForeignSources != 0 || w.Missed != 0 {
			t.Errorf("on the wire: %+v", w)
		}
		if result.BytesVerified < 2*testSize {
			t.Errorf("%d octets verified, expected at least %d", result.BytesVerified, 2*testSize)
		}
		for _, text := range []string{"HTTP IPv4 a → b", "HTTP IPv6 b → a", "ping IPv6 a → b", "UDP IPv4 b → a", "SA a-to-b-IPv6", "dropped:", "All held", "wireshark -C"} {
			if !strings.Contains(out.String(), text) {
				t.Errorf("the text has no %q:\n%s", text, out.String())
			}
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Error("control sequences are only for terminals")
		}
		checkFiles(t, dir, result)
		checkLeft(t, left)
	})
}

// checkFiles wants the capture with its two interfaces, and the keys, which
// nobody else may read.
func checkFiles(t *testing.T, dir string, result Result) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"demo.esp_sa", "demo.pcapng"}; !slices.Equal(names, want) {
		t.Fatalf("the folder has %v, expected %v", names, want)
	}
	info, err := os.Stat(result.Keys)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the keys have mode %v (%v), expected 0600", info.Mode(), err)
	}
	f, err := os.Open(result.Capture)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.NgReaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var frames, marked [2]int
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		frames[ci.InterfaceIndex]++
		if bytes.Contains(data, []byte(marker)) {
			marked[ci.InterfaceIndex]++
		}
	}
	for i, name := range []string{"inside", "outside"} {
		if intf, err := r.Interface(i); err != nil || intf.Name != name {
			t.Errorf("interface %d is %q (%v), expected %q", i, intf.Name, err, name)
		}
	}
	if frames[0]+frames[1] != result.CaptureFrames || marked[0] == 0 || frames[1] == 0 || marked[1] != 0 {
		t.Errorf("%v frames inside and outside, %v with clear text; expected %d in all, and clear text inside only", frames, marked, result.CaptureFrames)
	}
}

// The fields that scripts go by, and nothing but JSON on Out.
func TestResultJSON(t *testing.T) {
	var out bytes.Buffer
	_, err := Run(t.Context(), Options{
		Memory: true, JSON: true, Out: &out, File: filepath.Join(t.TempDir(), "demo.pcapng"), Size: testSize,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		OK            *bool              `json:"ok"`
		Mode          string             `json:"mode"`
		BytesVerified *int64             `json:"bytes_verified"`
		Wire          map[string]*uint64 `json:"wire"`
		Drops         map[string]uint64  `json:"drops"`
	}
	d := json.NewDecoder(&out)
	if err := d.Decode(&got); err != nil {
		t.Fatal(err)
	}
	if d.More() {
		t.Error("there is more than one value on Out")
	}
	if got.OK == nil || !*got.OK || got.Mode != "memory" || got.BytesVerified == nil || *got.BytesVerified < testSize {
		t.Errorf("ok, mode, bytes_verified: %+v", got)
	}
	if n := got.Wire["esp_packets"]; n == nil || *n == 0 {
		t.Errorf("wire: %v", got.Wire)
	}
	if n := got.Wire["clear_packets"]; n == nil || *n != 0 {
		t.Errorf("wire: %v", got.Wire)
	}
	if got.Drops == nil {
		t.Error("no drops")
	}
}

// A demo that is cancelled at any point leaves neither files nor anything else.
func TestCancelledLeavesNothing(t *testing.T) {
	everyMode(t, func(t *testing.T, memory bool) {
		for _, after := range []time.Duration{0, 20 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
			left := whatIsThere(t)
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			if after == 0 {
				cancel()
			}
			timer := time.AfterFunc(after, cancel)
			// More than it can transfer before it is cancelled.
			_, err := Run(ctx, Options{Memory: memory, Out: io.Discard, File: filepath.Join(dir, "demo.pcapng"), Size: 1 << 40})
			timer.Stop()
			cancel()
			if !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled after %v: %v", after, err)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("cancelled after %v: %v is left", after, entries)
			}
			checkLeft(t, left)
		}
	})
}

// brokenNetwork has a host that cannot send UDP.
type brokenNetwork struct{ network }

type brokenHost struct{ host }

func (n brokenNetwork) host(i int) host { return brokenHost{n.network.host(i)} }

var errBroken = errors.New("a broken host")

func (brokenHost) DialUDP(context.Context, netip.AddrPort) (net.Conn, error) { return nil, errBroken }

// A step that fails is told, and the demo comes to its end.
func TestFailedStep(t *testing.T) {
	n, err := newMemoryNetwork()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	d := &run{
		o:      Options{Out: &out, File: filepath.Join(t.TempDir(), "demo.pcapng"), Size: testSize},
		screen: newScreen(&out), kernel: func() (network, error) { return brokenNetwork{n}, nil },
	}
	result, err := d.run(t.Context())
	if err != nil || result.OK {
		t.Fatalf("ok %v, error %v; expected neither", result.OK, err)
	}
	if !strings.Contains(out.String(), "FAILED") || !strings.Contains(out.String(), errBroken.Error()) || !strings.Contains(out.String(), "Not all held") {
		t.Errorf("the text does not tell:\n%s", out.String())
	}
}

// Where there are no namespaces, the demo says so in one sentence and goes on.
func TestFallback(t *testing.T) {
	var out, errs bytes.Buffer
	d := &run{
		o:      Options{Out: &out, Err: &errs, File: filepath.Join(t.TempDir(), "demo.pcapng"), Size: testSize},
		screen: newScreen(&out), kernel: func() (network, error) { return nil, errors.New("this machine is an island") },
	}
	result, err := d.run(t.Context())
	if err != nil || !result.OK || result.Mode != ModeMemory || result.Fallback != "this machine is an island" {
		t.Fatalf("%+v, %v", result, err)
	}
	if got, want := errs.String(), "The demo stays in memory: this machine is an island.\n"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

// Each piece of evidence alone is enough for the demo to fail.
func TestConclusions(t *testing.T) {
	for _, tt := range []struct {
		name string
		wire Wire
		ok   bool
	}{
		{"all well", Wire{ESPPackets: 1, NeighborFrames: 2, OtherFrames: 3}, true},
		{"no ESP", Wire{}, false},
		{"clear packet", Wire{ESPPackets: 1, ClearPackets: 1}, false},
		{"clear text", Wire{ESPPackets: 1, MarkedFrames: 1}, false},
		{"foreign source", Wire{ESPPackets: 1, ForeignSources: 1}, false},
		{"incomplete capture", Wire{ESPPackets: 1, Missed: 1}, false},
	} {
		d := &run{screen: newScreen(nil), result: Result{Wire: tt.wire}}
		d.conclude()
		if d.result.OK != tt.ok {
			t.Errorf("%s: ok is %v, expected %v", tt.name, d.result.OK, tt.ok)
		}
	}
}

func TestBadOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"negative size":    {Size: -1},
		"too much":         {Size: 1 << 50},
		"no such folder":   {File: filepath.Join(t.TempDir(), "none", "demo.pcapng")},
		"name of the keys": {File: filepath.Join(t.TempDir(), "demo.esp_sa")},
	} {
		o.Memory = true
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// tshark, with the keys given in the ways that the demo tells, reads outside what
// there is inside.
func TestTsharkDecrypts(t *testing.T) {
	if _, err := exec.LookPath("tshark"); err != nil {
		missing(t, "tshark: "+err.Error())
	}
	dir := t.TempDir()
	result, err := Run(t.Context(), Options{Memory: true, File: filepath.Join(dir, "demo.pcapng"), Size: testSize})
	if err != nil || !result.OK {
		t.Fatalf("ok %v, error %v", result.OK, err)
	}
	keys, err := os.ReadFile(result.Keys)
	if err != nil {
		t.Fatal(err)
	}
	var rows []string
	for row := range strings.Lines(string(keys)) {
		rows = append(rows, "-o", "uat:esp_sa:"+strings.TrimSuffix(row, "\n"))
	}
	if len(rows) != 8 {
		t.Fatalf("%d keys, expected 4", len(rows)/2)
	}
	profile := filepath.Join(dir, "wireshark", "profiles", "bitw-demo")
	if err := os.MkdirAll(profile, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(profile, "esp_sa"), keys, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{"one by one": rows, "profile": {"-C", "bitw-demo"}} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{
				"-r", result.Capture, "-n", "-o", "esp.enable_encryption_decode:TRUE", "-o", "esp.enable_authentication_check:TRUE",
				"-Y", `frame.interface_name == "outside" && esp`, "-T", "fields", "-e", "frame.protocols", "-e", "esp.icv_bad",
			}, args...)
			cmd := exec.CommandContext(t.Context(), "tshark", args...)
			cmd.Env = append(os.Environ(), "WIRESHARK_CONFIG_DIR="+filepath.Join(dir, "wireshark"))
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, inner := range []string{"ip:esp:icmp", "ip:esp:tcp", "ip:esp:udp", "ip:esp:tcp:http", "ipv6:esp:ipv6:icmpv6", "ipv6:esp:ipv6:tcp", "fraghdr:esp:ipv6:udp"} {
				if !strings.Contains(string(out), inner) {
					t.Errorf("there is no %s inside", inner)
				}
			}
			if bad := regexp.MustCompile(`(?m)\t(1|True)`).FindString(string(out)); bad != "" {
				t.Error("there are wrong ICVs")
			}
		})
	}
}

// things are what a demo might leave.
type things struct {
	goroutines int
	files      int
	namespaces map[string]bool // of threads and descriptors
}

func whatIsThere(t *testing.T) things {
	t.Helper()
	s := things{goroutines: runtime.NumGoroutine(), namespaces: make(map[string]bool)}
	for _, pattern := range []string{"/proc/self/fd/*", "/proc/self/task/*/ns/net"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			target, err := os.Readlink(path)
			if err != nil {
				continue // gone meanwhile
			}
			if strings.HasPrefix(target, "net:") {
				s.namespaces[target] = true
			} else {
				s.files++
			}
		}
	}
	return s
}

// checkLeft waits a little: threads and timers end on their own.
func checkLeft(t *testing.T, before things) {
	t.Helper()
	var now things
	for range 1500 {
		now = whatIsThere(t)
		if now.goroutines <= before.goroutines && now.files <= before.files && len(now.namespaces) <= len(before.namespaces) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("before: %+v\nnow: %+v\n%s", before, now, stacks[:runtime.Stack(stacks, true)])
}
