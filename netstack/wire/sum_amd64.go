package wire

import "golang.org/x/sys/cpu"

// vectorLen is how many octets sumVectors and copySumVectors take at once, and at least.
const vectorLen = 32

var haveVectors = cpu.X86.HasAVX2

// sumVectors returns a sum of the n octets at b, as addTail takes it; n is even, at least
// vectorLen, and below 2^31.
//
//go:noescape
func sumVectors(b *byte, n int) uint64

// prefetchLines has the processor fetch the lines of memory in which the n octets from b
// on lie.
//
//go:noescape
func prefetchLines(b *byte, n int)

// copySumVectors is sumVectors of src, and copies it to dst. Meanwhile the processor fetches
// from memory what lies so many octets ahead of src.
//
//go:noescape
func copySumVectors(dst, src *byte, n, ahead int) uint64
