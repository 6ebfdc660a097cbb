//go:build linux

package hostnet

import (
	"errors"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netns"
)

func TestReadInterface(t *testing.T) {
	s := newSpace(t)
	s.ip("link set eth0 mtu 1400",
		"addr add 192.0.2.1/24 dev eth0", "addr add 192.0.2.9/24 dev eth0", // secondary
		"addr add 198.51.100.1 peer 198.51.100.2/32 dev eth0",
		"addr add 2001:db8::1/64 dev eth0", "addr add 203.0.113.1/24 dev far")
	i := s.read()
	if i.Name != "eth0" || i.Index == 0 || i.MAC.String() != "02:00:00:00:00:01" || i.MTU != 1400 || !i.Up || !i.Carrier || i.Gone {
		t.Errorf("got %+v", i)
	}
	// fe80::1 with the MAC in it by RFC 4291, appendix A.
	for _, a := range []string{"192.0.2.1/24", "192.0.2.9/24", "198.51.100.1/32", "2001:db8::1/64", "fe80::ff:fe00:1/64"} {
		p := netip.MustParsePrefix(a)
		if !strings.Contains(" "+join(i.Addresses)+" ", " "+a+" ") || !i.HasAddress(p.Addr()) {
			t.Errorf("no address %s in %v", a, i.Addresses)
		}
	}
	if len(i.Addresses) != 5 || len(i.Tentative) != 0 {
		t.Errorf("addresses %v, tentative %v", i.Addresses, i.Tentative)
	}
	if i.Addresses[0].Addr() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("the first address is %v, want the primary one", i.Addresses[0])
	}
}

func join(list []netip.Prefix) string {
	var s []string
	for _, p := range list {
		s = append(s, p.String())
	}
	return strings.Join(s, " ")
}

func TestReadTentative(t *testing.T) {
	s := newSpace(t)
	// Of an interface that is set up without a carrier duplicate address detection does not
	// begin.
	s.sysctl("net.ipv6.conf.eth0.accept_dad", "1")
	s.ip("link set eth0 down", "link set far down", "link set eth0 up")
	s.until("the loss of the carrier", func(i *Interface) bool { return i.Up && !i.Carrier })
	s.ip("addr add 2001:db8::1/64 dev eth0")
	i := s.read()
	addr := netip.MustParseAddr("2001:db8::1")
	if !i.HasAddress(addr) || len(i.Tentative) == 0 || i.Tentative[0] != addr {
		t.Errorf("addresses %v, tentative %v", i.Addresses, i.Tentative)
	}
	if !i.Up || i.Carrier {
		t.Errorf("up %v, carrier %v; want up without carrier", i.Up, i.Carrier)
	}
}

func TestR25_ReadRoutes(t *testing.T) {
	base := []string{"addr add 192.0.2.1/24 dev eth0", "addr add 2001:db8::1/64 dev eth0", "addr add 203.0.113.1/24 dev far"}
	const on4, on6 = "192.0.2.0/24", "2001:db8::/64 metric 256"
	for _, c := range []struct {
		name     string
		sysctl   string
		commands []string
		want     []string
	}{
		{name: "on link", want: []string{on4, on6}},
		{
			name: "defaults, longest first, metric order, mtu",
			commands: []string{
				"route add default via 192.0.2.254 metric 300",
				"route add default via 192.0.2.253 metric 100",
				"route add default via 203.0.113.254 metric 50",
				"route add 198.51.100.0/24 via 192.0.2.254 mtu 1300",
				"route add 198.51.100.7/32 via 192.0.2.253",
				"route add 198.51.100.8/32 dev eth0",
				"-6 route add default via 2001:db8::fe metric 20",
				"-6 route add default via fe80::fe dev eth0 metric 10",
				"-6 route add 2001:db8:1::/48 via 2001:db8::fe mtu lock 1290",
			},
			want: []string{
				"198.51.100.7/32 via 192.0.2.253", "198.51.100.8/32", on4,
				"198.51.100.0/24 via 192.0.2.254 mtu 1300",
				"0.0.0.0/0 via 192.0.2.253 metric 100", "0.0.0.0/0 via 192.0.2.254 metric 300",
				on6, "2001:db8:1::/48 via 2001:db8::fe metric 1024 mtu 1290",
				"::/0 via fe80::fe metric 10", "::/0 via 2001:db8::fe metric 20",
			},
		},
		{
			name: "next hops of several devices",
			commands: []string{
				"route add 198.51.100.0/24 nexthop via 192.0.2.253 dev eth0 nexthop via 203.0.113.253 dev far nexthop via 192.0.2.254 dev eth0",
				"-6 route add 2001:db8:1::/48 nexthop via 2001:db8::fd dev eth0 nexthop via 2001:db8::fe dev eth0",
			},
			want: []string{
				on4, "198.51.100.0/24 via 192.0.2.253", "198.51.100.0/24 via 192.0.2.254",
				on6, "2001:db8:1::/48 via 2001:db8::fd metric 1024", "2001:db8:1::/48 via 2001:db8::fe metric 1024",
			},
		},
		{
			name:     "IPv4 by an IPv6 next hop",
			commands: []string{"route add 198.51.100.0/24 via inet6 2001:db8::fe dev eth0"},
			want:     []string{on4, "198.51.100.0/24 via 2001:db8::fe", on6},
		},
		{
			name: "left out",
			commands: []string{
				"route add 198.51.100.0/24 via 192.0.2.254 table 100",
				"route add 198.51.101.0/24 tos 0x10 via 192.0.2.254",
				"-6 route add 2001:db8:1::/48 from 2001:db8:2::/48 via 2001:db8::fe dev eth0",
				"route add blackhole 198.51.102.0/24", "route add unreachable 198.51.103.0/24",
				"route add multicast 232.0.0.0/8 dev eth0 table main", "route add 239.0.0.0/8 dev eth0",
				"route add broadcast 192.0.2.77 dev eth0 table main",
			},
			want: []string{on4, on6},
		},
		{
			name:     "next hop objects",
			commands: objects,
			want:     objectRoutes,
		},
		{
			name:     "next hop objects not spelled out in routes",
			sysctl:   "net.ipv4.nexthop_compat_mode",
			commands: objects,
			want:     objectRoutes,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSpace(t)
			if c.sysctl != "" {
				s.sysctl(c.sysctl, "0")
			}
			s.ip(base...)
			s.ip(c.commands...)
			if diff := cmp.Diff(strings.Join(c.want, "\n"), routesOf(s.read())); diff != "" {
				t.Errorf("routes (-want +got):\n%s", diff)
			}
		})
	}
}

var (
	objects = []string{
		"link set lo up", // which a black hole hangs on
		"nexthop add id 1 via 192.0.2.251 dev eth0", "nexthop add id 2 via 203.0.113.251 dev far",
		"nexthop add id 3 via 192.0.2.252 dev eth0", "nexthop add id 9 group 1/2/3",
		"nexthop add id 4 via 2001:db8::fe dev eth0", "nexthop add id 5 blackhole",
		"route add 198.51.100.0/24 nhid 1", "route add 198.51.101.0/24 nhid 9", "route add 198.51.102.0/24 nhid 2",
		"route add 198.51.103.0/24 nhid 5", "-6 route add 2001:db8:1::/48 nhid 4",
	}
	objectRoutes = []string{
		"192.0.2.0/24", "198.51.100.0/24 via 192.0.2.251",
		"198.51.101.0/24 via 192.0.2.251", "198.51.101.0/24 via 192.0.2.252",
		"2001:db8::/64 metric 256", "2001:db8:1::/48 via 2001:db8::fe metric 1024",
	}
)

func TestReadNoInterface(t *testing.T) {
	s := newSpace(t)
	_, err := Read(s.path, "eth7")
	if !errors.Is(err, ErrNoInterface) {
		t.Fatalf("got %v, want ErrNoInterface", err)
	}
	for _, word := range []string{`"eth7"`, "name one of", "eth0", "far"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
	for _, name := range []string{"", "a-name-longer-than-any-interface-has"} {
		if _, err := Read(s.path, name); !errors.Is(err, ErrNoInterface) {
			t.Errorf("name %q: got %v, want ErrNoInterface", name, err)
		}
	}
}

func TestReadNoNamespace(t *testing.T) {
	const path = "/run/netns/bitw-hostnet-does-not-exist"
	if _, err := Read(path, "eth0"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
	plain := t.TempDir() + "/plain"
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(plain, "eth0"); err == nil || !strings.Contains(err.Error(), plain) {
		t.Errorf("a plain file as namespace: got %v", err)
	}
}

// The empty path is the calling thread's namespace, not the process's.
func TestReadCallingThread(t *testing.T) {
	s := newSpace(t)
	type result struct {
		i   *Interface
		err error
	}
	results := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		var r result
		ns, err := netns.GetFromPath(s.path)
		if r.err = err; err == nil {
			defer ns.Close()
			if r.err = netns.Set(ns); r.err == nil {
				r.i, r.err = Read("", "far")
			}
		}
		results <- r
	}()
	r := <-results
	if r.err != nil {
		t.Fatal(r.err)
	}
	if far, err := Read(s.path, "far"); err != nil || far.MAC.String() != r.i.MAC.String() {
		t.Errorf("got %+v, want %+v (%v)", r.i, far, err)
	}
	if lo, err := Read("", "lo"); err != nil || lo.Index != 1 {
		t.Errorf("loopback of the calling thread: %+v, %v", lo, err)
	}
}
