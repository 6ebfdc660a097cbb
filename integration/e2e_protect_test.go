package integration

import (
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bitw/integration/netlab"
	"bitw/integration/tshark"
)

// protection is a plan for both families, and how much is moved over it.
type protection struct {
	name      string
	v4, v6    *flow
	noOffload bool
	mb4, mb6  int64 // by HTTP, each way
	decrypt   bool  // tshark knows the algorithms
}

func protections() []protection {
	return []protection{
		{"AES-GCM-transport4-tunnel6",
			newFlow("v4", "transport", "aes128gcm16", 0x1004, a4, b4), newFlow("v6", "tunnel", "aes128gcm16", 0x1006, a6, b6), true, 100, 10, true},
		{"ChaCha20-Poly1305-tunnel4-transport6",
			newFlow("v4", "tunnel", "chacha20poly1305", 0x1004, a4, b4), newFlow("v6", "transport", "chacha20poly1305", 0x1006, a6, b6), true, 10, 100, false},
		{"AES-CBC-SHA256-tunnel4in6-tunnel6in4",
			newFlow("v4", "tunnel", "aes256-sha256", 0x1004, a4, b4).through(a6, b6), newFlow("v6", "tunnel", "aes256-sha256", 0x1006, a6, b6).through(a4, b4), true, 10, 10, true},
		{"AES-CBC-SHA256-transport4-transport6",
			newFlow("v4", "transport", "aes128-sha256", 0x1004, a4, b4), newFlow("v6", "transport", "aes256-sha256", 0x1006, a6, b6), true, 10, 10, true},
		{"offloads-AES-GCM-tunnel4-transport6",
			newFlow("v4", "tunnel", "aes256gcm16", 0x1004, a4, b4), newFlow("v6", "transport", "aes128gcm16", 0x1006, a6, b6), false, 100, 100, true},
	}
}

// TestR26_R27_R35_AllTrafficIsESPOnTheWire moves files, pings and datagrams between
// two kernels whose interfaces are cut, while a third party listens.
func TestR26_R27_R35_AllTrafficIsESPOnTheWire(t *testing.T) {
	netlab.Require(t, tshark.Need())
	for _, p := range protections() {
		t.Run(p.name, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{NoOffload: p.noOffload})
			a, b := boxes(t, pair, &plan{flows: []*flow{p.v4, p.v6}})
			defer b.giveBack()
			defer a.giveBack()

			bulk := watchClear(pair, 128)
			ends := []struct {
				a, b netip.Addr
				mb   int64
			}{{a4, b4, p.mb4}, {a6, b6, p.mb6}}
			for _, e := range ends {
				began := time.Now()
				ctx := deadline(t, 5*patience)
				if _, err := netlab.HTTPTransfer(ctx, pair.A, pair.B, e.a, e.mb<<20); err != nil {
					t.Error(err)
				}
				if _, err := netlab.HTTPTransfer(ctx, pair.B, pair.A, e.b, e.mb<<20); err != nil {
					t.Error(err)
				}
				t.Logf("%d MB by HTTP each way at %v in %v", e.mb, e.a, time.Since(began).Round(time.Millisecond))
			}
			t.Logf("while files moved: %v", allESP(t, bulk))

			small := watchClear(pair, 0)
			for _, e := range ends {
				pings(t, pair.A, e.b, netlab.PingOptions{Count: 1000, Interval: time.Millisecond})
				pings(t, pair.B, e.a, netlab.PingOptions{Count: 20, Size: 4000})
				datagrams(t, pair, e.a, e.b)
			}
			t.Logf("pings and datagrams: %v", allESP(t, small))
			if p.decrypt {
				decrypts(t, small, p.v4, p.v6)
			}
			for _, x := range []*box{a, b} {
				s := x.status()
				if odd := unexpected(s.Drops); len(odd) > 0 {
					t.Errorf("%s: drops %v\n%v", x.host.Name(), odd, s.DropsBySide)
				}
			}
		})
	}
}

// datagrams sends UDP of 1 to 65,000 octets in both directions.
func datagrams(t *testing.T, pair *netlab.Pair, a, b netip.Addr) {
	t.Helper()
	sizes := []int{1, 2, 3, 7, 8, 15, 16, 17, 1280, 1400}
	for n := 1401; n <= 1500; n += 3 {
		sizes = append(sizes, n)
	}
	for n := 1; n <= 65000; n += 1711 {
		sizes = append(sizes, n)
	}
	sizes = append(sizes, 32768, 64999, 65000)
	for _, way := range []struct {
		from, to *netlab.Host
		at       netip.Addr
	}{{pair.A, pair.B, b}, {pair.B, pair.A, a}} {
		// The kernel sends a datagram that fits its own MTU whole or not at all. The
		// first one that does not fit any more is lost, and teaches it the path's: the
		// asking host's, and then the answering one's.
		learn := 1472
		if way.at.Is6() {
			learn = 1452
		}
		ctx := deadline(t, 5*patience)
		eventually(t, "both hosts have learned the path MTU", func() bool {
			r, err := netlab.UDPEcho(ctx, way.from, way.to, netlab.UDPOptions{Addr: way.at, Sizes: []int{learn}, Timeout: 200 * time.Millisecond})
			return err == nil && r.Received == 1
		})
		r, err := netlab.UDPEcho(ctx, way.from, way.to, netlab.UDPOptions{Addr: way.at, Sizes: sizes})
		if err != nil || len(r.Lost) > 0 || r.Received != len(sizes) {
			t.Errorf("UDP from %s to %v: %+v, %v", way.from.Name(), way.at, r, err)
		}
	}
}

// decrypts has tshark open what was captured.
func decrypts(t *testing.T, c *netlab.Capture, flows ...*flow) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "wire.pcapng")
	if err := c.WritePcapng(file); err != nil {
		t.Fatal(err)
	}
	var sas []tshark.SA
	for _, f := range flows {
		for _, back := range []bool{false, true} {
			s := tshark.SA{Src: f.endA, Dst: f.endB, SPI: f.spi, Enc: tshark.EncAESGCM16, EncKey: key(f.enc, back)}
			if back {
				s.Src, s.Dst, s.SPI = s.Dst, s.Src, s.SPI+0x1000
			}
			if strings.HasSuffix(f.algorithm, "sha256") {
				s.Enc, s.Auth, s.AuthKey = tshark.EncAESCBC, tshark.AuthSHA256, key(f.integ, back)
			}
			sas = append(sas, s)
		}
	}
	v, err := tshark.Verify(deadline(t, patience), tshark.Options{File: file, SAs: sas})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("tshark: %d ESP, %d decrypted, %d ICVs good, inside %v", v.ESP, v.Decrypted, v.GoodICV, v.Inner)
	// Fragments of ESP are put together by tshark, which then shows one packet.
	if v.ESP < 4000 || v.Decrypted != v.ESP || v.BadICV > 0 || v.GoodICV != v.ESP {
		t.Errorf("tshark: %d ESP, %d decrypted, %d ICVs good, %d bad; not decrypted: %v",
			v.ESP, v.Decrypted, v.GoodICV, v.BadICV, v.Undecoded[:min(10, len(v.Undecoded))])
	}
}
