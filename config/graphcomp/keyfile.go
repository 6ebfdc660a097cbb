package graphcomp

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"bitw/config"
)

// Keys are the maps of all key managers of a graph.
type Keys struct {
	maps []*KeyMap
}

// Map returns the map of a key manager, or nil.
func (k *Keys) Map(manager string) *KeyMap {
	for _, m := range k.maps {
		if m.Manager == manager {
			return m
		}
	}
	return nil
}

// Maps returns all maps in the order of the graph. They are the Keys'.
func (k *Keys) Maps() []*KeyMap { return slices.Clone(k.maps) }

// Clone copies all maps; the values are shared.
func (k *Keys) Clone() *Keys {
	c := new(Keys)
	for _, m := range k.maps {
		c.maps = append(c.maps, m.clone())
	}
	return c
}

// Find finds the map and the address that a name such as km/md5/0x1001/192.0.2.2 means.
func (k *Keys) Find(name string) (*KeyMap, []byte, error) {
	for _, m := range k.maps {
		text, ok := strings.CutPrefix(name, m.Manager+"/")
		if !ok {
			continue
		}
		address, err := Octets(text)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		return m, address, m.checkLengths(address, m.Least)
	}
	var names []string
	for _, m := range k.maps {
		names = append(names, m.Manager)
	}
	return nil, nil, fmt.Errorf("no key manager has a key %s; a name is one of %s, a slash and an address", quote(name), strings.Join(names, ", "))
}

// Keys reads the key files of the graph: km/NAME beside it, or what the option file says.
// A file that is missing makes an empty map. What is about to be run must not be for
// others to change, so that the mode of the graph itself is looked at, too. A nil read is for the file system. The error
// is config.Errors and shows no key.
func (g *Graph) Keys(read ReadFile) (*Keys, error) {
	if read == nil {
		read = readOS
	}
	k := new(Keys)
	var all config.Errors
	if g.mode&0o022 != 0 {
		all = append(all, &config.Error{File: g.File, Hint: "chmod go-w " + g.File,
			Msg: fmt.Sprintf("group or others may change the graph, its mode is %04o", g.mode.Perm())})
	}
	for _, n := range g.Nodes {
		if n.Protocol != "km" {
			continue
		}
		m, err := g.readKeys(n, read)
		var errs config.Errors
		switch {
		case errors.As(err, &errs):
			all = append(all, errs...)
		case err != nil:
			return nil, err
		default:
			k.maps = append(k.maps, m)
		}
	}
	if len(all) > 0 {
		return nil, all
	}
	return k, nil
}

// readKeys reads the file of one manager.
func (g *Graph) readKeys(n *Node, read ReadFile) (*KeyMap, error) {
	name := n.Name
	if o, ok := n.Option("file"); ok {
		name = o.Args[0]
	}
	path := g.beside(name)
	s, mode, err := optionalFile(path, "the key file of "+n.Name, read)
	if err != nil {
		return nil, err
	}
	missing := s == nil
	if missing {
		s = &source{name: g.File}
	}
	s.secret = true
	if slices.Contains(policyManagers(), n.Name) {
		s.checkWriters(mode)
	} else if mode&0o077 != 0 {
		s.failAt(0, 0, "chmod 600 "+path, "a file of keys with mode %04o, which group or others may use", mode.Perm())
		s.errs[len(s.errs)-1].Err = fs.ErrPermission
	}
	var lines [][]word
	for i, l := range s.lines {
		if words := s.lineWords(i+1, l, false); len(words) > 0 {
			lines = append(lines, words)
		}
	}
	m, lines := s.keyMap(n, lines)
	for _, l := range lines {
		if m == nil {
			break
		}
		s.key(m, l)
	}
	if err := s.result(); err != nil {
		return nil, err
	}
	return m, nil
}

// defaultParams are those of a manager that neither romopt nor a file gives any.
func defaultParams(manager string) Params {
	switch manager {
	case "km/alg":
		return Params{8, 1, 1, 100}
	case "km/b":
		return Params{4, 0, 100, 100}
	}
	return Params{8, 0, 100, 100}
}

// keyMap makes the map by romopt and by the first line of the file, and returns the lines
// that are left.
func (s *source) keyMap(n *Node, lines [][]word) (*KeyMap, [][]word) {
	params, pos, given := defaultParams(n.Name), n.Pos, false
	if o, ok := n.Option("kmparams"); ok {
		params, _ = parseParams(o.Args) // checked as an option
		pos, given = o.Pos, true
	}
	if len(lines) > 0 && lines[0][0].text == "kmparams" {
		l := lines[0]
		lines = lines[1:]
		var args []string
		for _, w := range l[1:] {
			args = append(args, w.text)
		}
		if len(args) != 3 {
			s.fail(l[0], "write kmparams A K M", "kmparams takes 3 words, found %d", len(args))
			return nil, nil
		}
		p, err := parseParams(args)
		switch {
		case err != nil:
			s.fail(l[0], "write kmparams A K M", "kmparams: %v", err)
			return nil, nil
		case given && p != params:
			s.fail(l[0], "write the same in both places", "kmparams %v, and the romopt of %s in line %d of %s says %v", p, n.Name, pos.Line, pos.File, params)
			return nil, nil
		}
		params, pos = p, s.position(l[0])
	}
	m, err := newKeyMap(n.Name, params)
	if err != nil {
		s.errs = append(s.errs, &config.Error{File: pos.File, Line: pos.Line, Column: pos.Column, Msg: err.Error()})
		return nil, nil
	}
	return m, lines
}

// key reads a line of a key file: ADDRESS KEY [STATE].
func (s *source) key(m *KeyMap, l []word) {
	const form = "a line is: ADDRESS KEY [valid|invalid|empty]"
	if len(l) < 2 || len(l) > 3 {
		s.fail(l[0], form, "expected 2 or 3 words, found %d", len(l))
		return
	}
	address, err := Octets(l[0].text)
	if err == nil {
		err = m.checkLengths(address, m.Least)
	}
	if err != nil {
		s.fail(l[0], form, "address: %v", err)
		return
	}
	if before := m.find(address); before != nil {
		s.fail(l[0], "remove one of them", "%s has a key in line %d already", m.AddressText(address), before.Pos.Line)
		return
	}
	state := Valid
	if len(l) == 3 {
		switch l[2].text {
		case "valid":
		case "invalid":
			state = Invalid
		case "empty":
			state = Empty
		default:
			s.fail(l[2], "write valid, invalid or empty", "unknown state of a key")
			return
		}
	}
	if (state == Empty) != (l[1].text == "-") {
		s.fail(l[1], "write ADDRESS - empty", "an empty key has a - in the place of octets, and no other has")
		return
	}
	if state == Empty {
		return
	}
	value, err := m.ValueOctets(l[1].text)
	if err == nil {
		err = m.Set(address, value)
	}
	if err != nil {
		s.fail(l[1], "", "key of %s: %v", m.AddressText(address), err)
		return
	}
	clear(value)
	k := m.find(address)
	k.State, k.Pos = state, s.position(l[1])
}
