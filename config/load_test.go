package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, path, text string, mode fs.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	// The umask may have taken bits away.
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func loadOptions() Options {
	o := testOptions(nil)
	o.ReadFile = nil
	return o
}

// TestR44_SecretsReadableByOthers covers configuration and key files, mode by mode.
func TestR44_SecretsReadableByOthers(t *testing.T) {
	dir := t.TempDir()
	inFile := strings.Replace(pair, "encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3", "key_file: keys/b.key", 1)
	inFile = strings.Replace(inFile, "encryption_key: ff ee dd cc bb aa 99 88 77 66 55 44 33 22 11 00 b0 b1 b2 b3", "key_file: keys/b.key", 1)
	for _, x := range []struct {
		name, text    string
		mode, keyMode fs.FileMode
		want          string
	}{
		{"keys inside, 0600", pair, 0o600, 0, ""},
		{"keys inside, 0400", pair, 0o400, 0, ""},
		{"keys inside, 0640", pair, 0o640, 0, ":11:21: a key in a file of mode 0640, which group or others may use; chmod 600 "},
		{"keys inside, 0604", pair, 0o604, 0, ":11:21: a key in a file of mode 0604, which group or others may use; chmod 600 "},
		{"key file, 0644 and 0600", inFile, 0o644, 0o600, ""},
		{"key file, 0644 and 0640", inFile, 0o644, 0o640, ":11:15: key file DIR/keys/b.key has mode 0640, which lets group or others use it; chmod 600 DIR/keys/b.key"},
	} {
		t.Run(x.name, func(t *testing.T) {
			path := write(t, filepath.Join(dir, "bitw.yaml"), x.text, x.mode)
			if x.keyMode != 0 {
				write(t, filepath.Join(dir, "keys", "b.key"), exampleKeys, x.keyMode)
			}
			c, _, err := Load(path, loadOptions())
			switch {
			case x.want == "" && err != nil:
				t.Fatal(err)
			case x.want == "":
				if c.SAs[0].EncryptionKey.Len() != 20 {
					t.Errorf("expected a key of 20 octets, found %d", c.SAs[0].EncryptionKey.Len())
				}
			case err == nil || !strings.HasPrefix(err.Error(), path+strings.ReplaceAll(x.want, "DIR", dir)):
				t.Errorf("expected %s, found %v", x.want, err)
			}
		})
	}
	path := write(t, filepath.Join(dir, "open.yaml"), inFile, 0o666)
	write(t, filepath.Join(dir, "keys", "b.key"), exampleKeys, 0o600)
	_, w, err := Load(path, loadOptions())
	if err != nil || len(w) != 1 || w[0].Hint != "chmod go-w "+path {
		t.Errorf("a file that others may write: %v %v", w, err)
	}
}

// TestLoadUnreadable is about what is not a file that can be read.
func TestLoadUnreadable(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ path, want string }{
		{filepath.Join(dir, "none"), "the configuration does not exist; name another file, or make this one"},
		{dir, "the configuration cannot be read: expected a file, found a directory"},
		{fifo, "the configuration cannot be read: expected a file, found a pipe"},
	} {
		_, _, err := Load(x.path, loadOptions())
		var e *Error
		if !errors.As(err, &e) || e.Error() != x.path+": "+x.want {
			t.Errorf("expected %s, found %v", x.want, err)
		}
	}
	if _, _, err := Load(filepath.Join(dir, "none"), loadOptions()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected fs.ErrNotExist, found %v", err)
	}
	text := strings.Replace(pair, "encryption_key: 0x00112233445566778899aabbccddeeffa0a1a2a3", "key_file: fifo", 1)
	_, _, err := Load(write(t, filepath.Join(dir, "bitw.yaml"), text, 0o600), loadOptions())
	if err == nil || !strings.Contains(err.Error(), "bitw.yaml:11:15: key file "+fifo+" cannot be read: expected a file, found a pipe") {
		t.Errorf("a pipe as key file: %v", err)
	}
}

// TestPathsAreRelativeToTheFile, not to where bitw was started.
func TestPathsAreRelativeToTheFile(t *testing.T) {
	c, _, err := Parse("/etc/bitw/a.yaml", []byte("interface: eth0\ncontrol: run/c.sock\nstate_dir: ../state\npolicies: []\n"), testOptions(nil))
	if err != nil {
		t.Fatal(err)
	}
	if c.Control != "/etc/bitw/run/c.sock" || c.StateDir != "/etc/state" {
		t.Errorf("found %s and %s", c.Control, c.StateDir)
	}
}
