package explain

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"bitw/netstack/wire"
)

var addr = netip.MustParseAddr

func samePacket(a, b *Packet) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.Addr{}))
}

func TestParse(t *testing.T) {
	a, b := addr("10.0.0.5"), addr("192.0.2.9")
	a6, b6 := addr("2001:db8::1"), addr("2001:db8::2")
	for text, want := range map[string]Packet{
		"tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df": {Proto: 6, Src: a, Dst: b, SrcPort: 1234, DstPort: 443, HasPorts: true, Len: 1500, DF: true},
		"out tcp 10.0.0.5:1>192.0.2.9:2 syn":            {Proto: 6, Src: a, Dst: b, SrcPort: 1, DstPort: 2, HasPorts: true, SYN: true, Direction: Out},
		"udp [2001:db8::1]:53 > [2001:db8::2]:80 in":    {Proto: 17, Src: a6, Dst: b6, SrcPort: 53, DstPort: 80, HasPorts: true, Direction: In},
		"icmp 10.0.0.5 > 192.0.2.9":                     {Proto: 1, Src: a, Dst: b, ICMPType: 8},
		"icmp6 2001:db8::1 > 2001:db8::2":               {Proto: 58, Src: a6, Dst: b6, ICMPType: 128},
		"icmp 10.0.0.5 > 192.0.2.9 about (udp 192.0.2.9:1 > 10.0.0.5:2)": {Proto: 1, Src: a, Dst: b, ICMPType: 3,
			Inner: &Packet{Proto: 17, Src: b, Dst: a, SrcPort: 1, DstPort: 2, HasPorts: true}},
		"icmp 10.0.0.5 > 192.0.2.9 type 3 code 4":    {Proto: 1, Src: a, Dst: b, ICMPType: 3, ICMPCode: 4},
		"47 10.0.0.5 > 192.0.2.9 tos 0x10 ttl 3":     {Proto: 47, Src: a, Dst: b, TOS: 16, TTL: 3},
		"gre 10.0.0.5 > 192.0.2.9 dscp af31":         {Proto: 47, Src: a, Dst: b, TOS: 26 << 2},
		"esp 10.0.0.5 > 192.0.2.9 spi 0x1000 seq 7":  {Proto: 50, Src: a, Dst: b, SPI: 4096, Seq: 7},
		"esp 10.0.0.5:4500 > 192.0.2.9:4500 spi 256": {Proto: 50, Src: a, Dst: b, SrcPort: 4500, DstPort: 4500, HasPorts: true, SPI: 256},
		"ah 10.0.0.5 > 192.0.2.9 spi 300 carrying (icmp 10.0.0.5 > 192.0.2.9)": {Proto: 51, Src: a, Dst: b, SPI: 300,
			Inner: &Packet{Proto: 1, Src: a, Dst: b, ICMPType: 8}},
		"udp 10.0.0.5:1 > 192.0.2.9:2 len 1500 frag 1480": {Proto: 17, Src: a, Dst: b, SrcPort: 1, DstPort: 2, HasPorts: true, Len: 1500, Fragment: true, Offset: 1480},
		"udp 10.0.0.5:1 > 192.0.2.9:2 frag in":            {Proto: 17, Src: a, Dst: b, SrcPort: 1, DstPort: 2, HasPorts: true, Fragment: true, Direction: In},
		"ethertype 0x8899 in":                             {Frame: "ethertype", EtherType: 0x8899, Direction: In},
		"  broadcast\t":                                   {Frame: "broadcast"},
	} {
		p, err := Parse(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := samePacket(&want, p); diff != "" {
			t.Errorf("%q:\n%s", text, diff)
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Errorf("%q became %q: %v", text, p, err)
		} else if diff := samePacket(p, again); diff != "" {
			t.Errorf("%q became %q:\n%s", text, p, diff)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct {
		text   string
		column int
		want   string
	}{
		{"", 1, "found the end, expected tcp, udp"},
		{"tpc 10.0.0.5:1 > 192.0.2.9:2", 1, `found "tpc"`},
		{"tcp", 4, "found the end, expected an address with its port"},
		{"tcp 10.0.0.5 > 192.0.2.9:2", 5, "with its port"},
		{"tcp 10.0.0.5:1 192.0.2.9:2", 16, "expected > and the destination"},
		{"tcp 10.0.0.5:1 > [2001:db8::1]:2", 18, "of the family of 10.0.0.5"},
		{"icmp 10.0.0.5:8 > 192.0.2.9", 6, "without a port"},
		{"icmp 2001:db8::1 > 2001:db8::2", 1, "icmpv6 between IPv6"},
		{"icmpv6 10.0.0.5 > 192.0.2.9", 1, "icmp between IPv4"},
		{"tcp 10.0.0.5:70000 > 192.0.2.9:2", 5, "with its port, 0 to 65535"},
		{"gre 10.0.0.5 > 192.0.2.300", 16, "an address, such as"},
		{"gre 10.0.0.5 > fe80::1%eth0", 16, "expected fe80::1 without a zone"},
		{"tcp [fe80::1%eth0]:1 > [fe80::2]:2", 5, "expected fe80::1 without a zone"},
		{"gre 10.0.0.5 > ::ffff:192.0.2.9", 16, "IPv4 written as 192.0.2.9"},
		{"tcp [::ffff:192.0.2.9]:1 > 10.0.0.5:2", 5, "IPv4 written as 192.0.2.9"},
		{"esp 10.0.0.5:4500 > 192.0.2.9 spi 256", 21, "ports at both ends"},
		{"esp 10.0.0.5 > 192.0.2.9", 25, "expected spi and its number"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 len", 33, "a number from 20 to 65535 behind len"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 len 30", 36, "len 40 or more"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 len 70000", 34, "a number from 20 to 65535"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 df df", 33, "df once"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 tos 4 dscp 1", 36, "dscp once"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 dscp high", 35, "a code point"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 type 8", 30, `found "type", expected len, df`},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 sideways", 30, "out or in"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 out in", 34, "nothing behind the direction"},
		{"in tcp 10.0.0.5:1 > 192.0.2.9:2 out", 33, "one direction, and in was said before"},
		{"udp 10.0.0.5:1 > 192.0.2.9:2 df frag", 37, "df or frag"},
		{"udp 10.0.0.5:1 > 192.0.2.9:2 frag 12", 35, "a multiple of 8"},
		{"udp 10.0.0.5:1 > 192.0.2.9:2 len 1500 frag 65528", 49, "ends within 65535"},
		{"udp [2001:db8::1]:1 > [2001:db8::2]:2 df", 41, "no df"},
		{"esp 10.0.0.5 > 192.0.2.9 spi 256 carrying udp", 43, "( and the packet inside"},
		{"esp 10.0.0.5 > 192.0.2.9 spi 256 carrying (arp)", 48, "and not arp"},
		{"esp 10.0.0.5 > 192.0.2.9 spi 256 carrying (gre 1.1.1.1 > 2.2.2.2 out", 66, ") to end the packet inside"},
		{"icmp 10.0.0.5 > 192.0.2.9 type 300", 32, "a number from 0 to 255 behind type"},
		{"esp 10.0.0.5 > 192.0.2.9 spi x", 30, "behind spi"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 ttl 0", 34, "a number from 1 to 255 behind ttl"},
		{"tcp 10.0.0.5:1 > 192.0.2.9:2 tos x", 34, "behind tos"},
		{"icmp 10.0.0.5 > 192.0.2.9 type 8 about (udp 192.0.2.9:1 > 10.0.0.5:2)", 70, "the type of an error before about"},
		{"icmp 10.0.0.5 > 192.0.2.9 about udp", 33, "( and the packet that the error is about"},
		{"ethertype 0x0800", 11, "other than that of IP"},
		{"ethertype 0x86dd", 11, "other than that of IP"},
		{"ethertype 0x100", 11, "a number from 1536 to 65535 behind ethertype"},
		{"arp out now", 9, "nothing behind"},
		{"arp now", 5, "expected out or in"},
		{"tcp 10.0.0.5:1 \u2192 192.0.2.9:2", 16, "plain ASCII"},
		{strings.Repeat("x", 2000), 1001, "at most 1000 characters"},
	} {
		_, err := Parse(c.text)
		var e *ParseError
		if !errors.As(err, &e) {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if e.Column != c.column || !strings.Contains(e.Error(), c.want) {
			t.Errorf("%q: column %d, expected %d with %q; the error is\n%v", c.text, e.Column, c.column, c.want, e)
		}
		if _, err := Parse(e.Example); err != nil && !strings.Contains(e.Example, "...") {
			t.Errorf("%q: the example %q is none: %v", c.text, e.Example, err)
		}
	}
}

// Whatever is read is written so that it is read again, and can be built.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df out", "udp [2001:db8::1]:53 > [2001:db8::2]:80 frag 8 in",
		"esp 10.0.0.5:4500 > 192.0.2.9:4500 spi 0x1000 seq 7 carrying (tcp 1.1.1.1:1 > 2.2.2.2:2 syn)",
		"icmp 10.0.0.5 > 192.0.2.9 type 3 code 4 mtu 1400 about (udp 192.0.2.9:1 > 10.0.0.5:2)", "ethertype 0x8899", "135 ::1 > ::2 ttl 1",
		"ah 1.1.1.1 > 2.2.2.2 spi 1 carrying (esp 1.1.1.1 > 2.2.2.2 spi 2 carrying (ah 1.1.1.1 > 2.2.2.2 spi 3))", "broadcast in",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			_ = err.Error()
			return
		}
		again, err := Parse(p.String())
		if err != nil {
			t.Fatalf("%q became %q: %v", text, p, err)
		}
		if diff := samePacket(p, again); diff != "" {
			t.Fatalf("%q became %q:\n%s", text, p, diff)
		}
		if p.Frame != "" {
			if frame := p.frame(SomeMAC); len(frame) < 60 && p.Frame != wordBroadcast {
				t.Fatalf("a frame of %d octets", len(frame))
			}
			return
		}
		b := p.build(0)
		var in wire.Info
		if reason := wire.Parse(b, &in); reason != wire.DropNone {
			t.Fatalf("%q is %v", p, reason)
		}
		if in.Src != p.Src || in.Dst != p.Dst || in.TotalLen != len(b) || in.IsFragment != p.Fragment || in.FragOffset != p.Offset {
			t.Fatalf("%q is %+v", p, in)
		}
		if p.Inner == nil && p.Len != 0 && !p.Fragment && len(b) != p.Len {
			t.Fatalf("%q has %d octets", p, len(b))
		}
	})
}
