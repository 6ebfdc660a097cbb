package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/integration/netlab"
)

// offsets in a frame with an IPv4 header of 20 octets.
const (
	ipAt  = 14
	espAt = ipAt + 20
)

// received is how many IP packets a host's kernel has been given.
func received(t testing.TB, h *netlab.Host) (n int) {
	t.Helper()
	err := h.Do(func() error {
		snmp, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		snmp6, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		lines := strings.Split(string(snmp), "\n")
		names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
		for i, name := range names {
			if name == "InReceives" {
				v := 0
				_, err = fmt.Sscan(values[i], &v)
				n += v
			}
		}
		for line := range strings.Lines(string(snmp6)) {
			if f := strings.Fields(line); f[0] == "Ip6InReceives" {
				v := 0
				_, err = fmt.Sscan(f[1], &v)
				n += v
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// fixed sets the length and the checksum of a frame's IPv4 header.
func fixed(frame []byte) []byte {
	ip := frame[ipAt:espAt]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(frame)-ipAt))
	binary.BigEndian.PutUint16(ip[10:], 0)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return frame
}

// listener is a UDP socket for all that a host is sent.
type listener struct {
	t    testing.TB
	conn net.PacketConn
}

func listen(t testing.TB, h *netlab.Host, port uint16) *listener {
	t.Helper()
	c, err := h.ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &listener{t, c}
}

// read returns what comes within a time, nil when nothing does.
func (l *listener) read(within time.Duration) []byte {
	l.t.Helper()
	_ = l.conn.SetReadDeadline(time.Now().Add(within))
	buffer := make([]byte, 1<<16)
	n, _, err := l.conn.ReadFrom(buffer)
	if err != nil {
		return nil
	}
	return buffer[:n]
}

// clearUDP is a frame with a datagram that nothing protects.
func clearUDP(t testing.TB, dstMAC, srcMAC []byte, src, dst netip.Addr, port uint16) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: srcMAC, DstMAC: dstMAC, EthernetType: layers.EthernetTypeIPv4}
	udp := &layers.UDP{SrcPort: 9999, DstPort: layers.UDPPort(port)}
	var ip gopacket.SerializableLayer
	if src.Is4() {
		x := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(x)
		ip = x
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		x := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
		_ = udp.SetNetworkLayerForChecksum(x)
		ip = x
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, udp, gopacket.Payload(netlab.Marker)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestR31_R33_R39_R40_ForgedPacketsAreCountedAndDropped puts altered copies of real
// packets on the wire, and looks whether the kernel behind bitw gets any of them.
func TestR31_R33_R39_R40_ForgedPacketsAreCountedAndDropped(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{NoOffload: true})
	macA, macB := mac(t, pair.A), mac(t, pair.B)
	for _, suite := range []struct{ mode, algorithm string }{
		{"transport", "aes128gcm16"}, {"tunnel", "chacha20poly1305"}, {"transport", "aes256-sha256"},
	} {
		t.Run(suite.mode+"-"+suite.algorithm, func(t *testing.T) {
			p := &plan{flows: []*flow{newFlow("v4", suite.mode, suite.algorithm, 0x1004, a4, b4)}}
			a, b := boxes(t, pair, p)
			defer b.giveBack()
			defer a.giveBack()
			l := listen(t, pair.B, 5000)
			c := watchClear(pair, 0)
			from, err := pair.A.Dial(deadline(t, patience), "udp", netip.AddrPortFrom(b4, 5000).String())
			if err != nil {
				t.Fatal(err)
			}
			defer from.Close()
			say := func(n int) {
				t.Helper()
				for range n {
					if _, err := from.Write([]byte(netlab.Marker)); err != nil {
						t.Fatal(err)
					}
					if got := l.read(patience); string(got) != netlab.Marker {
						t.Fatalf("a datagram under ESP did not arrive: %q", got)
					}
				}
			}
			say(1)
			var frames []netlab.Frame
			eventually(t, "the packet is seen", func() bool {
				frames = c.Find(netlab.InFlow(netlab.Flow{Proto: unix.IPPROTO_ESP, Src: a4, Dst: b4}))
				return len(frames) > 0
			})
			real := frames[0].Data
			say(3)
			// alter is a copy with a sequence number that has not been, so that it is
			// not a mere replay.
			alter := func(f func(frame []byte) []byte) []byte {
				frame := bytes.Clone(real)
				binary.BigEndian.PutUint32(frame[espAt+4:], 50)
				return fixed(f(frame))
			}
			wire := toHost(t, pair, pair.B)
			type attack struct {
				name, reason string
				frames       [][]byte
			}
			whole := func(f []byte) []byte { return f }
			var flipped, short, tiny, cut [][]byte
			for at := espAt + 4; at < len(real); at++ {
				flipped = append(flipped, alter(func(f []byte) []byte { f[at] ^= 1 << (at % 8); return f }))
			}
			for n := espAt + 8; n < len(real); n++ {
				short = append(short, alter(func(f []byte) []byte { return f[:n] }))
			}
			for n := espAt; n < espAt+8; n++ {
				tiny = append(tiny, alter(func(f []byte) []byte { return f[:n] }))
			}
			for n := espAt; n < len(real); n++ { // shorter than its IP header says
				cut = append(cut, alter(whole)[:n])
			}
			attacks := []attack{
				{"replayed", "replay", [][]byte{real, real}},
				{"another sequence number", "icv", [][]byte{alter(whole)}},
				{"a bit flipped", "icv", flipped},
				{"another SPI", "unknown_spi", [][]byte{alter(func(f []byte) []byte { f[espAt+3] ^= 1; return f })}},
				{"the SPI of the other direction", "unknown_spi", [][]byte{alter(func(f []byte) []byte {
					binary.BigEndian.PutUint32(f[espAt:], 0x2004)
					return f
				})}},
				{"truncated", "icv bad_length", short},
				{"truncated within the ESP header", "bad_length malformed", tiny},
				{"shorter than it says", "malformed", cut},
				{"in the clear", "clear_not_protected", [][]byte{clearUDP(t, macB, macA, a4, b4, 5000)}},
				{"in the clear from another host", "no_policy", [][]byte{clearUDP(t, macB, macA, netip.MustParseAddr("192.0.2.9"), b4, 5000), clearUDP(t, macB, macA, a6, b6, 5000)}},
				{"with the host's own source", "own_address_spoof", [][]byte{clearUDP(t, macB, macA, b4, b4, 5000)}},
				{"to another station", "foreign_mac", [][]byte{clearUDP(t, []byte{2, 1, 1, 1, 1, 1}, macA, a4, b4, 5000)}},
			}
			had := received(t, pair.B)
			if had < 4 {
				t.Fatalf("the kernel says that it was given %d packets, after 4 had arrived", had)
			}
			for _, x := range attacks {
				before := b.status()
				for _, f := range x.frames {
					wire.send(f)
				}
				expectDrops(t, b, before, x.name, strings.Fields(x.reason), len(x.frames))
			}
			// Any octets at all.
			before := b.status()
			for range 200 {
				f := bytes.Clone(real[:espAt])
				f = append(f, make([]byte, 64)...)
				_, _ = rand.Read(f[espAt:])
				wire.send(fixed(f))
			}
			expectDrops(t, b, before, "noise", []string{"unknown_spi"}, 200)
			if got := l.read(100 * time.Millisecond); got != nil {
				t.Errorf("the host received %q", got)
			}
			if n := received(t, pair.B) - had; n > 0 {
				t.Errorf("the host's kernel was given %d packets by the attacks", n)
			}

			// None of it moved the window: the true sender goes on.
			say(100)
			before = b.status()
			wire.send(real)
			expectDrops(t, b, before, "replayed late", []string{"replay_old"}, 1)
			if got := l.read(100 * time.Millisecond); got != nil {
				t.Errorf("the host received %q", got)
			}
		})
	}
}

// expectDrops expects that so many drops were counted since, all for these reasons.
func expectDrops(t testing.TB, b *box, before *appliance.Status, what string, reasons []string, n int) {
	t.Helper()
	var grown map[string]uint64
	total := func() (sum int) {
		grown = b.drops(before)
		delete(grown, "class_discard") // a kernel's own multicast
		for _, v := range grown {
			sum += int(v)
		}
		return sum
	}
	for end := time.Now().Add(patience); total() < n && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	sum := 0
	for _, r := range reasons {
		sum += int(grown[r])
	}
	if sum != n || total() != n {
		t.Errorf("%s: %d frames, drops %v; expected all for %v", what, n, grown, reasons)
	}
}

// TestR31_R32_NoPolicyAndWrongKeysLetNothingThrough has two hosts that do not agree.
func TestR31_R32_NoPolicyAndWrongKeysLetNothingThrough(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{NoOffload: true})
	v4, v6 := newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4), newFlow("v6", "tunnel", "aes256-sha256", 0x1006, a6, b6)
	wrong := newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4)
	wrongAuth := *v6
	wrongAuth.integ = newFlow("", "tunnel", "aes256-sha256", 0, a6, b6).integ
	otherSPI := *v4
	otherSPI.spi = 0x1005

	for _, test := range []struct {
		name, reason, warning string
		mine, theirs          *plan
		at                    netip.Addr
		esp                   bool // something leaves, protected
	}{
		{"no policy", "", "matched no policy", &plan{}, &plan{flows: []*flow{v4, v6}}, b4, false},
		{"no policy for IPv6", "", "matched no policy", &plan{flows: []*flow{v4}}, &plan{flows: []*flow{v4, v6}}, b6, false},
		{"discard before protect", "", "", &plan{flows: []*flow{v4}, first: "  - {name: no, action: discard}\n"}, &plan{flows: []*flow{v4, v6}}, b4, false},
		{"another key", "icv", "failed authentication", &plan{flows: []*flow{v4}}, &plan{flows: []*flow{wrong}}, b4, true},
		{"another integrity key", "icv", "failed authentication", &plan{flows: []*flow{v6}}, &plan{flows: []*flow{&wrongAuth}}, b6, true},
		{"another SPI", "unknown_spi", "SPI that no SA here has", &plan{flows: []*flow{v4}}, &plan{flows: []*flow{&otherSPI}}, b4, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, b := newBox(t, pair.A, test.mine.yaml(true)), newBox(t, pair.B, test.theirs.yaml(false))
			a.up()
			b.up()
			defer b.giveBack()
			defer a.giveBack()
			c := watchClear(pair, 0)
			beforeA, beforeB, had := a.status(), b.status(), received(t, pair.B)
			silent(t, pair.A, test.at)
			ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
			defer cancel()
			if conn, err := pair.A.Dial(ctx, "tcp", netip.AddrPortFrom(test.at, 80).String()); err == nil {
				_ = conn.Close()
				t.Error("a TCP connection was made")
			}
			where, before, reason := b, beforeB, test.reason
			if reason == "" {
				where, before, reason = a, beforeA, "no_policy"
				if test.warning == "" {
					reason = "policy_discard"
				}
			}
			eventually(t, where.host.Name()+" counts the pings as "+reason, func() bool { return where.drops(before)[reason] >= 3 })
			eventually(t, where.host.Name()+" finds: "+test.warning, func() bool { return strings.Contains(fmt.Sprint(where.status().Health), test.warning) })
			counts, err := c.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if n := counts.Of(netlab.ESP); (n > 0) != test.esp || counts.Clear() > 0 {
				t.Errorf("on the wire: %v; expected ESP: %v, and nothing in the clear", counts, test.esp)
			}
			if n := received(t, pair.B) - had; n > 0 {
				t.Errorf("the other host's kernel was given %d packets", n)
			}
		})
	}
}

// TestR19_R33_AFrameToAGroupIsNoWayRoundAPolicy: whoever is on the wire can have a kernel
// send to a group's Ethernet address, for which the classes are, what a policy protects.
func TestR19_R33_AFrameToAGroupIsNoWayRoundAPolicy(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	p := &plan{
		settings: "neighbors: relay\nclasses: {broadcast: bypass, multicast: bypass}\n",
		flows:    []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4), newFlow("v6", "tunnel", "aes256-sha256", 0x1006, a6, b6)},
	}
	_, b := boxes(t, pair, p)
	l := listen(t, pair.B, 5000)
	wire, macA := toHost(t, pair, pair.B), mac(t, pair.A)
	c := watchClear(pair, 0)
	for _, group := range []string{"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"} {
		for _, to := range []netip.Addr{b4, b6} {
			if _, err := pair.A.Run(deadline(t, patience), "ip", "neigh", "replace", to.String(), "lladdr", group, "nud", "permanent", "dev", "eth0"); err != nil {
				t.Fatal(err)
			}
			from, err := pair.A.Dial(deadline(t, patience), "udp", netip.AddrPortFrom(to, 5000).String())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := from.Write([]byte(netlab.Marker)); err != nil {
				t.Fatal(err)
			}
			_ = from.Close()
			if got := l.read(patience); string(got) != netlab.Marker {
				t.Errorf("to %v at %s: the other host received %q", to, group, got)
			}
		}
	}
	if _, err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := c.Watched(0).Frames; n > 0 {
		t.Errorf("%d frames left in the clear", n)
	}
	for _, group := range []string{"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"} {
		dst, err := net.ParseMAC(group)
		if err != nil {
			t.Fatal(err)
		}
		before := b.status()
		wire.send(clearUDP(t, dst, macA, a4, b4, 5000))
		wire.send(clearUDP(t, dst, macA, a6, b6, 5000))
		expectDrops(t, b, before, "to "+group, []string{"foreign_mac"}, 2)
		if got := l.read(100 * time.Millisecond); got != nil {
			t.Errorf("to %s: the host received %q in the clear", group, got)
		}
	}
}

// TestR43_AKernelsErrorQuotesNothingInTheClear: a datagram that came protected meets a port
// that nobody has, and the kernel's error, which quotes it, goes back protected although
// ICMP may pass in the clear.
func TestR43_AKernelsErrorQuotesNothingInTheClear(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	boxes(t, pair, &plan{
		first: "  - {name: icmp, protocol: icmp, action: bypass}\n  - {name: icmp6, protocol: icmpv6, action: bypass}\n",
		flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4), newFlow("v6", "tunnel", "aes256-sha256", 0x1006, a6, b6)},
	})
	c := watchClear(pair, 0)
	for _, to := range []netip.Addr{b4, b6} {
		conn, err := pair.A.Dial(deadline(t, patience), "udp", netip.AddrPortFrom(to, 5999).String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(netlab.Marker)); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("the sender to %v is told: %v", to, err)
		}
	}
	allESP(t, c)
}
