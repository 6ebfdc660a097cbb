package graphcomp

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"bitw/config"
)

const (
	// maxSize bounds a graph, and each file that it names, in octets.
	maxSize = 1 << 20
	// maxErrors bounds what one bad file costs; the rest is counted.
	maxErrors = 100
	// maxSourceLine is the longest line shown under an error, in octets.
	maxSourceLine = 300
)

// A word is a token of one of the files: a run of characters, or one of ; , =.
type word struct {
	text         string
	line, column int
	// punctuation tells ; , = from words.
	punctuation bool
}

// A source is one file that is read, and what is found wrong in it.
type source struct {
	name  string
	lines []string
	// secret says that lines hold keys, so that none is shown.
	secret bool
	errs   []*config.Error
	more   int
}

// newSource makes a source of a text file; what is no text is its only error.
func newSource(name string, data []byte) *source {
	s := &source{name: name}
	if len(data) > maxSize {
		s.failAt(0, 0, "", "the file has %d octets, more than %d", len(data), maxSize)
		return s
	}
	s.lines = strings.Split(string(data), "\n")
	for i, l := range s.lines {
		s.lines[i] = strings.TrimSuffix(l, "\r")
	}
	for i, l := range s.lines {
		if !utf8.ValidString(l) || strings.IndexByte(l, 0) >= 0 {
			s.lines = nil
			s.failAt(i+1, 1, "", "not a text file")
			return s
		}
	}
	return s
}

// failAt notes an error. The hint may be empty.
func (s *source) failAt(line, column int, hint, format string, args ...any) {
	if len(s.errs) >= maxErrors {
		s.more++
		return
	}
	e := &config.Error{File: s.name, Line: line, Column: column, Hint: hint, Msg: fmt.Sprintf(format, args...)}
	if !s.secret && line > 0 && line <= len(s.lines) && len(s.lines[line-1]) <= maxSourceLine {
		e.Source = strings.TrimRight(s.lines[line-1], " \t")
	}
	s.errs = append(s.errs, e)
}

func (s *source) fail(w word, hint, format string, args ...any) {
	s.failAt(w.line, w.column, hint, format, args...)
}

// result is what was found wrong, nil if nothing was.
func (s *source) result() error {
	if len(s.errs) == 0 {
		return nil
	}
	if s.more > 0 {
		s.errs = append(s.errs, &config.Error{File: s.name, Msg: fmt.Sprintf("%d more errors", s.more)})
		s.more = 0
	}
	return config.Errors(s.errs)
}

func (s *source) position(w word) config.Position {
	return config.Position{File: s.name, Line: w.line, Column: w.column}
}

// words cuts the text at blanks and, with stops, at ; , =. A # begins a comment that
// ends with its line. Columns count characters.
func (s *source) words(stops bool) []word {
	var list []word
	for i, l := range s.lines {
		list = append(list, s.lineWords(i+1, l, stops)...)
	}
	return list
}

func (s *source) lineWords(line int, l string, stops bool) []word {
	var list []word
	column, start, begin := 0, -1, 0
	end := func(o int) {
		if start >= 0 {
			list = append(list, word{text: l[start:o], line: line, column: begin})
			start = -1
		}
	}
	for o, r := range l {
		column++
		switch {
		case r == '#':
			end(o)
			return list
		case r == ' ' || r == '\t' || r == '\uFEFF':
			end(o)
		case stops && (r == ';' || r == ',' || r == '='):
			end(o)
			list = append(list, word{text: string(r), line: line, column: column, punctuation: true})
		case r < ' ' || r > '~':
			end(o)
			if !s.secret {
				s.failAt(line, column, "", "unexpected character %q", r)
			} else {
				s.failAt(line, column, "", "unexpected character")
			}
			return list
		case start < 0:
			start, begin = o, column
		}
	}
	end(len(l))
	return list
}

// quote is how a found word stands in a message, not too long.
func quote(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return fmt.Sprintf("%q", s)
}

// meant is a hint with the known name that is nearest, or else.
func meant(name string, known []string, otherwise string) string {
	if k := config.Nearest(name, known); k != "" {
		return fmt.Sprintf("did you mean %q?", k)
	}
	return otherwise
}
