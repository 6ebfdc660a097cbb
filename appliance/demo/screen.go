package demo

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/term"
)

// screen prints lines that stay, and on a terminal beneath them a table that is
// drawn again and again. It may be used by several goroutines.
type screen struct {
	w    io.Writer
	live bool // w is a terminal

	mu    sync.Mutex
	drawn int // lines of the table that stand now
	table string
}

// newScreen is silent if w is nil.
func newScreen(w io.Writer) *screen {
	s := &screen{w: w}
	if f, ok := w.(*os.File); ok {
		s.live = term.IsTerminal(int(f.Fd()))
	}
	return s
}

// say prints lines above the table. What cannot be printed is lost: there is
// nobody to tell.
func (s *screen) say(format string, args ...any) {
	if s.w == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = io.WriteString(s.w, s.erase()+fmt.Sprintf(format, args...)+"\n"+s.redraw())
}

// update puts another table in place of the last one, on a terminal only.
func (s *screen) update(table string) {
	if s.w == nil || !s.live {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	erase := s.erase()
	s.table = s.cut(table)
	_, _ = io.WriteString(s.w, erase+s.redraw())
}

// clear takes the table away.
func (s *screen) clear() { s.update("") }

// cut shortens the lines of a table to the terminal, so that each stays one line.
func (s *screen) cut(table string) string {
	f, ok := s.w.(*os.File)
	if !ok {
		return table
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		return table
	}
	var short strings.Builder
	for line := range strings.Lines(table) {
		text := []rune(strings.TrimSuffix(line, "\n"))
		short.WriteString(string(text[:min(len(text), width)]) + "\n")
	}
	return short.String()
}

// erase goes back to where the table begins, and erases to the end of the screen
// (ECMA-48: CPL, ED).
func (s *screen) erase() string {
	if s.drawn == 0 {
		return ""
	}
	n := s.drawn
	s.drawn = 0
	return fmt.Sprintf("\x1b[%dF\x1b[J", n)
}

func (s *screen) redraw() string {
	s.drawn = strings.Count(s.table, "\n")
	return s.table
}

// grouped is a number with commas.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
