//go:build !linux

package demo

import "errors"

func cannotCut(error) bool { return false }

// newKernelNetwork exists on Linux only.
func newKernelNetwork() (network, error) {
	return nil, errors.New("network namespaces exist on Linux only")
}
