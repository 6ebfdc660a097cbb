package sa

import (
	"net/netip"
	"strings"
	"testing"

	"bitw/sa/transform"
)

// draft-nikander-esp-beet-mode-09 §5.1: the SA fixes an inner pair of addresses
// besides the outer one, and only ESP has the mode.
func TestR35_BEETFixesInnerAddresses(t *testing.T) {
	addr := netip.MustParseAddr
	beet := func(edit func(*SAConfig)) SAConfig {
		cfg := testConfig(Outbound)
		cfg.Mode, cfg.Src = BEET, addr("10.0.0.1")
		cfg.InnerSrc, cfg.InnerDst = addr("2001:db8::1"), addr("2001:db8::2")
		edit(&cfg)
		return cfg
	}
	for _, c := range []struct {
		name string
		edit func(*SAConfig)
		want string // of the error
	}{
		{"IPv6 in IPv4", func(*SAConfig) {}, ""},
		{"IPv4 mapped", func(c *SAConfig) { c.InnerSrc, c.InnerDst = addr("::ffff:10.1.0.1"), addr("10.1.0.2") }, ""},
		{"no source", func(c *SAConfig) { c.Src = netip.Addr{} }, "beet mode needs a source address"},
		{"no inner source", func(c *SAConfig) { c.InnerSrc = netip.Addr{} }, "needs an inner source"},
		{"no inner destination", func(c *SAConfig) { c.InnerDst = netip.Addr{} }, "needs an inner source and an inner destination"},
		{"two families inside", func(c *SAConfig) { c.InnerDst = addr("10.1.0.2") }, "not of one address family"},
		{"zone", func(c *SAConfig) { c.InnerDst = addr("fe80::1%eth0") }, "zone"},
		{"AH", func(c *SAConfig) {
			c.Key.Proto, c.Algorithm = transform.ProtoAH, fakeAlgorithm(transform.ProtoAH, true)
		}, "BEET mode is for ESP only"},
		{"transport with inner", func(c *SAConfig) { c.Mode = Transport }, "inner addresses are for BEET mode, but the mode is transport"},
		{"tunnel with inner", func(c *SAConfig) { c.Mode = Tunnel }, "the mode is tunnel"},
		{"unknown mode", func(c *SAConfig) { c.Mode = BEET + 1 }, "unknown mode"},
	} {
		s, err := New(beet(c.edit))
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case c.want == "" && (s.Mode.String() != "beet" || !s.InnerSrc.IsValid() || s.InnerDst.Is4In6() || s.InnerSrc.Is4In6()):
			t.Errorf("%s: SA has %v %v %v", c.name, s.Mode, s.InnerSrc, s.InnerDst)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}
