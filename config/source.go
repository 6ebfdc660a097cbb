package config

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

const (
	// maxErrors bounds what one bad file costs; the rest is counted.
	maxErrors = 1000
	// maxSuggestions bounds the searches for a nearest name.
	maxSuggestions = 100
	maxKnown       = 2000
	// maxSourceLine is the longest line shown under an error, in octets.
	maxSourceLine = 300
)

// A place is a position in the file that a source reads.
type place struct{ line, column int }

// A source collects what is found wrong in one configuration file.
type source struct {
	file        string
	lines       []string
	errs        []*Error
	more        int
	warns       []*Error
	suggestions int
}

// fail notes an error at p. The hint may be empty.
func (s *source) fail(p place, hint, format string, args ...any) *Error {
	e := &Error{File: s.file, Line: p.line, Column: p.column, Hint: hint, Msg: fmt.Sprintf(format, args...), Source: s.line(p.line)}
	s.add(e)
	return e
}

func (s *source) add(e *Error) {
	if len(s.errs) < maxErrors {
		s.errs = append(s.errs, e)
	} else {
		s.more++
	}
}

func (s *source) warn(p place, hint, format string, args ...any) {
	if len(s.warns) < maxErrors {
		s.warns = append(s.warns, &Error{File: s.file, Line: p.line, Column: p.column, Hint: hint, Msg: fmt.Sprintf(format, args...), Source: s.line(p.line)})
	}
}

// result is the collected errors in order, nil if there are none.
func (s *source) result() error {
	if len(s.errs) == 0 {
		return nil
	}
	sortErrors(s.errs)
	if s.more > 0 {
		s.errs = append(s.errs, &Error{File: s.file, Msg: fmt.Sprintf("%d more errors", s.more)})
	}
	return Errors(s.errs)
}

// suggest is a hint with the known name nearest to name, or the hint otherwise.
func (s *source) suggest(name string, known []string, otherwise string) string {
	if k := s.nearest(name, known); k != "" {
		return didYouMean(k)
	}
	return otherwise
}

func didYouMean(name string) string { return fmt.Sprintf("did you mean %q?", name) }

// nearest is the known name nearest to name, or "" also when enough were looked for.
func (s *source) nearest(name string, known []string) string {
	if s.suggestions >= maxSuggestions || len(known) > maxKnown {
		return ""
	}
	s.suggestions++
	return Nearest(name, known)
}

// line is the n-th line, keys hidden, or "" if there is nothing fit to show.
func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) || len(s.lines[n-1]) > maxSourceLine {
		return ""
	}
	l := strings.TrimRight(s.lines[n-1], " \t")
	if strings.TrimSpace(l) == "" {
		return ""
	}
	return hideKeys(l)
}

func (s *source) position(p place) Position {
	return Position{File: s.file, Line: p.line, Column: p.column}
}

var (
	// keyEntry is a key of the configuration that holds a key, or means to.
	keyEntry = pattern(`(?i)([a-z_-]*(?:key|secret|password|psk)[a-z_-]*)["']?[ \t]*:[ \t]*`)
	// hexRun is what a key looks like, wherever it was put by mistake; before it the end of
	// the name that it stands behind, which may look so too.
	hexRun = pattern(`((?:[g-zG-Z_-][0-9a-fA-F]{1,3}: +)?)([0-9a-fA-F](?:[0-9a-fA-FxX:_ ]*[0-9a-fA-F])?)`)
)

// pattern is a regular expression that is compiled when it is first needed.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

// hideKeys replaces what is a key or looks like one in text that is to be shown.
func hideKeys(l string) string {
	for _, m := range keyEntry().FindAllStringSubmatchIndex(l, -1) {
		if !strings.EqualFold(l[m[2]:m[3]], "key_file") {
			l = l[:m[1]] + hidden
			break
		}
	}
	return hexRun().ReplaceAllStringFunc(l, func(found string) string {
		parts := hexRun().FindStringSubmatch(found)
		before, run := parts[1], parts[2]
		digits := 0
		for _, r := range run {
			if r != ':' && r != '_' && r != ' ' {
				digits++
			}
		}
		if digits < 16 {
			return found
		}
		if _, err := netip.ParseAddr(strings.TrimSpace(run)); err == nil {
			return found
		}
		return before + hidden
	})
}

// quote is how a found value stands in a message: keys hidden, and not too long.
func quote(s string) string {
	if utf8.RuneCountInString(s) > 60 {
		s = string([]rune(s)[:60]) + "…"
	}
	return fmt.Sprintf("%q", hideKeys(s))
}
