package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"text/tabwriter"
	"time"
)

// patience is how long a test waits for what must happen; nothing is measured by it.
const patience = time.Minute

var (
	a4, b4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// run is what the tests of one run share: the program, built once, and the table.
type run struct {
	build func() (string, error)

	mu     sync.Mutex
	events []event
	dir    string
}

// event is a line of the table.
type event struct {
	what string
	cost [2]cost // A to B, B to A
}

var shared = newRun()

func newRun() *run {
	r := new(run)
	r.build = sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "bitw-chaos-")
		if err != nil {
			return "", err
		}
		r.dir = dir
		path := filepath.Join(dir, "bitw")
		if out, err := exec.Command("go", "build", "-o", path, "bitw/cmd/bitw").CombinedOutput(); err != nil {
			return "", fmt.Errorf("building bitw: %w\n%s", err, out)
		}
		return path, nil
	})
	return r
}

func TestMain(m *testing.M) {
	code := m.Run()
	shared.print()
	if shared.dir != "" {
		_ = os.RemoveAll(shared.dir)
	}
	os.Exit(code)
}

// note adds a line to the table.
func (r *run) note(what string, cost [2]cost) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event{what, cost})
}

// print prints the table.
func (r *run) print() {
	if len(r.events) == 0 {
		return
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "probes, one a millisecond\tA to B: lost\tof\tlongest gap\tB to A: lost\tof\tlongest gap")
	for _, e := range r.events {
		fmt.Fprint(w, e.what)
		for _, c := range e.cost {
			fmt.Fprintf(w, "\t%d\t%d\t%d", c.lost, c.sent, c.gap)
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

func program(t testing.TB) string {
	t.Helper()
	path, err := shared.build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func deadline(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits for something to become true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
