//go:build linux

package netcheck

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"bitw/appliance"
	"bitw/config"
	"bitw/integration/netlab"
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
	if got := ikePorts([]byte(table)); !slices.Equal(got, []int{500, 4500}) {
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
		for _, p := range ikePorts(table) {
			if p != 500 && p != 4500 {
				t.Errorf("port %d", p)
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
	check := func(c *appliance.Config, iface string) (r *Report) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := pair.A.Do(func() error {
			r = Run(ctx, Options{Interface: iface, Config: c, Probe: true, Timeout: 100 * time.Millisecond})
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
	if err := pair.A.Sysctl("net/ipv4/ping_group_range", "0 2147483647"); err != nil {
		t.Fatal(err)
	}

	r := check(cfg(t), "eth0")
	expect("all well", r, "privileges", Good, "what bitw up needs")
	expect("all well", r, "interface", Good, "eth0 (veth) is up")
	expect("all well", r, "offload", Good, "(tso) is on")
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
	r = check(cfg(t), "eth0")
	if !slices.ContainsFunc(r.Lines, func(l Line) bool {
		return l.Area == "path" && strings.HasPrefix(l.Found, "peer 192.0.2.2: the path takes")
	}) {
		t.Errorf("no line about the path in %+v", r.Lines)
	}

	// Company: a qdisc, nftables, an IKE daemon, and no offloads.
	if err := pair.A.Do(func() error {
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		c := new(nftables.Conn)
		c.AddTable(&nftables.Table{Name: "mine", Family: nftables.TableFamilyNetdev})
		return errors.Join(c.Flush(),
			netlink.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: eth0.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}),
			netlink.LinkSetUp(eth0))
	}); err != nil {
		t.Fatal(err)
	}
	var ike net.PacketConn
	if err := pair.A.Do(func() (err error) {
		ike, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("0.0.0.0:500")))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer ike.Close()
	r = check(nil, "eth0")
	expect("company", r, "company", Warning, "clsact qdisc")
	expect("company", r, "company", Warning, "table mine of the family netdev")
	expect("company", r, "company", Warning, "UDP port 500")
}
