package legacy

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// pattern returns n octets that differ from their neighbours.
func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7) + seed
	}
	return b
}

func algorithms() []transform.Algorithm { return transform.NewRegistry(Families()...).Algorithms() }

func mustNew(tb testing.TB, a transform.Algorithm, opt transform.Options) transform.Transform {
	tb.Helper()
	x, err := a.New(pattern(a.EncryptionKeyLen, 1), pattern(a.IntegrityKeyLen, 2), opt)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

// A fixedIV is a chain whose packets all have one IV, of which the end is sent.
type fixedIV struct {
	chain
	iv []byte
}

func (f fixedIV) nextIV(iv []byte) { copy(iv[len(iv)-len(f.iv):], f.iv) }

// ipHeader returns an IP header for a packet with n octets behind it.
func ipHeader(ipv6 bool, protocol uint8, n int) []byte {
	if ipv6 {
		h := make([]byte, 40)
		binary.BigEndian.PutUint32(h, 0x6ab12345)
		binary.BigEndian.PutUint16(h[4:], uint16(n))
		h[6], h[7] = protocol, 61
		copy(h[8:], pattern(32, 0x20))
		return h
	}
	h := make([]byte, 20)
	h[0], h[1] = 0x45, 0xb8
	binary.BigEndian.PutUint16(h[2:], uint16(20+n))
	binary.BigEndian.PutUint32(h[4:], 0x12344000)
	h[8], h[9], h[10], h[11] = 61, protocol, 0xab, 0xcd
	copy(h[12:], []byte{192, 0, 2, 1, 198, 51, 100, 7})
	return h
}

const canary = 0xc5

// unsealed builds a packet with canaries all round where nobody may write.
func unsealed(x transform.Transform, ip, payload []byte, nextHeader uint8) *transform.Packet {
	const margin = 24
	p := &transform.Packet{Net: margin, Hdr: margin + len(ip), NextHeader: nextHeader}
	p.Pay = p.Hdr + x.HeaderLen()
	p.End = p.Pay + len(payload)
	p.Buf = bytes.Repeat([]byte{canary}, p.End+x.TrailerLen(len(payload))+margin)
	copy(p.Buf[p.Net:], ip)
	copy(p.Buf[p.Pay:], payload)
	return p
}

func sealed(tb testing.TB, x transform.Transform, opt transform.Options, payload []byte, nextHeader uint8, s transform.Sequence) *transform.Packet {
	tb.Helper()
	n := x.HeaderLen() + len(payload) + x.TrailerLen(len(payload))
	p := unsealed(x, ipHeader(opt.IPv6, x.Protocol(), n), payload, nextHeader)
	if r := x.Seal(p, s); r != wire.DropNone {
		tb.Fatalf("Seal: %v", r)
	}
	return p
}

func clone(p *transform.Packet) *transform.Packet {
	q := *p
	q.Buf = bytes.Clone(p.Buf)
	return &q
}

// eachAlgorithm runs f for every algorithm, and AH's for both IP versions.
func eachAlgorithm(t *testing.T, f func(t *testing.T, a transform.Algorithm, opt transform.Options)) {
	for _, a := range algorithms() {
		t.Run(a.Name, func(t *testing.T) { f(t, a, transform.Options{}) })
		if a.Protocol == transform.ProtoAH {
			t.Run(a.Name+"/ipv6", func(t *testing.T) { f(t, a, transform.Options{IPv6: true}) })
		}
	}
}
