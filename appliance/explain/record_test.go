package explain

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// captured makes a capture of one link layer with these packets; the last is cut to half.
func captured(t testing.TB, ng bool, link layers.LinkType, packets ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w interface {
		WritePacket(gopacket.CaptureInfo, []byte) error
	}
	if ng {
		n, err := pcapgo.NewNgWriter(&b, link)
		if err != nil {
			t.Fatal(err)
		}
		defer n.Flush()
		w = n
	} else {
		p := pcapgo.NewWriter(&b)
		if err := p.WriteFileHeader(1<<16, link); err != nil {
			t.Fatal(err)
		}
		w = p
	}
	for i, p := range packets {
		n := len(p)
		if i > 0 && i == len(packets)-1 {
			n /= 2
		}
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: n, Length: len(p)}, p[:n]); err != nil {
			t.Fatal(err)
		}
	}
	if n, ok := w.(*pcapgo.NgWriter); ok {
		if err := n.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestRecord(t *testing.T) {
	p, err := Parse("udp 10.0.0.5:1 > 192.0.2.9:2 len 100")
	if err != nil {
		t.Fatal(err)
	}
	datagram := p.build(0)
	ether := append(append(make([]byte, 12), 8, 0), datagram...)
	sll := append([]byte{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0, 8, 0}, datagram...)
	sll2 := append([]byte{8, 0, 0, 0, 0, 0, 0, 2, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0}, datagram...)
	for _, ng := range []bool{false, true} {
		for _, c := range []struct {
			link   layers.LinkType
			packet []byte
		}{{layers.LinkTypeEthernet, ether}, {layers.LinkTypeRaw, datagram}, {layers.LinkTypeLinuxSLL, sll}, {layers.LinkTypeLinuxSLL2, sll2}, {layers.LinkTypeNull, append([]byte{2, 0, 0, 0}, datagram...)}} {
			file := captured(t, ng, c.link, c.packet, c.packet)
			frame, note, err := Record(bytes.NewReader(file), 1)
			if err != nil || note != "" || !bytes.Equal(frame, ether) {
				t.Errorf("%v, ng %v: %x, %q, %v", c.link, ng, frame, note, err)
			}
			frame, note, err = Record(bytes.NewReader(file), 2)
			if err != nil || !strings.Contains(note, "were captured") || len(frame) != len(ether) {
				t.Errorf("%v, ng %v: %d octets, %q, %v", c.link, ng, len(frame), note, err)
			}
			if _, _, err = Record(bytes.NewReader(file), 3); err == nil || !strings.Contains(err.Error(), "has 2 packets, expected number 3") {
				t.Errorf("%v, ng %v: %v", c.link, ng, err)
			}
		}
	}
	for text, want := range map[string]string{"": "is empty", "something else": "expected pcap or pcapng"} {
		if _, _, err := Record(strings.NewReader(text), 1); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	p, err := Parse("udp 10.0.0.5:1 > 192.0.2.9:2 len 60")
	if err != nil {
		f.Fatal(err)
	}
	for _, ng := range []bool{false, true} {
		f.Add(captured(f, ng, layers.LinkTypeRaw, p.build(0), p.build(0)), 2)
	}
	f.Fuzz(func(t *testing.T, file []byte, n int) {
		frame, _, err := Record(bytes.NewReader(file), n)
		if err == nil && len(frame) > 2*maxFrame {
			t.Fatalf("a frame of %d octets", len(frame))
		}
	})
}
