package transform

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"bitw/netstack/wire"
)

// Addresses of the tables below, in hexadecimal.
const (
	src4 = "c0000201"
	dst4 = "c6336407"
	hopA = "cb007101"
	hopB = "cb007102"
)

func addr6(last int) string { return fmt.Sprintf("20010db8%022x%02x", 0, last) }

// base6 is an IPv6 header whose mutable fields are mutable, and the same as it enters
// the ICV.
func base6(mutable, next string, dst int) string {
	return "6" + mutable[:7] + "0040" + next + mutable[7:] + addr6(1) + addr6(dst)
}

const sent6, hashed6 = "ab1234540", "000000000"

// RFC 4302 §3.3.3.1 and Appendix A: the header as it is sent, and as it enters the ICV.
func TestR37_AHMutableFields(t *testing.T) {
	for _, c := range []struct {
		name         string
		ipv6         bool
		sent, hashed string
	}{
		{"IPv4", false,
			"45b8003c 12346fff 4033abcd " + src4 + dst4,
			"4500003c 12340000 00330000 " + src4 + dst4},
		{"IPv4 octets behind the end of the list", false,
			"47b8003c 12344000 4033abcd " + src4 + dst4 + "01 00 0707 01020304",
			"4700003c 12340000 00330000 " + src4 + dst4 + "01 00 0707 01020304"},
		{"IPv4 router alert and CIPSO", false,
			"48b8003c 12344000 4033abcd " + src4 + dst4 + "94040000 01 8606 11223344 00",
			"4800003c 12340000 00330000 " + src4 + dst4 + "94040000 01 8606 11223344 00"},
		{"IPv4 security, extended security, multi-destination", false,
			"48b8003c 12344000 4033abcd " + src4 + dst4 + "8203aa 8503bb 950401cc 01 00",
			"4800003c 12340000 00330000 " + src4 + dst4 + "8203aa 8503bb 950401cc 01 00"},
		{"IPv4 record route, timestamp, unknown", false,
			"4bb8003c 12344000 4033abcd " + src4 + dst4 + "070b08 01020304 00000000 44080500 01020304 5e0411aa 00",
			"4b00003c 12340000 00330000 " + src4 + dst4 + "000000 00000000 00000000 00000000 00000000 00000000 00"},
		{"IPv4 loose source route with hops left", false,
			"48b8003c 12344000 4033abcd " + src4 + hopA + "830b04" + hopB + dst4 + "00",
			"4800003c 12340000 00330000 " + src4 + dst4 + "000000 00000000 00000000 00"},
		{"IPv4 strict source route at its last hop", false,
			"48b8003c 12344000 4033abcd " + src4 + hopB + "01 890b08" + hopA + dst4,
			"4800003c 12340000 00330000 " + src4 + dst4 + "01 000000 00000000 00000000"},
		{"IPv4 source route used up", false,
			"48b8003c 12344000 4033abcd " + src4 + dst4 + "830b0c" + hopA + hopB + "00",
			"4800003c 12340000 00330000 " + src4 + dst4 + "000000 00000000 00000000 00"},
		{"IPv6", true, base6(sent6, "33", 9), base6(hashed6, "33", 9)},
		{"IPv6 hop-by-hop: router alert, a mutable and an immutable option, Pad1 and PadN", true,
			base6(sent6, "00", 9) + "3302 05020000 3e04aabbccdd 1e03112233 00 0104 01020304",
			base6(hashed6, "00", 9) + "3302 05020000 3e0400000000 1e03112233 00 0104 01020304"},
		{"IPv6 destination options with 200 mutable octets", true,
			base6(sent6, "3c", 9) + "331a" + "3ec8" + strings.Repeat("ee", 200) + "010a" + strings.Repeat("00", 10),
			base6(hashed6, "3c", 9) + "331a" + "3ec8" + strings.Repeat("00", 200) + "010a" + strings.Repeat("00", 10)},
		{"IPv6 routing type 0, none visited", true,
			base6(sent6, "2b", 2) + "33060003 00000000" + addr6(3) + addr6(4) + addr6(5),
			base6(hashed6, "2b", 5) + "33060000 00000000" + addr6(2) + addr6(3) + addr6(4)},
		{"IPv6 routing type 0, one visited", true,
			base6(sent6, "2b", 3) + "33060002 00000000" + addr6(2) + addr6(4) + addr6(5),
			base6(hashed6, "2b", 5) + "33060000 00000000" + addr6(2) + addr6(3) + addr6(4)},
		{"IPv6 routing type 0 as it arrives", true,
			base6(sent6, "2b", 5) + "33060000 00000000" + addr6(2) + addr6(3) + addr6(4),
			base6(hashed6, "2b", 5) + "33060000 00000000" + addr6(2) + addr6(3) + addr6(4)},
		{"IPv6 routing type 2 behind hop-by-hop", true,
			base6(sent6, "00", 2) + "2b00 3e02aabb 0000" + "33020201 00000000" + addr6(3),
			base6(hashed6, "00", 3) + "2b00 3e020000 0000" + "33020200 00000000" + addr6(2)},
		{"IPv6 routing of another type is taken as it is", true,
			base6(sent6, "2b", 9) + "33020401 01020304" + addr6(3),
			base6(hashed6, "2b", 9) + "33020401 01020304" + addr6(3)},
		{"IPv6 mobility header is taken as it is", true,
			base6(sent6, "87", 9) + "3300010203040506", base6(hashed6, "87", 9) + "3300010203040506"},
	} {
		for _, a := range Algorithms() {
			if a.Protocol != ProtoAH {
				continue
			}
			for _, s := range []Sequence{{SPI: 0x01020304, Number: 0x05060708}, {SPI: 0x01020304, Number: 0x0a0b0c0d_05060708, ESN: true}} {
				key := pattern(a.IntegrityKeyLen, 3)
				x, err := a.New(nil, key, Options{IPv6: c.ipv6})
				if err != nil {
					t.Fatal(err)
				}
				p := unsealed(x, unhex(t, c.sent), []byte("payload"), 17)
				if r := x.Seal(p, s); r != wire.DropNone {
					t.Errorf("%s: %s: Seal: %v", c.name, a.Name, r)
					continue
				}
				fixed := append([]byte{17, byte(x.HeaderLen()/4 - 2), 0, 0}, header(s)...)
				signed := append(append(unhex(t, c.hashed), fixed...), make([]byte, x.HeaderLen()-12)...)
				signed = append(signed, "payload"...)
				if s.ESN {
					signed = append(signed, 0x0a, 0x0b, 0x0c, 0x0d)
				}
				want := fixed
				if a.IVLen > 0 { // RFC 4543 §4: the IV stands in the ICV field
					iv := binary.BigEndian.AppendUint64(nil, s.Number)
					want = append(append(want, iv...), referenceGMAC(t, key, iv, signed)...)
				} else {
					want = append(want, referenceMAC(t, a.Name, key, signed)[:a.ICVLen]...)
				}
				want = append(want, make([]byte, x.HeaderLen()-len(want))...)
				if got := p.Buf[p.Hdr:p.Pay]; !bytes.Equal(got, want) {
					t.Errorf("%s: %s: AH is\n%x, want\n%x", c.name, a.Name, got, want)
				}
				if !bytes.Equal(p.Buf[p.Net:p.Hdr], unhex(t, c.sent)) {
					t.Errorf("%s: %s: the IP header was changed", c.name, a.Name)
				}
				if r := x.Open(p, s); r != wire.DropNone {
					t.Errorf("%s: %s: Open: %v", c.name, a.Name, r)
				}
			}
		}
	}
}

// RFC 4302 §2.2, §2.6, §3.3.3.2.1, RFC 4543 §4: header lengths in octets.
func TestAHHeaderLen(t *testing.T) {
	for name, want := range map[string][2]int{"sha1": {24, 24}, "sha256": {28, 32}, "sha384": {36, 40}, "sha512": {44, 48},
		"aesxcbc": {24, 24}, "aescmac": {24, 24}, "aes128gmac": {36, 40}, "aes256gmac": {36, 40}} {
		for i, v6 := range []bool{false, true} {
			if got := mustNew(t, mustLookup(t, ProtoAH, name), Options{IPv6: v6}).HeaderLen(); got != want[i] {
				t.Errorf("%s, IPv6 %t: %d octets, want %d", name, v6, got, want[i])
			}
		}
	}
}

// The fields that routers change may change; any bit of the others may not.
func TestR39_AHHeaderBits(t *testing.T) {
	mutable := map[bool]map[int]byte{ // octet: mask of the bits that may change
		false: {1: 0xff, 6: 0xff, 7: 0xff, 8: 0xff, 10: 0xff, 11: 0xff},
		true:  {0: 0x0f, 1: 0xff, 2: 0xff, 3: 0xff, 7: 0xff},
	}
	for _, v6 := range []bool{false, true} {
		opt := Options{IPv6: v6}
		x := mustNew(t, mustLookup(t, ProtoAH, "sha256"), opt)
		s := Sequence{SPI: 3, Number: 4}
		p := sealed(t, x, opt, []byte("payload"), 17, s)
		for bit := range (p.Hdr - p.Net) * 8 {
			q := clone(p)
			q.Buf[q.Net+bit/8] ^= 1 << (bit % 8)
			want := wire.DropICV
			switch {
			case mutable[v6][bit/8]&(1<<(bit%8)) != 0:
				want = wire.DropNone
			case bit/8 == 0, v6 && bit/8 == 6: // version, header length, next header
				if r := x.Open(q, s); r != wire.DropBadLength && r != wire.DropICV {
					t.Errorf("IPv6 %t: bit %d of octet %d: %v", v6, bit%8, bit/8, r)
				}
				continue
			}
			if r := x.Open(q, s); r != want {
				t.Errorf("IPv6 %t: bit %d of octet %d: %v, want %v", v6, bit%8, bit/8, r, want)
			}
		}
	}
}

// ICV padding is covered by the ICV, whatever a peer puts there (RFC 4302 §3.3.3.2.1).
func TestR37_AHForeignPadding(t *testing.T) {
	opt := Options{IPv6: true}
	a := mustLookup(t, ProtoAH, "sha256")
	x := mustNew(t, a, opt)
	s := Sequence{SPI: 3, Number: 4}
	p := sealed(t, x, opt, []byte("payload"), 17, s)
	copy(p.Buf[p.Hdr+28:], "\xde\xad\xbe\xef")
	if r := x.Open(clone(p), s); r != wire.DropICV {
		t.Errorf("padding changed: %v, want %v", r, wire.DropICV)
	}
	h := hmac.New(sha256.New, pattern(a.IntegrityKeyLen, 2))
	ip := bytes.Clone(p.Buf[p.Net:p.Hdr])
	binary.BigEndian.PutUint32(ip, 0x60000000)
	ip[7] = 0
	h.Write(ip)
	h.Write(p.Buf[p.Hdr : p.Hdr+12])
	h.Write(make([]byte, 16))
	h.Write(p.Buf[p.Hdr+28 : p.End])
	copy(p.Buf[p.Hdr+12:], h.Sum(nil)[:16])
	if r := x.Open(p, s); r != wire.DropNone {
		t.Errorf("padding that is not zero: %v", r)
	}
}

// IP headers that AH cannot follow.
func TestR39_AHBadHeaders(t *testing.T) {
	for _, c := range []struct {
		name string
		ipv6 bool
		ip   string
	}{
		{"nothing", false, ""},
		{"IPv4 cut short", false, "45b8003c 12346fff 4033abcd " + src4},
		{"IPv6 where IPv4 is due", false, base6(sent6, "33", 9)},
		{"IPv4 header length smaller than the header", false, "45b8003c 12346fff 4033abcd " + src4 + dst4 + "01010101"},
		{"IPv4 header length larger than the header", false, "46b8003c 12346fff 4033abcd " + src4 + dst4},
		{"IPv4 option of length 0", false, "46b8003c 12346fff 4033abcd " + src4 + dst4 + "94000000"},
		{"IPv4 option of length 1", false, "46b8003c 12346fff 4033abcd " + src4 + dst4 + "94010000"},
		{"IPv4 option longer than the header", false, "46b8003c 12346fff 4033abcd " + src4 + dst4 + "94050000"},
		{"IPv4 option without length", false, "46b8003c 12346fff 4033abcd " + src4 + dst4 + "01010194"},
		{"nothing", true, ""},
		{"IPv4 where IPv6 is due", true, "45b8003c 12346fff 4033abcd " + src4 + dst4},
		{"IPv6 cut short", true, base6(sent6, "33", 9)[:70]},
		{"octets behind the last extension header", true, base6(sent6, "33", 9) + "3300000000000000"},
		{"extension header longer than there is", true, base6(sent6, "00", 9) + "3301000000000000"},
		{"half an extension header", true, base6(sent6, "00", 9) + "33000000"},
		{"fragment header", true, base6(sent6, "2c", 9) + "3300000000000000"},
		{"option longer than its header", true, base6(sent6, "00", 9) + "3300 3e05 00000000"},
		{"option without length", true, base6(sent6, "00", 9) + "3300 0103 000000 3e"},
		{"routing header with more segments than addresses", true, base6(sent6, "2b", 9) + "33020002 00000000" + addr6(3)},
		{"routing header with half an address", true, base6(sent6, "2b", 9) + "33010001 00000000 0000000000000000"},
	} {
		x := mustNew(t, mustLookup(t, ProtoAH, "sha256"), Options{IPv6: c.ipv6})
		s := Sequence{SPI: 3, Number: 4}
		p := unsealed(x, unhex(t, c.ip), []byte("payload"), 17)
		if r := x.Seal(clone(p), s); r != wire.DropBadLength {
			t.Errorf("%s: Seal: %v, want %v", c.name, r, wire.DropBadLength)
		}
		h := p.Buf[p.Hdr:]
		h[1] = byte(x.HeaderLen()/4 - 2)
		copy(h[4:], header(s))
		if r := x.Open(p, s); r != wire.DropBadLength {
			t.Errorf("%s: Open: %v, want %v", c.name, r, wire.DropBadLength)
		}
		p.Net = -1
		if r := x.Open(p, s); r != wire.DropBadLength {
			t.Errorf("%s, Net negative: %v, want %v", c.name, r, wire.DropBadLength)
		}
	}
}
