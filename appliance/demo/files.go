package demo

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// files are the capture and the keys beside it. Until keep is called they have
// temporary names.
type files struct {
	capture, keys string // where they go
	file          *os.File
	buffer        *bufio.Writer
	bounded       *boundedCapture
}

// keysPath is where the keys of a capture go.
func keysPath(capture string) string {
	return strings.TrimSuffix(capture, filepath.Ext(capture)) + ".esp_sa"
}

// newFiles begins a capture that is to be called path.
func newFiles(path string) (*files, error) {
	f := &files{capture: path, keys: keysPath(path)}
	if f.keys == path {
		return nil, fmt.Errorf("demo: the capture cannot be called %s, for that is the name of the keys beside it", path)
	}
	var err error
	if f.file, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*"); err != nil {
		return nil, fmt.Errorf("demo: capture: %w", err)
	}
	f.buffer = bufio.NewWriterSize(f.file, 1<<18)
	f.bounded = newBoundedCapture(f.buffer)
	return f, nil
}

// keep gives both files their names. The capture is complete.
func (f *files) keep(associations []association) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("demo: capture: %w", err)
		}
	}()
	if err := f.buffer.Flush(); err != nil {
		return err
	}
	if err := f.file.Chmod(0o644); err != nil {
		return err
	}
	if err := f.file.Close(); err != nil {
		return err
	}
	if err := writeKeys(f.keys, associations); err != nil {
		return err
	}
	if err := os.Rename(f.file.Name(), f.capture); err != nil {
		return errors.Join(err, os.Remove(f.keys))
	}
	f.file = nil
	return nil
}

// discard removes what keep has not kept.
func (f *files) discard() {
	if f.file != nil {
		_ = f.file.Close() // it may be closed already
		_ = os.Remove(f.file.Name())
	}
}

// writeKeys makes a file that only its owner may read.
func writeKeys(path string, associations []association) (err error) {
	t, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(t.Name())
		}
	}()
	for _, s := range associations {
		if _, err := fmt.Fprintln(t, s.wiresharkRow()); err != nil {
			return errors.Join(err, t.Close())
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// wiresharkRow is the association as a row of Wireshark's table "esp_sa": version,
// source, destination, SPI, encryption with its key, integrity with its key.
// Wireshark 4.4 and later have two more columns, whose defaults fit.
func (s association) wiresharkRow() string {
	fields := []string{
		s.family.name, s.hosts[s.from].Addr().String(), s.hosts[s.to].Addr().String(), fmt.Sprintf("0x%08x", s.spi),
		s.wiresharkEnc, wiresharkKey(s.enc), s.wiresharkAuth, wiresharkKey(s.auth),
	}
	return `"` + strings.Join(fields, `","`) + `"`
}

func wiresharkKey(key []byte) string {
	if len(key) == 0 {
		return ""
	}
	return "0x" + hex.EncodeToString(key)
}

// openingHint tells how to look into the capture.
func openingHint(capture, keys string) string {
	return fmt.Sprintf(`To see inside and outside side by side, give Wireshark the keys in a profile of their own:
  mkdir -p ~/.config/wireshark/profiles/bitw-demo
  cp %[2]s ~/.config/wireshark/profiles/bitw-demo/esp_sa
  wireshark -C bitw-demo -o esp.enable_encryption_decode:TRUE -r %[1]s
With tshark the same, or without the profile, one -o for each line of the keys:
  tshark -r %[1]s -o esp.enable_encryption_decode:TRUE -o 'uat:esp_sa:LINE' -o 'uat:esp_sa:LINE' …
`, shellWord(capture), shellWord(keys))
}

// shellWord quotes s for a shell where that is needed.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-+,:@%"
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
