package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/appliance"
)

// hangOnSignal has the way from the host hang in the middle of a frame after SIGUSR1, and
// go on after SIGUSR2: the engine asks for the time while it has a frame in hand.
func hangOnSignal(p *program) {
	var stuck atomic.Pointer[chan struct{}]
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range signals {
			if s == syscall.SIGUSR1 {
				c := make(chan struct{})
				stuck.Store(&c)
			} else if c := stuck.Swap(nil); c != nil {
				close(*c)
			}
		}
	}()
	clock := func() int64 {
		if c := stuck.Load(); c != nil {
			var pcs [16]uintptr
			frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
			for more := true; more; {
				var f runtime.Frame
				if f, more = frames.Next(); strings.HasSuffix(f.Function, "ipsec.(*Engine).outbound") {
					<-*c
					break
				}
			}
		}
		return time.Now().UnixNano()
	}
	was := p.newAppliance
	p.newAppliance = func(cfg appliance.Config, opts ...appliance.Option) (runner, error) {
		return was(cfg, append(opts, appliance.WithClock(clock))...)
	}
}

// A manager is the service manager's end of the socket.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newManager(t *testing.T, dir string) *manager {
	t.Helper()
	m := &manager{t: t, path: filepath.Join(dir, "notify")}
	var err error
	if m.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: m.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.conn.Close() })
	return m
}

// next returns the next message, or "" after d without one.
func (m *manager) next(d time.Duration) string {
	m.t.Helper()
	if err := m.conn.SetReadDeadline(time.Now().Add(d)); err != nil {
		m.t.Fatal(err)
	}
	var b [4096]byte
	n, err := m.conn.Read(b[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return ""
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b[:n])
}

// until returns the first message that holds the text.
func (m *manager) until(text string) string {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if s := m.next(time.Second); strings.Contains(s, text) {
			return s
		}
	}
	m.t.Fatalf("no message with %q", text)
	return ""
}

// silent waits until no sign of life comes any more.
func (m *manager) silent(what string) {
	m.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		if m.next(2*time.Second) == "" {
			return
		}
	}
	m.t.Fatalf("%s, and there are still signs of life", what)
}

// TestR47_Notify runs bitw up as a service with a watchdog: it is ready when the taps are
// Active, and gives signs of life until a side, or the whole process, hangs. The watchdog's
// time is long enough for a process that waits for a processor.
func TestR47_Notify(t *testing.T) {
	a, b, addrB := livePair(t)
	b.upForTest(t)
	text, err := os.ReadFile(a.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.config, append(text, "watchdog: 1s\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, a.dir)
	cmd, out, errs := a.command(0, "up", "-c", a.config)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path, "WATCHDOG_USEC=1000000", "BITW_TEST_HANG=1")
	p, err := a.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		a.call(t, 0, 0, "", "recover", "eth0")
		if t.Failed() {
			t.Logf("bitw up wrote:\n%s%s", out, errs)
		}
	})

	first := m.next(time.Minute)
	if !strings.HasPrefix(first, "READY=1\n") || !strings.Contains(first, fmt.Sprintf("MAINPID=%d\n", cmd.Process.Pid)) || !strings.Contains(first, "STATUS=eth0 is cut and protected") {
		t.Errorf("the first message is %q", first)
	}
	answered(t, a.Host, addrB, "it is ready")
	for range 3 {
		m.until("WATCHDOG=1")
	}

	// One side hangs in the middle of a frame.
	sig := func(s syscall.Signal) {
		t.Helper()
		if err := p.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	sig(syscall.SIGUSR1)
	for end := time.Now().Add(time.Minute); !strings.Contains(m.next(time.Second), "STATUS=eth0 is cut, and nothing passes"); {
		if time.Now().After(end) {
			t.Fatal("a side hangs, and it is not told")
		}
		pings(t, a.Host, addrB, 1, 100*time.Millisecond) // the signal takes a moment
	}
	m.silent("a side hangs")
	if s := a.status(t); len(s.Stalled) != 1 || s.State != "severed" {
		t.Errorf("a side hangs: the appliance is %s, stalled are %v", s.State, s.Stalled)
	}
	sig(syscall.SIGUSR2)
	if s := m.until("STATUS=eth0 is cut and protected"); strings.Contains(s, "READY") {
		t.Errorf("back in service, it is ready a second time: %q", s)
	}
	m.until("WATCHDOG=1")
	answered(t, a.Host, addrB, "back in service")

	// The whole process hangs.
	sig(syscall.SIGSTOP)
	m.silent("the process is stopped")
	sig(syscall.SIGCONT)
	m.until("WATCHDOG=1")

	a.tap(t, 0, "", "closed", "--clear")
	m.until("STATUS=eth0 carries its traffic without protection")
	a.tap(t, 0, "", "active")
	m.until("STATUS=eth0 is cut and protected")
	sig(syscall.SIGTERM)
	m.until("STOPPING=1")
	m.until("STATUS=eth0 is shut")
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}

// TestNotifier has a manager that does not listen: nobody waits for it, and it is told
// what there is room for.
func TestNotifier(t *testing.T) {
	var (
		mu   sync.Mutex
		told []string
	)
	stuck := make(chan struct{})
	log := logrus.New()
	log.SetOutput(io.Discard)
	n := newNotifier(func(s string) error {
		<-stuck
		mu.Lock()
		defer mu.Unlock()
		told = append(told, s)
		return os.ErrDeadlineExceeded
	}, log, "eth0", func() bool { return true })
	n.state("active")
	for range 100 {
		n.state("severed")
		n.beat()
	}
	close(stuck)
	n.close()
	mu.Lock()
	defer mu.Unlock()
	if len(told) < 2 || len(told) > notifyQueue+2 || !strings.HasPrefix(told[0], "READY=1\n") {
		t.Errorf("%d messages, the first %q", len(told), told[0])
	}
}
