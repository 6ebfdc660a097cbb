package legacy

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// What was sealed opens to the same, for every length around the blocks, and nothing
// outside is touched.
func TestR38_RoundTrip(t *testing.T) {
	lengths := []int{255, 256, 1399, 1400, 9000, 65000}
	for n := range 40 {
		lengths = append(lengths, n)
	}
	s := transform.Sequence{SPI: 0xfedcba98, Number: 5}
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		for _, n := range lengths {
			payload := pattern(n, byte(n))
			p := sealed(t, x, opt, payload, 17, s)
			if want := p.Pay + n + x.TrailerLen(n); p.End != want {
				t.Fatalf("%d octets: sealed to End %d, want %d", n, p.End, want)
			}
			if a.EncryptionKeyLen > 0 && n >= 16 && bytes.Contains(p.Buf, payload[:16]) {
				t.Fatalf("%d octets: payload is readable", n)
			}
			q := clone(p)
			q.Pay, q.NextHeader = 0, 0
			// The number is not in the packet, so that any will do.
			if r := x.Open(q, transform.Sequence{SPI: s.SPI, Number: 99}); r != wire.DropNone {
				t.Fatalf("%d octets: Open: %v", n, r)
			}
			if q.Pay != p.Pay || !bytes.Equal(q.Buf[q.Pay:q.End], payload) || q.NextHeader != 17 {
				t.Fatalf("%d octets: opened to %d octets at %d, next header %d", n, q.End-q.Pay, q.Pay, q.NextHeader)
			}
			if !bytes.Equal(q.Buf[q.Hdr:q.Pay], p.Buf[p.Hdr:p.Pay]) {
				t.Fatalf("%d octets: opening changed the header", n)
			}
			ip := ipHeader(opt.IPv6, a.Protocol, p.End-p.Hdr)
			for _, b := range [][]byte{p.Buf, q.Buf} {
				for i, v := range b {
					if (i < p.Net || i >= p.End) && v != canary {
						t.Fatalf("%d octets: octet %d outside the packet was written", n, i)
					}
				}
				if !bytes.Equal(b[p.Net:p.Hdr], ip) {
					t.Fatalf("%d octets: the IP header was changed", n)
				}
			}
		}
	})
}

// tcrypt does not expand: what it adds is SPI, IV and trailer.
func TestR38_StealingDoesNotExpand(t *testing.T) {
	for _, a := range tcryptFamily().Algorithms {
		x := mustNew(t, a, transform.Options{})
		for n := 6; n < 100; n++ {
			if got := x.HeaderLen() + x.TrailerLen(n); got != 4+a.IVLen+2 {
				t.Errorf("%s: %d octets grow by %d, want %d", a.Name, n, got, 4+a.IVLen+2)
			}
		}
	}
}

// RFC 1829 §2: an IV does not repeat while the key is in use.
func TestRFC1829_2_FreshIVs(t *testing.T) {
	for _, a := range algorithms() {
		if a.Protocol != transform.ProtoESP {
			continue
		}
		x := mustNew(t, a, transform.Options{})
		seen := make(map[string]bool)
		for range 100 {
			p := sealed(t, x, transform.Options{}, []byte("same"), 6, transform.Sequence{SPI: 0x1001, Number: 1})
			iv := string(p.Buf[p.Hdr+4 : p.Pay])
			if seen[iv] {
				t.Fatalf("%s: IV %x came twice", a.Name, iv)
			}
			seen[iv] = true
		}
	}
}

// RFC 1829 §2: what the padding holds is the sender's affair, how much there is not.
func TestRFC1829_2_Padding(t *testing.T) {
	s := transform.Sequence{SPI: 0x1001}
	for _, a := range algorithms() {
		if a.Protocol != transform.ProtoESP {
			continue
		}
		e := mustNew(t, a, transform.Options{}).(*esp)
		for _, c := range []struct {
			body string
			want wire.DropReason
			left int
		}{
			{"0102030405060606", wire.DropNone, 0},
			{"ffffffffffff0606", wire.DropNone, 0},
			{"0102030405060006", wire.DropNone, 6},
			{"0102030405060706", wire.DropBadPadding, 0},
			{"010203040506ff06", wire.DropBadPadding, 0},
			{"0102030405060708 0910111213141506", wire.DropBadPadding, 0},
		} {
			body := unhex(t, c.body)
			buf := append(append(unhex(t, "00001001"), make([]byte, e.ivLen)...), body...)
			pay := e.HeaderLen()
			iv := make([]byte, 8)
			e.widen(iv, 0)
			e.chain.encrypt(iv, buf[pay:])
			p := &transform.Packet{Buf: buf, End: len(buf)}
			if r := e.Open(p, s); r != c.want || r == wire.DropNone && p.End-p.Pay != c.left {
				t.Errorf("%s: %s: %v with %d octets, want %v with %d", a.Name, c.body, r, p.End-p.Pay, c.want, c.left)
			}
		}
	}
}

// The original passed a packet up whose MD5 was wrong; here it is dropped, whichever bit
// is.
func TestR38_RFC1828_MismatchIsDropped(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		x := mustNew(t, md5Family().Algorithms[0], transform.Options{IPv6: v6})
		s := transform.Sequence{SPI: 0x1001}
		p := sealed(t, x, transform.Options{IPv6: v6}, []byte("short packet"), 17, s)
		for bit := p.Hdr * 8; bit < p.End*8; bit++ {
			q := clone(p)
			q.Buf[bit/8] ^= 1 << (bit % 8)
			want := wire.DropICV
			if bit/8 == p.Hdr+1 {
				want = wire.DropBadLength
			}
			if r := x.Open(q, s); r != want {
				t.Fatalf("bit %d of octet %d flipped: %v, want %v", bit%8, bit/8-p.Hdr, r, want)
			}
		}
		other, err := md5Family().Algorithms[0].New(nil, pattern(16, 3), transform.Options{IPv6: v6})
		if err != nil {
			t.Fatal(err)
		}
		if r := other.Open(p, s); r != wire.DropICV {
			t.Errorf("another key: %v", r)
		}
	}
}

func TestR38_OtherSPI(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		p := sealed(t, x, opt, []byte("whose"), 17, transform.Sequence{SPI: 0x1001})
		if r := x.Open(p, transform.Sequence{SPI: 0x1002}); r != wire.DropICV {
			t.Errorf("%v, want %v", r, wire.DropICV)
		}
	})
}

// A packet cut to any length is dropped or, where nothing can tell, opened within its
// bounds.
func TestR38_Truncated(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		s := transform.Sequence{SPI: 0x1001}
		p := sealed(t, x, opt, pattern(40, 0), 17, s)
		for n := p.End - p.Hdr - 1; n >= 0; n-- {
			q := clone(p)
			q.End = q.Hdr + n
			q.Buf = q.Buf[:q.End]
			r := x.Open(q, s)
			body := n - x.HeaderLen()
			short := a.Protocol == transform.ProtoESP && (body < blockLen || body%a.BlockLen != 0) || body < 0
			switch {
			case short && r != wire.DropBadLength:
				t.Errorf("%d octets: %v, want %v", n, r, wire.DropBadLength)
			case !short && a.Protocol == transform.ProtoAH && r != wire.DropICV:
				t.Errorf("%d octets: %v, want %v", n, r, wire.DropICV)
			case r == wire.DropNone && (q.Pay > q.End || q.End > len(q.Buf)):
				t.Errorf("%d octets: opened to %d to %d", n, q.Pay, q.End)
			}
		}
	})
}

func TestR38_BadOffsets(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		s := transform.Sequence{SPI: 0x1001}
		ip := ipHeader(opt.IPv6, a.Protocol, 100)
		for name, change := range map[string]func(*transform.Packet){
			"Pay-Hdr too small": func(p *transform.Packet) { p.Pay-- },
			"End before Pay":    func(p *transform.Packet) { p.End = p.Pay - 1 },
			"End behind Buf":    func(p *transform.Packet) { p.End = len(p.Buf) + 1 },
			"Hdr negative":      func(p *transform.Packet) { p.Hdr, p.Pay = -1, -1+x.HeaderLen() },
			"no room":           func(p *transform.Packet) { p.Buf = p.Buf[:p.End+x.TrailerLen(8)-1] },
			"empty":             func(p *transform.Packet) { *p = transform.Packet{} },
		} {
			p := unsealed(x, ip, pattern(8, 0), 17)
			change(p)
			if r := x.Seal(p, s); r != wire.DropBadLength {
				t.Errorf("Seal, %s: %v, want %v", name, r, wire.DropBadLength)
			}
		}
		good := sealed(t, x, opt, pattern(8, 0), 17, s)
		for name, change := range map[string]func(*transform.Packet){
			"End behind Buf": func(p *transform.Packet) { p.End = len(p.Buf) + 1 },
			"End before Hdr": func(p *transform.Packet) { p.End = p.Hdr - 1 },
			"Hdr negative":   func(p *transform.Packet) { p.Hdr = -1 },
			"empty":          func(p *transform.Packet) { *p = transform.Packet{} },
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
func TestR38_MaxPayload(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		for room := -5; room < 200; room++ {
			want := -1
			for n := 0; n <= room; n++ {
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

func TestR38_Concurrent(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		x := mustNew(t, a, opt)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					s := transform.Sequence{SPI: uint32(g)}
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
func TestR38_KeysAreHidden(t *testing.T) {
	eachAlgorithm(t, func(t *testing.T, a transform.Algorithm, opt transform.Options) {
		protocol := map[uint8]string{transform.ProtoESP: "esp", transform.ProtoAH: "ah"}[a.Protocol]
		want := fmt.Sprintf("%s %s, keys (hidden)", protocol, a.Name)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			if got := fmt.Sprintf(verb, mustNew(t, a, opt)); got != want {
				t.Errorf("%s prints %q, want %q", verb, got, want)
			}
		}
	})
}

// All say that they are weak and must be allowed, have no sequence numbers, and refuse
// keys of other lengths.
func TestR38_Algorithms(t *testing.T) {
	modern := make(map[string]bool)
	for _, a := range transform.Algorithms() {
		modern[a.Name] = true
	}
	for _, a := range algorithms() {
		if a.Weak == "" || !a.NoSequence || len(a.Insecure) != 1 || a.Insecure[0] != a.Name || modern[a.Name] {
			t.Errorf("%+v", a)
		}
		for _, c := range []struct{ enc, auth int }{{a.EncryptionKeyLen + 1, a.IntegrityKeyLen}, {a.EncryptionKeyLen, a.IntegrityKeyLen + 1}, {}} {
			if _, err := a.New(pattern(c.enc, 1), pattern(c.auth, 1), transform.Options{}); !errors.Is(err, transform.ErrKeyLength) {
				t.Errorf("%s with keys of %d and %d octets: %v", a.Name, c.enc, c.auth, err)
			}
		}
		if a.EncryptionKeyLen == 0 {
			continue
		}
		if _, err := a.New(bytes.Repeat([]byte{1}, a.EncryptionKeyLen), nil, transform.Options{}); err == nil || !strings.Contains(err.Error(), "weak DES key") {
			t.Errorf("%s with a weak key: %v", a.Name, err)
		}
	}
}

// Every transform of the original's list can be had, with the options that it set.
func TestR38_PlugIns(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []string
		first   string
		n       int
	}{
		{"md5", []string{"useipsec", "leafmode", "rfc1828"}, "kpdkmd5", 1},
		{"md5", nil, "md5", 1},
		{"crypt", []string{"useipsec"}, "desiv32", 2},
		{"tcrypt", []string{"useipsec"}, "desctsiv32", 2},
		{"crypt3", nil, "3des112iv64", 2},
		{"crypt3in", nil, "3desin112iv64", 2},
	} {
		p, err := NewPlugIn(c.name, c.options...)
		if err != nil || p.Name != c.name || len(p.Algorithms) != c.n || p.Algorithms[0].Name != c.first {
			t.Errorf("%s: %v, %+v", c.name, err, p)
		}
	}
	if _, err := NewPlugIn("crypt4"); !errors.Is(err, ErrUnknownPlugIn) || !strings.Contains(err.Error(), "known are md5, crypt, crypt3, crypt3in, tcrypt") {
		t.Error(err)
	}
	if _, err := NewPlugIn("crypt", "leafmode"); !errors.Is(err, ErrUnknownOption) || !strings.Contains(err.Error(), "known are useipsec") {
		t.Error(err)
	}
	if _, err := NewPlugIn("crypt3", "useipsec"); !errors.Is(err, ErrUnknownOption) || !strings.Contains(err.Error(), "it has none") {
		t.Error(err)
	}
}

// The list of the original's rfc1825, without the two key managers at its head: one
// plug-in in several slots, and a key's length telling crypt3's variants apart.
func TestR36_SlotsOfTheOriginal(t *testing.T) {
	var list []transform.PlugIn
	for _, name := range []string{"md5", "md5", "crypt", "crypt3", "tcrypt", "md5", "crypt3in"} {
		p, err := NewPlugIn(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	table, err := transform.NewTable(list...)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.Numbers("md5"); fmt.Sprint(got) != "[0 1 5]" || table.Len() != 7 {
		t.Errorf("md5 stands in %v of %d", got, table.Len())
	}
	p, ok := table.Slot(3)
	if !ok || p.Name != "crypt3" {
		t.Fatalf("slot 3 is %+v", p)
	}
	for octets, want := range map[int]string{16: "3des112iv64", 24: "3des168iv64"} {
		if a, err := p.Algorithm(octets, 0); err != nil || a.Name != want {
			t.Errorf("a key of %d octets: %q, %v", octets, a.Name, err)
		}
	}
	if _, err := p.Algorithm(8, 0); !errors.Is(err, transform.ErrKeyLength) {
		t.Errorf("a key of 8 octets: %v", err)
	}
}
