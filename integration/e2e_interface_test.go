package integration

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/appliance"
	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

// tattle sends protected datagrams from a host without pause, whatever becomes of its
// interface, until the test ends.
func tattle(t testing.TB, from *netlab.Host, to netip.Addr) {
	t.Helper()
	var c *net.UDPConn
	if err := from.Do(func() (err error) {
		c, err = net.ListenUDP("udp", nil)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				// Without interface, address or route it is an error.
				_, _ = c.WriteToUDPAddrPort([]byte(netlab.Marker), netip.AddrPortFrom(to, 9))
			}
		}
	})
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
		_ = c.Close()
	})
}

// newCgroup makes a cgroup for a test, so that none of the machine's is touched.
func newCgroup(t testing.TB) string {
	t.Helper()
	root, err := ethtap.DefaultCgroup()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(root, "bitw-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	return dir
}

func eth(t testing.TB, h *netlab.Host, name string) netlink.Link {
	t.Helper()
	link, err := h.Netlink().LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func unplug(t testing.TB, h *netlab.Host) {
	t.Helper()
	if err := h.Netlink().LinkDel(eth(t, h, "eth0")); err != nil {
		t.Fatal(err)
	}
}

func plug(t testing.TB, pair *netlab.Pair) {
	t.Helper()
	if err := pair.A.Plug(pair.Wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}); err != nil {
		t.Fatal(err)
	}
}

// sequence is the last number that an SA of the box has sent.
func (b *box) sequence(name string) uint64 {
	b.t.Helper()
	for _, sa := range b.status().SAs {
		if sa.Name == name {
			return sa.Sequence
		}
	}
	b.t.Fatalf("no SA %s", name)
	return 0
}

// TestR07_TheCutIsPutBack takes the programs away from an interface that stays as it is, as
// far as can be seen: bitw tells, and from then on all is protected again.
func TestR07_TheCutIsPutBack(t *testing.T) {
	for _, x := range []struct {
		name, says string
		away       func(t *testing.T, lab *netlab.Lab, pair *netlab.Pair)
	}{
		{"by deleting the qdisc", "are back", func(t *testing.T, _ *netlab.Lab, pair *netlab.Pair) {
			qdisc := &netlink.GenericQdisc{QdiscType: "clsact", QdiscAttrs: netlink.QdiscAttrs{
				LinkIndex: eth(t, pair.A, "eth0").Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
			}}
			if err := pair.A.Netlink().QdiscDel(qdisc); err != nil {
				t.Fatal(err)
			}
		}},
		{"by a stay in another namespace", "created anew", func(t *testing.T, lab *netlab.Lab, pair *netlab.Pair) {
			home, away := filepath.Base(pair.A.NetNSPath()), filepath.Base(lab.Host("away").NetNSPath())
			commands := []string{"link set eth0 netns " + away, "netns exec " + away + " ip link set eth0 netns " + home, "link set eth0 up"}
			for _, a := range netlab.DefaultA() {
				commands = append(commands, "addr add "+a.String()+" dev eth0 nodad")
			}
			file := filepath.Join(t.TempDir(), "ip")
			if err := os.WriteFile(file, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			index := eth(t, pair.A, "eth0").Attrs().Index
			if _, err := pair.A.Run(deadline(t, patience), "ip", "-batch", file); err != nil {
				t.Fatal(err)
			}
			if now := eth(t, pair.A, "eth0").Attrs().Index; now != index {
				t.Fatalf("the index is %d and was %d", now, index)
			}
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			lab := netlab.New(t)
			pair := lab.Pair(netlab.PairOptions{})
			p := protected()
			a, b := newBox(t, pair.A, p.yaml(true)), newBox(t, pair.B, p.yaml(false))
			a.up("--hook", "clsact")
			b.up()
			tattle(t, pair.A, b4)
			tattle(t, pair.A, b6)
			x.away(t, lab, pair)
			eventually(t, "bitw says so", func() bool { return strings.Contains(a.out.String(), x.says) })
			last := a.sequence("v4-ab")
			eventually(t, "the interface is cut again", func() bool { return a.sequence("v4-ab") > last })
			c := watchClear(pair, 128)
			for _, to := range []netip.Addr{b4, b6} {
				reaches(t, pair.A, to) // of what waits for a neighbour the kernel keeps little
				pings(t, pair.A, to, netlab.PingOptions{Count: 5})
			}
			allESP(t, c)
		})
	}
}

// TestR07_TapsAreMissed: a tap that was set down is up again, and one that is no more ends
// bitw, which leaves the interface shut, though a clean end would have given it back.
func TestR07_TapsAreMissed(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := protected()
	a, b := newBox(t, pair.A, p.yaml(true)), newBox(t, pair.B, p.yaml(false))
	a.up("--open-on-stop")
	b.up()
	c := watchClear(pair, 128)
	htap := eth(t, pair.A, fmt.Sprintf("htap%d", eth(t, pair.A, "eth0").Attrs().Index))
	reaches(t, pair.A, b4)
	if err := pair.A.Netlink().LinkSetDown(htap); err != nil {
		t.Fatal(err)
	}
	eventually(t, "bitw says so", func() bool { return strings.Contains(a.out.String(), "is up again") })
	reaches(t, pair.A, b4)

	tattle(t, pair.A, b4)
	tattle(t, pair.A, b6)
	if err := pair.A.Netlink().LinkDel(htap); err != nil {
		t.Fatal(err)
	}
	if err := a.proc.Wait(); err == nil || !strings.Contains(a.out.String(), htap.Attrs().Name+" was deleted") {
		t.Errorf("bitw without a tap ended with %v and wrote:\n%s", err, a.out)
	}
	if !strings.Contains(a.out.String(), "eth0 is shut") {
		t.Errorf("bitw does not say that the interface is shut:\n%s", a.out)
	}
	silent(t, pair.A, b4)
	a.up()
	reaches(t, pair.A, b4)
	reaches(t, pair.A, b6)
	allESP(t, c)
}

// TestR07_CreatedAnewNothingLeavesInTheClear deletes the interface and creates it
// again under traffic: bitw waits, cuts the new one and goes on with the same SAs.
func TestR07_CreatedAnewNothingLeavesInTheClear(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := protected()
	cgroup := newCgroup(t)
	p.settings = "forbid_bypass: true\nbypass_cgroup: " + cgroup + "\n"
	a, b := boxes(t, pair, p)
	if st := a.status(); st.Guard == "none" || st.BypassForbidden != cgroup {
		t.Fatalf("guard %q, bypass forbidden in %q; is nftables missing?", st.Guard, st.BypassForbidden)
	}
	c := watchClear(pair, 128)
	s := startStream(t, pair.A, pair.B, b4)
	tattle(t, pair.A, b4)
	tattle(t, pair.A, b6)
	last := a.sequence("v4-ab")
	for round := range 4 {
		unplug(t, pair.A)
		if round%3 == 0 { // else it is there again before anybody can notice
			eventually(t, "the status says that bitw waits", func() bool {
				st := a.status()
				return st.State == "waiting for interface" && slices.ContainsFunc(st.Health, func(f appliance.Finding) bool { return strings.Contains(f.String(), "there is no interface eth0") })
			})
		}
		plug(t, pair)
		eventually(t, "the interface is cut again", func() bool { return a.sequence("v4-ab") > last })
		last = a.sequence("v4-ab")
	}
	s.moves("after the interface came back")
	pings(t, pair.A, b6, netlab.PingOptions{Count: 5})
	eventually(t, "the status says that it is active, with a carrier", func() bool { st := a.status(); return st.State == "active" && st.Carrier })
	if d := b.status().Drops; d["replay"]+d["replay_old"]+d["icv"]+d["clear_not_protected"] > 0 {
		t.Errorf("drops at the other end: %v", d)
	}

	// The same without the process.
	for range 2 {
		_ = a.proc.Signal(syscall.SIGKILL)
		_ = a.proc.Wait()
		unplug(t, pair.A)
		plug(t, pair)
		silent(t, pair.A, b4)
		a.up()
		if !a.status().TookOver {
			t.Error("the status does not say that the interface was taken over")
		}
		s.moves("after bitw came back")
	}
	t.Logf("on the wire: %v", allESP(t, c))

	_ = a.proc.Signal(syscall.SIGKILL)
	_ = a.proc.Wait()
	unplug(t, pair.A)
	plug(t, pair)
	b.giveBack()
	silent(t, pair.A, b4)
	a.giveBack()
	// The kernels may have to find each other first.
	if r, err := netlab.Ping(deadline(t, patience), pair.A, b4, netlab.PingOptions{Count: 5}); err != nil || r.Received == 0 {
		t.Errorf("ping in the clear, by the operator's word: %v, %v", r, err)
	}
}

// TestR12_NewAddressesAreAnnounced: others hear at once where the host is when it gets
// another Ethernet address or one more of its own, which its kernel does not say through
// bitw.
func TestR12_NewAddressesAreAnnounced(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	boxes(t, pair, protected())
	was := net.HardwareAddr(mac(t, pair.A))
	now := net.HardwareAddr{2, 0, 0, 0, 0x48, 0x13}
	more := []netip.Prefix{netip.MustParsePrefix("192.0.2.40/24"), netip.MustParsePrefix("2001:db8::40/64")}
	watch := []netlab.Match{announcing(more[0].Addr(), was), announcing(more[1].Addr(), was)}
	for _, a := range []netip.Addr{a4, a6, more[0].Addr(), more[1].Addr()} {
		watch = append(watch, announcing(a, now))
	}
	c := pair.Wire.Capture(netlab.CaptureOptions{Watch: watch})
	heard := func(what string, from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			eventually(t, fmt.Sprintf("%s is announced (%d)", what, i), func() bool { return c.Watched(i).Frames > 0 })
		}
	}
	for _, p := range more {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: syscall.IFA_F_NODAD}
		if err := pair.A.Netlink().AddrAdd(eth(t, pair.A, "eth0"), a); err != nil {
			t.Fatal(err)
		}
	}
	heard("an address more", 0, 2)
	if err := pair.A.Netlink().LinkSetHardwareAddr(eth(t, pair.A, "eth0"), now); err != nil {
		t.Fatal(err)
	}
	heard("another Ethernet address", 2, len(watch))
	if _, err := c.Stop(); err != nil {
		t.Fatal(err)
	}
}

// TestR12_InterfaceChangesUnderTraffic: an open TCP connection survives whatever an
// administrator or a switch does to the interface, and stays protected.
func TestR12_InterfaceChangesUnderTraffic(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := boxes(t, pair, protected())
	c := watchClear(pair, 128)
	s4, s6 := startStream(t, pair.A, pair.B, b4), startStream(t, pair.B, pair.A, a6)
	nl := pair.A.Netlink()
	works := func(when string) {
		t.Helper()
		s4.moves(when)
		s6.moves(when)
		pings(t, pair.B, a4, netlab.PingOptions{Count: 3})
	}

	// At both ends: what a host sends that the other one's interface does not take is lost,
	// and nobody says so. After a standstill TCP sends what is as long as fits.
	for _, x := range []*box{a, b} {
		if err := x.host.Netlink().LinkSetMTU(eth(t, x.host, "eth0"), 1400); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the MTU is followed", func() bool { return x.status().MTU == 1400 })
	}
	works("with another MTU")

	was := mac(t, pair.A)
	if err := nl.LinkSetHardwareAddr(eth(t, pair.A, "eth0"), net.HardwareAddr{2, 0, 0, 0, 0x48, 0x12}); err != nil {
		t.Fatal(err)
	}
	works("with another MAC")
	before := a.status()
	pings(t, pair.A, b6, netlab.PingOptions{Count: 20, Interval: time.Millisecond})
	if d := a.drops(before); d["foreign_mac"]+d["own_address_spoof"] > 0 {
		t.Errorf("drops with another MAC: %v", d)
	}
	if string(was) == string(mac(t, pair.A)) {
		t.Error("the MAC has not changed")
	}

	port, err := pair.Wire.Netlink().LinkByName("port-a")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := pair.Wire.Netlink().LinkSetDown(port); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the status says that the carrier is lost", func() bool { return !a.status().Carrier })
		if err := pair.Wire.Netlink().LinkSetUp(port); err != nil {
			t.Fatal(err)
		}
		works("after the carrier was lost")
	}
	eventually(t, "the status says that the carrier is back", func() bool { return a.status().Carrier })

	netlab.Require(t, netlab.Need{Name: "an interface that can be renamed while it is up (Linux 6.2)", Check: func() error {
		return nl.LinkSetName(eth(t, pair.A, "eth0"), "wan")
	}})
	works("under another name")
	eventually(t, "the status has the new name", func() bool { return a.status().RenamedTo == "wan" })
	for _, name := range []string{"eth0", "wan"} {
		if _, stderr, err := a.run("tap", name, "active", "--socket", a.dir+"/c.sock"); err != nil {
			t.Errorf("bitw tap %s active: %v\n%s", name, err, stderr)
		}
		if _, _, err := a.run("recover", name); exitCode(err) != 1 {
			t.Errorf("bitw recover %s, in use: exit status %d, expected 1", name, exitCode(err))
		}
	}
	works("after the operator looked")
	for _, said := range []string{"event=interface-changed", "changes=mac", "changes=mtu", "carrier_lost", "changes=renamed", "name=wan"} {
		eventually(t, "the log says "+said, func() bool { return strings.Contains(a.out.String(), said) })
	}
	if d := b.status().Drops; d["replay"]+d["icv"]+d["clear_not_protected"] > 0 {
		t.Errorf("drops at the other end: %v", d)
	}
	t.Logf("on the wire: %v", allESP(t, c))
}
