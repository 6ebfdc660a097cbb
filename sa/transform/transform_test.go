package transform

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"bitw/netstack/wire"
)

var sequences = []Sequence{
	{SPI: 0x1001, Number: 1},
	{SPI: 0xfedcba98, Number: 0xffffffff},
	{SPI: 0x1001, Number: 7, ESN: true},
	{SPI: 0x1001, Number: 0x00000005_fffffffe, ESN: true},
}

// RFC 4303 §3.3, §3.4 and RFC 4302 §3.3, §3.4: what was sealed opens to the same, for
// every payload length around the block sizes, and nothing outside is touched.
func TestR37_RoundTrip(t *testing.T) {
	lengths := []int{255, 256, 1399, 1400, 9000, 16384, 65000}
	for n := range 65 {
		lengths = append(lengths, n)
	}
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		for _, s := range sequences {
			for _, n := range lengths {
				payload := pattern(n, byte(n))
				p := sealed(t, x, opt, payload, 17, s)
				trailer := x.TrailerLen(n)
				if want := p.Pay + n + trailer; p.End != want {
					t.Fatalf("%d octets: sealed to End %d, want %d", n, p.End, want)
				}
				if a.Protocol == ProtoESP && (p.End-p.Hdr)%4 != 0 {
					t.Fatalf("%d octets: packet of %d octets is not aligned to 4", n, p.End-p.Hdr)
				}
				if a.EncryptionKeyLen > 0 && n >= 16 && bytes.Contains(p.Buf, payload[:16]) {
					t.Fatalf("%d octets: payload is readable", n)
				}
				ip := ipHeader(opt.IPv6, a.Protocol, p.End-p.Hdr)
				pay := p.Pay
				q := clone(p)
				q.Pay, q.NextHeader = 0, 0
				if r := x.Open(q, s); r != wire.DropNone {
					t.Fatalf("%d octets: Open: %v", n, r)
				}
				if q.Pay != pay || !bytes.Equal(q.Buf[q.Pay:q.End], payload) || q.NextHeader != 17 {
					t.Fatalf("%d octets: opened to %d octets at %d, next header %d", n, q.End-q.Pay, q.Pay, q.NextHeader)
				}
				for _, b := range [][]byte{p.Buf, q.Buf} {
					for i, v := range b {
						outside := i < p.Net || i >= p.End
						if outside && v != canary {
							t.Fatalf("%d octets: octet %d outside the packet was written", n, i)
						}
					}
					if !bytes.Equal(b[p.Net:p.Hdr], ip) {
						t.Fatalf("%d octets: the IP header was changed", n)
					}
				}
			}
		}
	})
}

// A second SA with the same keys opens what the first sealed.
func TestR37_KeysAreCopied(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		enc, auth := pattern(a.EncryptionKeyLen, 1), pattern(a.IntegrityKeyLen, 2)
		x, err := a.New(enc, auth, opt)
		if err != nil {
			t.Fatal(err)
		}
		clear(enc)
		clear(auth)
		s := Sequence{SPI: 5, Number: 6}
		p := sealed(t, x, opt, []byte("keys are copied"), 6, s)
		if r := mustNew(t, a, opt).Open(p, s); r != wire.DropNone {
			t.Fatal(r)
		}
	})
}

// RFC 4303 §3.4.4, RFC 4302 §3.4.4: a single flipped bit anywhere drops the packet.
func TestR39_EveryBit(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		for _, s := range []Sequence{{SPI: 0x1001, Number: 9}, {SPI: 0x1001, Number: 0x300000009, ESN: true}} {
			p := sealed(t, x, opt, []byte("short packet"), 17, s)
			for bit := p.Hdr * 8; bit < p.End*8; bit++ {
				q := clone(p)
				q.Buf[bit/8] ^= 1 << (bit % 8)
				want := wire.DropICV
				if a.Protocol == ProtoAH && bit/8 == p.Hdr+1 {
					want = wire.DropBadLength // payload length
				}
				if r := x.Open(q, s); r != want {
					t.Fatalf("bit %d of octet %d flipped: %v, want %v", bit%8, bit/8-p.Hdr, r, want)
				}
				if n := len("short packet"); a.EncryptionKeyLen > 0 && bytes.Contains(q.Buf, []byte("short packet")[:n]) {
					t.Fatalf("octet %d flipped: plaintext is left behind", bit/8-p.Hdr)
				}
			}
		}
	})
}

// What a Sequence says takes part in the ICV.
func TestR39_OtherSequence(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		esn := Sequence{SPI: 0x1001, Number: 0x100000009, ESN: true}
		for name, c := range map[string]struct{ seal, open Sequence }{
			"other SPI":         {esn, Sequence{SPI: 0x1002, Number: 0x100000009, ESN: true}},
			"other low half":    {esn, Sequence{SPI: 0x1001, Number: 0x10000000a, ESN: true}},
			"other high half":   {esn, Sequence{SPI: 0x1001, Number: 0x200000009, ESN: true}},
			"ESN sealed only":   {esn, Sequence{SPI: 0x1001, Number: 0x100000009}},
			"ESN expected only": {Sequence{SPI: 0x1001, Number: 0x100000009}, esn},
		} {
			p := sealed(t, x, opt, []byte("sequence"), 17, c.seal)
			if r := x.Open(p, c.open); r != wire.DropICV {
				t.Errorf("%s: %v, want %v", name, r, wire.DropICV)
			}
		}
	})
}

func TestR39_WrongKey(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		s := Sequence{SPI: 1, Number: 1}
		p := sealed(t, mustNew(t, a, opt), opt, []byte("wrong key"), 17, s)
		enc, auth := pattern(a.EncryptionKeyLen, 1), pattern(a.IntegrityKeyLen, 2)
		if len(auth) > 0 {
			auth[len(auth)-1] ^= 1
		} else {
			enc[len(enc)-1] ^= 1 // the last octet of the salt
		}
		other, err := a.New(enc, auth, opt)
		if err != nil {
			t.Fatal(err)
		}
		if r := other.Open(p, s); r != wire.DropICV {
			t.Errorf("%v, want %v", r, wire.DropICV)
		}
	})
}

// A packet cut to any length is dropped, with a reason that says which check it failed.
func TestR39_Truncated(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		s := Sequence{SPI: 0x1001, Number: 9}
		p := sealed(t, x, opt, pattern(40, 0), 17, s)
		for n := p.End - p.Hdr - 1; n >= 0; n-- {
			q := clone(p)
			q.End = q.Hdr + n
			q.Buf = q.Buf[:q.End]
			want := wire.DropICV
			if body := n - x.HeaderLen() - a.ICVLen; a.Protocol == ProtoESP && (body < a.BlockLen || body%a.BlockLen != 0) ||
				a.Protocol == ProtoAH && n < x.HeaderLen() {
				want = wire.DropBadLength
			}
			if r := x.Open(q, s); r != want {
				t.Errorf("%d octets of %d: %v, want %v", n, p.End-p.Hdr, r, want)
			}
		}
	})
}

// Offsets that contradict each other are a length error, not a panic.
func TestR39_BadOffsets(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		s := Sequence{SPI: 0x1001, Number: 9}
		ip := ipHeader(opt.IPv6, a.Protocol, 100)
		for name, change := range map[string]func(*Packet){
			"Pay-Hdr too small": func(p *Packet) { p.Pay-- },
			"End before Pay":    func(p *Packet) { p.End = p.Pay - 1 },
			"End behind Buf":    func(p *Packet) { p.End = len(p.Buf) + 1 },
			"Hdr negative":      func(p *Packet) { p.Hdr, p.Pay = -1, -1+x.HeaderLen() },
			"no room":           func(p *Packet) { p.Buf = p.Buf[:p.End+x.TrailerLen(8)-1] },
			"empty":             func(p *Packet) { *p = Packet{} },
		} {
			p := unsealed(x, ip, pattern(8, 0), 17)
			change(p)
			if r := x.Seal(p, s); r != wire.DropBadLength {
				t.Errorf("Seal, %s: %v, want %v", name, r, wire.DropBadLength)
			}
		}
		good := sealed(t, x, opt, pattern(8, 0), 17, s)
		for name, change := range map[string]func(*Packet){
			"End behind Buf": func(p *Packet) { p.End = len(p.Buf) + 1 },
			"End before Hdr": func(p *Packet) { p.End = p.Hdr - 1 },
			"Hdr negative":   func(p *Packet) { p.Hdr = -1 },
			"empty":          func(p *Packet) { *p = Packet{} },
		} {
			p := clone(good)
			change(p)
			if r := x.Open(p, s); r != wire.DropBadLength {
				t.Errorf("Open, %s: %v, want %v", name, r, wire.DropBadLength)
			}
		}
	})
}

// MaxPayload is the inverse of the overhead.
func TestMaxPayload(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		for room := -5; room < 300; room++ {
			want := -1
			for n := 0; x.HeaderLen()+n+x.TrailerLen(n) <= room || n <= room; n++ {
				if x.HeaderLen()+n+x.TrailerLen(n) <= room {
					want = n
				}
			}
			if got := x.MaxPayload(room); got != want {
				t.Fatalf("MaxPayload(%d) = %d, want %d", room, got, want)
			}
		}
	})
}

// Many goroutines share one transform.
func TestConcurrent(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					s := Sequence{SPI: uint32(g), Number: uint64(i), ESN: g%2 == 0}
					payload := pattern(i*13, byte(g))
					p := unsealed(x, ipHeader(opt.IPv6, a.Protocol, 500), payload, 6)
					if r := x.Seal(p, s); r != wire.DropNone {
						t.Errorf("Seal: %v", r)
						return
					}
					if r := x.Open(p, s); r != wire.DropNone || !bytes.Equal(p.Buf[p.Pay:p.End], payload) {
						t.Errorf("Open: %v", r)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// Whatever the verb, no transform prints its keys.
func TestKeysAreHidden(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a Algorithm, opt Options) {
		x := mustNew(t, a, opt)
		protocol := map[uint8]string{ProtoESP: "esp", ProtoAH: "ah"}[a.Protocol]
		want := fmt.Sprintf("%s %s, keys (hidden)", protocol, a.Name)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, x); got != want {
				t.Errorf("%s prints %q, want %q", verb, got, want)
			}
		}
	})
}
