//go:build unix

package sa

import (
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bitw/netstack/wire"
)

func fileConfig(t *testing.T, dir string) SAConfig {
	t.Helper()
	store, err := NewFileStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(Outbound)
	cfg.Store, cfg.SequenceBlock = store, 100
	return cfg
}

// The sender is a process that dies by SIGKILL while it takes numbers.
func TestR40_CrashNeverRepeatsANumber(t *testing.T) {
	if dir := os.Getenv("BITW_TEST_SEQUENCE_DIR"); dir != "" {
		s := mustNew(t, fileConfig(t, dir))
		for range 777 {
			fmt.Println("took", take(t, s))
		}
		kill, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = kill.Kill()
		}
		t.Fatal("still alive", err)
	}
	dir := filepath.Join(t.TempDir(), "seq")
	last := uint64(0)
	for round := range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestR40_CrashNeverRepeatsANumber$")
		cmd.Env = append(os.Environ(), "BITW_TEST_SEQUENCE_DIR="+dir)
		out, err := cmd.Output()
		if err == nil || strings.Count(string(out), "took ") != 777 {
			t.Fatalf("round %d: %v, output %.300s", round, err, out)
		}
		for line := range strings.Lines(string(out)) {
			var n uint64
			if _, err := fmt.Sscanf(line, "took %d", &n); err != nil {
				continue
			}
			if n <= last {
				t.Fatalf("round %d: number %d after %d", round, n, last)
			}
			last = n
		}
	}
	if n := take(t, mustNew(t, fileConfig(t, dir))); n <= last || n > last+300 {
		t.Fatalf("number %d after %d", n, last)
	}
}

func TestR40_CleanEndWastesNoNumber(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	for range 3 {
		s := mustNew(t, fileConfig(t, dir))
		for range 150 {
			if n := take(t, s); n != next {
				t.Fatalf("number is %d, want %d", n, next)
			}
			next++
		}
		for range 2 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestR40_TwoUsersOfOneKeyOnDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seq")
	s := mustNew(t, fileConfig(t, dir))
	if _, err := New(fileConfig(t, dir)); !errors.Is(err, ErrKeyInUse) {
		t.Fatalf("got %v, want ErrKeyInUse", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustNew(t, fileConfig(t, dir))
}

// The directory goes away, so that nothing can be written, not even by root.
func TestR40_LostDiskStopsTheSA(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seq")
	s := mustNew(t, fileConfig(t, dir))
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 100; n++ {
		if got, r := s.TakeSeq(1); got != n || r != wire.DropNone {
			t.Fatalf("reserved number %d: got %d, %v", n, got, r)
		}
	}
	for range 1000 {
		_, r := s.TakeSeq(1)
		want(t, "unreserved", r, wire.DropSeqUnreserved)
	}
	if err := s.Close(); err == nil {
		t.Error("Close does not tell that the store is gone")
	}
}

func TestR40_DamagedFileIsRefused(t *testing.T) {
	for _, text := range []string{"", "next 1", "next 0\n", "next -1\n", "next 01\n", "next 18446744073709551616\n", "next 1\n\n", "\x00\x00\x00\x00"} {
		dir := filepath.Join(t.TempDir(), "seq")
		if err := mustNew(t, fileConfig(t, dir)).Close(); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(dir, "*.seq"))
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		if err := os.WriteFile(files[0], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the refused claim is not held
			if _, err := New(fileConfig(t, dir)); err == nil || errors.Is(err, ErrKeyInUse) {
				t.Errorf("file %q: got %v", text, err)
			}
		}
	}
}

func TestFileStoreKeepsToItself(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "seq")
	cfg := fileConfig(t, dir)
	cfg.EncryptionKey = NewSecret([]byte("swordfishswordfish20"))
	mustNew(t, cfg)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil || strings.Contains(string(text)+e.Name(), "sword") || strings.Contains(e.Name(), "73776f72") {
			t.Errorf("%s shows the key: %q, %v", e.Name(), text, err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFileStore(dir); err == nil || !strings.Contains(err.Error(), "0755, want 0700") {
		t.Errorf("a directory for everybody: %v", err)
	}
}

func FuzzParseNext(f *testing.F) {
	for _, n := range []uint64{1, 1 << 20, math.MaxUint64} {
		f.Add(formatNext(n))
	}
	f.Add([]byte("next 0\n"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parseNext(text)
		if err == nil && string(formatNext(n)) != string(text) || err != nil && n != 0 {
			t.Fatalf("%q gives %d, %v", text, n, err)
		}
	})
}
