package integration

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

const bypassAll = "  - {name: all, action: bypass}\n"

// TestR12_ConnectionsSurviveStartAndStop starts and stops bitw under open
// connections, where a stop gives the interface back.
func TestR12_ConnectionsSurviveStartAndStop(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	if err := pair.A.AddRoute(netip.MustParsePrefix("198.51.100.0/24"), b4); err != nil {
		t.Fatal(err)
	}
	wall := firewall(t, pair.A, pair.B)
	before := links(t, pair.A)
	s4, s6 := startStream(t, pair.A, pair.B, b4), startStream(t, pair.B, pair.A, a6)
	a := newBox(t, pair.A, (&plan{settings: "on_failure: open\n", last: bypassAll}).yaml(true))
	for i := range 3 {
		a.up()
		// What the kernel knows of its neighbours from now on, it learns through bitw.
		forgetNeighbors(t, pair.A)
		s4.moves("with bitw")
		s6.moves("with bitw")
		wall("with bitw")
		// Two more devices, the taps, are what a host sees of bitw.
		now := strings.Split(links(t, pair.A), "\n")
		for _, line := range strings.Split(before, "\n") {
			if !slices.Contains(now, line) {
				t.Errorf("with bitw there is no more\n%s\nin\n%s", line, strings.Join(now, "\n"))
			}
		}
		if st := a.status(); st.Policies[0].Out.Packets == 0 || st.Policies[0].In.Packets == 0 {
			t.Errorf("the connections did not go through bitw: %+v", st.Policies)
		}
		if i == 0 { // a crash gives the interface back as well
			_ = a.proc.Signal(syscall.SIGKILL)
			_ = a.proc.Wait()
			eventually(t, "the kernel takes the taps away", func() bool { return links(t, pair.A) == before })
		} else {
			a.down()
		}
		s4.moves("after bitw")
		s6.moves("after bitw")
		wall("after bitw")
		if after := links(t, pair.A); after != before {
			t.Errorf("devices, addresses and routes changed:\n%s\nwere\n%s", after, before)
		}
	}
}

// firewall gives a host rules of its own, which drop what goes to and comes from one port
// of the other host and bears no mark. The function it returns checks that the rules are
// there as they were and act.
func firewall(t testing.TB, host, other *netlab.Host) (acts func(when string)) {
	t.Helper()
	netlab.Require(t, netlab.Tool("nft", "nftables"))
	nft := func(args ...string) string {
		t.Helper()
		out, err := host.Run(deadline(t, patience), "nft", args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	nft(`table inet own {
	counter came {}
	counter went {}
	chain in { type filter hook input priority 0; udp dport 7777 meta mark 0 counter name came drop; }
	chain out { type filter hook output priority 0; udp dport 7777 meta mark 0 counter name went drop; }
}`)
	rules := nft("--stateless", "list", "table", "inet", "own")
	counted := func(name string) string { return nft("list", "counter", "inet", "own", name) }
	return func(when string) {
		t.Helper()
		if now := nft("--stateless", "list", "table", "inet", "own"); now != rules {
			t.Errorf("%s the rules are\n%s\nwere\n%s", when, now, rules)
		}
		for _, way := range []struct {
			counter string
			from    *netlab.Host
			to      netip.Addr
		}{{"came", other, a4}, {"went", host, b4}} {
			was := counted(way.counter)
			eventually(t, when+" the firewall counts what "+way.counter, func() bool {
				c, err := way.from.Dial(deadline(t, patience), "udp", netip.AddrPortFrom(way.to, 7777).String())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = c.Write([]byte("stopped")) // the host's own rule is told as an error
				_ = c.Close()
				return counted(way.counter) != was
			})
		}
	}
}

// TestR19_ClassesOfFrames sends what no policy decides through bitw.
func TestR19_ClassesOfFrames(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a := newBox(t, pair.A, (&plan{last: bypassAll}).yaml(true))
	lldp := append([]byte{0x01, 0x80, 0xc2, 0, 0, 0x0e}, mac(t, pair.A)...)
	lldp = append(lldp, 0x88, 0xcc)
	lldp = append(lldp, netlab.Marker...)
	send := func() {
		t.Helper()
		for range 3 {
			rawOn(t, &pair.A.Namespace, "eth0").send(lldp)
			broadcast(t, pair.A, 68, 67)
			broadcast(t, pair.A, 4000, 4001)
		}
	}
	for _, test := range []struct {
		classes         string
		lldp, dhcp, bcs int // frames on the wire
	}{
		{"", 0, 0, 0},
		{"classes: {lldp: bypass, dhcp: bypass}\n", 3, 3, 0},
		{"classes: {broadcast: bypass, lldp: discard}\n", 0, 0, 3},
	} {
		a.configure((&plan{settings: test.classes, last: bypassAll}).yaml(true))
		a.up()
		isUDP := func(port uint16) netlab.Match {
			return netlab.InFlow(netlab.Flow{Proto: unix.IPPROTO_UDP, DstPort: port})
		}
		c := pair.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{netlab.Containing(lldp), isUDP(67), isUDP(4001)}})
		before := a.status()
		send()
		var discarded uint64
		eventually(t, "all frames were counted, or are on the wire", func() bool {
			discarded = 0
			now := a.status()
			for _, name := range []string{"lldp", "dhcp", "broadcast"} {
				discarded += now.Classes[name].Discarded - before.Classes[name].Discarded
			}
			return int(discarded)+c.Watched(0).Frames+c.Watched(1).Frames+c.Watched(2).Frames >= 9
		})
		if _, err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if l, d, b := c.Watched(0).Frames, c.Watched(1).Frames, c.Watched(2).Frames; l != test.lldp || d != test.dhcp || b != test.bcs {
			t.Errorf("%q: LLDP %d, DHCP %d, broadcast %d on the wire; expected %d, %d, %d", test.classes, l, d, b, test.lldp, test.dhcp, test.bcs)
		}
		if n := a.drops(before)["class_discard"]; n < discarded {
			t.Errorf("%q: %d drops for class_discard, %d by class", test.classes, n, discarded)
		}
		a.down()
	}

	// From the wire: a DHCP server's answer reaches a client only where let through.
	for _, test := range []struct {
		classes string
		want    bool
	}{{"", false}, {"classes: {dhcp: bypass}\n", true}} {
		a.configure((&plan{settings: test.classes, last: bypassAll}).yaml(true))
		a.up()
		l, err := pair.A.ListenPacket(context.Background(), "udp4", ":68")
		if err != nil {
			t.Fatal(err)
		}
		broadcast(t, pair.B, 67, 68)
		wait := 300 * time.Millisecond
		if test.want {
			wait = patience
		}
		_ = l.SetReadDeadline(time.Now().Add(wait))
		if _, _, err := l.ReadFrom(make([]byte, 1500)); (err == nil) != test.want {
			t.Errorf("%q: reading a DHCP answer: %v", test.classes, err)
		}
		_ = l.Close()
		a.down()
	}
}

// broadcast sends a marked datagram to all hosts of a host's network.
func broadcast(t testing.TB, from *netlab.Host, src, dst int) {
	t.Helper()
	err := from.Do(func() error {
		lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
			var bad error
			err := c.Control(func(fd uintptr) {
				bad = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
				if bad == nil {
					bad = unix.BindToDevice(int(fd), "eth0")
				}
			})
			if bad != nil {
				return bad
			}
			return err
		}}
		c, err := lc.ListenPacket(context.Background(), "udp4", (&net.UDPAddr{Port: src}).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteTo([]byte(netlab.Marker), &net.UDPAddr{IP: net.IPv4bcast, Port: dst})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestR25_RoutesAndAddressesAreFollowed changes the host's interface under a
// running bitw.
func TestR25_RoutesAndAddressesAreFollowed(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	far4, far6 := netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("2001:db8:1::1/128")
	if err := pair.B.AddAddrs("lo", far4, far6); err != nil {
		t.Fatal(err)
	}
	a := newBox(t, pair.A, (&plan{last: bypassAll}).yaml(true))
	a.up()
	ip := func(args ...string) {
		t.Helper()
		if _, err := pair.A.Run(deadline(t, patience), "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	unanswered := func(from *netlab.Host, to netip.Addr) func() bool {
		return func() bool {
			for range 2 { // one missing answer may be a chance loss
				if answers(t, from, to) {
					return false
				}
			}
			return true
		}
	}
	for _, test := range []struct {
		far             netip.Addr
		net, right, bad string
		more            netip.Addr
		bits            string
	}{
		{far4.Addr(), "198.51.100.0/24", "192.0.2.2", "192.0.2.200", netip.MustParseAddr("192.0.2.77"), "/24"},
		{far6.Addr(), "2001:db8:1::/64", "2001:db8::2", "2001:db8::200", netip.MustParseAddr("2001:db8::77"), "/64"},
	} {
		ip("route", "add", test.net, "via", test.right)
		reaches(t, pair.A, test.far) // a new route is followed
		ip("route", "replace", test.net, "via", test.bad)
		eventually(t, "a changed route is followed", unanswered(pair.A, test.far))
		ip("route", "replace", test.net, "via", test.right)
		reaches(t, pair.A, test.far) // a route changed back is followed

		silent(t, pair.B, test.more)
		ip("addr", "add", test.more.String()+test.bits, "dev", "eth0")
		reaches(t, pair.B, test.more) // a new address is followed
		if have := a.status().Addresses; !slices.Contains(have, test.more.String()+test.bits) {
			t.Errorf("status: addresses %v; expected %v among them", have, test.more)
		}
		ip("addr", "del", test.more.String()+test.bits, "dev", "eth0")
		eventually(t, "a lost address is followed", unanswered(pair.B, test.more))
	}
}
