package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"bitw/appliance"
	"bitw/config"
)

// The configurations of README.md are good, and fit each other.
func TestReadme(t *testing.T) {
	readme := read(t, "../../README.md")
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(blocks) != 3 {
		t.Fatalf("%d configurations in README.md, expected those of two hosts and a box", len(blocks))
	}
	dir := t.TempDir()
	keys := "a-to-b 00112233445566778899aabbccddeeff00112233\nb-to-a 33221100ffeeddccbbaa99887766554433221100\n"
	for name, text := range map[string]string{"eth0.keys": keys, "box.keys": strings.NewReplacer("a-to-b", "out", "b-to-a", "in").Replace(keys)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var hosts []*config.Config
	for _, block := range blocks {
		path := filepath.Join(dir, "eth0.yaml")
		if err := os.WriteFile(path, []byte(block[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, warnings, err := config.Load(path, appliance.ConfigOptions())
		if err != nil || len(warnings) > 0 {
			t.Fatalf("%v\n%s", err, warnings.Text())
		}
		if _, err := appliance.New(*cfg); err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, cfg)
	}
	a, b := hosts[0], hosts[1]
	for i := range a.SAs {
		x, y := a.SAs[i], b.SAs[i]
		if x.Direction == y.Direction {
			t.Errorf("SA %s is %s at both hosts", x.Name, x.Direction)
		}
		if x.Name != y.Name || x.SPI != y.SPI || x.Source != y.Source || x.Destination != y.Destination ||
			x.Algorithm != y.Algorithm || x.Mode != y.Mode || !x.EncryptionKey.Equal(y.EncryptionKey) {
			t.Errorf("SA %s and SA %s are not the two ends of one", x.Name, y.Name)
		}
	}
	if a.Policies[0].Out[0] != b.Policies[0].In[0] || a.Policies[0].In[0] != b.Policies[0].Out[0] {
		t.Error("the policies of the two hosts do not mirror each other")
	}
	for _, command := range []string{"go run ./cmd/bitw demo", "go test ./..."} {
		if !strings.Contains(readme, "\n    "+command) {
			t.Errorf("README.md does not have the command %q", command)
		}
	}
}
