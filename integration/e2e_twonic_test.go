package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/appliance"
	"bitw/appliance/observe"
	"bitw/integration/netlab"
)

// between is hosts behind a box with bitw, and a peer on the other side of it.
//
//	hosts ── inside wire ── eth1 box eth0 ── outside wire ── peer
type between struct {
	*netlab.Pair // the first host, the peer, and the outside wire
	hosts        []*netlab.Host
	inside       *netlab.Wire
	x            *netlab.Host
}

// newBetween makes hosts with these addresses. The box has none.
func newBetween(t testing.TB, hosts ...[]netip.Prefix) *between {
	t.Helper()
	l := netlab.New(t)
	n := &between{Pair: &netlab.Pair{Wire: l.Wire("out"), B: l.Host("b")}, inside: l.Wire("in"), x: l.Host("x")}
	plug := func(h *netlab.Host, w *netlab.Wire, card string, addrs []netip.Prefix) {
		if err := h.Plug(w, card, netlab.CardOptions{Addrs: addrs}); err != nil {
			t.Fatal(err)
		}
	}
	plug(n.B, n.Wire, "eth0", netlab.DefaultB())
	plug(n.x, n.Wire, "eth0", nil)
	plug(n.x, n.inside, "eth1", nil)
	for i, addrs := range hosts {
		h := l.Host(fmt.Sprintf("h%d", i))
		plug(h, n.inside, "eth0", addrs)
		n.hosts = append(n.hosts, h)
	}
	n.A = n.hosts[0]
	return n
}

// box is bitw between the two wires; settings are lines such as protected: and routes:.
func (n *between) box(t testing.TB, p *plan, settings string) *box {
	t.Helper()
	text := p.yaml(true)
	text = strings.Replace(text, "interface: eth0\n", "inside: eth1\noutside: eth0\n"+settings, 1)
	var b *box
	t.Cleanup(func() { // after what newBox does at the end
		if _, stderr, err := b.run("recover", "eth0", "--release"); err != nil {
			t.Errorf("bitw recover --release: %v\n%s", err, stderr)
		}
	})
	b = newBox(t, n.x, text)
	return b
}

// card is the Ethernet address of a card.
func card(t testing.TB, h *netlab.Host, name string) []byte {
	t.Helper()
	l, err := h.Netlink().LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().HardwareAddr
}

// foreignSource matches frames that come from the box with another source than its own.
func foreignSource(own []byte) netlab.Match {
	return func(f *netlab.Frame) bool { return f.Port == "port-x" && !bytes.Equal(f.Data[6:12], own) }
}

func watchBetween(t testing.TB, n *between) *netlab.Capture {
	return n.Wire.Capture(netlab.CaptureOptions{SnapLen: 128, Watch: []netlab.Match{
		netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.Other, netlab.AH), foreignSource(card(t, n.x, "eth0")),
	}})
}

func (n *between) allESP(t testing.TB, c *netlab.Capture) {
	t.Helper()
	allESP(t, c)
	if w := c.Watched(2); w.Frames > 0 {
		t.Errorf("%d frames of the box have another Ethernet source than its outside NIC's; the first:\n%x", w.Frames, w.First[0].Data)
	}
}

const linkRoutes = "routes: [{destination: 192.0.2.0/24}, {destination: \"2001:db8::/64\"}]\n"

func bulk(t testing.TB, from, to *netlab.Host, at netip.Addr) {
	t.Helper()
	if _, err := netlab.TCPBulk(deadline(t, 5*patience), from, to, at, 20<<20); err != nil {
		t.Errorf("TCP from %s to %v: %v", from.Name(), at, err)
	}
}

// TestR13_R18_OneHostBehindTheBox protects a single host in transport mode, with the
// drop-in form at the other end.
func TestR13_R18_OneHostBehindTheBox(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	p := &plan{flows: []*flow{
		newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4),
		newFlow("v6", "transport", "aes256gcm16", 0x1006, a6, b6),
	}}
	x, b := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\n"+linkRoutes), newBox(t, n.B, p.yaml(false))
	x.up()
	b.up()
	c := watchBetween(t, n)
	for _, at := range []netip.Addr{b4, b6} {
		pings(t, n.A, at, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
		bulk(t, n.A, n.B, at)
	}
	for _, at := range []netip.Addr{a4, a6} {
		pings(t, n.B, at, netlab.PingOptions{Count: 20, Interval: 5 * time.Millisecond})
		bulk(t, n.B, n.A, at)
	}
	datagrams(t, n.Pair, a4, b4)
	datagrams(t, n.Pair, a6, b6)
	for _, at := range []netip.Addr{b4, b6} {
		if got, want := neighbor(t, n.A, at), card(t, n.x, "eth1"); !bytes.Equal(got, want) {
			t.Errorf("the host has %x for %v, expected the inside NIC's %x", got, at, want)
		}
	}

	s4, s6 := startStream(t, n.A, n.B, b4), startStream(t, n.B, n.A, a6)
	if err := x.proc.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = x.proc.Wait()
	s4.stands(400 * time.Millisecond)
	s6.stands(50 * time.Millisecond)
	silent(t, n.A, b4)
	x.up()
	s4.moves("after bitw came back")
	s6.moves("after bitw came back")
	st := x.status()
	if !st.TookOver || st.Inside != "eth1" || st.Interface != "eth0" || !slices.Equal(st.Addresses, []string{"192.0.2.1/32", "2001:db8::1/128"}) {
		t.Errorf("status: took over %v, inside %q, interface %q, addresses %v", st.TookOver, st.Inside, st.Interface, st.Addresses)
	}
	if odd := unexpected(st.Drops); len(odd) > 0 {
		t.Errorf("drops %v\n%v", odd, st.DropsBySide)
	}
	// A clean end leaves it shut as well.
	x.down()
	silent(t, n.A, b4)
	silent(t, n.B, a6)
	n.allESP(t, c)
}

// TestR13_RFC4301_3_3_LANInTunnelMode protects a LAN of two hosts, whose router nobody
// is: the box answers for it.
func TestR13_RFC4301_3_3_LANInTunnelMode(t *testing.T) {
	prefix := netip.MustParsePrefix
	n := newBetween(t, []netip.Prefix{prefix("10.1.0.1/24"), prefix("2001:db8:1::1/64")}, []netip.Prefix{prefix("10.1.0.2/24"), prefix("2001:db8:1::2/64")})
	h := []netip.Addr{netip.MustParseAddr("10.1.0.1"), netip.MustParseAddr("10.1.0.2")}
	h6 := []netip.Addr{netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::2")}
	box4, box6 := netip.MustParseAddr("192.0.2.5"), netip.MustParseAddr("2001:db8::5")
	routes := func(host *netlab.Host, to string, via string) {
		t.Helper()
		if err := host.AddRoute(prefix(to), netip.MustParseAddr(via)); err != nil {
			t.Fatal(err)
		}
	}
	for _, host := range n.hosts {
		routes(host, "192.0.2.0/24", "10.1.0.254")
		routes(host, "2001:db8::/64", "2001:db8:1::fe")
	}
	routes(n.B, "10.1.0.0/24", "192.0.2.5")
	routes(n.B, "2001:db8:1::/64", "2001:db8::5")

	p := &plan{flows: []*flow{
		newFlow("v4", "tunnel", "aes128gcm16", 0x1004, h[0], b4).through(box4, b4),
		newFlow("v6", "tunnel", "aes128gcm16", 0x1006, h6[0], b6).through(box6, b6),
	}}
	// The flows' policies name one host; the policies are for the networks.
	wide := func(text string) string {
		return strings.NewReplacer(fmt.Sprintf("%q, remote", h[0]), `"10.1.0.0/25", remote`, fmt.Sprintf("%q, remote", h6[0]), `"2001:db8:1::/121", remote`,
			fmt.Sprintf("remote: %q", h[0]), `remote: "10.1.0.0/25"`, fmt.Sprintf("remote: %q", h6[0]), `remote: "2001:db8:1::/121"`).Replace(text)
	}
	b := newBox(t, n.B, wide(p.yaml(false)))
	x := n.box(t, p, "protected: [10.1.0.0/25, \"2001:db8:1::/121\"]\n"+linkRoutes)
	x.configure(strings.Replace(wide(p.yaml(true)), "interface: eth0\n", "inside: eth1\noutside: eth0\nprotected: [10.1.0.0/25, \"2001:db8:1::/121\"]\n"+linkRoutes, 1))
	x.up()
	b.up()
	c := watchBetween(t, n)
	for i, host := range n.hosts {
		for _, at := range []netip.Addr{b4, b6} {
			pings(t, host, at, netlab.PingOptions{Count: 10, Interval: 5 * time.Millisecond})
			bulk(t, host, n.B, at)
		}
		for _, at := range []netip.Addr{h[i], h6[i]} {
			pings(t, n.B, at, netlab.PingOptions{Count: 10, Interval: 5 * time.Millisecond})
			bulk(t, n.B, host, at)
		}
	}
	// Among themselves they need nobody.
	pings(t, n.hosts[0], h[1], netlab.PingOptions{Count: 3})
	pings(t, n.hosts[1], h6[0], netlab.PingOptions{Count: 3})
	for i, at := range h {
		if got := neighbor(t, n.hosts[1-i], at); !bytes.Equal(got, card(t, n.hosts[i], "eth0")) {
			t.Errorf("a host has %x for its neighbour %v", got, at)
		}
	}
	// A question for a host that is not there is answered, and what comes for it is
	// dropped.
	silent(t, n.B, netip.MustParseAddr("10.1.0.77"))
	n.allESP(t, c)

	// In transport mode it is refused, with the place.
	x.configure("inside: eth1\noutside: eth0\nprotected: [10.1.0.0/24]\n" + linkRoutes + `security_associations:
  - {name: s, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 10.1.0.1, destination: 192.0.2.2, algorithm: aes128-sha256, encryption_key: 0x000102030405060708090a0b0c0d0e0f, integrity_key: 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f}
policies:
  - {name: p, direction: out, local: 10.1.0.1, remote: 192.0.2.2, action: protect, out: [s]}
`)
	_, stderr, err := x.run("check", "-c", x.file)
	if exitCode(err) != 1 || !strings.Contains(stderr, "bitw.yaml:6:") || !strings.Contains(stderr, "RFC 4301 §3.3") {
		t.Errorf("check of transport mode for a network: %v\n%s", err, stderr)
	}
}

// TestR13_R07_OpenAndRelay has the hosts find each other themselves; what is bypassed
// keeps its Ethernet addresses, and after a crash the two NICs are joined.
func TestR13_R07_OpenAndRelay(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	p := &plan{
		flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)},
		last:  "  - {name: rest, action: bypass}\n",
	}
	x := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\non_failure: open\n"+linkRoutes)
	b := newBox(t, n.B, p.yaml(false))
	x.up()
	b.up()
	pings(t, n.A, b4, netlab.PingOptions{Count: 5})
	pings(t, n.B, a4, netlab.PingOptions{Count: 5})
	bulk(t, n.A, n.B, b4)
	own := mac(t, n.A)
	seen := n.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{
		func(f *netlab.Frame) bool {
			return f.Class == netlab.Other && f.Port == "port-x" && !bytes.Equal(f.Data[6:12], own)
		},
		func(f *netlab.Frame) bool {
			return f.Class == netlab.Other && f.Port == "port-x" && bytes.Equal(f.Data[6:12], own)
		},
	}})
	pings(t, n.A, b6, netlab.PingOptions{Count: 5})
	bulk(t, n.B, n.A, a6)
	bulk(t, n.A, n.B, b6)
	if _, err := seen.Stop(); err != nil {
		t.Fatal(err)
	}
	if seen.Watched(0).Frames != 0 || seen.Watched(1).Frames < 5 {
		t.Errorf("of the bypassed: %d frames with another source, %d with the host's own; expected none and all", seen.Watched(0).Frames, seen.Watched(1).Frames)
	}
	if got := neighbor(t, n.A, b6); !bytes.Equal(got, mac(t, n.B)) {
		t.Errorf("the host has %x for its peer, expected its own address %x", got, mac(t, n.B))
	}

	s := startStream(t, n.A, n.B, b6)
	for _, end := range []func(){
		func() { _ = x.proc.Signal(syscall.SIGKILL); _ = x.proc.Wait() },
		func() { x.down() },
	} {
		end()
		s.moves("past the box, directly")
		x.up()
		s.moves("through the box again")
	}
	stdout, _, err := x.run("recover", "eth0")
	if err == nil {
		t.Errorf("recover of a live one: %s", stdout)
	}
	x.down()
	if stdout, _, err = x.run("recover", "eth0"); err != nil || !strings.Contains(stdout, "pass their frames to each other") {
		t.Errorf("recover: %v, %q", err, stdout)
	}
	s.moves("after recover")
}

// TestR13_R12_NICsCreatedAnew deletes each NIC of the box and makes it anew under a
// connection: it goes on, and the box's own kernel and the wire see nothing of it.
func TestR13_R12_NICsCreatedAnew(t *testing.T) {
	for _, neighbors := range []string{"proxy", "relay"} {
		t.Run(neighbors, func(t *testing.T) {
			n := newBetween(t, netlab.DefaultA())
			p := &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)}}
			x := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\nneighbors: "+neighbors+"\n"+linkRoutes)
			b := newBox(t, n.B, p.yaml(false))
			x.up()
			b.up()
			c := watchClear(n.Pair, 128)
			s := startStream(t, n.A, n.B, b4)
			for _, nic := range []struct {
				card string
				wire *netlab.Wire
			}{{"eth1", n.inside}, {"eth0", n.Wire}} {
				l, err := n.x.Netlink().LinkByName(nic.card)
				if err == nil {
					err = n.x.Netlink().LinkDel(l)
				}
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "status says that "+nic.card+" is gone", func() bool {
					st := x.status()
					return st.State == "waiting for interface" && slices.ContainsFunc(st.Health, func(f appliance.Finding) bool {
						return f.Severity == appliance.Critical && strings.Contains(f.Problem, nic.card)
					})
				})
				if err := n.x.Plug(nic.wire, nic.card, netlab.CardOptions{}); err != nil {
					t.Fatal(err)
				}
				s.moves("through the " + nic.card + " that was made anew")
				eventually(t, nic.card+" was made anew and the state is active", func() bool { return x.status().State == "active" })
				eventually(t, "the log says that "+nic.card+" is gone", func() bool { return strings.Contains(x.out.String(), "the interface is gone") })
			}
			for _, names := range [][2]string{{"eth1", "lan0"}, {"lan0", "eth1"}} {
				l, err := n.x.Netlink().LinkByName(names[0])
				if err == nil {
					err = n.x.Netlink().LinkSetName(l, names[1])
				}
				if err != nil {
					t.Fatal(err)
				}
				eventually(t, "status says that eth1 is called "+names[1], func() bool {
					found := slices.ContainsFunc(x.status().Health, func(f appliance.Finding) bool { return strings.Contains(f.Problem, "lan0") })
					return found == (names[1] == "lan0")
				})
				s.moves("through what is called " + names[1])
			}
			allESP(t, c)
		})
	}
}

// TestR03_R13_ObserveBetween watches two NICs: they pass their frames to each other while
// that lasts, and are afterwards as they were before.
func TestR03_R13_ObserveBetween(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	p := &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)}}
	x := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\n"+linkRoutes)
	watch := func() {
		t.Helper()
		said, report := new(netlab.Output), new(netlab.Output)
		cmd := exec.Command(bitwPath(t), "observe", "eth0", "-c", x.file, "-o", "json")
		cmd.Stdout, cmd.Stderr = report, said
		proc, err := n.x.Start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "observe watches", func() bool { return strings.Contains(said.String(), "watching eth1 and eth0") })
		pings(t, n.A, b4, netlab.PingOptions{Count: 3})
		pings(t, n.B, a6, netlab.PingOptions{Count: 3})
		if err := proc.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := proc.Wait(); err != nil {
			t.Fatalf("bitw observe: %v\n%s", err, said)
		}
		var r observe.Report
		if err := json.Unmarshal([]byte(report.String()), &r); err != nil {
			t.Fatalf("%v in %s", err, report)
		}
		for _, want := range []struct{ local, remote, action string }{{a4.String(), b4.String(), "protect"}, {a6.String(), b6.String(), "discard"}} {
			var out, in uint64
			for _, f := range r.Flows { // questions and answers are two
				if f.Local != want.local || f.Remote != want.remote {
					continue
				}
				out, in = out+f.Out.Packets, in+f.In.Packets
				if v := f.Out.Verdict; v != nil && v.Action != want.action {
					t.Errorf("the flow %+v would be %+v, expected %s", f, v, want.action)
				}
			}
			if out < 3 || in < 3 {
				t.Errorf("%d and %d packets between %s and %s in %s; expected all pings", out, in, want.local, want.remote, report)
			}
		}
		if r.Interface != "eth0" || r.Inside != "eth1" {
			t.Errorf("observed %q and %q", r.Interface, r.Inside)
		}
	}
	silent(t, n.A, b4)
	watch()
	silent(t, n.A, b4)

	x.up()
	if _, stderr, err := x.run("observe", "eth0", "-c", x.file); err == nil || !strings.Contains(stderr, "already taken") {
		t.Errorf("observe of what a bitw holds: %v\n%s", err, stderr)
	}
	x.down()
	if _, stderr, err := x.run("observe", "eth0", "-c", x.file); err == nil || !strings.Contains(stderr, "is shut") {
		t.Errorf("observe of what was left shut: %v\n%s", err, stderr)
	}
	if _, stderr, err := x.run("recover", "eth0"); err != nil {
		t.Fatalf("recover: %v\n%s", err, stderr)
	}
	watch()
	pings(t, n.A, b4, netlab.PingOptions{})
}

// TestR13_R48_NothingInTheClearAtTheStart starts bitw for the first time in front of a host
// that sends without pause, to the true address of its peer: the box, which passed nothing
// before, passes nothing in the clear.
func TestR13_R48_NothingInTheClearAtTheStart(t *testing.T) {
	for _, onFailure := range []string{"shut", "open"} {
		n := newBetween(t, netlab.DefaultA())
		p := &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)}}
		x := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\non_failure: "+onFailure+"\n"+linkRoutes)
		if _, err := n.A.Run(deadline(t, patience), "ip", "neigh", "replace", b4.String(), "lladdr", net.HardwareAddr(mac(t, n.B)).String(), "dev", "eth0", "nud", "permanent"); err != nil {
			t.Fatal(err)
		}
		pc, err := n.A.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(a4, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				if _, err := pc.WriteTo([]byte(netlab.Marker), &net.UDPAddr{IP: b4.AsSlice(), Port: 7009}); err != nil {
					return
				}
				time.Sleep(50 * time.Microsecond)
			}
		}()
		c := watchClear(n.Pair, 128)
		x.up()
		eventually(t, "ESP on the wire", func() bool { return c.Counts().Of(netlab.ESP) > 100 })
		_ = pc.Close()
		<-stopped
		// The peer, which has no bitw, complains in the clear of ESP.
		if _, err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if n := c.Watched(0).Frames; n > 0 {
			t.Errorf("on_failure: %s: %d frames in the clear", onFailure, n)
		}
	}
}

// TestR13_LinkIsMirrored takes the link of one side away, and gives it back.
func TestR13_LinkIsMirrored(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	p := &plan{last: "  - {name: rest, action: bypass}\n"}
	x := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\nmirror_link: true\n"+linkRoutes)
	x.up()
	pings(t, n.A, b4, netlab.PingOptions{Count: 3})
	set := func(w *netlab.Wire, port string, up bool) {
		t.Helper()
		l, err := w.Netlink().LinkByName(port)
		if err == nil && up {
			err = w.Netlink().LinkSetUp(l)
		} else if err == nil {
			err = w.Netlink().LinkSetDown(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	running := func(h *netlab.Host, name string) func() bool {
		return func() bool {
			l, err := h.Netlink().LinkByName(name)
			return err == nil && l.Attrs().OperState == netlink.OperUp
		}
	}
	not := func(f func() bool) func() bool { return func() bool { return !f() } }
	in, out := running(n.x, "eth1"), running(n.x, "eth0")
	set(n.Wire, "port-x", false)
	eventually(t, "the inside goes down with the outside", not(in))
	set(n.Wire, "port-x", true)
	eventually(t, "the inside comes back", in)
	reaches(t, n.A, b4) // the inside wire has noticed, too
	pings(t, n.A, b4, netlab.PingOptions{Count: 3})
	set(n.inside, "port-x-eth1", false)
	eventually(t, "the outside goes down with the inside", not(out))
	x.down()
	eventually(t, "what was held down is up after the end", func() bool {
		l, err := n.x.Netlink().LinkByName("eth0")
		return err == nil && l.Attrs().RawFlags&syscall.IFF_UP != 0
	})
}
