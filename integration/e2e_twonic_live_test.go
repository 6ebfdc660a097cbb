package integration

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/integration/netlab"
)

// setMTU gives all cards of both wires these MTUs.
func (n *between) setMTU(t testing.TB, inside, outside int) {
	t.Helper()
	set := func(ns *netlab.Namespace, name string, mtu int) {
		l, err := ns.Netlink().LinkByName(name)
		if err == nil {
			err = ns.Netlink().LinkSetMTU(l, mtu)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, x := range []struct {
		wire  *netlab.Wire
		ports []string
		host  *netlab.Host
		card  string
		mtu   int
	}{
		{n.inside, []string{"port-h0", "port-x-eth1"}, n.A, "eth1", inside},
		{n.Wire, []string{"port-b", "port-x"}, n.B, "eth0", outside},
	} {
		for _, p := range x.ports {
			set(&x.wire.Namespace, p, x.mtu)
		}
		set(&x.host.Namespace, "eth0", x.mtu)
		set(&n.x.Namespace, x.card, x.mtu)
	}
}

// TestR13_R29_AnMTUForEachSide changes the MTUs of both NICs while bitw runs. Each side has
// its own: whoever sends what does not fit the other one is told the exact MTU, a remote
// sender through the protection, and what may be cut comes through.
func TestR13_R29_AnMTUForEachSide(t *testing.T) {
	for _, protected := range []bool{true, false} {
		t.Run(map[bool]string{true: "protect", false: "bypass"}[protected], func(t *testing.T) {
			n := newBetween(t, netlab.DefaultA())
			p := &plan{last: "  - {name: rest, action: bypass}\n"}
			if protected {
				p = &plan{flows: []*flow{
					newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4),
					newFlow("v6", "tunnel", "aes128gcm16", 0x1006, a6, b6),
				}}
			}
			x, b := n.box(t, p, "protected: [192.0.2.1, \"2001:db8::1\"]\n"+linkRoutes), newBox(t, n.B, p.yaml(false))
			x.up()
			b.up()
			// The largest datagram of a host whose ESP has at most mtu octets.
			fits := func(at netip.Addr, mtu int) int {
				switch {
				case !protected:
					return mtu
				case at.Is4():
					return 20 + (mtu-20-8-8-16)/4*4 - 2
				}
				return (mtu-40-8-8-16)/4*4 - 2
			}
			for _, mtu := range []struct{ in, out int }{{9000, 1500}, {1500, 9000}, {1400, 1500}} {
				n.setMTU(t, mtu.in, mtu.out)
				eventually(t, fmt.Sprintf("status has the MTUs %+v", mtu), func() bool {
					st := x.status()
					return st.MTU == mtu.out && st.InsideMTU == mtu.in && b.status().MTU == mtu.out
				})
				for _, way := range []struct {
					from, to *netlab.Host
					at       netip.Addr
					own, far int // the MTU of the sender, and what fits at the other side
				}{
					{n.A, n.B, b4, mtu.in, fits(b4, mtu.out)}, {n.A, n.B, b6, mtu.in, fits(b6, mtu.out)},
					{n.B, n.A, a4, fits(a4, mtu.out), mtu.in}, {n.B, n.A, a6, fits(a6, mtu.out), mtu.in},
				} {
					forgetPathMTUs(t, n.A)
					forgetPathMTUs(t, n.B)
					header := 28
					if way.at.Is6() {
						header = 48
					}
					name := fmt.Sprintf("inside %d, outside %d, from %s to %v", mtu.in, mtu.out, way.from.Name(), way.at)
					ping := func(size int, df bool) netlab.PingResult {
						t.Helper()
						r, err := netlab.Ping(deadline(t, patience), way.from, way.at, netlab.PingOptions{Size: size - header, DontFragment: df})
						if err != nil {
							t.Fatal(err)
						}
						return r
					}
					most := min(way.own, way.far)
					if way.own > way.far {
						if got := tooBigFor(t, way.from, way.at, way.own-header); got != way.far {
							t.Errorf("%s: the sender of %d octets learned %d, expected %d", name, way.own, got, way.far)
						}
						if r := ping(most+1, true); r.TooBig != 1 {
							t.Errorf("%s: a ping of %d octets: %v; expected that the kernel refuses it", name, most+1, r)
						}
					}
					if r := ping(most, true); r.Received != 1 {
						t.Errorf("%s: a ping of %d octets with DF: %v; expected an answer", name, most, r)
					}
					if way.at.Is4() { // else its kernel would have to be told anew
						forgetPathMTUs(t, way.from)
					}
					if r := ping(min(way.own, 8000), false); r.Received != 1 {
						t.Errorf("%s: a ping of %d octets: %v; expected an answer", name, min(way.own, 8000), r)
					}
					bulk(t, way.from, way.to, way.at)
				}
			}
			if s := x.status(); len(unexpected(s.Drops)) > 0 {
				t.Errorf("drops %v\n%v", unexpected(s.Drops), s.DropsBySide)
			}
		})
	}
}

// tooBigFor has a host send pings of n octets with DF until it is told that they are too
// big, and returns what path MTU it has learned.
func tooBigFor(t testing.TB, h *netlab.Host, at netip.Addr, n int) (mtu int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s is told what fits to %v", h.Name(), at), func() bool {
		_, _ = netlab.Ping(deadline(t, patience), h, at, netlab.PingOptions{Size: n, DontFragment: true, Timeout: 100 * time.Millisecond})
		mtu = learned(t, h, at)
		return mtu != 0
	})
	return mtu
}

// announced matches what the box says unasked to all stations of a wire about an address.
func announced(a netip.Addr) netlab.Match {
	return func(f *netlab.Frame) bool {
		switch {
		case f.Port != "port-x-eth1":
			return false
		case a.Is4(): // sender and target of ARP are the same
			return f.Class == netlab.ARP && bytes.Equal(f.Data[28:32], a.AsSlice()) && bytes.Equal(f.Data[38:42], a.AsSlice())
		}
		return f.Class == netlab.ND && f.Data[54] == 136 && f.Data[0] == 0x33 && bytes.Equal(f.Data[62:78], a.AsSlice())
	}
}

// TestR13_R20_NeighborsChangeLiveBetween has bitw apply change neighbors to and fro between
// two NICs, under pings both ways and a stream: nothing is lost or in the clear, and what is
// asked anew is answered as the mode in force says.
func TestR13_R20_NeighborsChangeLiveBetween(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	p := &plan{flows: []*flow{newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4), newFlow("six", "tunnel", "aes128gcm16", 0x1002, a6, b6)}}
	settings := "protected: [192.0.2.1, \"2001:db8::1\"]\n" + linkRoutes
	x, b := n.box(t, p, settings+"neighbors: relay\n"), newBox(t, n.B, p.yaml(false))
	x.up()
	b.up()
	change := func(mode string) {
		t.Helper()
		x.configure(strings.Replace(p.yaml(true), "interface: eth0\n", "inside: eth1\noutside: eth0\n"+settings+"neighbors: "+mode+"\n", 1))
		if stdout, stderr, err := x.run("apply", x.file); err != nil || !strings.Contains(stdout, "neighbors") {
			t.Fatalf("bitw apply: %v\n%s%s", err, stdout, stderr)
		}
	}
	ways := []struct {
		from *netlab.Host
		to   netip.Addr
	}{{n.A, b4}, {n.A, b6}, {n.B, a4}, {n.B, a6}}
	for _, w := range ways {
		pings(t, w.from, w.to, netlab.PingOptions{})
	}
	c := watchClear(n.Pair, 256)
	results := make(chan error, len(ways)+1)
	for _, w := range ways {
		go func() {
			r, err := netlab.Ping(deadline(t, 5*patience), w.from, w.to, netlab.PingOptions{Count: 3000, Interval: 2 * time.Millisecond})
			if err == nil && r.Lost > 0 {
				err = fmt.Errorf("pings to %v: %v", w.to, r)
			}
			results <- err
		}()
	}
	go func() {
		_, err := netlab.HTTPTransfer(deadline(t, 5*patience), n.A, n.B, a4, 64<<20)
		results <- err
	}()
	before := [2]*appliance.Status{x.status(), b.status()}
	var told *netlab.Capture
	for i := range 10 {
		mode := []string{"proxy", "relay"}[i%2]
		if i == 9 {
			told = n.inside.Capture(netlab.CaptureOptions{Watch: []netlab.Match{announced(b4), announced(b6)}})
		}
		change(mode)
		want := map[string][]byte{"proxy": card(t, n.x, "eth1"), "relay": mac(t, n.B)}[mode]
		// What is announced by ARP within a second after another word is not heeded.
		eventually(t, "the host is told of "+mode, func() bool { return bytes.Equal(neighbor(t, n.A, b6), want) })
		time.Sleep(300 * time.Millisecond) // under way
	}
	// One announcement may be lost, or undone by an answer that was under way.
	for i, at := range []netip.Addr{b4, b6} {
		eventually(t, fmt.Sprintf("the host is told twice of %v", at), func() bool { return told.Watched(i).Frames >= 2 })
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	allESP(t, c)
	for i, box := range []*box{x, b} {
		if odd := unexpected(box.drops(before[i]), "foreign_mac"); len(odd) > 0 {
			t.Errorf("box %d: drops %v", i, odd)
		}
	}

	for _, mode := range []string{"proxy", "relay"} {
		change(mode)
		for _, w := range ways {
			forgetNeighbors(t, w.from)
			pings(t, w.from, w.to, netlab.PingOptions{Count: 3})
		}
		want := map[string][]byte{"proxy": card(t, n.x, "eth1"), "relay": mac(t, n.B)}[mode]
		for _, at := range []netip.Addr{b4, b6} {
			if got := neighbor(t, n.A, at); !bytes.Equal(got, want) {
				t.Errorf("%s: the host has %x for %v; expected %x", mode, got, at, want)
			}
		}
	}
}

// TestR13_R22_ABurstWaitsForTheAnswer sends many datagrams to a station that the box does not
// know and that does not answer yet: none is lost.
func TestR13_R22_ABurstWaitsForTheAnswer(t *testing.T) {
	n := newBetween(t, netlab.DefaultA())
	x := n.box(t, &plan{last: "  - {name: rest, action: bypass}\n"}, "protected: [192.0.2.1, \"2001:db8::1\"]\n"+linkRoutes)
	x.up()
	for _, way := range []struct {
		from, to *netlab.Host
		a, b     netip.Addr
		nic      string // of the box
	}{{n.B, n.A, b4, a4, "eth0"}, {n.A, n.B, a4, b4, "eth1"}} {
		// The sender's kernel would ask, and has a queue of its own.
		box := net.HardwareAddr(card(t, n.x, way.nic)).String()
		if _, err := way.from.Run(deadline(t, patience), "ip", "neigh", "replace", way.b.String(), "lladdr", box, "dev", "eth0", "nud", "permanent"); err != nil {
			t.Fatal(err)
		}
		ignore := func(what string) {
			t.Helper()
			if err := way.to.Sysctl("net/ipv4/conf/all/arp_ignore", what); err != nil {
				t.Fatal(err)
			}
		}
		to := &net.UDPAddr{IP: way.b.AsSlice(), Port: 7011}
		server, err := way.to.ListenPacket(t.Context(), "udp", to.String())
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		raw, err := server.(*net.UDPConn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 8<<20)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
		client, err := way.from.ListenPacket(t.Context(), "udp", netip.AddrPortFrom(way.a, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		ignore("8")
		const burst = 900
		for i := range burst {
			if _, err := client.WriteTo([]byte{byte(i >> 8), byte(i)}, to); err != nil {
				t.Fatal(err)
			}
		}
		ignore("0")
		if err := server.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		for i := range burst {
			b := make([]byte, 16)
			if _, _, err := server.ReadFrom(b); err != nil || int(b[0])<<8|int(b[1]) != i {
				t.Fatalf("from %s to %v: datagram %d of %d: %v, %x; drops %v", way.from.Name(), way.b, i, burst, err, b[:2], x.status().Drops)
			}
		}
	}
}
