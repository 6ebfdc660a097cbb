package chaos

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// both is one text for both hosts.
func both(yaml string) [2]string { return [2]string{yaml, yaml} }

const (
	// crash is how many probes, one a millisecond, a crash under "open" may cost beyond
	// those that were sent before the kernel had ended the process: how long it takes for
	// that, all else that goes on on the machine is part of.
	crash = 50
	// crashes is how often each side is killed. For the kernel to detach the programs is
	// part of that, too: the middle one of an odd number has to do.
	crashes = 3
)

// crashed kills bitw, and returns what that cost each direction by the measure of crash.
func crashed(tr *traffic, b *box, what string) (lost [2]int) {
	s := tr.begin()
	var ending [2]int
	for k, p := range tr.probes {
		ending[k] = -p.now()
	}
	b.proc.Kill()
	for k, p := range tr.probes {
		ending[k] += p.now()
	}
	time.Sleep(300 * time.Millisecond)
	for k, c := range s.end(what) {
		lost[k] = max(0, c.lost-ending[k])
	}
	return lost
}

// atMostMiddle checks that the middle one of what crashes cost each direction is no more
// than crash.
func atMostMiddle(t testing.TB, what string, lost [][2]int) {
	t.Helper()
	for k, way := range []string{"A to B", "B to A"} {
		var of []int
		for _, l := range lost {
			of = append(of, l[k])
		}
		slices.Sort(of)
		if of[len(of)/2] > crash {
			t.Errorf("%s %d times: so many probes from %s, one a millisecond, were lost once the process had ended: %v; expected at most %d", what, len(of), way, of, crash)
		}
	}
}

// drains is how long an end waits for readers who are behind. What they have not delivered
// then is lost.
const drains = time.Second

// inTime runs a test again, three times at most, whose readers did not get a processor for
// longer than an end waits for them, of which it says so.
func inTime(t *testing.T, name string, f func(t *testing.T) bool) {
	done := false
	for i := 0; i < 3 && !done; i++ {
		t.Run(name, func(t *testing.T) { done = f(t) || t.Failed() })
	}
	if !done {
		t.Errorf("%s: each time an end took longer than %v", name, drains)
	}
}

// TestR48_CleanStopAndStart ends bitw and starts it again, which no frame may notice
// where the policy lets everything pass.
func TestR48_CleanStopAndStart(t *testing.T) {
	for _, c := range []struct {
		name, onFailure string
		args            []string
	}{
		{"shut, open on stop", "shut", []string{"--open-on-stop"}},
		{"open", "open", nil},
	} {
		inTime(t, c.name, func(t *testing.T) bool {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			b := boxes(t, pair, c.onFailure, both(bypass), c.args...)
			seen := watch(pair)
			tr := start(t, pair)
			s := tr.begin()
			began := time.Now()
			b[0].term()
			if time.Since(began) > drains {
				return false
			}
			time.Sleep(200 * time.Millisecond)
			atMost(t, "clean stop", s.end("bypass, "+c.name+": clean stop"), 0)
			s = tr.begin()
			b[0].up(c.args...)
			time.Sleep(200 * time.Millisecond)
			atMost(t, "start", s.end("bypass, "+c.name+": start"), 0)
			tr.flows("after all that")
			tr.finish()
			tr.ordered()
			// What other tests find nothing with finds something here.
			if _, err := seen.Stop(); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if seen.Watched(i).Frames == 0 {
					t.Errorf("the look at the wire that has number %d finds nothing in traffic without protection", i)
				}
			}
			return true
		})
	}
}

// TestR07_KilledShut kills bitw on one side: nothing passes, and nothing in the clear,
// until the next one takes over and the connection goes on.
func TestR07_KilledShut(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := boxes(t, pair, "shut", protect())
	c := watch(pair)
	tr := start(t, pair)
	for i, name := range []string{"A", "B"} {
		s := tr.begin()
		b[i].proc.Kill()
		time.Sleep(300 * time.Millisecond)
		from := [2]int{tr.probes[0].now(), tr.probes[1].now()}
		time.Sleep(200 * time.Millisecond)
		for k, way := range []string{"A to B", "B to A"} {
			if n := tr.probes[k].arrived(from[k]); n > 0 {
				t.Errorf("bitw on %s is dead, and %d probes from %s came", name, n, way)
			}
		}
		b[i].up()
		tr.flows("after a takeover on " + name)
		s.end("ESP, shut: killed on " + name + ", started 500 ms later")
	}
	tr.finish()
	nothingClear(t, c)
}

// TestR07_KilledOpen kills bitw under "open": the flow is direct at once.
func TestR07_KilledOpen(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := boxes(t, pair, "open", both(bypass))
	tr := start(t, pair)
	for i, name := range []string{"A", "B"} {
		var lost [][2]int
		for range crashes {
			lost = append(lost, crashed(tr, b[i], "bypass, open: killed on "+name))
			tr.flows("after a crash on " + name)
			s := tr.begin()
			b[i].up()
			atMost(t, "start on "+name, s.end("bypass, open: started on "+name), 0)
		}
		atMostMiddle(t, "killed on "+name, lost)
	}
	tr.flows("after all that")
	tr.finish()
}

// TestR07_StoppedShut has bitw hang under "shut": nothing is in the clear, and when it
// goes on, so does the flow.
func TestR07_StoppedShut(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := boxes(t, pair, "shut", protect())
	c := watch(pair)
	tr := start(t, pair)
	s := tr.begin()
	b[0].signal(syscall.SIGSTOP)
	time.Sleep(1500 * time.Millisecond)
	b[0].signal(syscall.SIGCONT)
	tr.flows("after bitw on A hung")
	s.end("ESP, shut: hung on A for 1.5 s")
	tr.finish()
	nothingClear(t, c)
}

// TestR07_StoppedOpen has bitw hang under "open": the dead man's switch gives the
// direct flow back while it still hangs.
func TestR07_StoppedOpen(t *testing.T) {
	pair := netlab.New(t).Pair(netlab.PairOptions{})
	b := boxes(t, pair, "open", both(bypass))
	tr := start(t, pair)
	s := tr.begin()
	b[0].signal(syscall.SIGSTOP)
	time.Sleep(1500 * time.Millisecond) // the switch acts after a second
	hung := tr.begin()
	time.Sleep(500 * time.Millisecond)
	atMost(t, "hanging for 1.5 s and more", hung.end("bypass, open: hung on A, after 1.5 s"), 0)
	b[0].signal(syscall.SIGCONT)
	tr.flows("after bitw on A hung")
	s.end("bypass, open: hung on A for 2.3 s, all of it")
	tr.finish()
}
