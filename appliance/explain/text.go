package explain

import (
	"fmt"
	"strings"
)

// maxFrames are shown of a packet that becomes many.
const maxFrames = 6

// Text returns the result for people.
func (r *Result) Text() string {
	var b strings.Builder
	where := "from the host to the wire"
	if r.Direction == In {
		where = "from the wire to the host"
	}
	fmt.Fprintf(&b, "%s\n%s", r.Packet, where)
	if r.Interface != "" {
		fmt.Fprintf(&b, ", %s", r.Interface)
	}
	if r.Offline {
		b.WriteString(", by the configuration alone")
	}
	headline := strings.ToUpper(r.Verdict)
	if r.Outcome != Sent && r.Outcome != Authenticated && (r.Verdict == Protect || r.Verdict == Bypass) {
		headline += ", but " + r.Outcome
	}
	fmt.Fprintf(&b, "\n\n%s: %s.\n", headline, r.Summary)
	w := &sections{b: &b}
	if c := r.Class; c != nil {
		w.line("class", "%s: %s", c.Name, c.Action)
	}
	r.rules(w)
	r.sas(w)
	r.arithmetic(w)
	r.onTheWire(w)
	w.title = ""
	for _, n := range r.Notes {
		w.line("note", "%s", n)
	}
	for _, n := range r.Warnings {
		w.line("warning", "%s", n)
	}
	return b.String()
}

// sections are blocks of lines with a word at the left of the first.
type sections struct {
	b     *strings.Builder
	title string
}

const margin = 10

func (w *sections) line(title, format string, args ...any) {
	if title == w.title {
		title = ""
	} else {
		w.title = title
		w.b.WriteString("\n")
	}
	fmt.Fprintf(w.b, "%-*s%s\n", margin, title, fmt.Sprintf(format, args...))
}

func (r *Result) rules(w *sections) {
	if r.Flow == "" {
		return
	}
	if r.Rule != nil {
		w.line("policy", "%d %s: %s, action %s", r.Rule.Number, r.Rule.Name, r.Rule.Selector, r.Rule.Action)
	} else {
		w.line("policy", "none matches, which is discard")
	}
	for _, n := range r.Near {
		if n.Later {
			w.line("policy", "  after it, %d %s would fit as well: %s", n.Number, n.Name, n.Action)
			continue
		}
		words := make([]string, len(n.Failed))
		for i, m := range n.Failed {
			words[i] = m.String()
		}
		w.line("policy", "  not %d %s (%s): %s", n.Number, n.Name, n.Action, strings.Join(words, "; "))
	}
}

func (r *Result) sas(w *sections) {
	for i := range r.SAs {
		s := &r.SAs[i]
		if !s.Present {
			w.line("SA", "%s: %s", s.Name, s.State)
			continue
		}
		ends := s.Destination
		if s.Source != "" {
			ends = s.Source + " > " + ends
		}
		w.line("SA", "%s: %s %s %s, %s, %s", s.Name, s.Protocol, s.SPI, ends, s.Mode, s.Algorithm)
		more := ""
		if s.Peer != "" {
			more += ", in UDP to " + s.Peer
		}
		if s.Next != 0 {
			more += fmt.Sprintf(", next sequence number %d", s.Next)
		}
		if s.Window != 0 {
			more += fmt.Sprintf(", replay window %d up to sequence number %d", s.Window, s.Newest)
		}
		w.line("SA", "  %s%s", s.State, more)
	}
}

func (r *Result) arithmetic(w *sections) {
	b := r.Budget
	if b == nil {
		return
	}
	w.line("size", "%6d  the packet", b.Size)
	for _, st := range b.Steps {
		for _, p := range st.Parts {
			w.line("size", "%+6d  %s", p.Octets, p.Name)
		}
		w.line("size", "%6d  after %s", st.After, st.SA)
	}
	fits := "fits"
	if b.Sealed > b.Limit {
		fits = fmt.Sprintf("%d too many", b.Sealed-b.Limit)
	}
	w.line("size", "%6d  is what the path takes (%s): %s", b.Limit, b.LimitBy, fits)
	if b.MaxInner >= 0 {
		w.line("size", "%6d  is the largest packet that fits", b.MaxInner)
	}
}

func (r *Result) onTheWire(w *sections) {
	if x := r.Route; x != nil {
		text := x.Route
		if x.NextHop != "" {
			mac := x.MAC
			switch {
			case mac == "" && r.Offline:
				mac = "an Ethernet address that is taken for known"
			case mac == "":
				mac = "an Ethernet address that is not known yet"
			}
			text = strings.TrimPrefix(fmt.Sprintf("%s: %s at %s", text, x.NextHop, mac), ": ")
		}
		w.line("route", "%s", text)
	}
	for i, f := range r.Frames {
		if i == maxFrames {
			w.line(f.Side, "and %d more", len(r.Frames)-i)
			break
		}
		for j, l := range f.Layers {
			w.line(f.Side, "%s%s", strings.Repeat("  ", j), l)
		}
	}
	if h := r.Headers; h != nil && r.Verdict == Protect {
		w.line("header", "%s, and outside %s", h.Inner.text(), h.Outer.text())
	}
	if r.Answer != nil {
		text := r.Answer.words()
		if r.Answer.Refused {
			text += ", which no policy lets out"
		}
		w.line("back", "%s", text)
	}
}

func (h Header) text() string {
	df := "no DF"
	if h.DF {
		df = "DF"
	}
	return fmt.Sprintf("DSCP %d, ECN %d, TTL %d, %s", h.DSCP, h.ECN, h.TTL, df)
}
