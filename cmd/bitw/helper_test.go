package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/appliance/bench"
	"bitw/appliance/demo"
	"bitw/appliance/netcheck"
)

// now is what time it is in these tests.
var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// a safeBuffer may be written and read by several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A world is a program whose surroundings are made for a test.
type world struct {
	*program
	out, err safeBuffer
}

// newWorld makes one in which nothing runs and nothing may be called.
func newWorld(t *testing.T) *world {
	t.Helper()
	// Not t.TempDir: with its long names a socket's path would be too long.
	dir, err := os.MkdirTemp("", "bitw-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{program: &program{
		in:  strings.NewReader(""),
		now: func() time.Time { return now }, sockets: dir,
		notify: func(chan<- os.Signal) func() { return func() {} },
		hangup: func(chan<- os.Signal) func() { return func() {} },
		newAppliance: func(appliance.Config, ...appliance.Option) (runner, error) {
			t.Error("an appliance was made")
			return nil, os.ErrInvalid
		},
		recover:  func(string) (bool, error) { t.Error("recover was called"); return false, nil },
		giveUp:   func(string) error { t.Error("recover --release was called"); return nil },
		keepShut: func(string, string) (bool, error) { t.Error("guard was called"); return false, nil },
		keptShut: func() ([]string, error) { return nil, nil },
		isShut:   func(string) (bool, error) { return false, nil },
		findInterface: func(name string) (*appliance.FoundInterface, error) {
			if name == "eth0" {
				return &appliance.FoundInterface{Name: name}, nil
			}
			return nil, os.ErrNotExist
		},
		demo: func(context.Context, demo.Options) (demo.Result, error) {
			t.Error("the demo was called")
			return demo.Result{}, nil
		},
		netcheck: func(context.Context, netcheck.Options) *netcheck.Report {
			t.Error("netcheck was called")
			return &netcheck.Report{}
		},
		bench: func(context.Context, bench.Options) (bench.Result, error) {
			t.Error("the bench was called")
			return bench.Result{}, nil
		},
		tellManager:  func(string) error { return nil },
		managerWaits: func() (time.Duration, error) { return 0, nil },
	}}
	w.program.out, w.program.err = &w.out, &w.err
	return w
}

// call runs a command line and checks its exit status and, where want is not empty,
// that both outputs hold these words, and that errors are told only once.
func (w *world) call(t *testing.T, status int, wantOut, wantErr string, args ...string) {
	t.Helper()
	if got := w.run(t.Context(), args); got != status {
		t.Errorf("bitw %s: status %d, expected %d; stderr: %s", strings.Join(args, " "), got, status, w.err.String())
	}
	if out := w.out.String(); !strings.Contains(out, wantOut) {
		t.Errorf("bitw %s: stdout\n%s\nlacks %q", strings.Join(args, " "), out, wantOut)
	}
	errText := w.err.String()
	if !strings.Contains(errText, wantErr) {
		t.Errorf("bitw %s: stderr\n%s\nlacks %q", strings.Join(args, " "), errText, wantErr)
	}
	if n := strings.Count(errText, "bitw: "); status != 0 && n != 1 {
		t.Errorf("bitw %s: %d lines with bitw: on stderr, expected 1:\n%s", strings.Join(args, " "), n, errText)
	}
	if status == 1 && strings.Contains(errText, "Usage:") {
		t.Errorf("bitw %s: a failure shows the usage:\n%s", strings.Join(args, " "), errText)
	}
}

// A fakeControl answers on a control socket as an appliance does.
type fakeControl struct {
	server *http.Server
	path   string
	// status is served as it is, whatever it is.
	status []byte
	// downs gets a value for each POST /v1/down; the socket closes after that,
	// unless stay.
	downs chan struct{}
	stay  bool
}

// serve listens as the appliance on iface. s is a Status, or text to be sent as it
// is.
func (w *world) serve(t *testing.T, iface string, s any) *fakeControl {
	t.Helper()
	c := &fakeControl{path: filepath.Join(w.sockets, iface+".sock"), downs: make(chan struct{}, 1)}
	switch s := s.(type) {
	case string:
		c.status = []byte(s)
	default:
		var err error
		if c.status, err = json.Marshal(s); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", c.path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(c.status)
	})
	mux.HandleFunc("POST /v1/down", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		c.downs <- struct{}{}
		if !c.stay {
			go c.server.Shutdown(context.Background())
		}
	})
	c.server = &http.Server{Handler: mux}
	served := make(chan struct{})
	go func() { c.server.Serve(l); close(served) }()
	t.Cleanup(func() { c.server.Close(); <-served })
	return c
}

// die leaves a socket on which nobody answers.
func (w *world) die(t *testing.T, iface string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(w.sockets, iface+".sock")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

// write makes a file of mode 0600 and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// good is a configuration without fault.
const good = `interface: eth0
classes: {dhcp: bypass}
security_associations:
  - name: to-b
    direction: out
    protocol: esp
    mode: transport
    spi: 0x1001
    source: 192.0.2.1
    destination: 192.0.2.2
    algorithm: aes128gcm16
    encryption_key: 0x00112233445566778899aabbccddeeff:a0a1a2a3
  - name: from-b
    direction: in
    protocol: esp
    mode: transport
    spi: 0x2001
    source: 192.0.2.2
    destination: 192.0.2.1
    algorithm: aes128gcm16
    encryption_key: 0xffeeddccbbaa99887766554433221100:b0b1b2b3
policies:
  - name: b
    local: 192.0.2.1
    remote: 192.0.2.2
    action: protect
    out: [to-b]
    in: [from-b]
  - name: web
    direction: out
    local: 192.0.2.1
    remote: [198.51.100.0/24, 203.0.113.7-203.0.113.9]
    protocol: tcp
    remote_ports: [80, 443]
    action: bypass
  - name: ping
    protocol: icmp
    icmp: {type: 8, code: 0}
    action: bypass
`
