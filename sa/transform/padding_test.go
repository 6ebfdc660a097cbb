package transform

import (
	"encoding/binary"
	"testing"

	"bitw/netstack/wire"
)

// sealedBody is what a sender with the right key makes of a body, which is payload,
// padding, pad length and next header, and need not be as RFC 4303 §2.4 wants it.
func sealedBody(x *esp, body []byte, s Sequence) *Packet {
	end := x.hdrLen + len(body)
	buf := make([]byte, end+x.icvLen)
	binary.BigEndian.PutUint32(buf, s.SPI)
	binary.BigEndian.PutUint32(buf[4:], uint32(s.Number))
	copy(buf[x.hdrLen:], body)
	x.suite.seal(new(scratch), buf, 0, x.hdrLen, end, s)
	return &Packet{Buf: buf, End: len(buf)}
}

// The ICV of each packet is right, and the padding decides, with every algorithm.
func TestRFC4303_2_4_BadPaddingUnderTheRightKey(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		if a.Protocol != ProtoESP {
			return
		}
		x := mustNew(t, a, opt).(*esp)
		// A body of n octets whose last pad+2 are a right trailer.
		body := func(n, pad int) []byte {
			b := pattern(n, 7)
			for i := range pad {
				b[n-2-pad+i] = byte(i + 1)
			}
			b[n-2], b[n-1] = byte(pad), 17
			return b
		}
		n := max(16, 2*x.block)
		long := (257 + x.block - 1) / x.block * x.block
		change := func(b []byte, at int, v byte) []byte { b[at] = v; return b }
		for _, c := range []struct {
			name   string
			body   []byte
			want   wire.DropReason
			octets int
		}{
			{"none", body(n, 0), wire.DropNone, n - 2},
			{"some", body(n, 5), wire.DropNone, n - 7},
			{"nothing but padding", body(n, n-2), wire.DropNone, 0},
			{"255 octets", body(long, 255), wire.DropNone, long - 257},
			{"its first octet", change(body(n, 5), n-7, 0), wire.DropBadPadding, 0},
			{"its last octet", change(body(n, 5), n-3, 4), wire.DropBadPadding, 0},
			{"one more than there is", change(body(n, 0), n-2, byte(n-1)), wire.DropBadPadding, 0},
			{"255 of fewer", change(body(n, 0), n-2, 255), wire.DropBadPadding, 0},
			{"one octet of 255", change(body(long, 255), long-130, 0), wire.DropBadPadding, 0},
		} {
			for _, s := range []Sequence{{SPI: 0x1001, Number: 5}, {SPI: 0x1001, Number: 0x300000005, ESN: true}} {
				p := sealedBody(x, c.body, s)
				if r := x.Open(p, s); r != c.want || r == wire.DropNone && (p.End-p.Pay != c.octets || p.NextHeader != 17) {
					t.Errorf("%s: %v with %d octets, want %v with %d", c.name, r, p.End-p.Pay, c.want, c.octets)
				}
			}
		}
		// Shorter than pad length and next header, or no multiple of the block: never opened.
		for _, n := range []int{0, x.block - 1, x.block + 1} {
			s := Sequence{SPI: 0x1001, Number: 5}
			p := &Packet{Buf: make([]byte, x.hdrLen+n+x.icvLen)}
			p.End = len(p.Buf)
			if r := x.Open(p, s); r != wire.DropBadLength {
				t.Errorf("a body of %d octets: %v, want %v", n, r, wire.DropBadLength)
			}
		}
	})
}
