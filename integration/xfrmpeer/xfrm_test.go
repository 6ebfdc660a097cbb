package xfrmpeer_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"bitw/integration/xfrmpeer"
)

func TestStateCommand(t *testing.T) {
	a4, b4 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	ah := func(src, dst netip.Addr, auth *xfrmpeer.Algorithm) xfrmpeer.State {
		return xfrmpeer.State{Src: src, Dst: dst, Proto: "ah", SPI: 256, Mode: xfrmpeer.Transport, Auth: auth}
	}
	gcm := xfrmpeer.State{Src: a4, Dst: b4, Proto: "esp", SPI: 4096, ReqID: 7, Mode: xfrmpeer.Tunnel, AEAD: xfrmpeer.AESGCM([]byte{1, 2}, 128)}
	with := func(change func(*xfrmpeer.State)) xfrmpeer.State {
		s := gcm
		change(&s)
		return s
	}
	for _, test := range []struct {
		name  string
		state xfrmpeer.State
		want  string // "" is an error
	}{
		{"GCM", gcm, "ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 aead 'rfc4106(gcm(aes))' 0x0102 128"},
		{"cross family, ESN", with(func(s *xfrmpeer.State) { s.CrossFamily, s.ESN = true, true }),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 flag esn flag af-unspec aead 'rfc4106(gcm(aes))' 0x0102 128"},
		{"NULL with HMAC", with(func(s *xfrmpeer.State) {
			s.AEAD, s.Enc, s.Auth = nil, xfrmpeer.NullCipher(), xfrmpeer.HMACSHA1([]byte{3})
		}),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 enc 'ecb(cipher_null)' '' auth-trunc 'hmac(sha1)' 0x03 96"},
		{"CCM", with(func(s *xfrmpeer.State) { s.AEAD = xfrmpeer.AESCCM([]byte{1, 2}, 96) }),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 aead 'rfc4309(ccm(aes))' 0x0102 96"},
		{"GMAC", with(func(s *xfrmpeer.State) { s.AEAD = xfrmpeer.AESGMAC([]byte{1, 2}) }),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 aead 'rfc4543(gcm(aes))' 0x0102 128"},
		{"CTR with XCBC", with(func(s *xfrmpeer.State) {
			s.AEAD, s.Enc, s.Auth = nil, xfrmpeer.AESCTR([]byte{1, 2}), xfrmpeer.AESXCBC([]byte{3})
		}),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1000 mode tunnel reqid 7 replay-window 64 enc 'rfc3686(ctr(aes))' 0x0102 auth-trunc 'xcbc(aes)' 0x03 96"},
		{"AH with CMAC", ah(a4, b4, xfrmpeer.AESCMAC([]byte{1})),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x100 mode transport replay-window 64 auth-trunc 'cmac(aes)' 0x01 96"},
		{"AH over IPv4", ah(a4, b4, xfrmpeer.HMACSHA256([]byte{1})),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x100 mode transport replay-window 64 flag align4 auth-trunc 'hmac(sha256)' 0x01 128"},
		{"AH over IPv4, 96 bits", ah(a4, b4, xfrmpeer.HMACSHA1([]byte{1})),
			"ip xfrm state add src 192.0.2.1 dst 192.0.2.2 proto ah spi 0x100 mode transport replay-window 64 auth-trunc 'hmac(sha1)' 0x01 96"},
		{"AH over IPv6", ah(a6, b6, xfrmpeer.HMACSHA256([]byte{1})),
			"ip xfrm state add src 2001:db8::1 dst 2001:db8::2 proto ah spi 0x100 mode transport replay-window 64 auth-trunc 'hmac(sha256)' 0x01 128"},
		{"two IP versions", with(func(s *xfrmpeer.State) { s.Dst = b6 }), ""},
		{"no algorithm", with(func(s *xfrmpeer.State) { s.AEAD = nil }), ""},
		{"no mode", with(func(s *xfrmpeer.State) { s.Mode = "" }), ""},
		{"AH with a cipher", with(func(s *xfrmpeer.State) { s.Proto = "ah" }), ""},
	} {
		got, err := test.state.Command()
		if got != test.want || (err == nil) != (test.want != "") {
			t.Errorf("%s: %q, %v\nwant %q", test.name, got, err, test.want)
		}
	}
}

func TestPolicyExemptsNeighbourDiscovery(t *testing.T) {
	p := xfrmpeer.Policy{
		Dir: "out", Src: netip.MustParsePrefix("2001:db8::1/128"), Dst: netip.MustParsePrefix("2001:db8::2/128"),
		Templates: []xfrmpeer.Template{{Proto: "esp", Mode: xfrmpeer.Transport, ReqID: 1}},
	}
	got, err := p.Commands()
	want := []string{
		"ip xfrm policy add src 2001:db8::1/128 dst 2001:db8::2/128 dir out priority 1000 tmpl proto esp mode transport reqid 1",
		"ip xfrm policy add src 2001:db8::1/128 dst 2001:db8::2/128 proto 58 type 135 dir out priority 999 action allow",
		"ip xfrm policy add src 2001:db8::1/128 dst 2001:db8::2/128 proto 58 type 136 dir out priority 999 action allow",
	}
	for i := range got {
		got[i] = strings.Join(strings.Fields(got[i]), " ")
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	p.Block = true
	if _, err := p.Commands(); err == nil {
		t.Error("a policy that blocks and has templates is taken")
	}
}
