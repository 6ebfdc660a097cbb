package netlab_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/netip"
	"strings"
	"testing"

	"bitw/integration/netlab"
)

// The frames are made by hand from the formats of RFC 791, RFC 8200, RFC 768,
// RFC 4303 and RFC 3948; addresses are from RFC 5737 and RFC 3849.
func frames() map[string]struct {
	hex   string
	class netlab.Class
	flow  netlab.Flow
} {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	const (
		eth4  = "020000000002 020000000001 0800 "
		eth6  = "020000000002 020000000001 86dd "
		addr4 = "c0000201 c0000202 "
		addr6 = "20010db8000000000000000000000001 20010db8000000000000000000000002 "
	)
	ip4 := func(frag, proto string) string { return eth4 + "45000000 0000" + frag + "40" + proto + "0000" + addr4 }
	ip6 := func(next string) string { return eth6 + "60000000 0000" + next + "40" + addr6 }
	type row = struct {
		hex   string
		class netlab.Class
		flow  netlab.Flow
	}
	return map[string]row{
		"empty":            {"", netlab.Other, netlab.Flow{}},
		"cut Ethernet":     {"020000000002 0200", netlab.Other, netlab.Flow{}},
		"ARP":              {"ffffffffffff 020000000001 0806 0001", netlab.ARP, netlab.Flow{}},
		"ESP":              {ip4("0000", "32") + "00001000 00000001", netlab.ESP, netlab.Flow{Proto: 50, Src: a4, Dst: b4}},
		"ESP, fragment":    {ip4("00b9", "32") + "00001000", netlab.ESP, netlab.Flow{Proto: 50, Src: a4, Dst: b4}},
		"ESP in a VLAN":    {"020000000002 020000000001 8100 0007" + (ip4("0000", "32") + "00001000")[26:], netlab.ESP, netlab.Flow{Proto: 50, Src: a4, Dst: b4}},
		"AH":               {ip4("0000", "33") + "06040000", netlab.AH, netlab.Flow{Proto: 51, Src: a4, Dst: b4}},
		"TCP":              {ip4("4000", "06") + "00501234 00000000", netlab.Other, netlab.Flow{Proto: 6, Src: a4, Dst: b4, SrcPort: 80, DstPort: 0x1234}},
		"TCP, fragment":    {ip4("0001", "06") + "00501234", netlab.Other, netlab.Flow{Proto: 6, Src: a4, Dst: b4}},
		"ESP in UDP":       {ip4("0000", "11") + "11941194 00180000 00001000", netlab.ESPInUDP, netlab.Flow{Proto: 17, Src: a4, Dst: b4, SrcPort: 4500, DstPort: 4500}},
		"IKE at 4500":      {ip4("0000", "11") + "11941194 00180000 00000000 01", netlab.IKE, netlab.Flow{Proto: 17, Src: a4, Dst: b4, SrcPort: 4500, DstPort: 4500}},
		"NAT keepalive":    {ip4("0000", "11") + "11941194 00090000 ff", netlab.IKE, netlab.Flow{Proto: 17, Src: a4, Dst: b4, SrcPort: 4500, DstPort: 4500}},
		"IKE at 500":       {ip4("0000", "11") + "01f401f4 00180000 01020304", netlab.IKE, netlab.Flow{Proto: 17, Src: a4, Dst: b4, SrcPort: 500, DstPort: 500}},
		"IPv4 options":     {eth4 + "46000000 00000000 40320000" + addr4 + "94040000 00001000", netlab.ESP, netlab.Flow{Proto: 50, Src: a4, Dst: b4}},
		"IPv4 cut options": {eth4 + "4f000000 00000000 40320000" + addr4, netlab.Other, netlab.Flow{}},
		"ESP over IPv6":    {ip6("32") + "00001000", netlab.ESP, netlab.Flow{Proto: 50, Src: a6, Dst: b6}},
		"ND":               {ip6("3a") + "87000000", netlab.ND, netlab.Flow{Proto: 58, Src: a6, Dst: b6}},
		"echo over IPv6":   {ip6("3a") + "80000000", netlab.Other, netlab.Flow{Proto: 58, Src: a6, Dst: b6}},
		"MLD":              {ip6("00") + "3a00050200000100 8f000000", netlab.MLD, netlab.Flow{Proto: 58, Src: a6, Dst: b6}},
		"IPv6 fragment":    {ip6("2c") + "32000009 00000001 00001000", netlab.ESP, netlab.Flow{Proto: 50, Src: a6, Dst: b6}},
		"IPv6 cut header":  {ip6("00") + "3a05", netlab.Other, netlab.Flow{Src: a6, Dst: b6}},
	}
}

func octets(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestClassify(t *testing.T) {
	for name, row := range frames() {
		if class, flow := netlab.Classify(octets(row.hex)); class != row.class || flow != row.flow {
			t.Errorf("%s: %v %+v, want %v %+v", name, class, flow, row.class, row.flow)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, row := range frames() {
		f.Add(octets(row.hex))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, flow := netlab.Classify(data)
		if flow.Src.IsValid() != flow.Dst.IsValid() {
			t.Errorf("half a flow: %+v", flow)
		}
	})
}

func TestPayload(t *testing.T) {
	whole := make([]byte, 5000)
	if _, err := io.ReadFull(netlab.NewPayload(7), whole); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(whole, []byte(netlab.Marker)); n != 20 {
		t.Errorf("%d markers in 5000 octets, want 20", n)
	}
	other := make([]byte, 5000)
	if _, err := io.ReadFull(netlab.NewPayload(8), other); err != nil || bytes.Equal(whole, other) {
		t.Errorf("another seed gives the same octets (%v)", err)
	}
}
