package xfrmpeer_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bitw/integration/netlab"
	"bitw/integration/xfrmpeer"
)

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestGuestOnTheWire(t *testing.T) {
	ctx := deadline(t)
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	peer := xfrmpeer.OnWire(t, pair.Wire, "peer")

	if out, err := peer.Sh(ctx, "ip addr add 192.0.2.3/24 dev eth0 && ip addr add 2001:db8::3/64 dev eth0 && uname -r"); err != nil {
		t.Fatal(err)
	} else {
		t.Logf("guest kernel %s", strings.TrimSpace(out))
	}
	for _, to := range []string{"192.0.2.3", "2001:db8::3"} {
		// User-Mode Linux now and then leaves a frame lying until the next one comes.
		var result netlab.PingResult
		for range 5 {
			var err error
			result, err = netlab.Ping(ctx, pair.A, netip.MustParseAddr(to), netlab.PingOptions{Count: 5, Timeout: 2 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			if result.Received == 5 {
				break
			}
		}
		if result.Received != 5 {
			t.Errorf("ping %s: %v", to, result)
		}
		if err := peer.TCPTo(ctx, pair.A, netip.AddrPortFrom(netip.MustParseAddr(to), 7001), 2<<20); err != nil {
			t.Error(err)
		}
		if err := peer.TCPFrom(ctx, pair.A, netip.AddrPortFrom(netip.MustParseAddr(to), 7002), 2<<20); err != nil {
			t.Error(err)
		}
	}
	if _, err := peer.Sh(ctx, "ping -c2 -w60 192.0.2.2"); err != nil {
		t.Error(err)
	}
	t.Run("shell", func(t *testing.T) { testShell(ctx, t, peer) })

	if err := peer.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := peer.Sh(ctx, "true"); !errors.Is(err, xfrmpeer.ErrGone) {
		t.Errorf("a script for a stopped guest: %v", err)
	}
	checkNoProcesses(t, peer.Share())
}

func testShell(ctx context.Context, t *testing.T, peer *xfrmpeer.Peer) {
	r, err := peer.Exec(ctx, "printf 'a\\0b'; echo oh >&2; exit 7")
	if err != nil || r.Status != 7 || string(r.Stdout) != "a\x00b" || string(r.Stderr) != "oh\n" {
		t.Errorf("%+v, %v", r, err)
	}
	var status *xfrmpeer.StatusError
	if _, err := peer.Sh(ctx, "exit 7"); !errors.As(err, &status) || status.Status != 7 {
		t.Errorf("exit 7: %v", err)
	}
	if out, err := peer.Sh(ctx, "head -c 300000 /dev/zero"); err != nil || len(out) != 300000 {
		t.Errorf("%d octets of output, %v", len(out), err)
	}
	// The share, both ways.
	if err := os.WriteFile(filepath.Join(peer.Share(), "in"), []byte("from the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := peer.Sh(ctx, "cat /share/in; echo from the guest >/share/out"); err != nil || out != "from the host" {
		t.Errorf("%q, %v", out, err)
	}
	if text, err := os.ReadFile(filepath.Join(peer.Share(), "out")); err != nil || string(text) != "from the guest\n" {
		t.Errorf("%q, %v", text, err)
	}
	// A script that does not end is killed with what it has started, while others go on.
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	stuck := make(chan error)
	go func() {
		_, err := peer.Sh(short, "sleep 6543 & sleep 6543")
		stuck <- err
	}()
	if out, err := peer.Sh(ctx, "echo here"); err != nil || out != "here\n" {
		t.Errorf("%q, %v", out, err)
	}
	if err := <-stuck; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a script past its deadline: %v", err)
	}
	if out, err := peer.Sh(ctx, "pgrep -f 'sleep 654[3]' || true"); err != nil || out != "" {
		t.Errorf("left over: %q, %v", out, err)
	}
}

// checkNoProcesses looks for processes that name a guest's share.
func checkNoProcesses(t *testing.T, share string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), share) {
			t.Errorf("process %s is left: %q", entry.Name(), line)
		}
	}
}
