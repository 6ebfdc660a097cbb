package legacy

import (
	"bytes"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// FuzzOpen feeds arbitrary octets to Open of every algorithm. Nothing may panic, write
// outside of the packet, or open to something outside.
func FuzzOpen(f *testing.F) {
	var xs []transform.Transform
	for _, a := range algorithms() {
		for _, opt := range []transform.Options{{}, {IPv6: true}} {
			x := mustNew(f, a, opt)
			for _, n := range []int{0, 5, 100} {
				p := sealed(f, x, opt, pattern(n, 7), 17, transform.Sequence{SPI: 1})
				f.Add(p.Buf[p.Net:p.End], uint8(p.Hdr-p.Net), uint8(len(xs)))
				f.Add(p.Buf[p.Net:p.End-1], uint8(p.Hdr-p.Net), uint8(len(xs)))
			}
			xs = append(xs, x)
		}
	}
	f.Fuzz(func(t *testing.T, packet []byte, hdr, which uint8) {
		x := xs[int(which)%len(xs)]
		p := &transform.Packet{Buf: append(bytes.Clone(packet), canary), Hdr: int(hdr), End: len(packet)}
		r := x.Open(p, transform.Sequence{SPI: 1})
		if p.Buf[len(packet)] != canary || int(hdr) <= len(packet) && !bytes.Equal(p.Buf[:hdr], packet[:hdr]) {
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
