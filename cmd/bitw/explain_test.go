package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bitw/appliance/explain"
)

func TestR50_ExplainOffline(t *testing.T) {
	path := write(t, "eth0.yaml", good)
	for _, c := range []struct {
		status                   int
		packet, expect, out, err string
	}{
		{0, "udp 192.0.2.1:1 > 192.0.2.2:2", "protect", "PROTECT: policy b says protect", ""},
		{0, "tcp 192.0.2.1:1 > 198.51.100.1:443", "bypass", "BYPASS: policy web", ""},
		{0, "tcp 192.0.2.1:1 > 198.51.100.1:22", "discard", "not 2 web (bypass): remote port 22, expected 80,443", ""},
		{4, "tcp 192.0.2.1:1 > 198.51.100.1:22", "bypass", "DISCARD: no policy matches", "the verdict is discard, expected bypass"},
		{4, "udp 192.0.2.2:1 > 192.0.2.1:2 in", "protect", "clear_not_protected", "expected protect"},
		{0, "esp 192.0.2.2 > 192.0.2.1 spi 0x2001 seq 1 carrying (udp 192.0.2.9:1 > 192.0.2.1:2)", "protect", "it carries has the addresses of the packet", ""},
		{2, "tcp 192.0.2.1 > 198.51.100.1:22", "bypass", "", "column 5: found \"192.0.2.1\", expected an address with its port"},
	} {
		t.Run(c.packet, func(t *testing.T) {
			newWorld(t).call(t, c.status, c.out, c.err, "explain", c.packet, "-c", path, "--offline", "--expect", c.expect)
		})
	}
	w := newWorld(t)
	w.call(t, 0, `"verdict": "protect"`, "", "explain", "udp 192.0.2.1:1 > 192.0.2.2:2", "-c", path, "--offline", "--mtu", "1280", "-o", "json")
	var r explain.Result
	if err := json.Unmarshal([]byte(w.out.String()), &r); err != nil || r.Budget.Limit != 1280 || r.Rule.Name != "b" {
		t.Errorf("%v: %+v", err, r)
	}
}

// A recorded packet is asked about as it is.
func TestR50_ExplainPcap(t *testing.T) {
	config := write(t, "eth0.yaml", good)
	capture := filepath.Join(t.TempDir(), "x.pcap")
	var b bytes.Buffer
	file := pcapgo.NewWriter(&b)
	if err := file.WriteFileHeader(1<<16, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{192, 0, 2, 1}, DstIP: []byte{192, 0, 2, 2}}
	udp := &layers.UDP{SrcPort: 7, DstPort: 9}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload("hello")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := file.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(buf.Bytes()), Length: len(buf.Bytes())}, buf.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(capture, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	newWorld(t).call(t, 0, "udp 192.0.2.1:7 > 192.0.2.2:9 len 33 ttl 64\nfrom the host", "", "explain", "--pcap", capture, "--number", "2", "-c", config, "--offline", "--expect", "protect")
	newWorld(t).call(t, 4, "from the wire", "expected bypass", "explain", "--pcap", capture, "--direction", "in", "-c", config, "--offline", "--expect", "bypass")
	newWorld(t).call(t, 1, "", "the capture has 2 packets, expected number 3", "explain", "--pcap", capture, "--number", "3", "-c", config, "--offline")
	newWorld(t).call(t, 1, "", "no such file", "explain", "--pcap", capture+"x", "-c", config, "--offline")
}

// Without --offline the answer comes from who runs, and nobody does here.
func TestExplainNobody(t *testing.T) {
	newWorld(t).call(t, 1, "", "none runs here", "explain", "arp")
	w := newWorld(t)
	w.serve(t, "eth0", busy())
	w.call(t, 1, "", "the running bitw", "explain", "arp", "eth0")
	if strings.Contains(w.err.String(), "Usage") {
		t.Error(w.err.String())
	}
}
