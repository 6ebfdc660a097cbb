package demo

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bitw/appliance/keylog"
)

// files are the capture and the keys beside it. Until keep is called they have
// temporary names.
type files struct {
	capture, keys string // where they go
	file          *os.File
	buffer        *bufio.Writer
	bounded       *boundedCapture
}

// newFiles begins a capture that is to be called path.
func newFiles(path string) (*files, error) {
	f := &files{capture: path, keys: keylog.Path(path)}
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
		row, err := s.key().Row()
		if err == nil {
			_, err = fmt.Fprintln(t, row)
		}
		if err != nil {
			return errors.Join(err, t.Close())
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return os.Rename(t.Name(), path)
}

// key is the association as Wireshark wants it.
func (s association) key() keylog.SA {
	from, to := s.hosts[s.from].Addr(), s.hosts[s.to].Addr()
	return keylog.SA{IPv6: to.Is6(), Src: from, Dst: to, SPI: s.spi, Algorithm: s.algorithm, EncryptionKey: s.enc, IntegrityKey: s.auth}
}
