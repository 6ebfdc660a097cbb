package netns

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen; nothing is measured.
const patience = 30 * time.Second

// needNamespaces skips the test, or fails it where nothing may be wanting.
func needNamespaces(t *testing.T) {
	t.Helper()
	if err := Usable(); err != nil {
		if os.Getenv("BITW_REQUIRE") == "all" {
			t.Fatalf("this test needs network namespaces: %v; BITW_REQUIRE=all makes that a failure", err)
		}
		t.Skipf("this test needs network namespaces: %v", err)
	}
}

// Two hosts reach each other and nobody else, and no thread of the process is left in
// either of them.
func TestHosts(t *testing.T) {
	needNamespaces(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	addrs := [2]netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")}
	var hosts [2]*Namespace
	for i := range hosts {
		if hosts[i], err = New(); err != nil {
			t.Fatal(err)
		}
		defer hosts[i].Close()
	}
	if err := Join(hosts[0], hosts[1], "eth0", net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}, 1400); err != nil {
		t.Fatal(err)
	}
	for i, h := range hosts {
		if err := h.Up("eth0", addrs[i]); err != nil {
			t.Fatal(err)
		}
		if n, err := h.Index("eth0"); err != nil || n == 0 {
			t.Fatalf("index %d, %v", n, err)
		}
		if _, err := h.Index("eth1"); err == nil {
			t.Error("there is an eth1")
		}
	}
	far := netip.AddrPortFrom(addrs[1].Addr(), 7)
	server, err := hosts[1].ListenUDP(t.Context(), far)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for range 4 { // each on a thread of its own
		c, err := hosts[0].DialUDP(t.Context(), far)
		if err != nil {
			t.Fatal(err)
		}
		b, n, from := make([]byte, 16), 0, net.Addr(nil)
		err = os.ErrDeadlineExceeded
		// The kernels need a moment to notice that they have a link.
		for end := time.Now().Add(patience); errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(end); {
			if _, err := c.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			_ = server.SetReadDeadline(time.Now().Add(time.Second))
			n, from, err = server.ReadFrom(b)
		}
		if err != nil || string(b[:n]) != "hello" || from.(*net.UDPAddr).AddrPort().Addr() != addrs[0].Addr() {
			t.Fatalf("%q from %v, %v", b[:n], from, err)
		}
		_ = c.Close()
	}
	// A thread ends a moment after what it was for.
	left := threadsElsewhere(t, own)
	for end := time.Now().Add(patience); len(left) > 0 && time.Now().Before(end); left = threadsElsewhere(t, own) {
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) > 0 {
		t.Errorf("threads in other namespaces: %v", left)
	}
}

// threadsElsewhere are those that are not in the namespace own.
func threadsElsewhere(t *testing.T, own string) []string {
	t.Helper()
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, thread := range threads {
		at, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net")
		if err == nil && at != own {
			list = append(list, thread.Name())
		}
	}
	return list
}
