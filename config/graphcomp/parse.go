package graphcomp

import "slices"

// A statement is what stands before one semicolon.
type statement struct {
	section int
	// divider is "@", romopt the words after romopt; else it is assignments.
	divider     bool
	romopt      []word
	isRomopt    bool
	assignments []assignment
	at          word
}

// An assignment is KEY=WORD,WORD...
type assignment struct {
	key    word
	values []word
}

// value returns what the statement gives to a key, and whether it does.
func (s *statement) value(key string) (assignment, bool) {
	for _, a := range s.assignments {
		if a.key.text == key {
			return a, true
		}
	}
	return assignment{}, false
}

// statements parses a file to its end, also when something is wrong with it.
func (s *source) statements() []statement {
	var list []statement
	section := 0
	words := s.words(true)
	for len(words) > 0 {
		n := slices.IndexFunc(words, func(w word) bool { return w.punctuation && w.text == ";" })
		if n < 0 {
			s.fail(words[0], "end it with ;", "this statement has no end")
			return list
		}
		body := words[:n]
		if len(body) == 0 {
			s.fail(words[n], "remove it", "a semicolon without a statement")
		} else if st, ok := s.statement(body); ok {
			st.section = section
			if st.divider {
				section++
			}
			list = append(list, st)
		}
		words = words[n+1:]
	}
	return list
}

func (s *source) statement(body []word) (statement, bool) {
	st := statement{at: body[0]}
	switch first := body[0]; {
	case first.punctuation:
		s.fail(first, "", "expected a statement, found %q", first.text)
		return st, false
	case first.text == "@":
		st.divider = true
		if len(body) > 1 {
			s.fail(body[1], "write @;", "a divider stands alone")
		}
		return st, len(body) == 1
	case first.text == "romopt":
		st.isRomopt, st.romopt = true, body[1:]
		for _, w := range st.romopt {
			if w.punctuation {
				s.fail(w, "", "expected a word or ; found %q", w.text)
				return st, false
			}
		}
		if len(st.romopt) < 2 {
			s.fail(first, "write romopt NODE OPTION;", "a romopt names a node and an option")
			return st, false
		}
		return st, true
	}
	for len(body) > 0 {
		a, rest, ok := s.assignment(body)
		if !ok {
			return st, false
		}
		if _, twice := st.value(a.key.text); twice {
			s.fail(a.key, "end the statement before it with ;", "%s= stands twice in one statement", a.key.text)
			return st, false
		}
		st.assignments = append(st.assignments, a)
		body = rest
	}
	return st, true
}

// assignment takes the first assignment off.
func (s *source) assignment(body []word) (a assignment, rest []word, ok bool) {
	a.key = body[0]
	if a.key.punctuation {
		s.fail(a.key, "", "expected KEY=, found %q", a.key.text)
		return a, nil, false
	}
	if len(body) < 2 || body[1].text != "=" || !body[1].punctuation {
		s.fail(a.key, "", "expected = behind %s", quote(a.key.text))
		return a, nil, false
	}
	last := body[1]
	for body = body[2:]; ; body = body[2:] {
		if len(body) == 0 || body[0].punctuation {
			s.fail(last, "", "expected a word behind %q", last.text)
			return a, nil, false
		}
		a.values = append(a.values, body[0])
		if len(body) < 2 || body[1].text != "," || !body[1].punctuation {
			return a, body[1:], true
		}
		last = body[1]
	}
}
