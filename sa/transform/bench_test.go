package transform

import (
	"fmt"
	"testing"

	"bitw/netstack/wire"
)

// benchmark runs f for every algorithm (AH for IPv4) and payload length.
func benchmark(b *testing.B, f func(b *testing.B, x Transform, p *Packet, s Sequence)) {
	for _, a := range Algorithms() {
		for _, n := range []int{64, 1400, 16384} {
			protocol := map[uint8]string{ProtoESP: "esp", ProtoAH: "ah"}[a.Protocol]
			b.Run(fmt.Sprintf("%s/%s/%d", protocol, a.Name, n), func(b *testing.B) {
				x := mustNew(b, a, Options{})
				p := unsealed(x, ipHeader(false, a.Protocol, n), pattern(n, 0), 6)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				f(b, x, p, Sequence{SPI: 1, Number: 1})
			})
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	benchmark(b, func(b *testing.B, x Transform, p *Packet, s Sequence) {
		q := new(Packet) // behind an interface it does not stay on the stack
		for b.Loop() {
			*q = *p
			s.Number++
			if r := x.Seal(q, s); r != wire.DropNone {
				b.Fatal(r)
			}
		}
	})
}

// BenchmarkOpen includes the copy that brings the sealed packet back.
func BenchmarkOpen(b *testing.B) {
	benchmark(b, func(b *testing.B, x Transform, p *Packet, s Sequence) {
		if r := x.Seal(p, s); r != wire.DropNone {
			b.Fatal(r)
		}
		work := clone(p)
		q := new(Packet)
		for b.Loop() {
			*q = *work
			copy(q.Buf, p.Buf)
			if r := x.Open(q, s); r != wire.DropNone {
				b.Fatal(r)
			}
		}
	})
}
