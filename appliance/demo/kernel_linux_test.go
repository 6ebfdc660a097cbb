package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The cut leaves no pins or locks, whether the demo ends well or is cancelled. The
// namespaces are held until it is known, for their numbers name the pins.
func TestKernelLeavesNoPins(t *testing.T) {
	needKernel(t)
	places := []string{"/sys/fs/bpf/bitw/%d-*", "/run/bitw/%d-*"}
	for _, cancelled := range []bool{false, true} {
		var numbers []uint64
		d := &run{
			o:      Options{Out: io.Discard, File: filepath.Join(t.TempDir(), "demo.pcapng"), Size: testSize},
			screen: newScreen(nil),
		}
		d.kernel = func() (network, error) {
			n, err := newKernelNetwork()
			if err != nil {
				return nil, err
			}
			for _, h := range n.(*kernelNetwork).hosts {
				fd, err := unix.FcntlInt(uintptr(h.Fd()), unix.F_DUPFD_CLOEXEC, 0)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = unix.Close(fd) })
				var st unix.Stat_t
				if err := unix.Fstat(fd, &st); err != nil {
					t.Fatal(err)
				}
				numbers = append(numbers, st.Ino)
				// A namespace that is gone had the number before.
				for _, place := range places {
					found, _ := filepath.Glob(fmt.Sprintf(place, st.Ino))
					for _, f := range found {
						if err := os.RemoveAll(f); err != nil {
							t.Fatal(err)
						}
					}
				}
			}
			return n, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		if cancelled {
			d.o.Size = 1 << 40
			time.AfterFunc(300*time.Millisecond, cancel)
		}
		_, err := d.run(ctx)
		cancel()
		if err != nil && !(cancelled && errors.Is(err, context.Canceled)) {
			t.Fatal(err)
		}
		if len(numbers) != 2 {
			t.Fatalf("%d namespaces, expected 2", len(numbers))
		}
		for _, number := range numbers {
			for _, place := range places {
				if found, _ := filepath.Glob(fmt.Sprintf(place, number)); found != nil {
					t.Errorf("cancelled %v: %v is left", cancelled, found)
				}
			}
		}
	}
}

// The capture of the wire sees what a host sends in the clear when nothing
// protects it, so that its silence means something.
func TestSnifferSeesClearText(t *testing.T) {
	needKernel(t)
	n, err := newKernelNetwork()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	}()
	for _, s := range steps(n, 10_000) {
		if _, _, err := s.run(t.Context()); err != nil {
			t.Errorf("%s without appliances: %v", s.name, err)
		}
	}
	if err := n.settle(); err != nil {
		t.Fatal(err)
	}
	if w := n.evidence().counts(); w.ESPPackets != 0 || w.ClearPackets == 0 || w.MarkedFrames == 0 || w.ForeignSources != 0 {
		t.Errorf("on the wire: %+v", w)
	}
}
