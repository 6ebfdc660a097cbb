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
	// crash is how many probes, one a millisecond, a crash under "open" may cost.
	crash = 50
	// crashes is how often each side is killed. What a crash costs is how long the kernel
	// takes to end a process and to detach its programs, and all else that goes on
	// on the machine is part of that: the middle one of an odd number has to do.
	crashes = 3
)

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
		t.Run(c.name, func(t *testing.T) {
			pair := netlab.New(t).Pair(netlab.PairOptions{})
			b := boxes(t, pair, c.onFailure, both(bypass), c.args...)
			seen := watch(pair)
			tr := start(t, pair)
			s := tr.begin()
			b[0].term()
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
		var lost [2][]int
		for range crashes {
			s := tr.begin()
			b[i].proc.Kill()
			time.Sleep(300 * time.Millisecond)
			for k, c := range s.end("bypass, open: killed on " + name) {
				lost[k] = append(lost[k], c.lost)
			}
			tr.flows("after a crash on " + name)
			s = tr.begin()
			b[i].up()
			atMost(t, "start on "+name, s.end("bypass, open: started on "+name), 0)
		}
		for k, way := range []string{"A to B", "B to A"} {
			slices.Sort(lost[k])
			if lost[k][crashes/2] > crash {
				t.Errorf("killed on %s %d times: so many probes from %s, one a millisecond, were lost: %v; expected at most %d", name, crashes, way, lost[k], crash)
			}
		}
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
