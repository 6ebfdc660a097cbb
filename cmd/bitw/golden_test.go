package main

import (
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"

	"bitw/appliance"
)

// TestR50_Golden compares what verbs say of one configuration, offline and of a bitw that runs
// in memory by a clock that stands still. Status, its lists, check and netcheck have golden
// tests of their own.
func TestR50_Golden(t *testing.T) {
	w := newWorld(t)
	w.findInterface = func(string) (*appliance.FoundInterface, error) {
		return &appliance.FoundInterface{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}, nil
	}
	dir := t.TempDir()
	socket := filepath.Join(w.sockets, "eth0.sock")
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	head := "control: " + socket + "\nstate_dir: " + filepath.Join(dir, "state") + "\nstatic_neighbors: [{address: 192.0.2.2, mac: \"02:00:00:00:00:02\"}]\n"
	path := file("eth0.yaml", head+good)
	other := file("other.yaml", head+strings.NewReplacer("name: web", "name: www", "remote_ports: [80, 443]", "remote_ports: [443]", "dhcp: bypass", "dhcp: bypass, lldp: bypass").Replace(good)+"mtu: 1400\n")
	restart := file("restart.yaml", head+good+"on_failure: open\nmetrics: 127.0.0.1:9469\n")
	quiet := logrus.New()
	quiet.SetOutput(io.Discard)
	inMemory(t, path, quiet)

	for _, x := range []struct {
		name   string
		status int
		args   []string
	}{
		{"init", 0, []string{"init", "eth0", "-f", "-"}},
		{"explain-protect", 0, []string{"explain", "tcp 192.0.2.1:1234 > 192.0.2.2:443 len 1400 df", "--socket", socket}},
		{"explain-too-big", 0, []string{"explain", "tcp 192.0.2.1:1234 > 192.0.2.2:443 len 1500 df", "--socket", socket}},
		{"explain-fragments", 0, []string{"explain", "udp 192.0.2.1:1234 > 192.0.2.2:53 len 1500", "--socket", socket}},
		{"explain-bypass", 0, []string{"explain", "tcp 192.0.2.1:1234 > 198.51.100.9:443 syn", "-c", path, "--offline"}},
		{"explain-discard", 0, []string{"explain", "tcp 192.0.2.1:1234 > 198.51.100.9:22", "-c", path, "--offline"}},
		{"explain-clear", 0, []string{"explain", "icmp 192.0.2.2 > 192.0.2.1 type 8", "--socket", socket}},
		{"explain-esp", 0, []string{"explain", "esp 192.0.2.2 > 192.0.2.1 spi 0x2001 seq 7", "--socket", socket}},
		{"explain-own", 0, []string{"explain", "udp 192.0.2.1:1 > 192.0.2.2:2 in", "--socket", socket}},
		{"explain-spi", 0, []string{"explain", "esp 192.0.2.2 > 192.0.2.1 spi 0x2002 seq 7", "--socket", socket}},
		{"explain-arp", 0, []string{"explain", "arp", "--socket", socket}},
		{"explain-expect", 4, []string{"explain", "tcp 192.0.2.1:1234 > 198.51.100.9:22", "-c", path, "--offline", "--expect", "bypass"}},
		{"keys-list", 0, []string{"keys", "list", "--socket", socket}},
		{"trace-level", 0, []string{"trace-level", "--socket", socket}},
		{"apply-nothing", 0, []string{"apply", path, "--dry-run", "--socket", socket}},
		{"apply-dry", 0, []string{"apply", other, "--dry-run", "--socket", socket}},
		{"apply-restart", 1, []string{"apply", restart, "--socket", socket}},
		{"apply", 0, []string{"apply", other, "--socket", socket}},
	} {
		v := *w.program
		var out safeBuffer
		v.out, v.err = &out, &out
		if status := v.run(t.Context(), x.args); status != x.status {
			t.Errorf("bitw %s: status %d, expected %d:\n%s", strings.Join(x.args, " "), status, x.status, out.String())
		}
		golden(t, x.name+".txt", out.String(), dir)
	}
	for _, packet := range []string{"tcp 192.0.2.1:1234 > 192.0.2.2:443 len 1400 df", "tcp 192.0.2.1:1234 > 198.51.100.9:22"} {
		v := newWorld(t)
		v.call(t, 0, "", "", "explain", packet, "-c", path, "--offline", "-o", "json")
		golden(t, "explain-"+map[bool]string{true: "protect", false: "discard"}[strings.Contains(packet, "192.0.2.2")]+".json", v.out.String(), dir)
	}
}
