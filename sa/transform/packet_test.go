package transform

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"bitw/netstack/wire"
)

// unhex takes hexadecimal with white space between.
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

// mustLookup and mustNew make a transform with keys that follow a pattern.
func mustLookup(tb testing.TB, protocol uint8, name string) Algorithm {
	tb.Helper()
	a, err := Lookup(protocol, name)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func mustNew(tb testing.TB, a Algorithm, opt Options) Transform {
	tb.Helper()
	x, err := a.New(pattern(a.EncryptionKeyLen, 1), pattern(a.IntegrityKeyLen, 2), opt)
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

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

// unsealed builds a packet with the given IP header and payload, and canaries all
// round where nobody may write.
func unsealed(x Transform, ip, payload []byte, nextHeader uint8) *Packet {
	const margin = 24
	p := &Packet{Net: margin, Hdr: margin + len(ip), NextHeader: nextHeader}
	p.Pay = p.Hdr + x.HeaderLen()
	p.End = p.Pay + len(payload)
	p.Buf = bytes.Repeat([]byte{canary}, p.End+x.TrailerLen(len(payload))+margin)
	copy(p.Buf[p.Net:], ip)
	copy(p.Buf[p.Pay:], payload)
	return p
}

// sealed builds a packet and seals it.
func sealed(tb testing.TB, x Transform, opt Options, payload []byte, nextHeader uint8, s Sequence) *Packet {
	tb.Helper()
	n := x.HeaderLen() + len(payload) + x.TrailerLen(len(payload))
	p := unsealed(x, ipHeader(opt.IPv6, x.Protocol(), n), payload, nextHeader)
	if r := x.Seal(p, s); r != wire.DropNone {
		tb.Fatalf("Seal: %v", r)
	}
	return p
}

// clone copies a packet with its buffer.
func clone(p *Packet) *Packet {
	q := *p
	q.Buf = bytes.Clone(p.Buf)
	return &q
}

// eachAlgorithm runs f for every algorithm, and AH's for both IP versions.
func eachAlgorithm(t *testing.T, f func(t *testing.T, a Algorithm, opt Options)) {
	for _, a := range Algorithms() {
		if a.Protocol == ProtoESP {
			t.Run("esp/"+a.Name, func(t *testing.T) { f(t, a, Options{}) })
			continue
		}
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("ah/%s/ipv6=%t", a.Name, v6), func(t *testing.T) { f(t, a, Options{IPv6: v6}) })
		}
	}
}
