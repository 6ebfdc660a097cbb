package demo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bitw/appliance"
	"bitw/sa"
)

// Ethernet frames by hand, from the formats of RFC 791, RFC 8200, RFC 4303 and
// RFC 4861: Ethernet header, IP header, the first octets of the payload.
const (
	ether4 = "0200 5e10 0002 0200 5e10 0001 0800"
	ether6 = "0200 5e10 0002 0200 5e10 0001 86dd"
	from4  = "c633 6401 c633 6402"
	from6  = "2001 0db8 0001 0000 0000 0000 0000 0001 2001 0db8 0001 0000 0000 0000 0000 0002"
)

func octets(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// classified are frames and what they are.
func classified() []classifiedFrame {
	return []classifiedFrame{
		{"ARP", "ffff ffff ffff 0200 5e10 0001 0806 0001", kindNeighbor},
		{"ESP in IPv4", ether4 + "4500 0028 0000 4000 4032 0000" + from4, kindESP},
		{"fragment of ESP in IPv4", ether4 + "4500 0028 0000 00b9 4032 0000" + from4, kindESP},
		{"ICMP", ether4 + "4500 0028 0000 4000 4001 0000" + from4, kindClear},
		{"AH, which does not hide", ether4 + "4500 0028 0000 4000 4033 0000" + from4, kindClear},
		{"IPv4 multicast", ether4 + "4500 0028 0000 4000 0102 0000 c633 6401 e000 0016", kindOther},
		{"IPv4 broadcast", ether4 + "4500 0028 0000 4000 4011 0000 c633 6401 ffff ffff", kindOther},
		{"IPv4 cut short", ether4 + "4500 0028", kindClear},
		{"ESP in IPv6", ether6 + "6000 0000 0010 3240" + from6, kindESP},
		{"fragment of ESP in IPv6", ether6 + "6000 0000 0010 2c40" + from6 + "3200 0001 0000 0001", kindESP},
		{"fragment of UDP in IPv6", ether6 + "6000 0000 0010 2c40" + from6 + "1100 0001 0000 0001", kindClear},
		{"TCP in IPv6", ether6 + "6000 0000 0010 0640" + from6, kindClear},
		{"echo in IPv6", ether6 + "6000 0000 0010 3a40" + from6 + "8000", kindClear},
		{"neighbour advertisement", ether6 + "6000 0000 0010 3aff" + from6 + "8800", kindNeighbor},
		{"MLD report", ether6 + "6000 0000 0010 0001" + "fe80 0000 0000 0000 0000 0000 0000 0001 ff02 0000 0000 0000 0000 0000 0000 0016", kindOther},
		{"IPv6 cut short", ether6 + "6000 0000 0010", kindClear},
		{"LLDP", "0180 c200 000e 0200 5e10 0001 88cc 0207", kindOther},
		{"not a frame", "0200", kindOther},
	}
}

type classifiedFrame struct {
	name, frame string
	want        kind
}

func TestClassify(t *testing.T) {
	for _, tt := range classified() {
		if got, _, _ := classify(octets(t, tt.frame)); got != tt.want {
			t.Errorf("%s: kind %d, expected %d", tt.name, got, tt.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	for _, tt := range classified() {
		f.Add(octets(f, tt.frame))
	}
	e := newEvidence([2]net.HardwareAddr{mac(a), mac(b)})
	f.Fuzz(func(t *testing.T, frame []byte) {
		before := e.counts()
		e.add(a, frame)
		now := e.counts()
		sum := func(w Wire) uint64 { return w.ESPPackets + w.ClearPackets + w.NeighborFrames + w.OtherFrames }
		if sum(now) != sum(before)+1 {
			t.Errorf("counted %d times", sum(now)-sum(before))
		}
	})
}

func TestEvidence(t *testing.T) {
	e := newEvidence([2]net.HardwareAddr{mac(a), mac(b)})
	esp := octets(t, ether4+"4500 0028 0000 4000 4032 0000"+from4)
	e.add(a, esp)
	e.add(b, esp) // neither Ethernet nor IP source are those of b
	e.add(a, append(octets(t, ether4+"4500 0028 0000 4000 4011 0000"+from4), marker...))
	if got, want := e.counts(), (Wire{ESPPackets: 2, ESPBytes: 80, ClearPackets: 1, MarkedFrames: 1, ForeignSources: 1}); got != want {
		t.Errorf("%+v, expected %+v", got, want)
	}
}

// A capture of five frames of 100 octets, limited to some of them, stays a capture
// however its octets are cut up.
func TestBoundedCapture(t *testing.T) {
	var whole bytes.Buffer
	w, err := pcapgo.NewNgWriter(&whole, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		data := bytes.Repeat([]byte{byte(i)}, 100)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), Length: 100, CaptureLength: 100}, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name       string
		frames     int
		octets     int64
		kept, left int
	}{
		{"all", 5, 1 << 20, 5, 0},
		{"by frames", 3, 1 << 20, 3, 2},
		{"by octets", 5, int64(whole.Len()) - 10, 4, 1},
		{"none", 0, 1 << 20, 0, 5},
	} {
		for _, piece := range []int{1, 7, 8, 100, whole.Len()} {
			var out bytes.Buffer
			c := newBoundedCapture(&out)
			c.maxFrames, c.maxOctets = tt.frames, tt.octets
			for rest := whole.Bytes(); len(rest) > 0; {
				n := min(piece, len(rest))
				if m, err := c.Write(rest[:n]); err != nil || m != n {
					t.Fatalf("%s: wrote %d of %d: %v", tt.name, m, n, err)
				}
				rest = rest[n:]
			}
			if kept, left := c.frames(); kept != tt.kept || left != tt.left {
				t.Errorf("%s in pieces of %d: %d kept, %d left out; expected %d and %d", tt.name, piece, kept, left, tt.kept, tt.left)
			}
			r, err := pcapgo.NewNgReader(&out, pcapgo.NgReaderOptions{})
			if err != nil {
				t.Fatal(err)
			}
			read := 0
			for {
				data, _, err := r.ReadPacketData()
				if err == io.EOF {
					break
				}
				if err != nil || len(data) != 100 || data[0] != byte(read) {
					t.Fatalf("%s: frame %d: %v", tt.name, read, err)
				}
				read++
			}
			if read != tt.kept {
				t.Errorf("%s: %d frames read, expected %d", tt.name, read, tt.kept)
			}
		}
	}
}

func TestBoundedCaptureRefusesNonsense(t *testing.T) {
	if _, err := newBoundedCapture(io.Discard).Write(make([]byte, 8)); err == nil {
		t.Error("a block without a length was taken")
	}
}

// Content is the same for the same seed however it is read, and each chunk has the
// marker.
func TestContent(t *testing.T) {
	want := contentOf(3, 5000)
	got, err := io.ReadAll(io.LimitReader(&small{newContent(3)}, 5000))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("read in pieces it is something else (%v)", err)
	}
	if n := bytes.Count(want, []byte(marker)); n != 10 {
		t.Errorf("%d markers in 5,000 octets, expected 10", n)
	}
	if sha256.Sum256(want) == sha256.Sum256(contentOf(4, 5000)) {
		t.Error("two seeds give the same")
	}
}

// small reads up to 7 octets at once.
type small struct{ r io.Reader }

func (s *small) Read(p []byte) (int, error) { return s.r.Read(p[:min(7, len(p))]) }

// Both appliances take the configuration, and their keys differ by direction.
func TestScenario(t *testing.T) {
	list, err := newAssociations()
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 4 {
		t.Fatalf("%d associations, expected 4", len(list))
	}
	seen := make(map[string]bool)
	for _, s := range list {
		if seen[string(s.enc)] || s.spi < 256 {
			t.Errorf("%s: a key twice, or a reserved SPI %d", s.name, s.spi)
		}
		seen[string(s.enc)] = true
	}
	for _, host := range []int{a, b} {
		if _, err := appliance.New(configOf(host, "eth0", list), appliance.WithSequenceStore(sa.NewMemoryStore())); err != nil {
			t.Error(err)
		}
	}
}

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(&out)
	s.update("not a terminal\n")
	s.say("one")
	if got := out.String(); got != "one\n" {
		t.Errorf("%q, expected the line only", got)
	}
	out.Reset()
	s.live = true
	s.update("x\ny\n")
	s.say("two")
	s.clear()
	if got, want := out.String(), "x\ny\n"+"\x1b[2F\x1b[J"+"two\nx\ny\n"+"\x1b[2F\x1b[J"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

func TestWords(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) is %s, expected %s", n, got, want)
		}
	}
	if got, want := dropText(map[string]uint64{"b": 2, "a": 1000, "c": 0}), "a 1,000, b 2"; got != want {
		t.Errorf("%q, expected %q", got, want)
	}
}

// The table fits 80 columns also after a long time.
func TestTableWidth(t *testing.T) {
	list, err := newAssociations()
	if err != nil {
		t.Fatal(err)
	}
	var status [2]*appliance.Status
	for i := range status {
		s := &appliance.Status{}
		for _, f := range families() {
			many := appliance.Traffic{Packets: 9_999_999, Bytes: 9_999_999_999}
			s.Policies = append(s.Policies, appliance.PolicyStatus{Name: f.name, Out: many, In: many})
			for _, x := range list {
				s.SAs = append(s.SAs, appliance.SAStatus{Name: x.name, SPI: "0x12345678", Mode: string(x.mode), Algorithm: x.algorithm, Traffic: many})
			}
		}
		status[i] = s
	}
	for line := range strings.Lines(tableOf(list, status, Wire{ESPPackets: 9_999_999, ESPBytes: 9_999_999_999})) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
}

// A server that sees another client than it should says so.
func TestServerChecksClient(t *testing.T) {
	server := &onePacket{from: net.UDPAddrFromAddrPort(netip.MustParseAddrPort("192.0.2.9:1"))}
	if err := serveUDP(server, families()[0].hosts[a].Addr()); err == nil || !strings.Contains(err.Error(), "192.0.2.9") {
		t.Errorf("the error is %v", err)
	}
}

// onePacket is a socket at which one datagram has come.
type onePacket struct {
	net.PacketConn
	from net.Addr
}

func (c *onePacket) ReadFrom([]byte) (int, net.Addr, error) { return 1, c.from, nil }
