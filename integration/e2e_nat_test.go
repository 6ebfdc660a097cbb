package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"bitw/integration/netlab"
	"bitw/integration/tshark"
)

// natLab is a host behind a NAT, a host in front of it, and a third one there.
type natLab struct {
	t               testing.TB
	a, nat, b       *netlab.Host
	inside, outside *netlab.Wire
	third           *sender
}

func newNATLab(t testing.TB) *natLab {
	t.Helper()
	netlab.Require(t, netlab.Root(), netlab.TUN(), netlab.Namespaces(), netlab.Tool("nft", "nftables"), tshark.Need())
	lab := netlab.New(t)
	l := &natLab{t: t, a: lab.Host("a"), nat: lab.Host("nat"), b: lab.Host("b"), inside: lab.Wire("inside"), outside: lab.Wire("outside")}
	prefixes := func(list ...string) (p []netip.Prefix) {
		for _, s := range list {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	for _, plug := range []struct {
		host  *netlab.Host
		wire  *netlab.Wire
		card  string
		addrs []netip.Prefix
	}{
		{l.a, l.inside, "eth0", prefixes("10.77.0.2/24", "fd00:77::2/64")},
		{l.nat, l.inside, "eth0", prefixes("10.77.0.1/24", "fd00:77::1/64")},
		{l.nat, l.outside, "eth1", prefixes("203.0.113.1/24", "203.0.113.9/24", "2001:db8:1::1/64", "2001:db8:1::9/64")},
		{l.b, l.outside, "eth0", prefixes("203.0.113.2/24", "2001:db8:1::2/64")},
	} {
		if err := plug.host.Plug(plug.wire, plug.card, netlab.CardOptions{Addrs: plug.addrs, NoOffload: true}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"} {
		if err := l.nat.Sysctl(key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	for host, gateways := range map[*netlab.Host][2]string{l.a: {"10.77.0.1", "fd00:77::1"}, l.b: {"203.0.113.1", "2001:db8:1::1"}} {
		for i, all := range []string{"0.0.0.0/0", "::/0"} {
			if err := host.AddRoute(netip.MustParsePrefix(all), netip.MustParseAddr(gateways[i])); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.third = rawOn(t, &l.outside.Namespace, "port-b")
	return l
}

// appearAt has the NAT show UDP from the inside as coming from there, flows that it
// knew before too. What is still sent to where they came from before, it drops silently.
func (l *natLab) appearAt(place netip.AddrPort) {
	l.t.Helper()
	family := "ip"
	if place.Addr().Is6() {
		family = "ip6"
	}
	rules := fmt.Sprintf(`table %[1]s nat
delete table %[1]s nat
table %[1]s nat {
	chain post {
		type nat hook postrouting priority 100; policy accept;
		oifname "eth1" meta l4proto udp snat to %[2]s
	}
	chain own {
		type filter hook input priority 0; policy accept;
		iifname "eth1" meta l4proto udp drop;
	}
}
`, family, place)
	if _, err := l.nat.Run(deadline(l.t, patience), "bash", "-c", "nft -f - <<'END'\n"+rules+"END"); err != nil {
		l.t.Fatal(err)
	}
	if err := l.nat.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		l.t.Fatal(err)
	}
}

// natCase is how a and b protect what they say to each other.
type natCase struct {
	mode string
	six  bool
	// original says that the ends are told the addresses that the NAT changes.
	original bool
}

func (c natCase) String() string {
	version := 4
	if c.six {
		version = 6
	}
	return fmt.Sprintf("%s/v%d/original-%v", c.mode, version, c.original)
}

// addresses of a, of the NAT's outside (before and after), and of b.
func (c natCase) addresses() (a, out, moved, b netip.Addr) {
	if c.six {
		return netip.MustParseAddr("fd00:77::2"), netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:1::9"), netip.MustParseAddr("2001:db8:1::2")
	}
	return netip.MustParseAddr("10.77.0.2"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("203.0.113.2")
}

// keys are those of both ways, the same at each call.
func (c natCase) keys() (enc []byte) {
	for i := range 2 * keyLengths["aes128gcm16"][0] {
		enc = append(enc, byte(i*5+len(c.String())))
	}
	return enc
}

// decrypts has tshark find ESP in UDP in what was outside, and open it.
func (c natCase) decrypts(t testing.TB, outside *netlab.Capture) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "outside.pcapng")
	if err := outside.WritePcapng(file); err != nil {
		t.Fatal(err)
	}
	_, out, moved, b := c.addresses()
	var sas []tshark.SA
	for _, at := range []netip.Addr{out, moved} {
		sas = append(sas,
			tshark.SA{Src: at, Dst: b, SPI: 0x1001, Enc: tshark.EncAESGCM16, EncKey: key(c.keys(), false)},
			tshark.SA{Src: b, Dst: at, SPI: 0x2001, Enc: tshark.EncAESGCM16, EncKey: key(c.keys(), true)})
	}
	v, err := tshark.Verify(deadline(t, patience), tshark.Options{File: file, SAs: sas})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("tshark: %d ESP, %d decrypted, %d ICVs good, inside %v", v.ESP, v.Decrypted, v.GoodICV, v.Inner)
	// Two packets have the third host's address.
	if v.Decrypted < 300 || v.Decrypted < v.ESP-2 || v.GoodICV != v.Decrypted || v.BadICV > 0 {
		t.Errorf("tshark: %d ESP, %d decrypted, %d ICVs good, %d bad; not decrypted: %v", v.ESP, v.Decrypted, v.GoodICV, v.BadICV, v.Undecoded)
	}
}

// yaml is what a or b is told.
func (c natCase) yaml(isA bool) string {
	a, out, _, b := c.addresses()
	keys := c.keys()
	here, there, peer := a, b, b
	encapOut, encapIn := "encap: {keepalive: 1s}", "encap: yes"
	if c.original {
		encapIn = fmt.Sprintf("encap: {original_local: %q}", out)
	}
	names := [2]string{"ab", "ba"}
	if !isA {
		here, there, peer = b, out, a
		encapOut, encapIn = "encap: {keepalive: 0s}", "encap: yes"
		if c.original {
			encapIn = fmt.Sprintf("encap: {original_remote: %q}", a)
		}
		if c.mode == "transport" {
			peer = out
		}
		names[0], names[1] = names[1], names[0]
	}
	var w strings.Builder
	w.WriteString("interface: eth0\nsecurity_associations:\n")
	for i, direction := range []string{"out", "in"} {
		src, dst, encap := here, there, encapOut
		if direction == "in" {
			src, dst, encap = there, here, encapIn
		}
		spi, back := 0x1001, names[i] == "ba"
		if back {
			spi = 0x2001
		}
		fmt.Fprintf(&w, "  - {name: %s, direction: %s, protocol: esp, mode: %s, spi: %#x, source: %q, destination: %q, algorithm: aes128gcm16, encryption_key: 0x%x, %s}\n",
			names[i], direction, c.mode, spi, src, dst, key(keys, back), encap)
	}
	w.WriteString("policies:\n  - {name: ike, protocol: udp, local_ports: [4500], action: bypass}\n")
	fmt.Fprintf(&w, "  - {name: all, local: %q, remote: %q, action: protect, out: [%s], in: [%s]}\n", here, peer, names[0], names[1])
	if c.six {
		w.WriteString("classes:\n  ndp-router: bypass\n")
	}
	return w.String()
}

// echo writes n octets to a connection whose other end sends them back.
func echo(t testing.TB, c net.Conn, seed uint64, n int) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(patience))
	want := make([]byte, n)
	if _, err := io.ReadFull(netlab.NewPayload(seed), want); err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = c.Write(want) }()
	got := make([]byte, n)
	if at, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d octets came back, or others: %v", at, n, err)
	}
}

// sendBack serves connections on a host by sending back what comes.
func sendBack(ctx context.Context, t testing.TB, h *netlab.Host, at netip.AddrPort) {
	t.Helper()
	listener, err := h.Listen(ctx, "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
}

// TestR42_PeerBehindNAT has a TCP connection go on through ESP in UDP while the NAT
// between the kernels changes address and port, and somebody else tries to take the
// peer's place.
func TestR42_PeerBehindNAT(t *testing.T) {
	for _, c := range []natCase{{"tunnel", false, false}, {"transport", false, true}, {"transport", true, false}, {"tunnel", true, false}} {
		t.Run(c.String(), func(t *testing.T) {
			// Hosts of its own, for what a connection says after its end has no policy
			// in the next case.
			l := newNATLab(t)
			ctx := deadline(t, 5*patience)
			_, out, moved, b := c.addresses()
			first, second := netip.AddrPortFrom(out, 40001), netip.AddrPortFrom(moved, 40009)
			l.appearAt(first)
			boxA, boxB := newBox(t, l.a, c.yaml(true)), newBox(t, l.b, c.yaml(false))
			boxA.up()
			boxB.up()
			before := boxB.status()
			watch := l.outside.Capture(netlab.CaptureOptions{Watch: []netlab.Match{
				netlab.Containing([]byte(netlab.Marker)), netlab.OfClass(netlab.ESP, netlab.AH, netlab.Other),
				netlab.OfClass(netlab.ESPInUDP),
			}})

			server := netip.AddrPortFrom(b, 47000)
			sendBack(ctx, t, l.b, server)
			conn, err := l.a.Dial(ctx, "tcp", server.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			echo(t, conn, 1, 300_000)
			peer := func() string {
				for _, s := range boxB.status().SAs {
					if s.Name == "ba" && s.Encap != nil {
						return s.Encap.Peer
					}
				}
				return ""
			}
			if got := peer(); got != first.String() {
				t.Errorf("b has its peer at %s, expected %v", got, first)
			}

			// Somebody who hears all: packets made up, and a true one once more.
			var heard []netlab.Frame
			eventually(t, "the third host has heard the last that a said", func() bool {
				heard = slices.DeleteFunc(watch.Find(netlab.InFlow(netlab.Flow{Src: out, DstPort: 4500})), func(f netlab.Frame) bool { return f.Class != netlab.ESPInUDP })
				return len(heard) > 1 && uint64(binary.BigEndian.Uint32(heard[len(heard)-1].Data[espInUDP(heard[len(heard)-1].Data)+4:])) == boxA.sequence("ab")
			})
			for i, frame := range heard[len(heard)-2:] {
				l.third.send(stolen(t, frame.Data, i == 0))
			}
			eventually(t, "the forged and the repeated packet are counted", func() bool {
				d := boxB.drops(before)
				return d["icv"] == 1 && d["replay"] == 1
			})
			if got := peer(); got != first.String() {
				t.Errorf("after a forged and a repeated packet b has its peer at %s", got)
			}
			echo(t, conn, 2, 1000)

			l.appearAt(second)
			echo(t, conn, 3, 300_000)
			if got := peer(); got != second.String() {
				t.Errorf("after the NAT's change b has its peer at %s, expected %v", got, second)
			}
			for _, s := range boxB.status().SAs {
				if s.Name == "ba" && s.Encap.Moves != 2 {
					t.Errorf("%d moves counted", s.Encap.Moves)
				}
			}
			eventually(t, "b's log tells of the moves", func() bool { return strings.Contains(boxB.out.String(), "the peer of an SA has moved") })

			ikeCrosses(ctx, t, l, b)
			eventually(t, "a keepalive crosses the silence", func() bool { return boxB.drops(before)["nat_keepalive"] > 0 })
			counts, err := watch.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if n := watch.Watched(0).Frames + watch.Watched(1).Frames; n != 0 {
				t.Errorf("%d frames on the wire are in the clear or plain ESP: %v", n, counts)
			}
			c.decrypts(t, watch)
			drops := boxB.drops(before)
			// A queue may be full while the new next hop is asked for.
			if odd := unexpected(drops, "icv", "replay", "nat_keepalive", "queue_full"); len(odd) > 0 || drops["no_policy"] > 0 {
				t.Errorf("b dropped %v", drops)
			}
		})
	}
}

// espInUDP is where ESP begins in a frame of ESP in UDP.
func espInUDP(frame []byte) int {
	if frame[12] == 0x86 {
		return 14 + 40 + 8
	}
	return 14 + 20 + 8
}

// stolen is a frame of ESP in UDP with another host's source, and if forged with a
// higher sequence number too.
func stolen(t testing.TB, frame []byte, forged bool) []byte {
	t.Helper()
	f := bytes.Clone(frame)
	esp := espInUDP(f)
	if f[12] == 0x86 {
		f[14+8+15] = 0x66
	} else {
		f[14+15] = 66
		binary.BigEndian.PutUint16(f[14+10:], 0)
		var sum uint32
		for i := 14; i < 34; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(f[i:]))
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(f[14+10:], ^uint16(sum))
	}
	binary.BigEndian.PutUint16(f[esp-8:], 6666)
	if forged {
		binary.BigEndian.PutUint32(f[esp+4:], binary.BigEndian.Uint32(f[esp+4:])+10)
	}
	return f
}

// ikeCrosses has programs on the hosts talk as IKE daemons do, on the port of ESP.
func ikeCrosses(ctx context.Context, t testing.TB, l *natLab, b netip.Addr) {
	t.Helper()
	any := "0.0.0.0:4500"
	if b.Is6() {
		any = "[::]:4500"
	}
	daemonB, err := l.b.ListenPacket(ctx, "udp", any)
	if err != nil {
		t.Fatal(err)
	}
	defer daemonB.Close()
	daemonA, err := l.a.ListenPacket(ctx, "udp", any)
	if err != nil {
		t.Fatal(err)
	}
	defer daemonA.Close()
	message := append(make([]byte, 4), "an IKE message"...)
	if _, err := daemonA.WriteTo(message, net.UDPAddrFromAddrPort(netip.AddrPortFrom(b, 4500))); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	_ = daemonB.SetDeadline(time.Now().Add(patience))
	_ = daemonA.SetDeadline(time.Now().Add(patience))
	n, from, err := daemonB.ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], message) {
		t.Fatalf("IKE at b: %x, %v", buf[:n], err)
	}
	if _, err := daemonB.WriteTo(buf[:n], from); err != nil {
		t.Fatal(err)
	}
	if n, _, err = daemonA.ReadFrom(buf); err != nil || !bytes.Equal(buf[:n], message) {
		t.Errorf("the answer at a: %x, %v", buf[:n], err)
	}
}
