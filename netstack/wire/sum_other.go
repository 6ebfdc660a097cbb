//go:build !amd64

package wire

const (
	vectorLen   = 32
	haveVectors = false
)

func prefetchLines(*byte, int)                   {}
func sumVectors(*byte, int) uint64               { panic("unreachable") }
func copySumVectors(_, _ *byte, _, _ int) uint64 { panic("unreachable") }
