package wire

import (
	"encoding/binary"
	"math/bits"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// sumUp adds b to the ones' complement sum s; b begins at an even octet of what is summed.
func sumUp(b []byte, s uint16) uint16 {
	if !haveVectors {
		return checksum.Checksum(b, s)
	}
	if len(b) < 4*vectorLen {
		return addTail(b, 0, s)
	}
	n := len(b) &^ 1
	return addTail(b[n:], sumVectors(&b[0], n), s)
}

// copySum copies src to dst, which is as long, in the pass that adds it to s. What a
// checksum needs of every octet hides behind what a copy needs.
func copySum(dst, src []byte, s uint16) uint16 { return copySumAhead(dst, src, s, 0) }

// copySumAhead is copySum, and what lies so many octets ahead of src is read soon.
func copySumAhead(dst, src []byte, s uint16, ahead int) uint16 {
	n := len(src) &^ 1
	if n < vectorLen || !haveVectors {
		copy(dst, src)
		return checksum.Checksum(src, s)
	}
	dst = dst[:len(src)]
	acc := copySumVectors(&dst[0], &src[0], n, ahead)
	if n < len(src) {
		dst[n] = src[n]
		acc += uint64(src[n])
	}
	return bits.ReverseBytes16(fold(acc + uint64(bits.ReverseBytes16(s))))
}

// prefetch is for memory that is read soon.
func prefetch(b []byte) {
	if len(b) > 0 {
		prefetchLines(&b[0], len(b))
	}
}

// sumIPv4 returns the sum of an IPv4 header without options, 0xffff if its checksum is
// right.
func sumIPv4(b []byte) uint16 {
	_ = b[ipv4MinLen-1]
	le := binary.LittleEndian
	acc := uint64(le.Uint32(b)) + uint64(le.Uint32(b[4:])) + uint64(le.Uint32(b[8:])) +
		uint64(le.Uint32(b[12:])) + uint64(le.Uint32(b[16:]))
	return bits.ReverseBytes16(fold(acc))
}

// fold makes one word of a sum of words of 32 bits.
func fold(acc uint64) uint16 {
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	acc = acc>>16 + acc&0xffff
	return uint16(acc)
}

// copyHeader copies a header of so many octets to dst.
func copyHeader(dst, src []byte) {
	const step = 16
	n := len(src)
	if n < step {
		copy(dst[:n], src)
		return
	}
	dst = dst[:n]
	for i := 0; i < n-step; i += step {
		*(*[step]byte)(dst[i:]) = *(*[step]byte)(src[i:])
	}
	*(*[step]byte)(dst[n-step:]) = *(*[step]byte)(src[n-step:])
}

// addTail adds b, which is short, and s to acc, a sum of words of 32 bits, or of 16, in the
// order of octets that amd64 has.
func addTail(b []byte, acc uint64, s uint16) uint16 {
	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		acc += x>>32 + x&0xffffffff
		b = b[8:]
	}
	if len(b) >= 4 {
		acc += uint64(binary.LittleEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		acc += uint64(binary.LittleEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		acc += uint64(b[0])
	}
	acc += uint64(bits.ReverseBytes16(s))
	return bits.ReverseBytes16(fold(acc))
}
