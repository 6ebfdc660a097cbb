package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDiff(t *testing.T) {
	keys := map[string]string{"keys/b.key": exampleKeys}
	for _, x := range []struct {
		name  string
		edits []string // pairs of old and new text
		want  []string
	}{
		{"nothing", nil, nil},
		{"a comment", []string{"interface: eth0 ", "# c\ninterface: eth0 "}, nil},
		{"settings", []string{"on_failure: shut", "on_failure: open", "neighbors: proxy ", "neighbors: relay ", "mtu: 1500", "mtu: 1400"},
			[]string{`setting "on_failure" changed`, `setting "mtu" changed`, `setting "neighbors" changed`}},
		{"classes", []string{"  dhcp: bypass", "  dhcp: discard", "  lldp: bypass\n", "  multicast: bypass\n"},
			[]string{`class "dhcp" changed: action`, `class "multicast" added`, `class "lldp" removed`}},
		{"neighbour", []string{"00:00:09", "00:00:08"}, []string{`static neighbor "192.0.2.9" changed: mac`}},
		{"route", []string{"198.51.100.0/24, via: 192.0.2.254", "198.51.0.0/16"}, []string{`route "198.51.0.0/16" added`, `route "198.51.100.0/24" removed`}},
		{"SA", []string{"spi: 0x1001", "spi: 0x1002", "esn: false", "esn: true", "time: 8h", "time: 9h"}, []string{`security association "to-b" changed: spi, esn, lifetime`}},
		{"policy", []string{"remote_ports: [80, 443]", "remote_ports: [80]", "{type: 8, code: 0}", "{type: 8}", "- name: web", "- name: www"},
			[]string{`policy "www" added`, `policy "ping" changed: icmp`, `policy "web" removed`}},
		{"control", []string{"control_group: adm", "control_group: 7", "control_admin_group: root", "control_admin_group: adm", ":9469", ":9470"},
			[]string{`setting "control_group" changed`, `setting "control_admin_group" changed`, `setting "metrics" changed`}},
		{"insecure", []string{"allow_insecure: []", "allow_insecure: [md5]"}, []string{`setting "allow_insecure" changed`}},
		{"order", []string{"  - name: to-b\n    direction: both", "  - {name: last, action: discard, protocol: gre}\n  - name: to-b\n    direction: both"}, []string{`policy "last" added`}},
	} {
		a, _ := mustParse(t, Example(), keys)
		text := Example()
		for i := 0; i < len(x.edits); i += 2 {
			if !strings.Contains(text, x.edits[i]) {
				t.Fatalf("%s: no %q in the example", x.name, x.edits[i])
			}
			text = strings.Replace(text, x.edits[i], x.edits[i+1], 1)
		}
		b, _ := mustParse(t, text, keys)
		var got []string
		for _, c := range Diff(a, b) {
			got = append(got, c.String())
		}
		if d := cmp.Diff(x.want, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", x.name, d)
		}
	}
}

func TestDiffKeys(t *testing.T) {
	a, _ := mustParse(t, pair, nil)
	b, _ := mustParse(t, strings.Replace(pair, "0x001122", "0x001123", 1), nil)
	if got := Diff(a, b); len(got) != 1 || got[0].String() != `security association "to-b" changed: encryption_key` {
		t.Errorf("another key: %v", got)
	}
}

// TestDiffOrder finds the fewest policies that moved.
func TestDiffOrder(t *testing.T) {
	list := func(names string) []Policy {
		var r []Policy
		for _, n := range strings.Fields(names) {
			r = append(r, Policy{Name: n})
		}
		return r
	}
	for _, x := range [][3]string{
		{"a b c d", "a b c d", ""},
		{"a b c d", "d a b c", "d"},
		{"a b c d", "b c d a", "a"},
		{"a b c d", "a x c y d", ""},
		{"a b c", "c b a", "c b"},
		{"", "a", ""},
	} {
		var got []string
		for _, c := range moved(list(x[0]), list(x[1])) {
			got = append(got, c.Name)
		}
		if strings.Join(got, " ") != x[2] {
			t.Errorf("%s to %s: moved %v, expected %s", x[0], x[1], got, x[2])
		}
	}
}
