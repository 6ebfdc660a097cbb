package config

import (
	"strings"
	"testing"
)

func TestOffloadKeys(t *testing.T) {
	all := Offloads{true, true, true, true, true}
	for keys, want := range map[string]Offloads{
		"":                {},
		"offloads: true":  {},
		"offloads: {}":    {},
		"offloads: false": all,
		"offloads: no":    all,
		"offloads: {ring: no, batches: no, superframes: no, coalescing: no, udp_superframes: no}": all,
		"offloads: {ring: true, coalescing: false}":                                               {NoCoalescing: true},
		"offloads:\n  udp_superframes: false\n  batches: yes":                                     {NoUDPSuperframes: true},
	} {
		c, _ := mustParse(t, "interface: eth0\n"+keys+"\npolicies: []\n", nil)
		if c.Offloads != want {
			t.Errorf("%s: %+v, expected %+v", keys, c.Offloads, want)
		}
		again, _ := mustParse(t, c.Redacted()+"policies: []\n", nil)
		if again.Offloads != want {
			t.Errorf("%s, written and read: %+v\n%s", keys, again.Offloads, c.Redacted())
		}
	}
	for keys, want := range map[string]string{
		"offloads: maybe":             "expected true or false",
		"offloads: {tso: no}":         "unknown key",
		"offloads: {ring: sometimes}": "expected true or false",
		"offloads: [ring]":            "expected the offloads",
	} {
		_, _, err := Parse("bitw.yaml", []byte("interface: eth0\n"+keys+"\npolicies: []\n"), testOptions(nil))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, expected %q", keys, err, want)
		}
	}
}

// TestOffloadTable: the table of keys, which schema and manual are made of, has the same
// names.
func TestOffloadTable(t *testing.T) {
	var list []string
	Offloads{}.Each(func(name string, on bool) {
		if !on {
			t.Errorf("%s is off by itself", name)
		}
		list = append(list, name)
	})
	if got := strings.Join(list, " "); got != strings.Join(offloadKeyNames, " ") {
		t.Errorf("%s, in the table %v", got, offloadKeyNames)
	}
}
