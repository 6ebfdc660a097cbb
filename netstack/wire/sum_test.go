package wire

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// Every length, alignment and beginning gives what gVisor's sum gives, and writes
// nothing beside. All ones have the most carries.
func TestSum(t *testing.T) {
	random := make([]byte, 1600)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, memory := range [][]byte{random, bytes.Repeat([]byte{0xff}, 1600), make([]byte, 1600)} {
		for n := range 1500 {
			for _, at := range []int{0, 1, 2, 7, 33} {
				checkSum(t, memory[at:at+n], uint16(rand.Uint32()))
			}
		}
	}
	large := bytes.Repeat([]byte{0xff, 0xfe}, 1<<15)
	checkSum(t, large[:65535], 0xffff)
}

func checkSum(t *testing.T, b []byte, s uint16) {
	t.Helper()
	want := checksum.Checksum(b, s)
	if got := sumUp(b, s); got != want {
		t.Fatalf("sum of %d octets from %#x is %#x, expected %#x", len(b), s, got, want)
	}
	room := make([]byte, len(b)+2)
	room[0], room[len(b)+1] = 0xa5, 0x5a
	got := copySum(room[1:len(b)+1], b, s)
	if got != want || !bytes.Equal(room[1:len(b)+1], b) || room[0] != 0xa5 || room[len(b)+1] != 0x5a {
		t.Fatalf("copy and sum of %d octets from %#x is %#x, expected %#x, and nothing beside", len(b), s, got, want)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("0123456789012345678901234567890123456789"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, s uint16) { checkSum(t, b, s) })
}

// The sum of an IPv4 header is the general one; all zeros and all ones are the ends.
func TestSumIPv4(t *testing.T) {
	b := make([]byte, ipv4MinLen)
	for range 10000 {
		if got, want := sumIPv4(b), checksum.Checksum(b, 0); got != want {
			t.Fatalf("% x: %#x, expected %#x", b, got, want)
		}
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
	}
	b = bytes.Repeat([]byte{0xff}, ipv4MinLen)
	if got := sumIPv4(b); got != 0xffff {
		t.Errorf("all ones: %#x", got)
	}
}

// What a checksum costs beside a copy, for one segment.
func BenchmarkSum(b *testing.B) {
	src, dst := make([]byte, 1400), make([]byte, 1400)
	for _, c := range []struct {
		name string
		run  func() uint16
	}{
		{"copy", func() uint16 { copy(dst, src); return 0 }},
		{"gvisor", func() uint16 { return checksum.Checksum(src, 1) }},
		{"sum", func() uint16 { return sumUp(src, 1) }},
		{"copy,gvisor", func() uint16 { copy(dst, src); return checksum.Checksum(dst, 1) }},
		{"copySum", func() uint16 { return copySum(dst, src, 1) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(1400)
			for b.Loop() {
				c.run()
			}
		})
	}
}
