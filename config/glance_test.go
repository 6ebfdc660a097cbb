package config

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestR07_GlanceAtWhatIsWrong: whether a file wants its interface open is told from what
// cannot be loaded too, and open only by its own word.
func TestR07_GlanceAtWhatIsWrong(t *testing.T) {
	for _, x := range []struct {
		text string
		want Glance
	}{
		{"", Glance{"", "", Shut}},
		{"interface: eth0\npolicies: [\n", Glance{"eth0", "", Shut}},
		{"interface: \"eth0\"   # the uplink\non_failure: open # by choice\nwrong: true\n", Glance{"eth0", "", Open}},
		{"inside: eth1\noutside: 'eth0'\non_failure: shut\n", Glance{"eth0", "eth1", Shut}},
		{"interface: eth0\r\non_failure: open\r\n", Glance{"eth0", "", Open}},
		{"interface: eth0\n#on_failure: open\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\npolicies:\n  on_failure: open\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: open\non_failure: shut\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: opened\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure:\n  open\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: open or shut\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure:open\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure:\vopen\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: 'open\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: open\n\"on_failure\" : shut\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: open\non_failure:\n  shut\n", Glance{"eth0", "", Shut}},
		{"interface: eth0\non_failure: 'open'\t# by choice", Glance{"eth0", "", Open}},
		{"interface:\n", Glance{"", "", Shut}},
	} {
		path := write(t, filepath.Join(t.TempDir(), "bitw.yaml"), x.text, 0o600)
		if g, err := GlanceAt(path); err != nil || g != x.want {
			t.Errorf("%q: %+v, %v; expected %+v", x.text, g, err, x.want)
		}
	}
	g, err := GlanceAt(filepath.Join(t.TempDir(), "none"))
	if !errors.Is(err, fs.ErrNotExist) || g != (Glance{OnFailure: Shut}) {
		t.Errorf("no file: %+v, %v", g, err)
	}
}

// FuzzGlance: open is said only of a text in which YAML, too, reads so in a line.
func FuzzGlance(f *testing.F) {
	for _, text := range []string{"", "interface: eth0\non_failure: open # x\n", "on_failure: open\non_failure: shut\non_failure: open", "on_failure:open", " on_failure: open", "on_failure: 'open", "on_failure:\vopen\n", "on_failure: open #\r\xf0", "a: \x00\ninside: :"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		g := glance(text)
		if g.OnFailure == Shut {
			return
		}
		for line := range strings.Lines(strings.ReplaceAll(text, "\r", "\n")) {
			var y map[string]string
			if yaml.Unmarshal([]byte(line), &y) == nil && y["on_failure"] == string(g.OnFailure) && g.OnFailure == Open {
				return
			}
		}
		t.Errorf("%q: %+v", text, g)
	})
}
