package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// Load reads and checks the file at path and the key files that it names. The error
// is Errors, unless it is nil; the warnings are valid in either case.
func Load(path string, opt Options) (*Config, Warnings, error) {
	_, c, w, err := LoadText(path, opt)
	return c, w, err
}

// LoadText is Load, and returns the text as it was read as well.
func LoadText(path string, opt Options) (text []byte, c *Config, w Warnings, err error) {
	data, mode, err := readFile(path, maxSize)
	if err != nil {
		return nil, nil, nil, Errors{fileError(path, "the configuration", err)}
	}
	if opt.ReadFile == nil {
		opt.ReadFile = ReadKeyFile
	}
	c, w, err = parse(path, data, mode, opt)
	return data, c, w, err
}

// ReadKeyFile reads a key file as Load does where Options.ReadFile is nil.
func ReadKeyFile(path string) ([]byte, fs.FileMode, error) { return readFile(path, maxKeyFile) }

// Parse checks data as Load does, name standing for its file in errors and
// for the folder that paths are relative to. It touches no file but through
// opt.ReadFile, and cannot check who may read data.
func Parse(name string, data []byte, opt Options) (*Config, Warnings, error) {
	return parse(name, data, 0, opt)
}

func parse(name string, data []byte, mode fs.FileMode, opt Options) (*Config, Warnings, error) {
	s := &source{file: name}
	root := readYAML(s, data)
	if root == nil && len(s.errs) == 0 {
		s.fail(place{1, 1}, "begin with interface: and policies:", "the file says nothing")
	}
	d := &decoder{source: s, opt: opt, config: Default(), keyFiles: make(map[string]*keyFile)}
	if root != nil {
		d.decode(root)
		d.checkMode(mode)
	}
	err := s.result()
	sortErrors(s.warns)
	if err != nil {
		for _, sa := range d.config.SAs {
			sa.EncryptionKey.Clear()
			sa.IntegrityKey.Clear()
		}
		return nil, s.warns, err
	}
	return &d.config, s.warns, nil
}

// checkMode is about the configuration file itself, mode 0 is not known.
func (d *decoder) checkMode(mode fs.FileMode) {
	switch {
	case d.firstKey != place{} && mode&0o077 != 0:
		d.fail(d.firstKey, "chmod 600 "+d.file, "a key in a file of mode %04o, which group or others may use", mode.Perm())
	case mode&0o022 != 0:
		d.warns = append(d.warns, &Error{File: d.file, Hint: "chmod go-w " + d.file,
			Msg: fmt.Sprintf("group or others may change this file, its mode is %04o", mode.Perm())})
	}
}

// readFile reads a regular file and tells the mode of what was read, not of what
// has the name by then.
func readFile(path string, limit int64) ([]byte, fs.FileMode, error) {
	// Without O_NONBLOCK a FIFO would wait here for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("expected a file, found %s", fileKind(info.Mode()))
	}
	if info.Size() > limit {
		return nil, 0, fmt.Errorf("the file has %d octets, more than %d", info.Size(), limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, err
	}
	return data, info.Mode(), nil
}

// userName is the user of this process.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

func fileKind(m fs.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&fs.ModeNamedPipe != 0:
		return "a pipe"
	case m&fs.ModeSocket != 0:
		return "a socket"
	}
	return "a device"
}

// fileError says in words why a file cannot be read.
func fileError(path, what string, err error) *Error {
	e := &Error{File: path, Err: err}
	e.Msg, e.Hint = readFailure(what, path, err)
	return e
}

func readFailure(what, path string, err error) (msg, hint string) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return what + " does not exist", "name another file, or make this one"
	case errors.Is(err, fs.ErrPermission):
		return what + " cannot be read: permission denied", "run as the user who owns it, or as root; a service's user is given it by: chown " + userName() + " " + path
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return fmt.Sprintf("%s cannot be read: %v", what, err), ""
}

// relative resolves a path that the configuration names against its own folder.
func (d *decoder) relative(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(d.file), path)
}
