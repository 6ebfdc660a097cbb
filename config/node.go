package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	// maxSize is far above ten thousand policies.
	maxSize = 16 << 20
	// maxDepth is of brackets, and of lists in lists; the format needs 4.
	maxDepth = 16
	// maxKeys is of one mapping: the YAML parser takes the square of their number in
	// time. The largest of this format are the classes.
	maxKeys = 1000
	// maxEmpty is of keys and dashes with nothing behind them, which cost the parser
	// a copy of the file each.
	maxEmpty = 1000
)

type kind string

const (
	scalar  kind = "a value"
	list    kind = "a list"
	mapping kind = "a mapping"
	null    kind = "nothing"
)

// A node is YAML without the parts that this format has no use for. Every scalar
// is text: what YAML takes for a number may be an address or a key.
type node struct {
	kind    kind
	place   place
	text    string
	items   []*node
	entries []entry
}

type entry struct {
	key   string
	place place
	value *node
}

// readYAML returns the root of data, or nil after an error or for an empty file.
func readYAML(s *source, data []byte) (root *node) {
	if len(data) > maxSize {
		s.fail(place{}, "", "the file has %d octets, more than %d", len(data), maxSize)
		return nil
	}
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	// The scanner counts a line twice when a comment ends with CR LF.
	text := strings.ReplaceAll(string(data), "\r\n", "\n")
	s.lines = strings.Split(text, "\n")
	if !checkCharacters(s) {
		return nil
	}
	// The YAML parser is not ours and this is the boundary to it: whatever it does
	// with bad input has to end as an error with a position.
	defer func() {
		if r := recover(); r != nil {
			s.fail(place{1, 1}, "", "not YAML that can be read")
			root = nil
		}
	}()
	tokens := lexer.Tokenize(text)
	if !checkTokens(s, tokens) {
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		syntaxError(s, err)
		return nil
	}
	var body ast.Node
	for _, d := range file.Docs {
		switch {
		case d.Body == nil:
		case body == nil:
			body = d.Body
		default:
			s.fail(nodePlace(d.Body), "remove everything from --- on", "a second YAML document, expected one")
			return nil
		}
	}
	if body == nil {
		return nil
	}
	return convert(s, body, 0)
}

// checkCharacters refuses what no text editor writes, before it can hide in names.
func checkCharacters(s *source) bool {
	for i, l := range s.lines {
		column := 0
		for o, r := range l {
			column++
			switch {
			case r == utf8.RuneError && !strings.HasPrefix(l[o:], "\uFFFD"):
				s.fail(place{i + 1, column}, "save the file as UTF-8", "octet 0x%02x is not UTF-8", l[o]).Source = ""
				return false
			case r < ' ' && r != '\t', r == 0x7f, r == '\u0085', r == '\u2028', r == '\u2029':
				s.fail(place{i + 1, column}, "remove it", "control character %U", r).Source = ""
				return false
			}
		}
	}
	return true
}

// checkTokens refuses the parts of YAML that this format has no use for, and
// nesting that would cost the parser its stack.
func checkTokens(s *source, tokens token.Tokens) bool {
	depth, entries, values, line, empty := 0, 0, 0, 0, 0
	var block, flow keyCounts
	for _, t := range tokens {
		p := place{t.Position.Line, t.Position.Column}
		if p.line != line {
			line, entries, values = p.line, 0, 0
		}
		refused := ""
		switch t.Type {
		case token.AnchorType:
			refused = "an anchor (&)"
		case token.AliasType:
			refused = "an alias (*)"
		case token.TagType:
			refused = "a tag (!)"
		case token.MergeKeyType:
			refused = "a merge key (<<)"
		case token.DirectiveType:
			refused = "a directive (%)"
		case token.MappingKeyType:
			refused = "a complex key (?)"
		case token.SequenceStartType, token.MappingStartType:
			depth++
			flow.close(depth)
		case token.SequenceEndType, token.MappingEndType:
			depth--
		case token.SequenceEntryType:
			entries++
			block.close(p.column + 1)
		case token.MappingValueType:
			counts, level := &flow, depth
			if depth == 0 {
				values++
				counts, level = &block, p.column
				if t.Prev != nil {
					level = t.Prev.Position.Column
				}
			}
			if counts.add(level) > maxKeys {
				s.fail(p, "", "more than %d keys in one mapping", maxKeys)
				return false
			}
		}
		if isEmpty(t) {
			empty++
		}
		switch {
		case empty > maxEmpty:
			s.fail(p, "", "more than %d keys and list items without a value", maxEmpty)
			return false
		case refused != "":
			s.fail(p, "write out what is meant, or put quotes around a value that begins so", "found %s, which a configuration does not use", refused)
			return false
		case values > 1:
			s.fail(p, "put quotes around a value with a colon, or begin a new line", "a second colon after a key")
			return false
		case depth > maxDepth || entries > maxDepth:
			s.fail(p, "", "lists nested deeper than %d", maxDepth)
			return false
		}
	}
	return true
}

// isEmpty tells whether t is a colon or a dash with nothing behind it.
func isEmpty(t *token.Token) bool {
	if t.Type != token.MappingValueType && t.Type != token.SequenceEntryType {
		return false
	}
	next := t.Next
	for next != nil && next.Type == token.CommentType {
		next = next.Next
	}
	if next == nil {
		return true
	}
	switch next.Type {
	case token.CollectEntryType, token.MappingEndType, token.SequenceEndType:
		return true
	}
	if next.Position.Line == t.Position.Line {
		return false
	}
	if t.Type == token.SequenceEntryType || t.Prev == nil {
		return next.Position.Column <= t.Position.Column
	}
	// A list may begin in the column of its key.
	key := t.Prev.Position.Column
	return next.Position.Column < key || next.Position.Column == key && next.Type != token.SequenceEntryType
}

// keyCounts counts the keys of the mappings that are open, by their level: the
// column of block mappings, the depth of flow mappings.
type keyCounts []struct{ level, keys int }

// close ends the mappings from level on.
func (c *keyCounts) close(level int) {
	for len(*c) > 0 && (*c)[len(*c)-1].level >= level {
		*c = (*c)[:len(*c)-1]
	}
}

// add counts a key at level, which ends deeper mappings.
func (c *keyCounts) add(level int) int {
	c.close(level + 1)
	if n := len(*c); n == 0 || (*c)[n-1].level < level {
		*c = append(*c, struct{ level, keys int }{level, 0})
	}
	(*c)[len(*c)-1].keys++
	return (*c)[len(*c)-1].keys
}

func syntaxError(s *source, err error) {
	var y yaml.Error
	if !errors.As(err, &y) || y.GetToken() == nil || y.GetToken().Position == nil {
		s.fail(place{1, 1}, "", "not YAML that can be read")
		return
	}
	p := y.GetToken().Position
	// A token may end on the line after the last.
	at := place{max(1, min(p.Line, len(s.lines))), max(1, p.Column)}
	hint := ""
	if strings.ContainsRune(s.lines[at.line-1], '\t') {
		hint = "indent with spaces, not tabs"
	} else if y.GetMessage() == "value is not allowed in this context" {
		hint = "indent it as the lines that it belongs to"
	}
	s.fail(at, hint, "%s", hideKeys(strings.NewReplacer("\t", `\t`, "\n", " ").Replace(y.GetMessage())))
}

func nodePlace(n ast.Node) place {
	t := n.GetToken()
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		t = m.Values[0].Key.GetToken()
	}
	if m, ok := n.(*ast.MappingValueNode); ok {
		t = m.Key.GetToken()
	}
	if t == nil || t.Position == nil {
		return place{1, 1}
	}
	return place{t.Position.Line, max(1, t.Position.Column)}
}

// convert returns nil after an error.
func convert(s *source, n ast.Node, depth int) *node {
	r := &node{place: nodePlace(n)}
	if depth > maxDepth {
		s.fail(r.place, "", "nested deeper than %d", maxDepth)
		return nil
	}
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.NullNode:
		r.kind = null
		return r
	case *ast.StringNode:
		r.kind, r.text = scalar, n.Value
		return r
	case *ast.LiteralNode:
		r.kind, r.text = scalar, n.Value.Value
		return r
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		r.kind, r.text = scalar, n.GetToken().Value
		return r
	case *ast.SequenceNode:
		r.kind = list
		for i, v := range n.Values {
			item := convert(s, v, depth+1)
			if item == nil {
				return nil
			}
			if item.kind == null {
				item.place = r.place
				if i < len(n.Entries) && n.Entries[i].Start != nil && n.Entries[i].Start.Position != nil {
					item.place = place{n.Entries[i].Start.Position.Line, n.Entries[i].Start.Position.Column}
				}
			}
			r.items = append(r.items, item)
		}
		return r
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		s.fail(r.place, "", "expected a value, a list or a mapping, found %s", n.Type())
		return nil
	}
	r.kind = mapping
	for _, p := range pairs {
		at := nodePlace(p)
		key, ok := p.Key.(ast.ScalarNode)
		if !ok {
			s.fail(at, "", "expected a key, found %s", p.Key.Type())
			return nil
		}
		v := convert(s, p.Value, depth+1)
		if v == nil {
			return nil
		}
		if v.kind == null {
			// What is not there has no place of its own.
			v.place = at
		}
		text := key.GetToken().Value
		if k, ok := key.(*ast.StringNode); ok {
			text = k.Value
		}
		r.entries = append(r.entries, entry{text, at, v})
	}
	return r
}

// found describes n for a message.
func (n *node) found() string {
	if n.kind == scalar {
		return quote(n.text)
	}
	return string(n.kind)
}

// A fields holds the entries of one mapping by name.
type fields struct {
	place place
	by    map[string]*node
	// meant holds the keys that an unknown key was probably meant to be. They are not
	// reported as absent too.
	meant map[string]bool
}

// fields reads n as a mapping with the given keys. what is for messages, such as
// "a policy". It returns nil if n is no mapping.
func (s *source) fields(n *node, what string, known ...string) *fields {
	if n.kind != mapping {
		s.fail(n.place, fmt.Sprintf("its keys are %s", strings.Join(known, ", ")), "expected %s, found %s", what, n.found())
		return nil
	}
	f := &fields{n.place, make(map[string]*node, len(n.entries)), make(map[string]bool)}
	for _, e := range n.entries {
		if !contains(known, e.key) {
			hint := fmt.Sprintf("known are %s", strings.Join(known, ", "))
			if k := s.nearest(e.key, known); k != "" {
				hint = didYouMean(k)
				f.meant[k] = true
			}
			err := s.fail(e.place, hint, "unknown key %s in %s", quote(e.key), what)
			// Nobody knows what the value of an unknown key is.
			if i := strings.Index(err.Source, e.key+":"); i >= 0 && e.value.kind != null {
				err.Source = err.Source[:i+len(e.key)+1] + " …"
			}
			continue
		}
		if !s.once(f.by, e, what) {
			continue
		}
		f.by[e.key] = e.value
	}
	return f
}

// once reports a key that was there before.
func (s *source) once(by map[string]*node, e entry, what string) bool {
	if before, ok := by[e.key]; ok {
		s.fail(e.place, "remove one of them", "key %s in %s is already in line %d", quote(e.key), what, before.place.line)
		return false
	}
	return true
}

func contains(names []string, name string) bool {
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}
