package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// An Error is one thing wrong with a configuration, or for Warnings one thing that
// is doubtful.
type Error struct {
	// File, Line and Column are where; Line and Column count from 1, columns in
	// characters. Both are 0 when the file as a whole is meant.
	File         string
	Line, Column int
	// Msg says what was found and what was expected. It never holds a key.
	Msg string
	// Hint says what would do; it may be empty.
	Hint string
	// Source is the line of the file with keys hidden; empty if there is none.
	Source string
	// Err is the cause from outside, such as fs.ErrNotExist, or nil.
	Err error
}

// Error is "file:line:column: what was found; what would do", in one line.
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" { // what is set at run time has none
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
		}
		b.WriteString(": ")
	}
	b.WriteString(e.Msg)
	if e.Hint != "" {
		b.WriteString("; ")
		b.WriteString(e.Hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Text is Error with the line of the file and a caret beneath, as compilers print.
func (e *Error) Text() string { return e.text("") }

func (e *Error) text(label string) string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": " + label + e.Msg + "\n")
	if e.Source != "" {
		b.WriteString("    " + e.Source + "\n    ")
		// A tab stays a tab, so that the caret stands beneath its character
		// whatever the terminal makes of tabs.
		n := 1
		for _, r := range e.Source {
			if n >= e.Column {
				break
			}
			if r == '\t' {
				b.WriteByte('\t')
			} else {
				b.WriteByte(' ')
			}
			n++
		}
		b.WriteString("^\n")
	}
	if e.Hint != "" {
		b.WriteString("    " + e.Hint + "\n")
	}
	return b.String()
}

// Errors are all that was found, in the order of the files. errors.As reaches each
// of them.
type Errors []*Error

// Error has one line an error.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the errors one by one.
func (e Errors) Unwrap() []error {
	r := make([]error, len(e))
	for i, x := range e {
		r[i] = x
	}
	return r
}

// Text is the text of each error with its source line and caret.
func (e Errors) Text() string {
	var b strings.Builder
	for _, x := range e {
		b.WriteString(x.Text())
	}
	return b.String()
}

// Warnings are what is allowed but doubtful, in the order of the files.
type Warnings []*Error

// Text is the text of each warning with its source line and caret.
func (w Warnings) Text() string {
	var b strings.Builder
	for _, x := range w {
		b.WriteString(x.text("warning: "))
	}
	return b.String()
}

func sortErrors(e []*Error) {
	slices.SortStableFunc(e, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// A mark is where a key of the top level stands, kept for errors that only show
// when the configuration meets the machine.
type mark struct {
	pos    Position
	source string
}

// ErrorAt returns an error about the value of a key of the top level, such as
// "interface" or "state_dir", for what only the machine can tell. A key that the
// file does not name gives an error about the file.
func (c *Config) ErrorAt(key, msg, hint string, err error) *Error {
	m := c.marks[key]
	if m.pos.File == "" {
		m = c.marks[""]
	}
	return &Error{File: m.pos.File, Line: m.pos.Line, Column: m.pos.Column, Msg: msg, Hint: hint, Source: m.source, Err: err}
}

// Nearest returns the known name that is closest to name, or "" if none is close
// enough to be meant.
func Nearest(name string, known []string) string {
	n := utf8.RuneCountInString(name)
	best, bestDistance := "", min((n+1)/2, max(2, n/3))+1
	if n > 64 {
		return ""
	}
	for _, k := range known {
		if d := levenshtein(strings.ToLower(name), strings.ToLower(k)); d < bestDistance && d < utf8.RuneCountInString(k) {
			best, bestDistance = k, d
		}
	}
	return best
}

// levenshtein is the number of insertions, deletions and replacements between a
// and b.
func levenshtein(a, b string) int {
	x, y := []rune(a), []rune(b)
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i, r := range x {
		diagonal := row[0]
		row[0] = i + 1
		for j, s := range y {
			cost := 1
			if r == s {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(y)]
}
