package integration

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bitw/integration/netlab"
)

// asking matches ARP requests and neighbour solicitations for an address.
func asking(about netip.Addr) netlab.Match {
	return func(f *netlab.Frame) bool {
		if about.Is4() {
			return f.Class == netlab.ARP && len(f.Data) >= 42 && f.Data[21] == 1 && bytes.Equal(f.Data[38:42], about.AsSlice())
		}
		const solicitation = 135
		return f.Class == netlab.ND && len(f.Data) >= 78 && f.Data[54] == solicitation && bytes.Equal(f.Data[62:78], about.AsSlice())
	}
}

// announcing matches ARP requests and neighbour advertisements that nobody asked for, by
// which an address is said to be at an Ethernet address.
func announcing(a netip.Addr, at net.HardwareAddr) netlab.Match {
	return func(f *netlab.Frame) bool {
		if a.Is4() {
			return f.Class == netlab.ARP && len(f.Data) >= 42 && bytes.Equal(f.Data[22:28], at) &&
				bytes.Equal(f.Data[28:32], a.AsSlice()) && bytes.Equal(f.Data[38:42], a.AsSlice())
		}
		const advertisement, solicited = 136, 0x40
		return f.Class == netlab.ND && len(f.Data) >= 86 && f.Data[54] == advertisement && f.Data[58]&solicited == 0 &&
			bytes.Equal(f.Data[62:78], a.AsSlice()) && bytes.Equal(f.Data[80:86], at)
	}
}

// neighbor is the Ethernet address that a kernel has of an address, nil for none.
func neighbor(t testing.TB, h *netlab.Host, of netip.Addr) net.HardwareAddr {
	t.Helper()
	list, err := h.Netlink().NeighList(0, map[bool]int{true: syscall.AF_INET, false: syscall.AF_INET6}[of.Is4()])
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if a, _ := netip.AddrFromSlice(e.IP); a.Unmap() == of {
			return e.HardwareAddr
		}
	}
	return nil
}

// forgetNeighbors has a kernel forget whom it has found, once: traffic may have it ask anew
// at once.
func forgetNeighbors(t testing.TB, h *netlab.Host) {
	t.Helper()
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6} {
		list, err := h.Netlink().NeighList(eth(t, h, "eth0").Attrs().Index, family)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
				continue
			}
			if err := h.Netlink().NeighDel(&e); err != nil && !errors.Is(err, syscall.ENOENT) {
				t.Fatal(err)
			}
		}
	}
}

// TestR20_R21_R22_Neighbors looks at how a kernel behind bitw finds its neighbours,
// and how bitw does.
func TestR20_R21_R22_Neighbors(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	var absent, nobody []netip.Addr
	for _, s := range []string{"192.0.2.98", "2001:db8::98"} {
		absent = append(absent, netip.MustParseAddr(s)) // a policy, but no such host
	}
	for _, s := range []string{"192.0.2.99", "2001:db8::99"} {
		nobody = append(nobody, netip.MustParseAddr(s)) // not even a policy
	}
	a := newBox(t, pair.A, (&plan{
		first: "  - {name: no, remote: [192.0.2.99, \"2001:db8::99\"], action: discard}\n", last: bypassAll,
	}).yaml(true))
	a.up()
	for i := range absent {
		c := pair.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{asking(absent[i]), asking(nobody[i])}})

		silent(t, pair.A, nobody[i])
		eventually(t, fmt.Sprintf("the kernel has its own address for %v", nobody[i]), func() bool {
			return bytes.Equal(neighbor(t, pair.A, nobody[i]), mac(t, pair.A))
		})

		before := a.status()
		conn, err := pair.A.Dial(deadline(t, patience), "tcp", netip.AddrPortFrom(absent[i], 80).String())
		if err == nil {
			_ = conn.Close()
		}
		if !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("connecting to %v: %v; expected %v", absent[i], err, syscall.EHOSTUNREACH)
		}
		eventually(t, "drops as unresolved", func() bool { return a.drops(before)["unresolved"] > 0 })
		if got := neighbor(t, pair.A, absent[i]); !bytes.Equal(got, mac(t, pair.A)) {
			t.Errorf("the kernel has %v for %v; expected its own address", got, absent[i])
		}
		if _, err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if n := c.Watched(0).Frames; n < 1 || n > 12 { // three for each time that the kernel tries
			t.Errorf("%v was asked for %d times on the wire; expected a few", absent[i], n)
		}
		if n := c.Watched(1).Frames; n > 0 {
			t.Errorf("%v was asked for %d times on the wire; expected never", nobody[i], n)
		}
	}
	// Right: others find the host.
	for _, to := range []netip.Addr{a4, a6} {
		forgetNeighbors(t, pair.B)
		pings(t, pair.B, to, netlab.PingOptions{})
		if got := neighbor(t, pair.B, to); !bytes.Equal(got, mac(t, pair.A)) {
			t.Errorf("the other host has %v for %v; expected %v", got, to, net.HardwareAddr(mac(t, pair.A)))
		}
	}
}

// TestR22_R48_KernelsNeighbors starts bitw where the kernel knows its neighbours already:
// the first packet leaves at once, and nobody is asked for what is known.
func TestR22_R48_KernelsNeighbors(t *testing.T) {
	for _, neighbors := range []string{"proxy", "relay"} {
		t.Run(neighbors, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			p := &plan{settings: "neighbors: " + neighbors + "\n", flows: []*flow{
				newFlow("four", "transport", "aes128gcm16", 0x1001, a4, b4),
				newFlow("six", "transport", "aes128gcm16", 0x1002, a6, b6),
			}}
			a, b := newBox(t, pair.A, p.yaml(true)), newBox(t, pair.B, p.yaml(false))
			for _, to := range []netip.Addr{b4, b6} {
				pings(t, pair.A, to, netlab.PingOptions{})
			}
			c := pair.Wire.Capture(netlab.CaptureOptions{})
			b.up()
			a.up()
			for _, ends := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
				pings(t, pair.A, ends[1], netlab.PingOptions{})
			}
			if _, err := c.Stop(); err != nil {
				t.Fatal(err)
			}
			for _, ends := range [][2]netip.Addr{{a4, b4}, {a6, b6}} {
				sent := false
				for _, f := range c.Frames() {
					if f.Class == netlab.ESP && f.Flow.Src == ends[0] {
						sent = true
						break
					}
					if bytes.Equal(f.Data[6:12], mac(t, pair.A)) && asking(ends[1])(&f) {
						t.Errorf("%v was asked for before the first packet to it", ends[1])
						break
					}
				}
				if !sent {
					t.Errorf("no ESP from %v", ends[0])
				}
			}
			// What bitw told the kernel is nothing to start with.
			a.down()
			a.up()
			for _, to := range []netip.Addr{b4, b6} {
				pings(t, pair.A, to, netlab.PingOptions{})
			}
		})
	}
}

// TestR21_DuplicateAddressDetection gives a host behind bitw an address that another
// one has, and one that is free; the other is behind bitw or not.
func TestR21_DuplicateAddressDetection(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	sysctl := func(key, value string) {
		t.Helper()
		if err := pair.A.Sysctl("net/ipv6/conf/eth0/"+key, value); err != nil {
			t.Fatal(err)
		}
	}
	sysctl("accept_dad", "1") // a lab has it off
	a, b := newBox(t, pair.A, (&plan{last: bypassAll}).yaml(true)), newBox(t, pair.B, (&plan{last: bypassAll}).yaml(false))
	a.up()
	try := func(what string, address string, taken bool) {
		t.Helper()
		run := func(args ...string) string {
			t.Helper()
			out, err := pair.A.Run(deadline(t, patience), "ip", args...)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		// The kernel asks once a second until it is answered, and an answer may take its time.
		sysctl("dad_transmits", map[bool]string{true: "60", false: "3"}[taken])
		run("-6", "addr", "add", address+"/64", "dev", "eth0")
		var line string
		eventually(t, "duplicate address detection comes to an end", func() bool {
			line = ""
			for l := range strings.Lines(run("-6", "-o", "addr", "show", "dev", "eth0")) {
				if strings.Contains(l, " "+address+"/64 ") {
					line = l
				}
			}
			return strings.Contains(line, "dadfailed") || !strings.Contains(line, "tentative")
		})
		if failed := strings.Contains(line, "dadfailed"); failed != taken {
			t.Errorf("%s: %q; expected that it is found taken: %v", what, strings.TrimSpace(line), taken)
		}
		run("-6", "addr", "del", address+"/64", "dev", "eth0")
	}
	try("a free address", "2001:db8::70", false)
	try("the address of another host", "2001:db8::2", true)
	b.up()
	try("a free address, both behind bitw", "2001:db8::71", false)
	try("the address of another host behind bitw", "2001:db8::2", true)
	pings(t, pair.A, b6, netlab.PingOptions{Count: 3})
}

// TestR21_AddressConflictDetection has a host behind bitw probe for an address that
// another one has, and for one that is free, as RFC 5227 has it: each probe goes out, what
// the other one says comes in, and bitw says nothing.
func TestR21_AddressConflictDetection(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	a, b := newBox(t, pair.A, (&plan{last: bypassAll}).yaml(true)), newBox(t, pair.B, (&plan{last: bypassAll}).yaml(false))
	a.up()
	out, heard := rawOn(t, &pair.A.Namespace, "eth0"), hearARP(t, pair.A)
	probe := func(of netip.Addr) {
		t.Helper()
		f := append(bytes.Repeat([]byte{0xff}, 6), mac(t, pair.A)...)
		f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
		f = append(append(f, mac(t, pair.A)...), 0, 0, 0, 0) // from no address
		out.send(append(append(f, 0, 0, 0, 0, 0, 0), of.AsSlice()...))
	}
	for _, free := range []netip.Addr{netip.MustParseAddr("192.0.2.70"), netip.MustParseAddr("192.0.2.71")} {
		c := pair.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{asking(free)}})
		eventually(t, "the probe for a free address is on the wire", func() bool {
			probe(free)
			return c.Watched(0).Frames > 0
		})
		var sender netip.Addr
		eventually(t, "the host that has the address says so", func() bool {
			probe(b4)
			for _, f := range heard() {
				sender, _ = netip.AddrFromSlice(f[28:32])
				switch {
				case sender == free:
					t.Errorf("%x says that it has %v, which nobody has", f[22:28], free)
				case sender == b4 && f[21] == 2 && !bytes.Equal(f[22:28], mac(t, pair.B)):
					t.Errorf("%x says that it has %v, expected %x", f[22:28], b4, mac(t, pair.B))
				}
			}
			return sender == b4
		})
		if _, err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if b.proc == nil {
			b.up() // and once more with the other host behind bitw, too
		}
	}
}

// hearARP listens to the ARP packets that reach a host's kernel. The function it returns
// gives those that have come since its last call, and waits a moment for one.
func hearARP(t testing.TB, h *netlab.Host) (heard func() [][]byte) {
	t.Helper()
	const arp = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8 // network order
	var fd int
	err := h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, arp)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: arp, Ifindex: eth(t, h, "eth0").Attrs().Index}))
	if err != nil {
		t.Fatal(err)
	}
	return func() (frames [][]byte) {
		for wait := 100; ; wait = 0 {
			if n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, wait); n <= 0 {
				return frames
			}
			f := make([]byte, 2048)
			n, err := unix.Read(fd, f)
			if err != nil {
				t.Fatal(err)
			}
			if n >= 42 {
				frames = append(frames, f[:n])
			}
		}
	}
}
