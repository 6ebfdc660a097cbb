package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bitw/appliance"
)

// missing skips a test for want of something, or fails it where nothing may be wanting.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("BITW_REQUIRE") == "all" {
		t.Fatalf("this test needs %s; BITW_REQUIRE=all makes that a failure", what)
	}
	t.Skipf("this test needs %s", what)
}

// Both wires, with everything gone at the end.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	for _, wire := range Wires() {
		t.Run(wire, func(t *testing.T) {
			before := traces(t)
			cpus, measuring := runtime.GOMAXPROCS(0), 0
			r := measured(t, Options{Wire: wire, Err: writerFunc(func(text []byte) {
				if strings.Contains(string(text), "between kernels: ") {
					measuring = runtime.GOMAXPROCS(0)
				}
			})})
			if !r.Kernel.Measured {
				missing(t, "what the bench needs: "+r.Kernel.Why)
			}
			// Else whatever else runs here waits for readers that wait.
			if now := runtime.GOMAXPROCS(0); measuring != cpus+6*appliance.Readers || now != cpus || r.Machine.CPUs != cpus {
				t.Errorf("measured with %d processors, then %d, told as %d, of %d", measuring, now, r.Machine.CPUs, cpus)
			}
			if r.Kernel.Why != "" || r.Kernel.Wire != wire {
				t.Errorf("kernel: %+v", r.Kernel)
			}
			got, list := ratios(r), names(r)
			for _, what := range []string{"tcp-ab", "tcp-ba", "udp-64", "udp-1400", "rtt-p50", "rtt-p99", "rtt-tcp-p50", "rtt-tcp-p99"} {
				plain := "kernel/plain/" + what
				if !slices.Contains(list, plain) || got[plain] != "" {
					t.Errorf("%s is not there, or compared to %q", plain, got[plain])
				}
				for _, name := range []string{"kernel/bypass/" + what, "kernel/protected/" + what, "kernel/encap/" + what} {
					// There is none where no rate was found.
					if !slices.Contains(list, name) || got[name] != plain && !strings.Contains(what, "udp") {
						t.Errorf("%s is not there, or compared to %q", name, got[name])
					}
				}
			}
			if table := r.Table(); !strings.Contains(table, "kernel/protected/tcp-ab") || !strings.Contains(table, "share the same") {
				t.Errorf("the table is\n%s", table)
			}
			// A thread ends a moment after what it was for.
			left := more(before, traces(t))
			for end := time.Now().Add(30 * time.Second); len(left) > 0 && time.Now().Before(end); left = more(before, traces(t)) {
				time.Sleep(10 * time.Millisecond)
			}
			if len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

type writerFunc func(text []byte)

func (f writerFunc) Write(text []byte) (int, error) {
	f(text)
	return len(text), nil
}

// more is what there is more of after than before.
func more(before, after map[string]int) map[string]int {
	left := make(map[string]int)
	for what, n := range after {
		if n > before[what] {
			left[what] = n - before[what]
		}
	}
	return left
}

// traces counts what a cut leaves behind while it lasts, of this process's namespaces,
// and the descriptors of namespaces.
func traces(t *testing.T) map[string]int {
	t.Helper()
	count := make(map[string]int)
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name()))
		if err != nil {
			continue // that of the directory
		}
		for _, kind := range []string{"net:[", "/dev/net/tun", "bpf", "socket:["} {
			if strings.Contains(to, kind) {
				count[kind]++
			}
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	own, _ := os.Readlink("/proc/self/ns/net")
	for _, task := range tasks {
		if at, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && at != own {
			count["threads elsewhere"]++
		}
	}
	return count
}

// The cut leaves no pins or locks. The namespaces are held until it is known, for their
// numbers name the pins.
func TestPairsLeaveNoPins(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "root")
	}
	s, err := newSuite(DefaultSuite)
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	pairs, err := newPairs(t.Context(), s, WireOff)
	if err != nil {
		if cannotMeasure(err) {
			missing(t, err.Error())
		}
		t.Fatal(err)
	}
	var numbers []uint64
	for _, p := range pairs {
		for _, h := range p.hosts {
			fd, err := unix.FcntlInt(uintptr(h.Fd()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, st.Ino)
		}
	}
	if err := stopPairs(pairs); err != nil {
		t.Error(err)
	}
	if len(numbers) != 8 {
		t.Errorf("%d namespaces, expected 8", len(numbers))
	}
	for _, number := range numbers {
		for _, place := range []string{"/sys/fs/bpf/bitw/%d-*", "/run/bitw/%d-*"} {
			found, _ := filepath.Glob(fmt.Sprintf(place, number))
			for _, file := range found {
				// An earlier namespace may have had the number, and have ended by a crash.
				if i, err := os.Stat(file); err == nil && i.ModTime().After(begun) {
					t.Errorf("%s is left", file)
				}
			}
		}
	}
}
