package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bitw/integration/netlab"
)

// between puts bitw between two NICs of a box x: A is on the inside, B on the outside.
func between(t testing.TB, neighbors, onFailure, yaml string, args ...string) (*netlab.Pair, *box) {
	t.Helper()
	l := netlab.New(t)
	pair := &netlab.Pair{Wire: l.Wire("out"), A: l.Host("a"), B: l.Host("b")}
	inside, x := l.Wire("in"), l.Host("x")
	for _, plug := range []struct {
		host *netlab.Host
		wire *netlab.Wire
		card string
		o    netlab.CardOptions
	}{
		{pair.B, pair.Wire, "eth0", netlab.CardOptions{Addrs: netlab.DefaultB()}},
		{x, pair.Wire, "eth0", netlab.CardOptions{}},
		{x, inside, "eth1", netlab.CardOptions{}},
		{pair.A, inside, "eth0", netlab.CardOptions{Addrs: netlab.DefaultA()}},
	} {
		if err := plug.host.Plug(plug.wire, plug.card, plug.o); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	b := &box{t: t, host: x, file: filepath.Join(dir, "bitw.yaml")}
	text := fmt.Sprintf(`inside: eth1
outside: eth0
protected: [%v, "%v"]
routes: [{destination: 192.0.2.0/24}, {destination: "2001:db8::/64"}]
on_failure: %s
neighbors: %s
control: %s
state_dir: %s
%s`, a4, a6, onFailure, neighbors, filepath.Join(dir, "c.sock"), filepath.Join(dir, "state"), yaml)
	if err := os.WriteFile(b.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	b.up(args...)
	t.Cleanup(func() {
		b.proc.Kill()
		if out, err := x.Run(deadline(t, patience), program(t), "recover", "eth0", "--release"); err != nil {
			t.Errorf("bitw recover --release: %v\n%s", err, out)
		}
	})
	return pair, b
}

// TestR13_R48_TwoNICStopAndStart ends bitw between two NICs and starts it again. Under
// proxy both hosts have addresses of the box's NICs for each other, and are told the true
// ones before their frames meet directly.
func TestR13_R48_TwoNICStopAndStart(t *testing.T) {
	for _, c := range []struct {
		name, neighbors, onFailure string
		six                        bool
		args                       []string
	}{
		{"proxy, IPv4", "proxy", "shut", false, []string{"--open-on-stop"}},
		{"proxy, IPv6", "proxy", "shut", true, []string{"--open-on-stop"}},
		{"relay, IPv4", "relay", "open", false, nil},
	} {
		inTime(t, c.name, func(t *testing.T) bool {
			pair, b := between(t, c.neighbors, c.onFailure, bypass, c.args...)
			from, to := a4, b4
			if c.six {
				from, to = a6, b6
			}
			tr := startBetween(t, pair, from, to)
			what := "two NICs, " + c.name
			s := tr.begin()
			began := time.Now()
			b.term()
			if time.Since(began) > drains {
				return false
			}
			time.Sleep(200 * time.Millisecond)
			atMost(t, "clean stop", s.end(what+": clean stop"), 0)
			s = tr.begin()
			b.up(c.args...)
			tr.flows("after the start")
			atMost(t, "start", s.end(what+": start"), 0)
			s = tr.begin()
			if out, err := b.host.Run(deadline(t, patience), program(t), "tap", "eth0", "closed", "--clear", "--socket", filepath.Join(filepath.Dir(b.file), "c.sock")); err != nil {
				t.Fatalf("bitw tap: %v\n%s", err, out)
			}
			tr.flows("past the box")
			if out, err := b.host.Run(deadline(t, patience), program(t), "tap", "eth0", "active", "--socket", filepath.Join(filepath.Dir(b.file), "c.sock")); err != nil {
				t.Fatalf("bitw tap: %v\n%s", err, out)
			}
			tr.flows("through the box")
			atMost(t, "taps closed and active", s.end(what+": taps closed and active"), 0)
			tr.finish()
			return true
		})
	}
}

// TestR13_R07_TwoNICKilledOpen kills bitw between two NICs under "open".
func TestR13_R07_TwoNICKilledOpen(t *testing.T) {
	pair, b := between(t, "relay", "open", bypass)
	tr := start(t, pair)
	var lost [][2]int
	for range crashes {
		lost = append(lost, crashed(tr, b, "two NICs, open: killed"))
		tr.flows("after a crash")
		s := tr.begin()
		b.up()
		atMost(t, "start", s.end("two NICs, open: started"), 0)
	}
	atMostMiddle(t, "killed", lost)
	tr.flows("after all that")
	tr.finish()
}
