package config

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const twoNICs = `inside: eth1
outside: eth0
protected: [10.1.0.0/24, 2001:db8:1::10]
mirror_link: true
routes:
  - {destination: 192.0.2.0/24}
  - {destination: 0.0.0.0/0, via: 192.0.2.254}
security_associations:
  - {name: out, direction: out, protocol: esp, mode: tunnel, spi: 0x1001, source: 192.0.2.5, destination: 192.0.2.2, algorithm: null-sha256, integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f}
  - {name: in, direction: in, protocol: esp, mode: tunnel, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.5, algorithm: null-sha256, integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e20}
  - {name: out6, direction: out, protocol: esp, mode: transport, spi: 0x1002, source: "2001:db8:1::10", destination: "2001:db8::2", algorithm: null-sha256, integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e21}
  - {name: auth, direction: out, protocol: ah, mode: transport, spi: 0x1003, source: 192.0.2.5, destination: 192.0.2.2, algorithm: sha256, integrity_key: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e22}
policies:
  - {name: lan, local: 10.1.0.0/24, action: protect, out: [out, auth], in: [in]}
  - {name: six, direction: out, local: "2001:db8:1::10", remote: "2001:db8::2", action: protect, out: [out6]}
`

func TestR13_TwoInterfaces(t *testing.T) {
	c, w := mustParse(t, twoNICs, nil)
	if len(w) > 0 {
		t.Errorf("warnings:\n%s", w.Text())
	}
	if c.Inside != "eth1" || c.Interface != "eth0" || c.Control != "/run/bitw/eth0.sock" || !c.MirrorLink {
		t.Errorf("inside %q, outside %q, control %q, mirror_link %t", c.Inside, c.Interface, c.Control, c.MirrorLink)
	}
	if err := c.CheckTwoNIC(); err != nil {
		t.Error(err)
	}
	a := netip.MustParseAddr
	if got := c.OutsideAddresses(); !slices.Equal(got, []netip.Addr{a("192.0.2.5")}) {
		t.Errorf("bitw's own addresses on the outside are %v", got)
	}
	for addr, want := range map[string]bool{"10.1.0.7": true, "10.1.1.7": false, "2001:db8:1::10": true, "2001:db8:1::11": false, "192.0.2.5": false, "192.0.2.254": false} {
		if c.IsProtected(a(addr)) != want {
			t.Errorf("%s protected: %t", addr, !want)
		}
	}
	c.Routes = append(c.Routes, Route{Destination: netip.MustParsePrefix("198.51.100.0/24"), Via: a("10.1.0.254")})
	if c.IsProtected(a("10.1.0.254")) || !c.IsProtected(a("10.1.0.253")) {
		t.Error("a router in a protected network is not on the outside")
	}
	// Without routes nothing leaves.
	if _, w := mustParse(t, "inside: eth1\noutside: eth0\nprotected: 192.0.2.10\npolicies: [{name: all, action: bypass}]\n", nil); !strings.Contains(w.Text(), "no routes") {
		t.Errorf("without routes it warns:\n%s", w.Text())
	}
}

func TestRFC4301_3_3_SeveralHostsNeedTunnelMode(t *testing.T) {
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	out := SA{Name: "x", Direction: Out, Mode: Transport, Source: a("192.0.2.10"), Destination: a("192.0.2.2")}
	in := SA{Name: "x", Direction: In, Mode: Transport, Source: a("192.0.2.2"), Destination: a("192.0.2.10")}
	tunnel := out
	tunnel.Mode = Tunnel
	own := out
	own.Source = a("192.0.2.5")
	for _, test := range []struct {
		name      string
		protected []netip.Prefix
		sa        SA
		want      string
	}{
		{"one host", []netip.Prefix{p("192.0.2.10/32")}, out, ""},
		{"one host, in", []netip.Prefix{p("192.0.2.10/32")}, in, ""},
		{"one of each family", []netip.Prefix{p("192.0.2.10/32"), p("2001:db8::10/128")}, out, ""},
		{"two hosts", []netip.Prefix{p("192.0.2.10/32"), p("192.0.2.11/32")}, out, "transport mode"},
		{"a network", []netip.Prefix{p("192.0.2.8/29")}, in, "192.0.2.8/29"},
		{"a network, tunnel", []netip.Prefix{p("192.0.2.8/29")}, tunnel, ""},
		{"a network, the box's own address", []netip.Prefix{p("192.0.2.8/29")}, own, ""},
	} {
		c := Config{Interface: "eth0", Inside: "eth1", Protected: test.protected, SAs: []SA{test.sa}}
		if err := c.CheckTwoNIC(); (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, expected %q", test.name, err, test.want)
		}
	}
	for _, c := range []Config{
		{Interface: "eth0", Inside: "eth0", Protected: []netip.Prefix{p("192.0.2.10/32")}},
		{Interface: "eth0", Inside: "eth1"},
		{Inside: "eth1", Protected: []netip.Prefix{p("192.0.2.10/32")}},
		{Interface: "eth0", MirrorLink: true},
	} {
		if c.CheckTwoNIC() == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
