package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestR50_KeyTables: each table has one key for an SPI, the one of its time, and all others.
func TestR50_KeyTables(t *testing.T) {
	const (
		one     = `"IPv4","192.0.2.1","192.0.2.2","0x00001001","NULL","","HMAC-SHA-1-96 [RFC2404]","0x01"` + "\n"
		another = `"IPv4","192.0.2.1","192.0.2.2","0x00001001","NULL","","HMAC-SHA-1-96 [RFC2404]","0x02"` + "\n"
		back    = `"IPv4","192.0.2.2","192.0.2.1","0x00001001","NULL","","HMAC-SHA-1-96 [RFC2404]","0x03"` + "\n"
		late    = `"IPv4","*","*","0x00001001","NULL","","HMAC-SHA-1-96 [RFC2404]","0x04"` + "\n"
		comment = "# SA x: chacha20poly1305: not to be looked into by Wireshark\n"
	)
	dir := t.TempDir()
	clock := now
	k := &keyFiles{path: filepath.Join(dir, "x.esp_sa"), now: func() time.Time { clock = clock.Add(time.Second); return clock }}
	if err := k.next(); err != nil {
		t.Fatal(err)
	}
	if err := k.copy(strings.NewReader(one + back + comment + one + another + comment + late)); err != nil {
		t.Fatal(err)
	}
	if err := k.file.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"x.esp_sa": one + back + comment, "x-2.esp_sa": another + back + comment + late,
	} {
		path := filepath.Join(dir, name)
		b, err := os.ReadFile(path)
		if err != nil || string(b) != want {
			t.Errorf("%s: %v\n%s\nexpected\n%s", name, err, b, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", name, info.Mode(), err)
		}
		if !strings.Contains(k.text(), path) {
			t.Errorf("it does not name %s: %s", path, k.text())
		}
	}
	if want := "x-2.esp_sa  from 2026-03-04 05:06:09.000\n"; !strings.HasSuffix(k.text(), want) {
		t.Errorf("%s\ndoes not end with %s", k.text(), want)
	}
	single := &keyFiles{path: filepath.Join(dir, "y.esp_sa"), now: k.now}
	if err := single.next(); err != nil || single.text() != "" {
		t.Errorf("one table: %v, %q", err, single.text())
	}
	single.file.Close()
}
