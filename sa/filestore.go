//go:build unix

package sa

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// A FileStore is a SequenceStore in a directory: for each key a file
// FINGERPRINT.seq that says which numbers have been promised, and a file
// FINGERPRINT.lock whose lock is the claim. It holds no keys.
//
// A promise is on the disk before Reserve returns: the new file is written beside
// the old one, synced, renamed over it, and the directory is synced. A crash at any
// moment leaves the old promise or the new one, and numbering goes on behind it.
//
// Who deletes the directory, or goes back to an old copy of it, must replace the
// keys.
type FileStore struct {
	dir string
}

// NewFileStore opens the store in dir, which is made with mode 0700 if it is not
// there. A directory that others may enter is an error.
func NewFileStore(dir string) (*FileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("sequence number store: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("sequence number store: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("sequence number store: %s has mode %04o, want 0700: chmod 700 %[1]s", dir, mode)
	}
	return &FileStore{dir}, nil
}

// Claim implements SequenceStore. A file that is not as Reserve writes it is an
// error: nobody could tell which numbers were used.
func (s *FileStore) Claim(fingerprint string) (SequenceClaim, uint64, error) {
	path := filepath.Join(s.dir, fingerprint)
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("sequence number store: %w", err)
	}
	// The lock belongs to this opening of the file, so that a second claim from the
	// same process fails as well. It ends with the process, however that ends.
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, 0, fmt.Errorf("sequence numbers of key %s: %w", fingerprint, ErrKeyInUse)
		}
		return nil, 0, fmt.Errorf("sequence number store: lock %s: %w", lock.Name(), err)
	}
	next := uint64(1)
	text, err := os.ReadFile(path + ".seq")
	switch {
	case err == nil:
		if next, err = parseNext(text); err != nil {
			err = fmt.Errorf("sequence number store: %s.seq: %w", path, err)
		}
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	default:
		err = fmt.Errorf("sequence number store: %w", err)
	}
	if err != nil {
		_ = lock.Close()
		return nil, 0, err
	}
	return &fileClaim{dir: s.dir, path: path + ".seq", lock: lock}, next, nil
}

const nextPrefix = "next "

// formatNext returns the text of a .seq file: one line, "next 1048577".
func formatNext(next uint64) []byte {
	return append(strconv.AppendUint([]byte(nextPrefix), next, 10), '\n')
}

// parseNext accepts what formatNext writes and nothing else.
func parseNext(text []byte) (uint64, error) {
	digits, ok := strings.CutPrefix(string(text), nextPrefix)
	if ok {
		digits, ok = strings.CutSuffix(digits, "\n")
	}
	if ok {
		next, err := strconv.ParseUint(digits, 10, 64)
		if err == nil && next != 0 && string(formatNext(next)) == string(text) {
			return next, nil
		}
	}
	return 0, fmt.Errorf("want %q and a number, found %.40q; which numbers were used is not known, so the key needs to be replaced", nextPrefix, text)
}

type fileClaim struct {
	dir, path string
	mu        sync.Mutex
	lock      *os.File // nil once released
}

// Reserve implements SequenceClaim.
func (c *fileClaim) Reserve(until uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return fmt.Errorf("sequence number store: %s: the claim was released", c.path)
	}
	return c.write(until)
}

// Release implements SequenceClaim.
func (c *fileClaim) Release(next uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lock == nil {
		return nil
	}
	err := c.write(next)
	if closing := c.lock.Close(); closing != nil { // unlocks
		err = errors.Join(err, fmt.Errorf("sequence number store: %w", closing))
	}
	c.lock = nil
	return err
}

func (c *fileClaim) write(next uint64) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("sequence number store: %w", err)
		}
	}()
	// One name for the new file is enough, as the lock is ours; what a crash left
	// there is overwritten.
	temp := c.path + ".new"
	if err := writeSynced(temp, formatNext(next)); err != nil {
		return err
	}
	if err := os.Rename(temp, c.path); err != nil {
		return err
	}
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
