//go:build linux

package netcheck

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"bitw/appliance"
	"bitw/config"
	"bitw/integration/netlab"
	"bitw/netstack/ethtap"
)

func TestWorst(t *testing.T) {
	for _, x := range []struct {
		levels []Level
		want   Level
	}{{nil, Good}, {[]Level{Good}, Good}, {[]Level{Good, Warning}, Warning}, {[]Level{Bad, Warning}, Bad}, {[]Level{Warning, Bad, Good}, Bad}} {
		r := new(Report)
		for _, l := range x.levels {
			r.add("a", l, "do", "found")
		}
		if got := r.Worst(); got != x.want {
			t.Errorf("%v are %s, expected %s", x.levels, got, x.want)
		}
	}
}

func TestParsers(t *testing.T) {
	for text, want := range map[string][2]int{"6.18.5-amd64": {6, 18}, "5.8": {5, 8}, "6.6-rc1": {6, 6}, "": {0, 0}, "x.y": {0, 0}, "7": {7, 0}, "99999999999999999999.1": {999999, 1}} {
		a, b := parseRelease(text)
		if b != want[1] || a != want[0] && want[0] < 1000 {
			t.Errorf("%q is %d.%d, expected %v", text, a, b, want)
		}
	}
	const table = `  sl  local_address rem_address   st tx_queue rx_queue
  1: 00000000:01F4 00000000:0000 07 00000000:00000000
  2: 00000000000000000000000000000000:1194 0:0 07
  3: 0100007F:0035 00000000:0000 07
  4: junk
  5: 0100007F:
`
	if got := ikePorts([]byte(table)); !(len(got) == 2 && got[0].port == 500 && got[1].port == 4500) {
		t.Errorf("ports %v", got)
	}
	file := filepath.Join(t.TempDir(), "status")
	for text, want := range map[string]uint64{"Name:\tx\nCapEff:\t0000000000003000\n": 0x3000, "CapEff:\tzz\n": 0, "": 0} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := effective(file); got != want || (want == 0) != (err != nil) {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
}

func FuzzIKEPorts(f *testing.F) {
	f.Add([]byte("  1: 00000000:01F4 00000000:0000 07\n"))
	f.Add([]byte("a :\n"))
	f.Fuzz(func(t *testing.T, table []byte) {
		for _, d := range ikePorts(table) {
			if d.port != 500 && d.port != 4500 {
				t.Errorf("port %d", d.port)
			}
		}
	})
}

// has looks for a line.
func has(r *Report, area string, level Level, words string) bool {
	return slices.ContainsFunc(r.Lines, func(l Line) bool {
		return l.Area == area && l.Level == level && strings.Contains(l.Found, words) && (level == Good) == (l.Remedy == "")
	})
}

func cfg(t *testing.T) *appliance.Config {
	t.Helper()
	c, _, err := config.Parse("bitw.yaml", []byte(`interface: eth0
security_associations:
  - {name: ab, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2,
     algorithm: aes128gcm16, encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3}
  - {name: ba, direction: in, protocol: esp, mode: transport, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1,
     algorithm: aes128gcm16, encryption_key: 0xffeeddccbbaa99887766554433221100b0b1b2b3}
policies:
  - {name: b, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: [ab], in: [ba]}
`), appliance.ConfigOptions())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestR50_NetcheckAcrossKernels(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	timeout := 20 * time.Second // every probe is answered, or cannot be sent
	check := func(c *appliance.Config, iface string) (r *Report) {
		t.Helper()
		if err := pair.A.Do(func() error {
			r = Run(t.Context(), Options{Interface: iface, Config: c, Probe: true, Timeout: timeout})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	expect := func(what string, r *Report, area string, level Level, words string) {
		t.Helper()
		if !has(r, area, level, words) {
			t.Errorf("%s: no line %s %s %q in\n%+v", what, area, level, words, r.Lines)
		}
	}
	r := check(cfg(t), "eth0")
	expect("all well", r, "privileges", Good, "what bitw up needs")
	expect("all well", r, "interface", Good, "eth0 (veth) is up")
	expect("all well", r, "offload", Good, "(tso) is on")
	if err := pair.A.Sysctl("net/ipv4/ping_group_range", "1 0"); err != nil { // nobody, so a raw socket does it
		t.Fatal(err)
	}
	expect("raw", check(cfg(t), "eth0"), "path", Good, "the path takes 1500 octets")
	if err := pair.A.Sysctl("net/ipv4/ping_group_range", "0 2147483647"); err != nil {
		t.Fatal(err)
	}
	expect("ping socket", check(cfg(t), "eth0"), "path", Good, "the path takes 1500 octets")
	expect("all well", r, "company", Good, "nobody else")
	expect("all well", r, "path", Good, "the path takes 1500 octets")
	// 1500 = 20 IP + 8 ESP + 8 IV + n + 2 trailer + 16 ICV, of which 1464 are a multiple of 4 (RFC 4106, RFC 4303 §2).
	expect("all well", r, "path", Good, "policy b: of 1500 octets on the wire 1466 are left for the packet, 1426 for TCP")

	expect("another name", check(nil, "eth9"), "interface", Bad, "there is no interface eth9")

	// A path that is smaller than the interface: the other end takes no more.
	var l netlink.Link
	if err := pair.B.Do(func() (err error) {
		if l, err = netlink.LinkByName("eth0"); err == nil {
			err = netlink.LinkSetMTU(l, 1300)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	timeout = 100 * time.Millisecond // some are not, and on a busy machine all may be taken for those
	measured := func(l Line) bool {
		return l.Area == "path" && strings.HasPrefix(l.Found, "peer 192.0.2.2: the path takes")
	}
	for end := time.Now().Add(time.Minute); ; {
		if r = check(cfg(t), "eth0"); slices.ContainsFunc(r.Lines, measured) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no line about the path in %+v", r.Lines)
		}
	}
}

// Who else has a hand in the interface, each of them really there, one after the other.
func TestR50_NetcheckCompany(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	var eth0 netlink.Link
	in := func(f func() error) {
		t.Helper()
		if err := pair.A.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	in(func() (err error) { eth0, err = netlink.LinkByName("eth0"); return err })
	index := eth0.Attrs().Index
	program := func(name string, kind ebpf.ProgramType, code int32) *ebpf.Program {
		t.Helper()
		p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: kind, License: "Apache-2.0", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, code), asm.Return()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
		return p
	}
	attached := func(l link.Link, err error) (end func()) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }
	}
	clsact := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}
	listen := func(port uint16) (end func()) {
		c, err := pair.A.ListenPacket(t.Context(), "udp4", fmt.Sprintf(":%d", port))
		if err != nil {
			t.Fatal(err)
		}
		return func() { c.Close() }
	}
	const pass = 2 // XDP_PASS
	for _, x := range []struct {
		name   string
		make   func() (end func())
		found  string
		remedy string
	}{
		{"XDP", func() func() {
			var l link.Link
			in(func() (err error) {
				l, err = link.AttachXDP(link.XDPOptions{Program: program("my_xdp", ebpf.XDP, pass), Interface: index})
				return err
			})
			return func() { l.Close() }
		}, "the XDP program my_xdp (id ", "ip link set eth0 xdp off"},
		{"tcx", func() func() {
			var l link.Link
			in(func() (err error) {
				l, err = link.AttachTCX(link.TCXOptions{Program: program("my_tcx", ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXEgress, Interface: index})
				return err
			})
			return attached(l, nil)
		}, "the tcx program my_tcx (id ", "bpftool net show dev eth0"},
		{"an empty clsact", func() func() {
			in(func() error { return netlink.QdiscAdd(clsact) })
			return func() { in(func() error { return netlink.QdiscDel(clsact) }) }
		}, "clsact qdisc without filters", "tc qdisc del dev eth0 clsact"},
		{"a tc filter", func() func() {
			in(func() error {
				return errors.Join(netlink.QdiscAdd(clsact), netlink.FilterAdd(&netlink.BpfFilter{
					FilterAttrs: netlink.FilterAttrs{LinkIndex: index, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Protocol: unix.ETH_P_ALL, Priority: 7},
					Fd:          program("my_filter", ebpf.SchedCLS, 0).FD(), Name: "my_filter", DirectAction: true,
				}))
			})
			return func() { in(func() error { return netlink.QdiscDel(clsact) }) }
		}, "the tc filter my_filter of priority 7 is at egress of eth0", "tc filter show dev eth0 egress"},
		{"nftables", func() func() {
			mine := &nftables.Table{Name: "mine", Family: nftables.TableFamilyNetdev}
			in(func() error { c := new(nftables.Conn); c.AddTable(mine); return c.Flush() })
			return func() { in(func() error { c := new(nftables.Conn); c.DelTable(mine); return c.Flush() }) }
		}, "the table mine of the family netdev", "nft list table netdev mine"},
		{"the kernel's IPsec", func() func() {
			p := &netlink.XfrmPolicy{
				Src: &net.IPNet{IP: net.IPv4(10, 0, 0, 0), Mask: net.CIDRMask(8, 32)}, Dst: &net.IPNet{IP: net.IPv4(10, 1, 0, 0), Mask: net.CIDRMask(16, 32)}, Dir: netlink.XFRM_DIR_OUT,
				Tmpls: []netlink.XfrmPolicyTmpl{{Src: net.IPv4(192, 0, 2, 1), Dst: net.IPv4(192, 0, 2, 2), Proto: netlink.XFRM_PROTO_ESP, Mode: netlink.XFRM_MODE_TUNNEL}},
			}
			err := pair.A.Do(func() error { return netlink.XfrmPolicyAdd(p) })
			if err != nil {
				return nil // this kernel has no IPsec
			}
			return func() { in(func() error { return netlink.XfrmPolicyDel(p) }) }
		}, "the kernel has an IPsec policy of its own", "ip xfrm policy"},
		{"an IKE daemon", func() func() { return listen(500) }, fmt.Sprintf("netcheck.test (process %d) listens on UDP port 500", os.Getpid()), "a policy that bypasses UDP"},
		{"an IKE daemon behind NAT", func() func() { return listen(4500) }, "listens on UDP port 4500", "a policy that bypasses UDP"},
	} {
		look := func() (r *Report) {
			in(func() error { r = Run(t.Context(), Options{Interface: "eth0"}); return nil })
			return r
		}
		end := x.make()
		if end == nil {
			t.Logf("%s: the kernel does not have it", x.name)
			continue
		}
		r := look()
		end()
		if !slices.ContainsFunc(r.Lines, func(l Line) bool {
			return l.Area == "company" && l.Level == Warning && strings.Contains(l.Found, x.found) && strings.Contains(l.Remedy, x.remedy)
		}) {
			t.Errorf("%s: no line %q in\n%+v", x.name, x.found, r.Lines)
		}
		if r := look(); !has(r, "company", Good, "nobody else has a hand in eth0") {
			t.Errorf("%s has gone, and there are\n%+v", x.name, r.Lines)
		}
	}

	// bitw's own programs are no company, and what stands before them may go past them.
	device, err := ethtap.Open(ethtap.Options{Interface: "eth0", NetNS: pair.A.NetNSPath(), OnFailure: ethtap.FailShut})
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	for _, x := range []struct {
		anchor link.Anchor
		found  string
	}{{link.Head(), "stands before bitw's at egress"}, {link.Tail(), "is at egress of eth0, where bitw's are too"}} {
		var other link.Link
		in(func() (err error) {
			other, err = link.AttachTCX(link.TCXOptions{Program: program("my_tcx", ebpf.SchedCLS, -1), Attach: ebpf.AttachTCXEgress, Interface: index, Anchor: x.anchor})
			return err
		})
		var r *Report
		in(func() error { r = Run(t.Context(), Options{Interface: "eth0"}); return nil })
		if !has(r, "company", Good, "bitw has cut eth0") || !has(r, "company", Warning, x.found) {
			t.Errorf("beside bitw: %+v", r.Lines)
		}
		if err := other.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var r *Report
	if err := device.Release(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ethtap.Recover(ethtap.Options{Interface: "eth0", NetNS: pair.A.NetNSPath()}); err != nil {
			t.Error(err)
		}
	}()
	in(func() error { r = Run(t.Context(), Options{Interface: "eth0"}); return nil })
	if !has(r, "company", Warning, "has left eth0 shut: nothing passes") {
		t.Errorf("behind a bitw that has ended: %+v", r.Lines)
	}
}

// Two interfaces are both looked at, and together.
func TestR50_NetcheckTwoNICs(t *testing.T) {
	lab := netlab.New(t)
	box := lab.Host("box")
	for _, nic := range []struct {
		name, wire string
		mtu        int
	}{{"eth0", "outside", 1500}, {"eth1", "inside", 1400}} {
		card := netlab.CardOptions{MTU: nic.mtu}
		if nic.name == "eth1" {
			card.Addrs = []netip.Prefix{netip.MustParsePrefix("10.1.0.253/24")}
		}
		if err := box.Plug(lab.Wire(nic.wire), nic.name, card); err != nil {
			t.Fatal(err)
		}
	}
	var r *Report
	if err := box.Do(func() error { r = Run(t.Context(), Options{Interface: "eth0", Inside: "eth1"}); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		area  string
		level Level
		words string
	}{
		{"interface", Good, "eth0 (veth) is up"}, {"interface", Good, "eth1 (veth) is up"},
		{"interface", Good, "eth1 has mtu 1400 and eth0 has 1500"}, {"interface", Warning, "eth1 has the address 10.1.0.253"},
		{"company", Good, "nobody else has a hand in eth0"}, {"company", Good, "nobody else has a hand in eth1"},
	} {
		if !has(r, x.area, x.level, x.words) {
			t.Errorf("no line %s %s %q in\n%+v", x.area, x.level, x.words, r.Lines)
		}
	}
}

// A clock that cannot be right is bad, and any other is at least no more than unkept.
func TestR50_NetcheckClock(t *testing.T) {
	for year, want := range map[int]bool{1970: true, 2024: true, 2026: false, 2040: false} {
		r := new(Report)
		r.clock(time.Date(year, 6, 1, 0, 0, 0, 0, time.UTC))
		if len(r.Lines) != 1 || (r.Lines[0].Level == Bad) != want || want && !strings.Contains(r.Lines[0].Remedy, "NTP") {
			t.Errorf("%d: %+v", year, r.Lines)
		}
	}
}
