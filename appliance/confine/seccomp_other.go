//go:build linux && !amd64 && !arm64

package confine

import (
	"errors"
	"fmt"
	"runtime"
)

func installFilter() error {
	return fmt.Errorf("no table of system calls for %s: %w", runtime.GOARCH, errors.ErrUnsupported)
}
