package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// golden compares text with a file of testdata, in which FILE stands for path.
func golden(t *testing.T, name, got, path string) {
	t.Helper()
	if path != "" {
		got = strings.ReplaceAll(got, path, "FILE")
	}
	file := filepath.Join("testdata", name)
	if os.Getenv("BITW_UPDATE") != "" {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestCheckGood(t *testing.T) {
	w, path := newWorld(t), write(t, "bitw.yaml", good)
	w.call(t, 0, "", "", "check", "-c", path)
	golden(t, "check.txt", w.out.String(), path)
	if w.err.String() != "" {
		t.Errorf("stderr: %s", w.err.String())
	}
	w = newWorld(t)
	w.call(t, 0, "", "", "check", "-c", path, "-o", "json")
	golden(t, "check.json", w.out.String(), path)
}

// What a rule selects beyond addresses and ports, and the inner addresses of BEET.
func TestCheckShowsSelectors(t *testing.T) {
	const beet = `interface: eth0
security_associations:
  - {name: to-b, direction: out, protocol: esp, mode: beet, spi: 0x1001, source: 192.0.2.1, destination: 192.0.2.2,
     inner_source: 2001:db8::1, inner_destination: 2001:db8::2, algorithm: aes128gcm16,
     encryption_key: 0x00112233445566778899aabbccddeeff:a0a1a2a3}
  - {name: from-b, direction: in, protocol: esp, mode: beet, spi: 0x2001, source: 192.0.2.2, destination: 192.0.2.1,
     inner_source: 2001:db8::2, inner_destination: 2001:db8::1, algorithm: aes128gcm16,
     encryption_key: 0xffeeddccbbaa99887766554433221100:b0b1b2b3}
policies:
  - {name: binding, protocol: mh, mh_type: [1, 5-6], action: discard}
  - {name: rest, protocol: udp, local_ports: opaque, action: bypass}
  - {name: b, local: 2001:db8::1, remote: 2001:db8::2, protocol: tcp, populate: remote_ports, action: protect, out: to-b, in: from-b}
  - {name: c, local: 2001:db8::1, remote: 2001:db8::2, action: protect, out: to-b, in: from-b}
`
	w, path := newWorld(t), write(t, "bitw.yaml", beet)
	w.call(t, 0, "", "", "check", "-c", path)
	for _, want := range []string{
		"any <-> any mh mh-type 1,5-6", "any <-> any udp opaque", "2001:db8::1 <-> 2001:db8::2 tcp populate remote_ports",
		"192.0.2.1 -> 192.0.2.2, for 2001:db8::1 -> 2001:db8::2",
	} {
		if !strings.Contains(w.out.String(), want) {
			t.Errorf("no %q in\n%s", want, w.out.String())
		}
	}
	w = newWorld(t)
	w.call(t, 0, "", "", "check", "-c", path, "-o", "json")
	if !strings.Contains(w.out.String(), `"inner_destination": "2001:db8::2"`) {
		t.Errorf("no inner destination in\n%s", w.out.String())
	}
}

func TestCheckWarns(t *testing.T) {
	path := write(t, "bitw.yaml", good)
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	// A key file alone holds the secrets, so the mode of this file is only doubtful.
	text := strings.NewReplacer(
		"encryption_key: 0x00112233445566778899aabbccddeeff:a0a1a2a3", "key_file: keys",
		"encryption_key: 0xffeeddccbbaa99887766554433221100:b0b1b2b3", "key_file: keys",
	).Replace(good)
	keys := "to-b 0x00112233445566778899aabbccddeeff:a0a1a2a3\nfrom-b 0xffeeddccbbaa99887766554433221100:b0b1b2b3\n"
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "keys"), []byte(keys), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.call(t, 0, "is good, with 1 warning\n", path+": warning: group or others may change this file", "check", "-c", path)
	w = newWorld(t)
	w.call(t, 0, `"hint": "chmod go-w `, "", "check", "-c", path, "-o", "json")
}

func TestCheckBad(t *testing.T) {
	bad := strings.NewReplacer("spi: 0x1001", "spi: 12", "action: bypass\n  - name: ping", "action: bypas\n  - name: ping").Replace(good)
	path := write(t, "bitw.yaml", bad)
	w := newWorld(t)
	w.call(t, 1, "", path+":8:10: ", "check", "-c", path)
	for _, part := range []string{"spi: 12\n", "^", "bitw: 2 errors in " + path + "\n"} {
		if !strings.Contains(w.err.String(), part) {
			t.Errorf("stderr\n%s\nlacks %q", w.err.String(), part)
		}
	}
	if strings.Contains(w.err.String(), "00112233") || w.out.String() != "" {
		t.Errorf("stdout %q, stderr %q: expected no key, and nothing on stdout", w.out.String(), w.err.String())
	}

	w = newWorld(t)
	w.call(t, 1, "", "2 errors", "check", "-c", path, "-o", "json")
	var r checkResult
	if err := json.Unmarshal([]byte(w.out.String()), &r); err != nil {
		t.Fatal(err)
	}
	if r.OK || len(r.Errors) != 2 || r.Errors[0].Line != 8 || r.Errors[0].Column != 10 || r.Errors[0].Message == "" {
		t.Errorf("%+v: expected 2 errors, the first at 8:10", r)
	}
}

func TestCheckUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nix.yaml")
	for _, args := range [][]string{
		{"check", "-c", path},
		{"check", "-c", path, "-o", "json"},
		{"up", "-c", path},
		{"status", "-c", path},
		{"down", "-c", path},
	} {
		w := newWorld(t)
		w.call(t, 1, "", "bitw: 1 error in "+path, args...)
		if text := w.out.String() + w.err.String(); !strings.Contains(text, "does not exist") {
			t.Errorf("bitw %s: %s", strings.Join(args, " "), text)
		}
	}
}
