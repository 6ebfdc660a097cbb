package transform

import (
	"bytes"
	"testing"

	"bitw/netstack/wire"
)

// fuzzOpen feeds arbitrary octets to Open of the algorithms named. The header length
// is where the IP header ends in the input; Sequence is read from the packet, as the
// receiver does. Nothing may panic, write outside, or pass but what Seal would make.
func fuzzOpen(f *testing.F, protocol uint8, names ...string) {
	var xs []Transform
	for i, name := range names {
		a := mustLookup(f, protocol, name)
		for _, opt := range []Options{{}, {IPv6: true}} {
			x := mustNew(f, a, opt)
			xs = append(xs, x)
			for _, n := range []int{0, 5, 100} {
				p := sealed(f, x, opt, pattern(n, 7), 17, Sequence{SPI: 1, Number: 2})
				f.Add(p.Buf[p.Net:p.End], uint8(p.Hdr-p.Net), uint8(2*i), false)
				f.Add(p.Buf[p.Net:p.End-1], uint8(p.Hdr-p.Net), uint8(2*i+1), true)
			}
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, hdr, which uint8, esn bool) {
		x := xs[int(which)%len(xs)]
		p := &Packet{Buf: append(bytes.Clone(packet), 0xc5), Hdr: int(hdr), End: len(packet)}
		s := Sequence{SPI: 1, Number: 2, ESN: esn}
		r := x.Open(p, s)
		if p.Buf[len(packet)] != 0xc5 || int(hdr) <= len(packet) && !bytes.Equal(p.Buf[:hdr], packet[:hdr]) {
			t.Fatal("written outside the packet")
		}
		switch r {
		case wire.DropICV, wire.DropBadLength, wire.DropBadPadding:
		case wire.DropNone:
			if p.Pay != int(hdr)+x.HeaderLen() || p.End < p.Pay || p.End > len(packet) {
				t.Fatalf("opened to Pay %d, End %d of %d octets", p.Pay, p.End, len(packet))
			}
		default:
			t.Fatalf("reason %v", r)
		}
	})
}

func FuzzOpenGCM(f *testing.F)    { fuzzOpen(f, ProtoESP, "aes128gcm16", "aes256gcm12", "aes192gcm8") }
func FuzzOpenChaCha(f *testing.F) { fuzzOpen(f, ProtoESP, "chacha20poly1305") }
func FuzzOpenCBC(f *testing.F)    { fuzzOpen(f, ProtoESP, "aes128-sha1", "aes256-sha512") }
func FuzzOpenDES(f *testing.F)    { fuzzOpen(f, ProtoESP, "des-md5", "3des-sha1") }
func FuzzOpenCCM(f *testing.F)    { fuzzOpen(f, ProtoESP, "aes128ccm16", "aes256ccm12", "aes192ccm8") }
func FuzzOpenIIV(f *testing.F) {
	fuzzOpen(f, ProtoESP, "aes128gcm16iiv", "aes128ccm16iiv", "chacha20poly1305iiv")
}
func FuzzOpenCTR(f *testing.F)  { fuzzOpen(f, ProtoESP, "aes128ctr-sha256", "aes256ctr-aescmac") }
func FuzzOpenGMAC(f *testing.F) { fuzzOpen(f, ProtoESP, "aes128gmac", "aes256gmac") }
func FuzzOpenNull(f *testing.F) { fuzzOpen(f, ProtoESP, "null-sha256", "null-aesxcbc", "null-aescmac") }
func FuzzOpenAH(f *testing.F) {
	fuzzOpen(f, ProtoAH, "sha1", "sha256", "aesxcbc", "aescmac", "aes128gmac", "md5")
}
