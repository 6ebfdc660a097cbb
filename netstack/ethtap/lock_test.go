//go:build linux

package ethtap

import (
	"errors"
	"os"
	"testing"
	"time"
)

// TestR07_WhoHoldsItForAMomentIsWaitedFor: a guard or a recovery beside a service that is
// started again and again is not refused by chance, and who only asks does not wait.
func TestR07_WhoHoldsItForAMomentIsWaitedFor(t *testing.T) {
	if err := checkCapabilities(); err != nil {
		missing(t, "%v", err)
	}
	k := key{netns: 1, ifindex: os.Getpid()}
	first, err := takeLock(k, "eth0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(k, "eth0"); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice: %v", err)
	}
	if _, err := awaitLock(k, "eth0", 20*time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Errorf("taken twice, with patience: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, func() { _ = first.release() })
	second, err := awaitLock(k, "eth0", time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.release(); err != nil {
		t.Error(err)
	}
}
