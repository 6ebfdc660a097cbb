package integration

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"bitw/integration/netlab"
)

const (
	// memoryAtRest is what bitw may take while nothing passes, in octets.
	memoryAtRest = 64 << 20
	// memoryGrowth is what the first streams may add: buffers of the queues, once each.
	// A leak of a twentieth of an octet for each that passes is more.
	memoryGrowth = 24 << 20
)

// TestMemory: bitw is small at rest, and what passes leaves nothing behind.
func TestMemory(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{NoOffload: true})
	a, b := boxes(t, pair, &plan{flows: []*flow{newFlow("v4", "transport", "aes128gcm16", 0x1000, a4, b4)}})
	defer b.giveBack()
	defer a.giveBack()
	both := []*box{a, b}
	var rest [2]int
	for i, x := range both {
		if rest[i] = x.resident(); rest[i] > memoryAtRest {
			t.Errorf("%d octets resident on %s at rest, expected at most %d", rest[i], x.host.Name(), memoryAtRest)
		}
	}
	const size, rounds = 64 << 20, 4
	for range rounds {
		if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.A, pair.B, a4, size); err != nil {
			t.Fatal(err)
		}
		if _, err := netlab.HTTPTransfer(deadline(t, 5*patience), pair.B, pair.A, b4, size); err != nil {
			t.Fatal(err)
		}
	}
	for i, x := range both {
		if now := x.resident(); now > rest[i]+memoryGrowth {
			t.Errorf("%s grew from %d to %d octets while %d passed", x.host.Name(), rest[i], now, 2*rounds*size)
		}
	}
}

// resident returns the memory of bitw's process in octets.
func (b *box) resident() int {
	b.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", b.proc.Cmd.Process.Pid))
	if err != nil {
		b.t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(v), " kB"))
			if err != nil {
				b.t.Fatal(err)
			}
			return n << 10
		}
	}
	b.t.Fatal("no VmRSS in /proc")
	return 0
}
