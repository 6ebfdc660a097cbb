package wire

import "golang.org/x/sys/cpu"

// vectorLen is how many octets sumVectors and copySumVectors take at once.
const vectorLen = 32

var haveVectors = cpu.X86.HasAVX2

// sumVectors returns the sum of the n/4 words of 32 bits at b; n is a multiple of
// vectorLen, below 2^31.
//
//go:noescape
func sumVectors(b *byte, n int) uint64

// prefetchLines has the processor fetch the lines of memory in which the n octets from b
// on lie.
//
//go:noescape
func prefetchLines(b *byte, n int)

// copySumVectors is sumVectors of src, and copies it to dst.
//
//go:noescape
func copySumVectors(dst, src *byte, n int) uint64
