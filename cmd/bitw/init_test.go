package main

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bitw/appliance"
	"bitw/config"
)

func TestR50_Init(t *testing.T) {
	found := &appliance.FoundInterface{Name: "eth7", MTU: 9000, Addresses: []netip.Prefix{
		netip.MustParsePrefix("fe80::1/64"), netip.MustParsePrefix("192.0.2.77/24"), netip.MustParsePrefix("2001:db8::77/64"),
	}}
	dir := t.TempDir()
	call := func(status int, out, err string, args ...string) string {
		w := newWorld(t)
		w.findInterface = func(name string) (*appliance.FoundInterface, error) {
			if name != "" && name != "eth7" {
				return nil, errors.New("there is no interface " + name)
			}
			return found, nil
		}
		w.call(t, status, out, err, append([]string{"init"}, args...)...)
		return w.out.String()
	}
	path := filepath.Join(dir, "eth7.yaml")
	call(0, "bitw check -c "+path+"\n", "", "--dir", dir)
	text := read(t, path)
	for _, want := range []string{"MTU 9000, fe80::1/64, 192.0.2.77/24", "interface: eth7\n", `source: "192.0.2.77"`} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	newWorld(t).call(t, 0, "is good", "", "check", "-c", path)

	// The example in it is good, too, once it is no comment any more.
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "#  - ") || strings.HasPrefix(l, "#security") || strings.HasPrefix(l, "#    ") {
			lines[i] = l[1:]
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := "to-peer " + strings.Repeat("a1", 19) + "a0\nfrom-peer " + strings.Repeat("b1", 19) + "b0\n"
	if err := os.WriteFile(filepath.Join(dir, "eth7.keys"), []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	newWorld(t).call(t, 0, "2 security associations", "", "check", "-c", path)

	mine := read(t, path)
	call(1, "", "is there already, and is left as it is", "eth7", "--dir", dir)
	if read(t, path) != mine {
		t.Error("a file was written over")
	}
	if out := call(0, "", "", "eth7", "-f", "-"); out != text {
		t.Errorf("standard output has\n%s", out)
	}
	call(1, "", "there is no interface eth9", "eth9", "-f", "-")
	call(2, "", "init takes one interface, not 2", "a", "b")
	found.Addresses = nil
	call(0, "192.0.2.1", "", "-f", "-")
	found.Addresses = []netip.Prefix{netip.MustParsePrefix("2001:db8::77/64")}
	call(0, "2001:db8::2", "", "-f", "-")
}

func TestR50_SchemaVerb(t *testing.T) {
	w := newWorld(t)
	w.call(t, 0, `"https://json-schema.org/draft/2020-12/schema"`, "", "schema")
	var s map[string]any
	if err := json.Unmarshal([]byte(w.out.String()), &s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"aes128gcm16"`, `"lldp"`, `"static_neighbors"`} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("%s is not in the schema", want)
		}
	}
	if len(s["properties"].(map[string]any)) != len(config.Keys(nil)) {
		t.Error("it has other keys than the table")
	}
}
