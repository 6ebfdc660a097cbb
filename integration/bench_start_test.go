package integration

import (
	"bytes"
	"os/exec"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// readyWriter passes on what a process writes, and tells when it says that it is ready.
type readyWriter struct {
	netlab.Output
	once  sync.Once
	ready chan struct{}
}

func (w *readyWriter) Write(p []byte) (int, error) {
	n, err := w.Output.Write(p)
	if bytes.Contains(p, []byte("is cut and protected")) {
		w.once.Do(func() { close(w.ready) })
	}
	return n, err
}

// BenchmarkStart gives the medians of how long in milliseconds bitw up takes from its start until
// it says that the interface is cut and protected, bitw up --takeover until it says so in the
// place of the first, and the end by SIGTERM with --open-on-stop.
func BenchmarkStart(b *testing.B) {
	one := func(b *testing.B) *box {
		pair := netlab.New(b).Pair(netlab.PairOptions{})
		p := &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1000, a4, b4)}}
		return newBox(b, pair.A, p.yaml(true))
	}
	two := func(b *testing.B) *box {
		n := newBetween(b, netlab.DefaultA())
		p := &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1000, a4, b4)}}
		return n.box(b, p, "protected: [192.0.2.1]\n"+linkRoutes)
	}
	for _, c := range []struct {
		name string
		make func(*testing.B) *box
		args []string
	}{
		{"tcx", one, []string{"--hook", "tcx"}},
		{"clsact", one, []string{"--hook", "clsact"}},
		{"two", two, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			x := c.make(b)
			args := append([]string{"up", "--open-on-stop", "-c", x.file}, c.args...)
			timed := func(more ...string) (*netlab.Process, time.Duration) {
				out := &readyWriter{ready: make(chan struct{})}
				cmd := exec.Command(bitwPath(b), append(args, more...)...)
				cmd.Stdout, cmd.Stderr = out, out
				at := time.Now()
				proc, err := x.host.Start(cmd)
				if err != nil {
					b.Fatal(err)
				}
				select {
				case <-out.ready:
				case <-proc.Done():
					b.Fatalf("%v: %v\n%s", cmd.Args, proc.Wait(), out)
				}
				return proc, time.Since(at)
			}
			took := make(map[string][]time.Duration)
			for range b.N {
				first, up := timed()
				second, takeover := timed("--takeover")
				if err := first.Wait(); err != nil {
					b.Fatal(err)
				}
				at := time.Now()
				if err := second.Signal(syscall.SIGTERM); err != nil {
					b.Fatal(err)
				}
				if err := second.Wait(); err != nil {
					b.Fatal(err)
				}
				took["up-ms"] = append(took["up-ms"], up)
				took["takeover-ms"] = append(took["takeover-ms"], takeover)
				took["down-ms"] = append(took["down-ms"], time.Since(at))
			}
			b.ReportMetric(0, "ns/op")
			for unit, list := range took {
				slices.Sort(list)
				b.ReportMetric(float64(list[len(list)/2].Microseconds())/1000, unit)
			}
		})
	}
}
