package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

const maxKeyFile = 1 << 20

// A keyFile is a file of keys, read once for all SAs that name it.
type keyFile struct {
	path  string
	lines []keyLine
	// users is the number of SAs that name the file.
	users int
	// broken says that it was reported already.
	broken bool
	read   bool
}

// A keyLine is one line of a key file, its fields with their places.
type keyLine struct {
	fields []string
	places []place
}

// countKeyFiles finds out which key files belong to one SA alone: only there may a
// line go without a name.
func (d *decoder) countKeyFiles(items []*node) {
	for _, item := range items {
		for _, e := range item.entries {
			if e.key == "key_file" && e.value.kind == scalar {
				path := d.relative(e.value.text)
				if d.keyFiles[path] == nil {
					d.keyFiles[path] = &keyFile{path: path}
				}
				d.keyFiles[path].users++
			}
		}
	}
}

// fromKeyFile reads the keys of sa from the file that n names.
func (d *decoder) fromKeyFile(n *node, sa *SA, a Algorithm, known bool) {
	t, ok := d.text(n, "the path of a key file")
	if !ok {
		return
	}
	path := d.relative(t)
	kf := d.keyFiles[path]
	if kf == nil {
		kf = &keyFile{path: path, users: 1}
		d.keyFiles[path] = kf
	}
	if !kf.read {
		kf.read = true
		d.readKeyFile(n, kf)
	}
	sa.KeyFile = path
	if kf.broken || sa.Name == "" {
		return
	}
	keys, line, ok := d.keyLine(n, kf, sa)
	if !ok {
		return
	}
	wanted := keyFields(sa, a)
	if known {
		present := wanted[:0:0]
		for _, k := range wanted {
			if k.want > 0 {
				present = append(present, k)
			}
		}
		wanted = present
	} else if sa.Protocol == AH {
		wanted = wanted[1:]
	}
	if known && len(keys.fields) != len(wanted) || len(keys.fields) > len(wanted) {
		names := make([]string, len(wanted))
		for i, k := range wanted {
			names[i] = k.name
		}
		d.failIn(kf, line, "a line is: NAME "+strings.Join(names, " "), "%d keys for %q, expected %d", len(keys.fields), sa.Name, len(wanted))
		return
	}
	for i, field := range keys.fields {
		b, err := decodeHex(field)
		if err != nil {
			d.failIn(kf, keys.places[i], "", "%s of %q: %v", wanted[i].name, sa.Name, err)
			continue
		}
		if known {
			if msg, hint := keyLength(wanted[i], len(b), sa.Algorithm, a); msg != "" {
				d.failIn(kf, keys.places[i], hint, "%s", msg)
				continue
			}
		}
		*wanted[i].to = NewSecret(b)
		clear(b)
	}
}

// failIn notes an error in a key file. Its lines are keys, so none is shown.
func (d *decoder) failIn(kf *keyFile, p place, hint, format string, args ...any) {
	d.add(&Error{File: kf.path, Line: p.line, Column: p.column, Hint: hint, Msg: fmt.Sprintf(format, args...)})
}

func (d *decoder) readKeyFile(n *node, kf *keyFile) {
	kf.broken = true
	if d.opt.ReadFile == nil {
		d.fail(n.place, "put the keys here, or load the configuration from a file", "key files are not read here")
		return
	}
	data, mode, err := d.opt.ReadFile(kf.path)
	if err != nil {
		name := filepath.Clean(kf.path)
		if base := filepath.Base(name); errors.Is(err, fs.ErrNotExist) && hideKeys(base) == hidden {
			d.fail(n.place, "name a file; a key itself goes behind encryption_key: or integrity_key:", "key file %s does not exist", hidden).Err = err
			return
		}
		msg, hint := readFailure("key file "+name, kf.path, err)
		d.fail(n.place, hint, "%s", msg).Err = err
		return
	}
	if mode&0o077 != 0 {
		d.fail(n.place, "chmod 600 "+kf.path, "key file %s has mode %04o, which lets group or others use it", kf.path, mode.Perm()).Err = fs.ErrPermission
		return
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		d.failIn(kf, place{1, 1}, "", "not a text file; a line is: NAME key in hexadecimal")
		return
	}
	kf.broken = false
	kf.lines = splitKeyFile(string(data))
	named := make(map[string]place)
	for _, l := range kf.lines {
		name := l.fields[0]
		if len(l.fields) == 1 {
			continue
		}
		if before, twice := named[name]; twice && isName(name) && hideKeys(name) == name {
			d.failIn(kf, l.places[0], "remove one of them", "keys of %q are already in line %d", name, before.line)
			kf.broken = true
		}
		named[name] = l.places[0]
	}
}

// splitKeyFile gives the lines that hold something.
func splitKeyFile(text string) []keyLine {
	var lines []keyLine
	for i, l := range strings.Split(text, "\n") {
		l, _, _ = strings.Cut(l, "#")
		var k keyLine
		column, start, begin := 0, -1, 0
		for o, r := range l + " " {
			column++
			space := r == ' ' || r == '\t' || r == '\r' || r == '\uFEFF'
			switch {
			case !space && start < 0:
				start, begin = o, column
			case space && start >= 0:
				k.fields = append(k.fields, l[start:o])
				k.places = append(k.places, place{i + 1, begin})
				start = -1
			}
		}
		if len(k.fields) > 0 {
			lines = append(lines, k)
		}
	}
	return lines
}

// keyLine finds the keys of sa in a key file, and where its line begins.
func (d *decoder) keyLine(n *node, kf *keyFile, sa *SA) (keyLine, place, bool) {
	for _, l := range kf.lines {
		if l.fields[0] == sa.Name {
			return keyLine{l.fields[1:], l.places[1:]}, l.places[0], true
		}
	}
	if kf.users == 1 && len(kf.lines) == 1 && !isWord(kf.lines[0].fields[0]) {
		return kf.lines[0], kf.lines[0].places[0], true
	}
	var names []string
	for _, l := range kf.lines {
		if isWord(l.fields[0]) {
			names = append(names, l.fields[0])
		}
	}
	d.fail(n.place, d.suggest(sa.Name, names, fmt.Sprintf("add a line: %s KEY", sa.Name)), "no keys for %q in key file %s", sa.Name, kf.path)
	return keyLine{}, place{}, false
}

// isWord tells a name from a key: it holds a character that no key does.
func isWord(t string) bool {
	return isName(t) && strings.Trim(t, "0123456789abcdefABCDEFxX:_") != "" && len(t) < 32
}
