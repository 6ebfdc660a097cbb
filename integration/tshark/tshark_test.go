package tshark_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"bitw/integration/netlab"
	"bitw/integration/scapy"
	"bitw/integration/tshark"
)

func key(n int) []byte {
	k := make([]byte, n)
	for i := range k {
		k[i] = byte(i + 1)
	}
	return k
}

// capture writes a file with one packet: UDP with that text, sealed by scapy.
func capture(ctx context.Context, t *testing.T, sa scapy.SA, src, dst netip.Addr) string {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
	udp := &layers.UDP{SrcPort: 1000, DstPort: 2000}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buffer := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buffer, options, ip, udp, gopacket.Payload("inside")); err != nil {
		t.Fatal(err)
	}
	sealed, err := scapy.Seal(ctx, sa, scapy.Item{Packet: buffer.Bytes(), Seq: 1})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "sealed.pcapng")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	writer, err := pcapgo.NewNgWriter(file, layers.LinkTypeRaw)
	if err != nil {
		t.Fatal(err)
	}
	info := gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), Length: len(sealed[0]), CaptureLength: len(sealed[0])}
	if err := writer.WritePacket(info, sealed[0]); err != nil {
		t.Fatal(err)
	}
	if err := writer.Flush(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDecrypts(t *testing.T) {
	netlab.Require(t, tshark.Need(), scapy.Need())
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	src, dst := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	out, in := netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("198.51.100.2")
	for _, test := range []struct {
		name   string
		sealed scapy.SA
		sa     tshark.SA
		srcs   []string
		good   int
	}{
		{"GCM", scapy.SA{Proto: "esp", SPI: 0x1001, Crypt: "AES-GCM", CryptKey: key(20)},
			tshark.SA{Src: src, Dst: dst, SPI: 0x1001, Enc: tshark.EncAESGCM16, EncKey: key(20)},
			[]string{"192.0.2.1"}, 0},
		{"GCM-256", scapy.SA{Proto: "esp", SPI: 0x1001, Crypt: "AES-GCM", CryptKey: key(36)},
			tshark.SA{Src: src, Dst: dst, SPI: 0x1001, Enc: tshark.EncAESGCM16, EncKey: key(36)},
			[]string{"192.0.2.1"}, 0},
		{"CBC tunnel", scapy.SA{Proto: "esp", SPI: 0x1001, Crypt: "AES-CBC", CryptKey: key(16), Auth: "SHA2-512-256", AuthKey: key(64), TunnelSrc: out, TunnelDst: in},
			tshark.SA{Src: out, Dst: in, SPI: 0x1001, Enc: tshark.EncAESCBC, EncKey: key(16), Auth: tshark.AuthSHA512, AuthKey: key(64)},
			[]string{"198.51.100.1", "192.0.2.1"}, 1},
		{"NULL", scapy.SA{Proto: "esp", SPI: 0x1001, Crypt: "NULL", Auth: "HMAC-SHA1-96", AuthKey: key(20)},
			tshark.SA{Src: src, Dst: dst, SPI: 0x1001, Enc: tshark.EncNull, Auth: tshark.AuthSHA1, AuthKey: key(20)},
			[]string{"192.0.2.1"}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := tshark.Options{File: capture(ctx, t, test.sealed, src, dst), SAs: []tshark.SA{test.sa}}
			v, err := tshark.Verify(ctx, o)
			if err != nil || v.ESP != 1 || v.Decrypted != 1 || v.BadICV != 0 || (test.good != 0 && v.GoodICV != 1) {
				t.Errorf("%+v, %v", v, err)
			}
			o.Fields = []string{"ip.src", "udp.dstport", "data.data"}
			packets, err := tshark.Read(ctx, o)
			if err != nil || len(packets) != 1 {
				t.Fatalf("%v, %v", packets, err)
			}
			if p := packets[0]; !slices.Equal(p["ip.src"], test.srcs) || p.First("udp.dstport") != "2000" || p.First("data.data") != "696e73696465" {
				t.Errorf("%v", p)
			}
			// The same keys in a file.
			path := filepath.Join(t.TempDir(), "esp_sa")
			if err := os.WriteFile(path, []byte(test.sa.Row()+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			v, err = tshark.Verify(ctx, tshark.Options{File: o.File, KeyFile: path})
			if err != nil || v.Decrypted != 1 {
				t.Errorf("with a key file: %+v, %v", v, err)
			}
			if err := os.WriteFile(path, []byte("\"IPv4\",\"no\"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if v, err = tshark.Verify(ctx, tshark.Options{File: o.File, KeyFile: path}); err == nil && v.Decrypted != 0 {
				t.Errorf("with a broken key file: %+v", v)
			}
		})
	}
}
