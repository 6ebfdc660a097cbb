package observe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"bitw/appliance"
	"bitw/config"
	"bitw/netstack/wire"
	"bitw/sa"
)

const policies = `
interface: eth0
classes: {mdns: bypass, ethertype 0x88b5: bypass}
security_associations:
  - {name: to-b, direction: out, protocol: esp, mode: transport, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2, algorithm: aes128gcm16, encryption_key: 00112233445566778899aabbccddeeffa0a1a2a3}
  - {name: from-b, direction: in, protocol: esp, mode: transport, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1, algorithm: aes128gcm16, encryption_key: ffeeddccbbaa99887766554433221100b0b1b2b3}
  - {name: out-ah, direction: out, protocol: ah, mode: transport, spi: 0x1002, source: 192.0.2.1, destination: 192.0.2.9, algorithm: sha256, integrity_key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}
  - {name: in-ah, direction: in, protocol: ah, mode: transport, spi: 0x2002, source: 192.0.2.9, destination: 192.0.2.1, algorithm: sha256, integrity_key: "100102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}
  - {name: out-tun, direction: out, protocol: esp, mode: tunnel, spi: 0x1003, source: 192.0.2.1, destination: 192.0.2.9, algorithm: aes256gcm16, encryption_key: 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeffa0a1a2a3}
  - {name: in-tun, direction: in, protocol: esp, mode: tunnel, spi: 0x2003, source: 192.0.2.9, destination: 192.0.2.1, algorithm: aes256gcm16, encryption_key: ff112233445566778899aabbccddeeff00112233445566778899aabbccddeeffa0a1a2a3}
  - {name: out-nat, direction: out, protocol: esp, mode: tunnel, spi: 0x1004, source: 192.0.2.1, destination: 192.0.2.4, algorithm: null-sha256, encap: yes, integrity_key: "200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}
  - {name: in-nat, direction: in, protocol: esp, mode: tunnel, spi: 0x2004, source: 192.0.2.4, destination: 192.0.2.1, algorithm: null-sha256, encap: yes, integrity_key: "300102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"}
policies:
  - {name: unreachable, remote: 203.0.113.0/25, protocol: icmp, icmp: {type: 3}, action: bypass}
  - {name: nat, remote: 203.0.113.0/24, action: protect, out: out-nat, in: in-nat}
  - {name: ike, protocol: udp, local_ports: [4500], remote_ports: [4500], action: bypass}
  - {name: b, local: 192.0.2.1, remote: 192.0.2.2, action: protect, out: [to-b], in: [from-b]}
  - {name: net, remote: 198.51.100.0/24, action: protect, out: [out-tun, out-ah], in: [in-tun, in-ah]}
  - {name: dns, protocol: udp, remote_ports: [53], action: bypass}
  - {name: ping, protocol: icmp, icmp: {type: 8}, action: bypass}
  - {name: telnet, protocol: tcp, remote_ports: [23], action: discard}
`

var (
	hostMAC  = []byte{2, 0, 0, 0, 0, 1}
	otherMAC = []byte{2, 0, 0, 0, 0, 2}
	now      = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
)

func newJudge(t testing.TB) *judge {
	t.Helper()
	cfg, _, err := config.Parse("t.yaml", []byte(policies), appliance.ConfigOptions())
	if err != nil {
		t.Fatal(err)
	}
	db, err := appliance.NewDatabases(*cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return &judge{db: db, mtu: 1500}
}

// A datagram of a test, from or to the host 192.0.2.1.
type datagram struct {
	in       bool
	remote   string
	proto    byte
	ports    [2]uint16 // the host's, the other's; for ICMP type and code are the first
	size     int       // of the datagram, 64 if 0
	df       bool
	id       uint16
	frag     uint16 // flags and offset field, beside DF
	gsoSize  uint16
	spi      uint32
	enclosed []byte
}

func (d datagram) ip() []byte {
	if d.size == 0 {
		d.size = 64 + len(d.enclosed)
	}
	b := make([]byte, d.size)
	b[0], b[8], b[9] = 0x45, 64, d.proto
	binary.BigEndian.PutUint16(b[2:], uint16(d.size))
	binary.BigEndian.PutUint16(b[4:], d.id)
	binary.BigEndian.PutUint16(b[6:], d.frag)
	if d.df {
		b[6] |= 0x40
	}
	src, dst := netip.MustParseAddr("192.0.2.1").As4(), netip.MustParseAddr(d.remote).As4()
	ports := d.ports
	if d.in {
		src, dst = dst, src
		if d.proto != wire.ProtoICMP {
			ports[0], ports[1] = ports[1], ports[0]
		}
	}
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	wire.UpdateIPv4Checksum(b)
	u := b[20:]
	switch d.proto {
	case wire.ProtoICMP:
		u[0], u[1] = byte(ports[0]), byte(ports[1])
		copy(u[8:], d.enclosed)
	case wire.ProtoTCP, wire.ProtoUDP:
		if d.frag&0x1fff == 0 {
			binary.BigEndian.PutUint16(u, ports[0])
			binary.BigEndian.PutUint16(u[2:], ports[1])
			if d.proto == wire.ProtoTCP {
				u[12] = 5 << 4
			}
		}
	case wire.ProtoESP:
		binary.BigEndian.PutUint32(u, d.spi)
	case wire.ProtoAH:
		u[0], u[1] = 6, 4
		binary.BigEndian.PutUint32(u[4:], d.spi)
	}
	return b
}

func (d datagram) frame() []byte {
	head := make([]byte, wire.VirtioNetLen+14)
	if d.gsoSize != 0 {
		wire.VirtioNet(head).SetGSOType(wire.GSOTCPv4)
		wire.VirtioNet(head).SetGSOSize(d.gsoSize)
	}
	dst, src := otherMAC, hostMAC
	if d.in {
		dst, src = src, dst
	}
	copy(head[12:], dst)
	copy(head[18:], src)
	head[24] = 8
	return append(head, d.ip()...)
}

func (d datagram) direction() sa.Direction {
	if d.in {
		return sa.Inbound
	}
	return sa.Outbound
}

// What the policies would do with a flow of one packet.
func TestR03_Verdicts(t *testing.T) {
	j := newJudge(t)
	udp := func(remote string, port uint16) datagram {
		return datagram{remote: remote, proto: wire.ProtoUDP, ports: [2]uint16{4000, port}}
	}
	in := func(d datagram) datagram { d.in = true; return d }
	about := udp("192.0.2.7", 53)
	for _, c := range []struct {
		name string
		d    datagram
		want Verdict
	}{
		// ESP of AES-GCM: 8 octets of header, 8 of IV, 16 of ICV, and payload with its two
		// trailing octets padded to 4 (RFC 4106 §3, RFC 4303 §2.4): 44 and 2 to 48.
		{"protect", udp("192.0.2.2", 9), Verdict{Action: "protect", Policy: "b", SAs: []string{"to-b"}, Overhead: 36, OverheadLargest: 36, Fit: Fits, MaxInner: 1466}},
		{"protect, in the clear", in(udp("192.0.2.2", 9)), Verdict{Action: "protect", Policy: "b", SAs: []string{"from-b"}, Reason: "clear_not_protected"}},
		// The tunnel: 20 + 16 + 64 and 2 to 68 + 16 = 120; AH with 16 octets of ICV: 12 + 16 = 28.
		{"bundle", udp("198.51.100.7", 9), Verdict{Action: "protect", Policy: "net", SAs: []string{"out-tun", "out-ah"}, Overhead: 84, OverheadLargest: 84, Fit: Fits, MaxInner: 1418}},
		{"bypass", udp("192.0.2.7", 53), Verdict{Action: "bypass", Policy: "dns"}},
		{"bypass in", in(udp("192.0.2.7", 53)), Verdict{Action: "bypass", Policy: "dns"}},
		{"discard", datagram{remote: "192.0.2.7", proto: wire.ProtoTCP, ports: [2]uint16{4000, 23}}, Verdict{Action: "discard", Policy: "telnet", Reason: "policy_discard"}},
		{"no rule", udp("192.0.2.7", 54), Verdict{Action: "discard", Reason: "no_policy"}},
		{"too big", datagram{remote: "192.0.2.2", proto: wire.ProtoUDP, size: 1500, df: true}, Verdict{Action: "protect", Policy: "b", SAs: []string{"to-b"}, Overhead: 36, OverheadLargest: 36, Fit: TooBig, MaxInner: 1466, TooBig: 1}},
		{"just fits", datagram{remote: "192.0.2.2", proto: wire.ProtoUDP, size: 1466, df: true}, Verdict{Action: "protect", Policy: "b", SAs: []string{"to-b"}, Overhead: 34, OverheadLargest: 34, Fit: Fits, MaxInner: 1466}},
		{"fragmented", datagram{remote: "192.0.2.2", proto: wire.ProtoUDP, size: 1500}, Verdict{Action: "protect", Policy: "b", SAs: []string{"to-b"}, Overhead: 36, OverheadLargest: 36, Fit: Fragmented, MaxInner: 1466}},
		// 3 segments of 40 + 1460: each gets 36; the last of 40 + 80 gets 32 + 4.
		{"superframe", datagram{remote: "192.0.2.2", proto: wire.ProtoTCP, size: 40 + 2*1460 + 80, df: true, gsoSize: 1460}, Verdict{Action: "protect", Policy: "b", SAs: []string{"to-b"}, Overhead: 108, OverheadLargest: 36, Fit: Cut, MaxInner: 1466}},
		{"ESP in", in(datagram{remote: "192.0.2.2", proto: wire.ProtoESP, spi: 0x2001}), Verdict{Action: "protect", SAs: []string{"from-b"}}},
		{"AH in", in(datagram{remote: "192.0.2.9", proto: wire.ProtoAH, spi: 0x2002}), Verdict{Action: "protect", SAs: []string{"in-ah"}}},
		{"unknown SPI", in(datagram{remote: "192.0.2.2", proto: wire.ProtoESP, spi: 0x2009}), Verdict{Action: "discard", Reason: "unknown_spi"}},
		{"ICMP error in", in(datagram{remote: "192.0.2.99", proto: wire.ProtoICMP, ports: [2]uint16{3, 1}, enclosed: about.ip()}), Verdict{Action: "bypass", Policy: "dns"}},
		{"ICMP error out", datagram{remote: "192.0.2.7", proto: wire.ProtoICMP, ports: [2]uint16{3, 3}, enclosed: in(about).ip()}, Verdict{Action: "bypass", Policy: "dns"}},
		{"ICMP error that quotes what came protected", datagram{remote: "203.0.113.7", proto: wire.ProtoICMP, ports: [2]uint16{3, 3}, enclosed: in(udp("203.0.113.7", 9)).ip()}, Verdict{Action: "protect", Policy: "nat", SAs: []string{"out-nat"}, Overhead: 56, OverheadLargest: 56, Fit: Fits, MaxInner: 1446}},
		{"to another than it came from", datagram{remote: "203.0.113.7", proto: wire.ProtoICMP, ports: [2]uint16{3, 3}, enclosed: in(udp("203.0.113.9", 9)).ip()}, Verdict{Action: "discard", Policy: "unreachable", Reason: "icmp_policy"}},
		{"ICMP error about nothing", in(datagram{remote: "192.0.2.99", proto: wire.ProtoICMP, ports: [2]uint16{3, 1}, enclosed: udp("192.0.2.7", 54).ip()}), Verdict{Action: "discard", Reason: "no_policy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			tab := newTable(j, hostMAC, 10)
			tab.see(c.d.direction(), c.d.frame(), now)
			var r Report
			tab.report(&r)
			if len(r.Flows) != 1 || r.Unreadable != 0 {
				t.Fatalf("report %+v", r)
			}
			h := r.Flows[0].Out
			if c.d.in {
				h = r.Flows[0].In
			}
			if h.Verdict == nil || fmt.Sprint(*h.Verdict) != fmt.Sprint(c.want) {
				t.Errorf("verdict %+v, expected %+v", h.Verdict, c.want)
			}
		})
	}
}

// The arithmetic agrees with itself: the largest that fits does, and the next does not.
func TestR03_MaxInner(t *testing.T) {
	j := newJudge(t)
	for _, remote := range []string{"192.0.2.2", "198.51.100.7"} {
		d := datagram{remote: remote, proto: wire.ProtoUDP}
		p := packet{dir: sa.Outbound, data: d.ip()}
		if r := wire.Parse(p.data, &p.info); r != wire.DropNone {
			t.Fatal(r)
		}
		o := j.of(&p)
		for limit := 576; limit < 1600; limit++ {
			n := o.bundle.maxInner(limit)
			if o.bundle.sealedLen(n) > limit || o.bundle.sealedLen(n+1) <= limit {
				t.Fatalf("%s: %d is the largest for %d, sealed %d, and one more %d", remote, n, limit, o.bundle.sealedLen(n), o.bundle.sealedLen(n+1))
			}
		}
	}
}

// Both directions are one flow, fragments go with their first, superframes count as
// what they are cut into, and the flow that was silent longest goes first.
func TestR03_Flows(t *testing.T) {
	tab := newTable(nil, hostMAC, 3)
	see := func(d datagram) { tab.see(d.direction(), d.frame(), now) }
	web := datagram{remote: "192.0.2.2", proto: wire.ProtoTCP, ports: [2]uint16{4000, 80}}
	see(web)
	back := web
	back.in, back.size, back.gsoSize = true, 40+1000+1000+1, 1000
	see(back)
	see(datagram{remote: "192.0.2.2", proto: wire.ProtoICMP, ports: [2]uint16{8, 0}})
	see(datagram{in: true, remote: "192.0.2.2", proto: wire.ProtoICMP, ports: [2]uint16{0, 0}})
	udp := datagram{remote: "192.0.2.3", proto: wire.ProtoUDP, ports: [2]uint16{5, 6}, id: 7, frag: 0x2000, size: 84}
	see(udp)
	udp.frag, udp.size = 8, 50
	see(udp)
	var r Report
	tab.report(&r)
	if len(r.Flows) != 3 || r.Forgotten != 0 || r.Judged {
		t.Fatalf("%+v", r)
	}
	if f := r.Flows[0]; f.RemotePort != 80 || f.Out.Packets != 1 || f.In.Packets != 3 || f.In.Bytes != 2041+2*40 || f.In.Largest != 1040 || f.In.Verdict != nil {
		t.Errorf("%+v", f)
	}
	for _, f := range r.Flows[1:] {
		switch {
		case f.ICMPType != nil && *f.ICMPType == 8 && f.Out.Packets == 1 && f.In.Packets == 1:
		case f.RemotePort == 6 && f.Out.Packets == 2 && f.Out.Bytes == 134:
		default:
			t.Errorf("%+v", f)
		}
	}
	see(web) // not silent any more
	for port := range uint16(2) {
		see(datagram{remote: "192.0.2.4", proto: wire.ProtoUDP, ports: [2]uint16{1, port + 1}})
	}
	tab.report(&r)
	if len(r.Flows) != 3 || r.Forgotten != 2 || !slices.ContainsFunc(r.Flows, func(f Flow) bool { return f.RemotePort == 80 }) {
		t.Errorf("%+v", r)
	}
	if len(tab.firsts) != 0 {
		t.Error("a forgotten flow is remembered by its fragments")
	}
}

// What no policy decides is counted by its class, with what would become of it.
func TestR03_Other(t *testing.T) {
	tab := newTable(newJudge(t), hostMAC, 3)
	frame := func(etherType uint16, dst []byte, rest ...byte) []byte {
		b := make([]byte, wire.VirtioNetLen+14)
		copy(b[12:], dst)
		binary.BigEndian.PutUint16(b[24:], etherType)
		return append(b, rest...)
	}
	foreign := datagram{in: true, remote: "192.0.2.2", proto: wire.ProtoUDP}.frame()
	copy(foreign[12:], otherMAC)
	for _, b := range [][]byte{
		frame(0x0806, hostMAC, make([]byte, 28)...), frame(0x88cc, hostMAC), frame(0x88b5, hostMAC),
		frame(0x0800, hostMAC, 0x46), frame(0x0800, hostMAC), nil, make([]byte, 13), foreign,
	} {
		tab.see(sa.Inbound, b, now)
	}
	var r Report
	tab.report(&r)
	want := map[string]string{"arp": "answered", "lldp": "discard", "ethertype 0x88b5": "bypass", "foreign_mac": "discard"}
	for name, action := range want {
		if o := r.Other[name]; o.Frames != 1 || o.Action != action {
			t.Errorf("%s: %+v, expected one that is %s", name, o, action)
		}
	}
	if len(r.Other) != len(want) || r.Unreadable != 4 || len(r.Flows) != 0 {
		t.Errorf("%+v", r)
	}
}

func FuzzSee(f *testing.F) {
	f.Add(false, datagram{remote: "192.0.2.2", proto: wire.ProtoTCP, size: 3000, gsoSize: 1460, df: true}.frame())
	f.Add(true, datagram{in: true, remote: "192.0.2.2", proto: wire.ProtoESP, spi: 0x2001}.frame())
	f.Add(true, datagram{in: true, remote: "192.0.2.9", proto: wire.ProtoICMP, ports: [2]uint16{3, 1}, enclosed: datagram{remote: "192.0.2.7", proto: wire.ProtoUDP}.ip()}.frame())
	f.Add(false, datagram{remote: "192.0.2.3", proto: wire.ProtoUDP, frag: 0x2000, size: 84}.frame())
	j := newJudge(f)
	f.Fuzz(func(t *testing.T, in bool, frame []byte) {
		tab := newTable(j, hostMAC, 2)
		tab.words = true
		dir := sa.Outbound
		if in {
			dir = sa.Inbound
		}
		for range 2 {
			if words := tab.see(dir, frame, now); strings.TrimSpace(words) == "" {
				t.Error("a frame without a verdict")
			}
		}
		var r Report
		tab.report(&r)
		n := r.Unreadable
		for _, o := range r.Other {
			n += o.Frames
		}
		if n == 0 && len(r.Flows) == 0 {
			t.Error("a frame that was not counted")
		}
	})
}

// TestR03_RFC3948_2_ESPInUDP looks into UDP on the port of an SA, packet by packet: what
// IKE and keepalives are told holds until ESP comes.
func TestR03_RFC3948_2_ESPInUDP(t *testing.T) {
	j := newJudge(t)
	packet := func(payload ...byte) []byte {
		d := datagram{in: true, remote: "192.0.2.4", proto: wire.ProtoUDP, ports: [2]uint16{4500, 4500}, size: 28 + len(payload)}
		f := d.frame()
		udp := f[len(f)-len(payload)-8:]
		binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
		copy(udp[8:], payload)
		return f
	}
	esp := func(spi uint32) []byte { return append(binary.BigEndian.AppendUint32(nil, spi), make([]byte, 40)...) }
	ike := Verdict{Action: "bypass", Policy: "ike"}
	tab := newTable(j, hostMAC, 10)
	for _, step := range []struct {
		name    string
		payload []byte
		want    Verdict
	}{
		{"keepalive", []byte{0xff}, Verdict{Action: "discard", Reason: "nat_keepalive"}},
		{"IKE", make([]byte, 32), ike},
		{"something short", []byte{1, 2, 3}, ike},
		{"ESP", esp(0x2004), Verdict{Action: "protect", SAs: []string{"in-nat"}}},
		{"IKE behind ESP", make([]byte, 32), Verdict{Action: "protect", SAs: []string{"in-nat"}}},
	} {
		tab.see(sa.Inbound, packet(step.payload...), now)
		var r Report
		tab.report(&r)
		if len(r.Flows) != 1 || r.Flows[0].In.Verdict == nil || fmt.Sprint(*r.Flows[0].In.Verdict) != fmt.Sprint(step.want) {
			t.Fatalf("%s: %+v", step.name, r.Flows)
		}
	}
	for name, c := range map[string]struct {
		frame []byte
		want  string
	}{
		"unknown SPI":          {packet(esp(0x2009)...), "unknown_spi"},
		"an SA without UDP":    {packet(esp(0x2001)...), "encap_mismatch"},
		"an SA that wants UDP": {datagram{in: true, remote: "192.0.2.4", proto: wire.ProtoESP, spi: 0x2004}.frame(), "encap_mismatch"},
	} {
		tab := newTable(j, hostMAC, 10)
		tab.see(sa.Inbound, c.frame, now)
		var r Report
		tab.report(&r)
		if v := r.Flows[0].In.Verdict; v == nil || v.Action != "discard" || v.Reason != c.want {
			t.Errorf("%s: %+v, expected %s", name, v, c.want)
		}
	}
}
