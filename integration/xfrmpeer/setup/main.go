// Command setup prepares the test peer of package xfrmpeer ahead of the tests,
// so that its download is not part of a test's time:
//
//	go run ./integration/xfrmpeer/setup
//
// It does nothing when the peer has been prepared before.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"bitw/integration/xfrmpeer"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := xfrmpeer.Setup(ctx, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}
