package integration

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// learned is the path MTU that a kernel knows, 0 when none.
func learned(t testing.TB, h *netlab.Host, to netip.Addr) int {
	t.Helper()
	out, err := h.Run(deadline(t, patience), "ip", "route", "get", to.String())
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(out)
	if i := slices.Index(f, "mtu"); i >= 0 && i+1 < len(f) {
		n, _ := strconv.Atoi(f[i+1])
		return n
	}
	return 0
}

// TestR29_PathMTU has a host send what does not fit any more once it is protected.
func TestR29_PathMTU(t *testing.T) {
	for _, test := range []struct {
		mode, algorithm string
		six             bool
		mtu             int // 1500, less ESP's overhead (RFC 4303 §2), of the host's packet
	}{
		// IP header, ESP header 8, IV 8, trailer 2, ICV 16; padded to 4 octets.
		{"transport", "aes128gcm16", false, 20 + (1500-20-8-8-16)/4*4 - 2},
		{"transport", "aes128gcm16", true, 40 + (1500-40-8-8-16)/4*4 - 2},
		{"tunnel", "chacha20poly1305", false, (1500-20-8-8-16)/4*4 - 2},
		{"tunnel", "chacha20poly1305", true, (1500-40-8-8-16)/4*4 - 2},
		// IV 16, padded to 16 octets.
		{"transport", "aes256-sha256", false, 20 + (1500-20-8-16-16)/16*16 - 2},
		{"tunnel", "aes256-sha256", true, (1500-40-8-16-16)/16*16 - 2},
	} {
		from, to, header := a4, b4, 28
		if test.six {
			from, to, header = a6, b6, 48
		}
		t.Run(test.mode+"-"+test.algorithm+"-"+strconv.Itoa(test.mtu), func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			a, b := boxes(t, pair, &plan{flows: []*flow{newFlow("f", test.mode, test.algorithm, 0x1001, from, to)}})
			defer b.giveBack()
			defer a.giveBack()
			c := watchClear(pair, 0)
			// A connection that begins without knowledge of the path must not stall.
			if _, err := netlab.HTTPTransfer(deadline(t, patience), pair.A, pair.B, from, 2<<20); err != nil {
				t.Error(err)
			}
			spoken(t, pair.A, pair.B)
			forgetPathMTUs(t, pair.A)

			ping := func(size int, timeout time.Duration) netlab.PingResult {
				t.Helper()
				r, err := netlab.Ping(deadline(t, patience), pair.A, to, netlab.PingOptions{Size: size - header, DontFragment: true, Timeout: timeout})
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			before := a.status()
			if r := ping(1500, 300*time.Millisecond); r.Received != 0 || r.Lost != 1 {
				t.Errorf("a ping of 1500 octets: %v; expected it lost, and the host told", r)
			}
			eventually(t, "the host is told", func() bool { return learned(t, pair.A, to) != 0 })
			if got := learned(t, pair.A, to); got != test.mtu {
				t.Errorf("the host learned a path MTU of %d; expected %d", got, test.mtu)
			}
			if d := a.drops(before); d["too_big"] != 1 {
				t.Errorf("drops %v; expected one for too_big", d)
			}
			if r := ping(test.mtu+1, 0); r.TooBig != 1 {
				t.Errorf("a ping of %d octets: %v; expected that the kernel refuses it", test.mtu+1, r)
			}
			if r := ping(test.mtu, 0); r.Received != 1 {
				t.Errorf("a ping of %d octets: %v; expected an answer", test.mtu, r)
			}
			allESP(t, c)
			for _, f := range c.Find(netlab.OfClass(netlab.ESP)) {
				// With offloads frames may be longer; ESP never is.
				if f.Length > 14+1500 {
					t.Errorf("a frame of %d octets on the wire", f.Length)
					break
				}
			}
		})
	}
}
