package xfrmpeer_test

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"bitw/integration/netlab"
	"bitw/integration/scapy"
	"bitw/integration/tshark"
	"bitw/integration/xfrmpeer"
)

// key is as many octets that are unlike each other.
func key(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(7*i + 1)
	}
	return k
}

// pattern is "hidden, hidden", as ping -p takes it: 16 octets at most.
const pattern = "68696464656e2c2068696464656e"

// ipsecCase is a pair of SAs between two guests, and how the witnesses call it.
type ipsecCase struct {
	name     string
	src, dst string // the peers' addresses between which the SAs are
	inner    [2]string
	state    xfrmpeer.State
	witness  tshark.SA
	scapy    scapy.SA // without Proto: scapy does not have it
}

func ipsecCases() []ipsecCase {
	const (
		a4, b4 = "192.0.2.3", "192.0.2.4"
		a6, b6 = "2001:db8::3", "2001:db8::4"
	)
	gcm := tshark.SA{Enc: tshark.EncAESGCM16, EncKey: key(20)}
	cbc := tshark.SA{Enc: tshark.EncAESCBC, EncKey: key(16), Auth: tshark.AuthSHA256, AuthKey: key(32)}
	scapyGCM := scapy.SA{Proto: "esp", Crypt: "AES-GCM", CryptKey: key(20)}
	scapyCBC := scapy.SA{Proto: "esp", Crypt: "AES-CBC", CryptKey: key(16), Auth: "SHA2-256-128", AuthKey: key(32)}
	scapyAH := scapy.SA{Proto: "ah", Auth: "SHA2-256-128", AuthKey: key(32)}
	esp := func(mode xfrmpeer.Mode) xfrmpeer.State { return xfrmpeer.State{Proto: "esp", Mode: mode} }
	withGCM := func(s xfrmpeer.State) xfrmpeer.State { s.AEAD = xfrmpeer.AESGCM(key(20), 128); return s }
	withCBC := func(s xfrmpeer.State) xfrmpeer.State {
		s.Enc, s.Auth = xfrmpeer.AESCBC(key(16)), xfrmpeer.HMACSHA256(key(32))
		return s
	}
	ah := xfrmpeer.State{Proto: "ah", Mode: xfrmpeer.Transport, Auth: xfrmpeer.HMACSHA256(key(32))}
	cross := withCBC(esp(xfrmpeer.Tunnel))
	cross.CrossFamily = true
	gcm96 := withGCM(esp(xfrmpeer.Transport))
	gcm96.AEAD = xfrmpeer.AESGCM(key(28), 96)
	return []ipsecCase{
		{"GCM-192 with an ICV of 12", a4, b4, [2]string{a4, b4}, gcm96, tshark.SA{Enc: tshark.EncAESGCM12, EncKey: key(28)}, scapy.SA{}},
		{"GCM transport", a4, b4, [2]string{a4, b4}, withGCM(esp(xfrmpeer.Transport)), gcm, scapyGCM},
		{"GCM transport IPv6", a6, b6, [2]string{a6, b6}, withGCM(esp(xfrmpeer.Transport)), gcm, scapyGCM},
		{"CBC tunnel IPv6 in IPv4", a4, b4, [2]string{a6, b6}, cross, cbc, scapyCBC},
		{"CBC tunnel", a4, b4, [2]string{a4, b4}, withCBC(esp(xfrmpeer.Tunnel)), cbc, scapyCBC},
		{"AH transport", a4, b4, [2]string{a4, b4}, ah, tshark.SA{}, scapyAH},
		{"AH transport IPv6", a6, b6, [2]string{a6, b6}, ah, tshark.SA{}, scapyAH},
	}
}

// TestTwoGuestsThroughIPsec has two kernels talk through SAs that this package
// has made, while the capture listens, and asks tshark and scapy what it heard:
// so every part of the rig is seen to work without the product.
func TestTwoGuestsThroughIPsec(t *testing.T) {
	netlab.Require(t, tshark.Need(), scapy.Need())
	ctx := deadline(t)
	wire := netlab.New(t).Wire("wire")
	peers := []*xfrmpeer.Peer{xfrmpeer.OnWire(t, wire, "left"), xfrmpeer.OnWire(t, wire, "right")}
	for i, peer := range peers {
		n := string(rune('3' + i))
		if _, err := peer.Sh(ctx, "ip addr add 192.0.2."+n+"/24 dev eth0; ip addr add 2001:db8::"+n+"/64 dev eth0"); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range ipsecCases() {
		t.Run(test.name, func(t *testing.T) { test.run(ctx, t, wire, peers) })
	}
}

func (c ipsecCase) run(ctx context.Context, t *testing.T, wire *netlab.Wire, peers []*xfrmpeer.Peer) {
	src, dst := netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
	there, back := c.state, c.state
	there.Src, there.Dst, there.SPI, there.ReqID = src, dst, 0x1001, 1
	back.Src, back.Dst, back.SPI, back.ReqID = dst, src, 0x1002, 2
	host := func(s string) netip.Prefix {
		a := netip.MustParseAddr(s)
		return netip.PrefixFrom(a, a.BitLen())
	}
	for i, peer := range peers {
		defer func() {
			if err := peer.FlushXFRM(ctx); err != nil {
				t.Error(err)
			}
		}()
		policy := func(dir string, s xfrmpeer.State, from, to string) xfrmpeer.Policy {
			return xfrmpeer.Policy{Dir: dir, Src: host(from), Dst: host(to), Templates: []xfrmpeer.Template{
				{Proto: s.Proto, Mode: s.Mode, Src: s.Src, Dst: s.Dst, ReqID: s.ReqID},
			}}
		}
		dirs := []string{"out", "in"}
		if err := peer.AddState(ctx, there, back); err != nil {
			t.Fatal(err)
		}
		if err := peer.AddPolicy(ctx,
			policy(dirs[i], there, c.inner[0], c.inner[1]),
			policy(dirs[1-i], back, c.inner[1], c.inner[0])); err != nil {
			t.Fatal(err)
		}
	}
	capture := wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{netlab.Containing([]byte("hidden, hidden"))}})
	if out, err := peers[0].Sh(ctx, "ping -c3 -i0.2 -w60 -s100 -p "+pattern+" "+c.inner[1]); err != nil {
		for _, peer := range peers {
			stat, err := peer.XFRMStat(ctx)
			t.Log(stat, err)
		}
		t.Fatal(out, err)
	}
	counts, err := capture.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(counts)
	// Three requests and their answers: more when an answer was so late that ping asked again.
	packets := counts.Of(netlab.ESP, netlab.AH)
	if packets < 6 {
		t.Fatalf("on the wire: %v", counts)
	}
	if c.state.Proto == "ah" {
		// The ICV covers, and hides nothing.
		if counts.Of(netlab.ESP, netlab.Other) != 0 || capture.Watched(0).Frames != packets {
			t.Errorf("on the wire: %v; the clear pattern is in %d frames", counts, capture.Watched(0).Frames)
		}
	} else {
		if counts.Clear() != 0 || capture.Watched(0).Frames != 0 {
			t.Errorf("on the wire: %v; the clear pattern is in %d frames", counts, capture.Watched(0).Frames)
		}
		c.askTshark(ctx, t, capture, packets, there, back)
	}
	if c.scapy.Proto != "" {
		c.askScapy(ctx, t, capture)
	}
}

func (c ipsecCase) askTshark(ctx context.Context, t *testing.T, capture *netlab.Capture, esp int, states ...xfrmpeer.State) {
	o := tshark.Options{File: filepath.Join(t.TempDir(), "wire.pcapng")}
	if err := capture.WritePcapng(o.File); err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		sa := c.witness
		sa.Src, sa.Dst, sa.SPI = s.Src, s.Dst, s.SPI
		o.SAs = append(o.SAs, sa)
	}
	v, err := tshark.Verify(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	if v.ESP != esp || v.Decrypted != esp || v.BadICV != 0 || (c.witness.Auth != "" && v.GoodICV != esp) {
		t.Errorf("tshark: %+v", v)
	}
	for inner := range v.Inner {
		if !strings.Contains(inner, "icmp") {
			t.Errorf("tshark sees %q inside", inner)
		}
	}
	// "hidden, hidden" is in what it finds, but not with other keys.
	for i, want := range []int{esp, 0} {
		if i == 1 {
			for k := range o.SAs {
				o.SAs[k].EncKey = bytes.Repeat([]byte{1}, len(o.SAs[k].EncKey))
			}
		}
		o.Fields = []string{"data.data"}
		packets, err := tshark.Read(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, p := range packets {
			if strings.Contains(p.First("data.data"), pattern) {
				found++
			}
		}
		if found != want {
			t.Errorf("tshark finds the pattern in %d of %d packets, want %d: %v", found, len(packets), want, packets)
		}
	}
}

func (c ipsecCase) askScapy(ctx context.Context, t *testing.T, capture *netlab.Capture) {
	sa := c.scapy
	sa.SPI = 0x1001
	if c.state.Mode == xfrmpeer.Tunnel {
		sa.TunnelSrc, sa.TunnelDst = netip.MustParseAddr(c.src), netip.MustParseAddr(c.dst)
	}
	var packets [][]byte
	match := netlab.InFlow(netlab.Flow{Src: netip.MustParseAddr(c.src), Dst: netip.MustParseAddr(c.dst)})
	for _, f := range capture.Find(match) {
		if f.Class == netlab.ESP || f.Class == netlab.AH {
			packets = append(packets, f.Data[14:])
		}
	}
	spoilt := bytes.Clone(packets[0])
	spoilt[len(spoilt)-1] ^= 1
	opened, err := scapy.Open(ctx, sa, append(packets, spoilt)...)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range opened[:len(packets)] {
		if o.Err != nil || !bytes.Contains(o.Packet, []byte("hidden, hidden")) {
			t.Errorf("scapy of packet %d: %v % x", i, o.Err, o.Packet)
		}
	}
	if err := opened[len(packets)].Err; !errors.Is(err, scapy.ErrIntegrity) {
		t.Errorf("scapy of a spoilt packet: %v", err)
	}
}
