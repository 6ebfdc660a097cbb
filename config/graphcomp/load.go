package graphcomp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"bitw/config"
)

// A ReadFile reads a whole file and tells its mode.
type ReadFile func(path string) (data []byte, mode fs.FileMode, err error)

// romFile has the romopts of one host, beside the graph.
const romFile = "rom"

// Parse reads a graph from data, name standing for its file in errors. It touches no
// other file, so that there is no rom and prottbl= has no effect. The error is
// config.Errors.
func Parse(name string, data []byte) (*Graph, error) {
	c := parse(name, data)
	if len(c.errs) == 0 {
		c.compose()
	}
	if err := c.result(); err != nil {
		return nil, err
	}
	return c.graph, nil
}

// Load reads the graph at path, the file rom beside it and what prottbl= names; either
// may be missing. Key files are for Keys. A nil read is for the file system. The error
// is config.Errors.
func Load(path string, read ReadFile) (*Graph, error) {
	if read == nil {
		read = readOS
	}
	data, mode, err := read(path)
	if err != nil {
		return nil, config.Errors{{File: path, Msg: "the graph cannot be read: " + reason(err), Err: err}}
	}
	c := parse(path, data)
	c.graph.mode = mode
	if len(c.errs) > 0 {
		return nil, c.result()
	}
	if err := c.rom(c.graph.beside(romFile), read); err != nil {
		return nil, err
	}
	if c.graph.table != "" {
		if err := c.graph.readNumbers(c.graph.beside(c.graph.table), read); err != nil {
			return nil, err
		}
	}
	c.compose()
	if err := c.result(); err != nil {
		return nil, err
	}
	return c.graph, nil
}

// beside resolves a path against the folder of the graph.
func (g *Graph) beside(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(g.File), path)
}

// readOS reads a regular file and tells the mode of what was read.
func readOS(path string) ([]byte, fs.FileMode, error) {
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
		return nil, 0, errors.New("it is not a file")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	return data, info.Mode(), err
}

// reason is an error without the path, which stands in front already.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return err.Error()
}

// optionalFile reads a file that may be missing; then the source is nil.
func optionalFile(path, what string, read ReadFile) (*source, fs.FileMode, error) {
	data, mode, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, 0, nil
	case err != nil:
		return nil, 0, config.Errors{{File: path, Msg: fmt.Sprintf("%s cannot be read: %s", what, reason(err)), Err: err}}
	}
	return newSource(path, data), mode, nil
}

// checkWriters refuses a file that others than its owner may change.
func (s *source) checkWriters(mode fs.FileMode) {
	if mode&0o022 != 0 {
		s.failAt(0, 0, "chmod go-w "+s.name, "group or others may change this file, its mode is %04o", mode.Perm())
	}
}

// rom adds the romopts of a file, which has no other statements.
func (c *compiler) rom(path string, read ReadFile) error {
	src, mode, err := optionalFile(path, "the rom", read)
	if src == nil {
		return err
	}
	r := &compiler{source: src, graph: c.graph, nodes: c.nodes}
	r.checkWriters(mode)
	list := r.statements()
	for i := range list {
		if st := &list[i]; st.isRomopt {
			r.romopt(st)
		} else {
			r.fail(st.at, "write romopt NODE OPTION;", "a rom has romopts only")
		}
	}
	return r.result()
}

// readNumbers reads a protocol number table.
func (g *Graph) readNumbers(path string, read ReadFile) error {
	s, mode, err := optionalFile(path, "prottbl", read)
	if s == nil {
		return err
	}
	s.checkWriters(mode)
	builtIn := numbers()
	var names []string
	for name := range builtIn {
		names = append(names, name)
	}
	seen := make(map[string]int)
	for i, l := range s.lines {
		words := s.lineWords(i+1, l, false)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			s.fail(words[0], "write PROTOCOL NUMBER", "a line has two words, found %d", len(words))
			continue
		}
		name, at := words[0].text, words[1]
		was, known := builtIn[name]
		if !known {
			s.fail(words[0], meant(name, names, ""), "unknown protocol %s", quote(name))
			continue
		}
		if line, twice := seen[name]; twice {
			s.fail(words[0], "keep one of them", "%s is there already, in line %d", name, line)
			continue
		}
		seen[name] = i + 1
		n, err := strconv.ParseUint(at.text, 0, 16)
		switch {
		case err != nil:
			s.fail(at, "", "%s is not a number", quote(at.text))
		case !isForwarder(name) && uint32(n) != was:
			s.fail(at, fmt.Sprintf("write %s 0x%x, or remove the line", name, was), "%s has a number that cannot change", name)
		case isForwarder(name) && (n == 0 || n > 255 || n == 50 || n == 51):
			s.fail(at, "take an IP protocol number that is not ESP's or AH's", "%s cannot forward protocol %d", name, n)
		default:
			g.Numbers[name] = uint32(n)
		}
	}
	for i, a := range forwarders() {
		for _, b := range forwarders()[:i] {
			if g.Numbers[a.kind] == g.Numbers[b.kind] {
				s.failAt(max(1, seen[a.kind]), 1, "give each a number of its own", "%s and %s both forward protocol %d", b.kind, a.kind, g.Numbers[a.kind])
			}
		}
	}
	return s.result()
}

func isForwarder(name string) bool {
	for _, f := range forwarders() {
		if f.kind == name {
			return true
		}
	}
	return false
}
