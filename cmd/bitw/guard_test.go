package main

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"bitw/appliance"
)

// TestR07_Guard: what a configuration says decides, as far as it can be read, and without
// one the interface is shut.
func TestR07_Guard(t *testing.T) {
	const shut = "eth0 is shut, nothing passes; bitw up takes it over, bitw recover eth0 gives it back without protection\n"
	missing := filepath.Join(t.TempDir(), "none.yaml")
	two := strings.Replace(good, "interface: eth0", "inside: eth1\noutside: eth0", 1)
	for _, x := range []struct {
		name, config, want string // no config is no -c
		out, err           string
	}{
		{"by name", "", "eth9 ", "eth9 is shut, nothing passes", "eth9 is not there now; it will be shut from its creation on\n"},
		{"a good one", good, "eth0 ", shut, ""},
		{"a wrong one", good + "wrong: [\n", "eth0 ", shut, ""},
		{"two interfaces", two, "eth0 eth1", shut, ""},
		{"open", good + "on_failure: open\nwrong: true\n", "", "says on_failure: open, eth0 stays as it is\n", ""},
		{"without an interface", "policies: []\n", "eth9 ", "eth9 is shut, nothing passes", ""},
	} {
		t.Run(x.name, func(t *testing.T) {
			w := newWorld(t)
			got := ""
			w.keepShut = func(iface, inside string) (bool, error) { got = iface + " " + inside; return true, nil }
			args := []string{"guard", "eth9"}
			if x.config != "" {
				args = append(args, "-c", write(t, "bitw.yaml", x.config))
			}
			w.call(t, 0, x.out, x.err, args...)
			if x.err == "" && strings.Contains(x.want, "eth0") && strings.Contains(w.err.String(), "not there") {
				t.Errorf("eth0 is there: %s", w.err.String())
			}
			if got != x.want {
				t.Errorf("shut were %q, expected %q", got, x.want)
			}
		})
	}
	w := newWorld(t)
	w.keepShut = func(string, string) (bool, error) { return false, nil }
	w.call(t, 0, "eth0 is shut", missing+": the configuration does not exist", "guard", "eth0", "-c", missing)
	w.call(t, 0, "", "ARP and other frames are not\n", "guard", "eth0")
	w = newWorld(t)
	w.keepShut = func(string, string) (bool, error) { return false, errors.New("no nftables") }
	w.call(t, 1, "", "bitw: no nftables\n", "guard", "eth0")
	w = newWorld(t)
	w.keptShut = func() ([]string, error) { return []string{"eth0", "eth2"}, nil }
	w.call(t, 0, "eth0\neth2\n", "", "guard", "--list")
	for _, args := range [][]string{{"guard"}, {"guard", "eth0", "--list"}, {"guard", "--list", "-c", missing}} {
		newWorld(t).call(t, 2, "", "", args...)
	}
}

// TestR07_ShutIsTold: whoever cannot start bitw, or asks one that is not there, hears that
// the interface is shut and how to open it.
func TestR07_ShutIsTold(t *testing.T) {
	const shut = "eth0 is shut, nothing passes; bitw up takes it over, bitw recover eth0 gives it back without protection\n"
	asked := func(w *world) *world {
		w.isShut = func(iface string) (bool, error) { return iface == "eth0", nil }
		w.keptShut = func() ([]string, error) { return []string{"eth0"}, nil }
		return w
	}
	w := asked(newWorld(t))
	w.call(t, 1, "", "none runs here, and "+shut, "status")
	w = asked(newWorld(t))
	w.call(t, 1, "", "none runs behind "+w.sockets+"/eth1.sock; start one with", "status", "eth1")
	w = asked(newWorld(t))
	w.call(t, 1, "", "none runs behind "+w.sockets+"/eth0.sock, and "+shut, "status", "eth0")
	w = asked(newWorld(t))
	if code := w.run(t.Context(), []string{"status", "eth0", "--check"}); code != 3 || !strings.Contains(w.out.String(), "and "+shut) {
		t.Errorf("--check: status %d\n%s", code, w.out.String())
	}
	w = asked(newWorld(t))
	w.die(t, "eth0")
	w.call(t, 1, "", "nobody answers on "+w.sockets+"/eth0.sock, its process ended without being told to; "+shut, "status", "eth0")

	wrong := write(t, "wrong.yaml", good+"wrong: true\n")
	w = asked(newWorld(t))
	w.call(t, 1, "", "\n"+shut, "up", "-c", wrong)
	w = newWorld(t)
	w.call(t, 1, "", "1 error in", "up", "-c", wrong)
	if text := w.err.String(); strings.Contains(text, "shut") {
		t.Errorf("nothing is shut: %s", text)
	}
	w = asked(newWorld(t))
	w.newAppliance = func(appliance.Config, ...appliance.Option) (runner, error) {
		return nil, errors.New("no TUN/TAP driver")
	}
	w.call(t, 1, "", shut+"bitw: no TUN/TAP driver\n", "up", "-c", write(t, "bitw.yaml", good))
}
