package integration

import (
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// oldEnds is what one bundle of the transforms of 1995 is laid between.
type oldEnds struct {
	a, b   netip.Addr
	cipher string // of ESP
	octets int    // of its key
}

// oldPlan is ESP inside and AH with keyed MD5 around, for each of the ends, as both hosts
// see it.
func oldPlan(ends []oldEnds) (forA, forB string) {
	var sas, policies [2]strings.Builder
	noise := func(n int) string {
		b := make([]byte, n)
		_, _ = rand.Read(b)
		return fmt.Sprintf("0x%x", b)
	}
	allowed := "kpdkmd5"
	for i, e := range ends {
		allowed += ", " + e.cipher
		for way, back := range []bool{false, true} {
			src, dst := e.a, e.b
			if back {
				src, dst = dst, src
			}
			esp := fmt.Sprintf("protocol: esp, algorithm: %s, encryption_key: %s", e.cipher, noise(e.octets))
			ah := "protocol: ah, algorithm: kpdkmd5, integrity_key: " + noise(16)
			for host := range sas {
				direction := "out"
				if host != way {
					direction = "in"
				}
				for j, kind := range []string{esp, ah} {
					fmt.Fprintf(&sas[host], "  - {name: %c%d-%d, direction: %s, mode: transport, spi: %#x, source: %q, destination: %q, %s}\n",
						"ab"[way], i, j, direction, 0x1001+0x100*way+0x10*i, src, dst, kind)
				}
			}
		}
		for host := range policies {
			local, remote := e.a, e.b
			if host == 1 {
				local, remote = remote, local
			}
			out, in := "ab"[host], "ba"[host]
			fmt.Fprintf(&policies[host], "  - {name: p%d, local: %q, remote: %q, action: protect, out: [%c%d-0, %c%d-1], in: [%c%d-0, %c%d-1]}\n",
				i, local, remote, out, i, out, i, in, i, in, i)
		}
	}
	var text [2]string
	for host := range text {
		text[host] = "interface: eth0\nallow_insecure: [" + allowed + "]\nsecurity_associations:\n" + sas[host].String() + "policies:\n" + policies[host].String()
	}
	return text[0], text[1]
}

// TestR38_TransformsOf1995BetweenKernels moves files, pings and datagrams between two
// kernels by the original's ciphers within its keyed MD5, in both IP versions.
func TestR38_TransformsOf1995BetweenKernels(t *testing.T) {
	netlab.Require(t)
	for _, list := range [][]oldEnds{
		{{a4, b4, "desiv32", 8}, {a6, b6, "desctsiv64", 8}},
		{{a4, b4, "3desin112iv64", 16}, {a6, b6, "3des168iv64", 24}},
	} {
		t.Run(list[0].cipher+"-"+list[1].cipher, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			forA, forB := oldPlan(list)
			a, b := newBox(t, pair.A, forA), newBox(t, pair.B, forB)
			defer b.giveBack()
			defer a.giveBack()
			a.up()
			b.up()
			capture := pair.Wire.Capture(netlab.CaptureOptions{Watch: []netlab.Match{netlab.Containing([]byte(netlab.Marker))}, SnapLen: 128})
			for _, e := range list {
				ctx := deadline(t, 5*patience)
				if _, err := netlab.HTTPTransfer(ctx, pair.A, pair.B, e.a, 2<<20); err != nil {
					t.Error(err)
				}
				if _, err := netlab.HTTPTransfer(ctx, pair.B, pair.A, e.b, 2<<20); err != nil {
					t.Error(err)
				}
				pings(t, pair.A, e.b, netlab.PingOptions{Count: 50, Interval: time.Millisecond})
				pings(t, pair.B, e.a, netlab.PingOptions{Count: 5, Size: 4000})
				datagrams(t, pair, e.a, e.b)
			}
			counts, err := capture.Stop()
			if err != nil {
				t.Fatal(err)
			}
			if n := capture.Watched(0).Frames; n > 0 {
				t.Errorf("%d frames on the wire hold what the hosts said, in the clear", n)
			}
			if only := counts.Of(netlab.AH, netlab.ARP, netlab.ND); only != counts.Frames || counts.Of(netlab.AH) == 0 {
				t.Errorf("on the wire: %v; expected AH, ARP and ND alone", counts)
			}
			for _, x := range []*box{a, b} {
				s := x.status()
				if s.InsecureSAs != 8 {
					t.Errorf("%s: %d insecure SAs, want 8", x.host.Name(), s.InsecureSAs)
				}
				if odd := unexpected(s.Drops); len(odd) > 0 {
					t.Errorf("%s: drops %v\n%v", x.host.Name(), odd, s.DropsBySide)
				}
			}
		})
	}
}
