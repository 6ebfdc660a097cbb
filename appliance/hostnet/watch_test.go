//go:build linux

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func watch(t *testing.T, s *space) (*Watcher, *log) {
	t.Helper()
	l := newLog(t)
	w, err := Watch(context.Background(), s.path, "eth0", l.changed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	if first := <-l.steps; first.event != Initial || first.i == nil {
		t.Fatalf("first call: %v, want initial", first.event)
	}
	return w, l
}

func hasRoute(line string) func(*Interface) bool {
	return func(i *Interface) bool { return strings.Contains("\n"+routesOf(i)+"\n", "\n"+line+"\n") }
}

func not(f func(*Interface) bool) func(*Interface) bool {
	return func(i *Interface) bool { return !f(i) }
}

func hasAddress(a string) func(*Interface) bool {
	return func(i *Interface) bool { return i.HasAddress(netip.MustParseAddr(a)) }
}

// Each step is one change in a namespace that the steps before have left.
func TestR25_Watch(t *testing.T) {
	s := newSpace(t)
	s.ip("link set lo up", "addr add 203.0.113.1/24 dev far")
	w, l := watch(t, s)
	index := w.Current().Index
	for _, c := range []struct {
		name    string
		command string
		want    func(*Interface) bool
		events  Event // at least these
	}{
		{"IPv4 address", "addr add 192.0.2.1/24 dev eth0",
			func(i *Interface) bool { return hasAddress("192.0.2.1")(i) && hasRoute("192.0.2.0/24")(i) }, Addresses | Routes},
		{"another address", "addr add 192.0.2.2/24 dev eth0", hasAddress("192.0.2.2"), Addresses},
		{"its removal", "addr del 192.0.2.2/24 dev eth0", not(hasAddress("192.0.2.2")), Addresses},
		{"IPv6 address", "addr add 2001:db8::1/64 dev eth0",
			func(i *Interface) bool {
				return hasAddress("2001:db8::1")(i) && hasRoute("2001:db8::/64 metric 256")(i)
			}, Addresses | Routes},
		{"route", "route add 198.51.100.0/24 via 192.0.2.254", hasRoute("198.51.100.0/24 via 192.0.2.254"), Routes},
		{"its next hop changed", "route change 198.51.100.0/24 via 192.0.2.253", hasRoute("198.51.100.0/24 via 192.0.2.253"), Routes},
		{"its MTU changed", "route change 198.51.100.0/24 via 192.0.2.253 mtu 1300", hasRoute("198.51.100.0/24 via 192.0.2.253 mtu 1300"), Routes},
		{"replaced by another device's", "route replace 198.51.100.0/24 via 203.0.113.254 dev far", not(hasRoute("198.51.100.0/24 via 192.0.2.253 mtu 1300")), Routes},
		{"default route", "route add default via 192.0.2.254", hasRoute("0.0.0.0/0 via 192.0.2.254"), Routes},
		{"default route changed", "route replace default via 192.0.2.253",
			func(i *Interface) bool {
				return hasRoute("0.0.0.0/0 via 192.0.2.253")(i) && !hasRoute("0.0.0.0/0 via 192.0.2.254")(i)
			}, Routes},
		{"one of lower preference", "route add default via 192.0.2.254 metric 10",
			hasRoute("0.0.0.0/0 via 192.0.2.253\n0.0.0.0/0 via 192.0.2.254 metric 10"), Routes},
		{"IPv6 default route", "-6 route add default via 2001:db8::fe", hasRoute("::/0 via 2001:db8::fe metric 1024"), Routes},
		{"IPv6 default route replaced", "-6 route replace default via fe80::fe dev eth0", hasRoute("::/0 via fe80::fe metric 1024"), Routes},
		{"its removal", "-6 route del default", not(hasRoute("::/0 via fe80::fe metric 1024")), Routes},
		{"next hop object", "nexthop add id 1 via 192.0.2.251 dev eth0", nil, 0},
		{"route by it", "route add 198.51.101.0/24 nhid 1", hasRoute("198.51.101.0/24 via 192.0.2.251"), Routes},
		{"object replaced", "nexthop replace id 1 via 192.0.2.252 dev eth0", hasRoute("198.51.101.0/24 via 192.0.2.252"), Routes},
		{"object deleted", "nexthop del id 1", not(hasRoute("198.51.101.0/24 via 192.0.2.252")), Routes},
		{"address of another device", "addr add 203.0.113.2/32 dev lo", nil, 0},
		{"route preferring it", "route add 198.51.102.0/24 via 192.0.2.254 src 203.0.113.2", hasRoute("198.51.102.0/24 via 192.0.2.254"), Routes},
		{"gone with that address", "addr del 203.0.113.2/32 dev lo", not(hasRoute("198.51.102.0/24 via 192.0.2.254")), Routes},
		{"MTU", "link set eth0 mtu 1400", func(i *Interface) bool { return i.MTU == 1400 }, MTU},
		{"MAC", "link set eth0 address 02:00:00:00:00:07", func(i *Interface) bool { return i.MAC.String() == "02:00:00:00:00:07" }, MAC},
		{"carrier lost", "link set far down", func(i *Interface) bool { return i.Up && !i.Carrier }, CarrierLost},
		{"carrier", "link set far up", func(i *Interface) bool { return i.Up && i.Carrier }, Carrier},
		{"down", "link set eth0 down", func(i *Interface) bool { return !i.Up && !i.Carrier && len(i.Routes) == 0 }, LinkDown | CarrierLost | Routes},
		{"renamed", "link set eth0 name wan0", func(i *Interface) bool { return i.Name == "wan0" && i.Index == index }, Renamed},
		{"up by the other name", "link set wan0 up", func(i *Interface) bool { return i.Up && i.Carrier && hasRoute("192.0.2.0/24")(i) }, LinkUp | Carrier | Routes},
		{"named back", "link set wan0 name eth0", func(i *Interface) bool { return i.Name == "eth0" }, Renamed},
		{"deleted", "link del eth0", func(i *Interface) bool {
			return i.Gone && i.Name == "eth0" && i.Index == index && !i.Up && i.Addresses == nil && i.Routes == nil
		}, Gone},
		{"made again", veth, func(i *Interface) bool { return !i.Gone && i.Index != index && i.MTU == 1500 }, Recreated},
		{"with an address", "addr add 192.0.2.5/24 dev eth0", hasAddress("192.0.2.5"), Addresses},
	} {
		s.ip(c.command)
		if c.want == nil {
			continue
		}
		i, events := l.until(c.name, c.want)
		if !events.Has(c.events) {
			t.Errorf("%s: events %v, want %v", c.name, events, c.events)
		}
		if i.Name == "" || w.Err() != nil {
			t.Errorf("%s: %+v, %v", c.name, i, w.Err())
		}
	}
}

// Next hop objects whose routes are not told of when they change.
func TestR25_WatchObjectsAlone(t *testing.T) {
	s := newSpace(t)
	s.sysctl("net.ipv4.nexthop_compat_mode", "0")
	s.ip("addr add 192.0.2.1/24 dev eth0", "nexthop add id 1 via 192.0.2.251 dev eth0", "route add 198.51.101.0/24 nhid 1")
	w, l := watch(t, s)
	if !hasRoute("198.51.101.0/24 via 192.0.2.251")(w.Current()) {
		t.Fatalf("first routes:\n%s", routesOf(w.Current()))
	}
	s.ip("nexthop replace id 1 via 192.0.2.252 dev eth0")
	l.until("object replaced", hasRoute("198.51.101.0/24 via 192.0.2.252"))
	s.ip("nexthop del id 1")
	l.until("object deleted", not(hasRoute("198.51.101.0/24 via 192.0.2.252")))
}

// Deleted and made again in one go: another index, and what follows is seen.
func TestWatchRecreatedAtOnce(t *testing.T) {
	s := newSpace(t)
	w, l := watch(t, s)
	for n := range 5 {
		before := w.Current().Index
		addr := fmt.Sprintf("192.0.2.%d", n+1)
		s.batch([]string{"link del eth0", veth, "link set far up", "link set eth0 up", "addr add " + addr + "/24 dev eth0"})
		i, events := l.until("made again with "+addr, hasAddress(addr))
		if i.Index == before || !events.Has(Recreated) {
			t.Errorf("index %d after %d, events %v", i.Index, before, events)
		}
	}
}

// One that comes back at once may be as the former was, by its index too.
func TestWatchRecreatedWithItsIndex(t *testing.T) {
	s := newSpace(t)
	w, l := watch(t, s)
	index := w.Current().Index
	other := newSpace(t)
	other.ip("link del eth0")
	for _, away := range [][]string{
		{"link del eth0", fmt.Sprintf("link add eth0 index %d address 02:00:00:00:00:01 type veth peer name far", index)},
		{"link set eth0 netns " + other.name, "netns exec " + other.name + " ip link set eth0 netns " + s.name},
	} {
		s.batch(away)
		i, events := l.until("back by "+away[0], func(*Interface) bool { return true })
		for events.Has(Gone) { // it was seen away
			i, events = l.until("back by "+away[0], func(i *Interface) bool { return !i.Gone })
		}
		if i.Index != index || events != Recreated {
			t.Errorf("%s: index %d, expected %d; events %v", away[0], i.Index, index, events)
		}
	}
	// A bridge that lets it go tells so in the words of an end.
	s.ip("link add br0 type bridge", "link set eth0 master br0", "link set eth0 nomaster", "link set eth0 mtu 1400")
	if _, events := l.until("after the bridge", func(i *Interface) bool { return i.MTU == 1400 }); events.Has(Recreated) {
		t.Errorf("events %v", events)
	}
}

// What other interfaces do is not reported.
func TestWatchIgnoresOthers(t *testing.T) {
	s := newSpace(t)
	_, l := watch(t, s)
	s.ip("link add other type veth peer name another", "link set other up", "addr add 198.51.100.1/24 dev other",
		"route add 198.51.101.0/24 via 198.51.100.2", "link set other mtu 1300", "link del other",
		"addr add 192.0.2.1/24 dev eth0")
	_, events := l.until("the own address", hasAddress("192.0.2.1"))
	if events&^(Addresses|Routes) != 0 {
		t.Errorf("events %v", events)
	}
	for len(l.steps) > 0 {
		if st := <-l.steps; strings.Contains(routesOf(st.i), "198.51.") {
			t.Errorf("a route of another interface: %s", routesOf(st.i))
		}
	}
}

// More notifications than the socket holds come before anybody reads them.
func TestWatchOverflow(t *testing.T) {
	s := newSpace(t)
	s.ip("addr add 192.0.2.1/24 dev eth0")
	l := newLog(t)
	w, err := subscribe(s.path, "eth0", l.changed)
	if err != nil {
		t.Fatal(err)
	}
	const routes = 4000
	var commands []string
	for n := range routes {
		commands = append(commands, fmt.Sprintf("route add 10.%d.%d.0/24 via 192.0.2.254", n>>8, n&0xff))
	}
	// The very last change is of a kind that the queue has no room for any more.
	commands = append(commands, "link set eth0 mtu 1333")
	s.batch(commands)
	seen := &spy{subscription: w.sub}
	w.sub = seen
	w.start(context.Background())
	i, _ := l.until("MTU after the overflow", func(i *Interface) bool { return i.MTU == 1333 })
	if len(i.Routes) < routes {
		t.Errorf("%d routes, want at least %d", len(i.Routes), routes)
	}
	s.ip("link set eth0 mtu 1444")
	l.until("MTU changed later", func(i *Interface) bool { return i.MTU == 1444 })
	w.Close()
	if seen.overflows == 0 {
		t.Error("the socket did not overflow")
	}
}

// spy counts the overflows of a subscription; read it after Close.
type spy struct {
	subscription
	overflows int
}

func (s *spy) Receive() ([]syscall.NetlinkMessage, *unix.SockaddrNetlink, error) {
	m, from, err := s.subscription.Receive()
	if errors.Is(err, unix.ENOBUFS) {
		s.overflows++
	}
	return m, from, err
}

func TestWatchErrors(t *testing.T) {
	s := newSpace(t)
	called := func(*Interface, Event) { t.Error("changed was called") }
	if _, err := Watch(context.Background(), s.path, "eth7", called); !errors.Is(err, ErrNoInterface) {
		t.Errorf("got %v, want ErrNoInterface", err)
	}
	if _, err := Watch(context.Background(), "/run/netns/bitw-hostnet-does-not-exist", "eth0", called); err == nil {
		t.Error("no error for a namespace that does not exist")
	}
}

// Nothing is left running or open after Close or the end of the context.
func TestWatchEnds(t *testing.T) {
	s := newSpace(t)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for n := range 20 {
		ctx, cancel := context.WithCancel(context.Background())
		w, err := Watch(ctx, s.path, "eth0", func(*Interface, Event) {})
		if err != nil {
			t.Fatal(err)
		}
		if n%2 == 0 {
			w.Close()
			w.Close()
		}
		s.ip(fmt.Sprintf("link set eth0 mtu %d", 1400+n))
		cancel()
		if w.Current() == nil {
			t.Error("no snapshot after the end")
		}
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g <= goroutines && f <= files {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines and %d files, before %d and %d", g, f, goroutines, files)
		}
	}
}

func TestWatchAfterContextEnded(t *testing.T) {
	s := newSpace(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := newLog(t)
	w, err := Watch(ctx, s.path, "eth0", l.changed)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	s.ip("link set eth0 mtu 1400")
	if len(l.steps) != 1 {
		t.Errorf("%d calls, want the first alone", len(l.steps))
	}
}
