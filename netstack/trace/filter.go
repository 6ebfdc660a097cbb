package trace

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"bitw/netstack/wire"
)

// FilterGrammar is what a filter may say, for people.
const FilterGrammar = `A filter is words, all of which must fit:
  all          every packet, as the empty filter
  out | in     the packet came from the host, or from the wire
  tcp udp icmp icmpv6 esp ah sctp arp ip ip6   its protocol; proto N for one by number
  host ADDR   src ADDR   dst ADDR   an address or prefix, also net, src net, …
  port N   sport N   dport N        also src port N, dst port N
  SRC[:PORT] > DST[:PORT]      both ends, any for either; IPv6 as [ADDR]:PORT
  len N   greater N   less N   octets of the datagram, N or more, N or less
  df   frag [OFFSET]   type N       must not be fragmented; a fragment; of ICMP
  rule NAME    sa NAME    spi N
  drop         it was dropped; drop REASON for one reason, such as drop too_big
  not WORD …   what must not fit
  … or …       either must fit; and may be left out, and binds closer
A packet fits by what came or by what was in it once SAs were taken off.`

// FilterWords are the words by which a filter's terms begin.
func FilterWords() []string {
	return strings.Fields("all out in tcp udp icmp icmpv6 esp ah sctp arp ip ip6 proto host net src dst port sport dport len greater less df frag type rule sa spi drop not and or")
}

// maxFilter bounds the text of a filter.
const maxFilter = 1024

// A Filter chooses among trails. nil chooses all.
type Filter struct {
	// any are lists of terms, of one of which all must fit.
	any [][]term
	// verdict says that a term asks what became of the packet.
	verdict bool
	// rules and sas are those that are asked for.
	rules, sas []string
}

type term struct {
	not bool
	// Of these one is there: what it says of the datagram, of where it came from, or of
	// what became of it.
	flow  func(*Flow) bool
	left  func(bool) bool
	trail func(*Trail) bool
}

// empty says that there was no word.
func (t *term) empty() bool { return t.flow == nil && t.left == nil && t.trail == nil }

// A FilterError says what is wrong with the text of a filter.
type FilterError struct {
	// Column is where, in octets from 1; that of a word that is missing is behind the end.
	Column int
	// Message says what was expected and what was found.
	Message string
	// Word is one that is not known, and Known are those that could stand there.
	Word  string
	Known []string
}

func (e *FilterError) Error() string {
	return fmt.Sprintf("filter, column %d: %s", e.Column, e.Message)
}

// ParseFilter reads a filter as FilterGrammar has it. The empty text is nil, all packets.
// The error is a *FilterError.
func ParseFilter(text string) (*Filter, error) {
	if len(text) > maxFilter {
		return nil, &FilterError{Column: maxFilter + 1, Message: fmt.Sprintf("expected a filter of at most %d octets, found %d", maxFilter, len(text))}
	}
	f := new(Filter)
	p := &filterReader{text: text, filter: f}
	everything := false
	for {
		terms, err := p.terms()
		if err != nil {
			return nil, err
		}
		for i := range terms {
			f.verdict = f.verdict || terms[i].trail != nil
		}
		everything = everything || len(terms) == 0
		f.any = append(f.any, terms)
		if !p.more() {
			break
		}
		if p.next(); !p.more() { // "or"
			return nil, &FilterError{Column: len(text) + 1, Message: "expected words after or"}
		}
	}
	if everything {
		return nil, nil
	}
	return f, nil
}

// Names are the rules and SAs for which f asks.
func (f *Filter) Names() (rules, sas []string) {
	if f == nil {
		return nil, nil
	}
	return f.rules, f.sas
}

// Match says whether a trail whose packet has ended its way is one of the filter's.
func (f *Filter) Match(t *Trail) bool {
	return f == nil || f.match(&t.Flow, t.Left, t) || t.HasInner && f.match(&t.Inner, t.Left, t)
}

// MatchFrame says whether a frame that was written apart from a trail is one of the filter's.
// By its Trail, if it has one; else none is if the filter asks what became of a packet.
func (f *Filter) MatchFrame(frame *Frame) bool {
	if frame.Trail != nil {
		return f.Match(frame.Trail)
	}
	return f == nil || !f.verdict && f.match(&frame.Flow, !frame.Left, nil)
}

func (f *Filter) match(flow *Flow, left bool, t *Trail) bool {
	for _, terms := range f.any {
		if fit(terms, flow, left, t) {
			return true
		}
	}
	return false
}

func fit(terms []term, flow *Flow, left bool, t *Trail) bool {
	for i := range terms {
		x := &terms[i]
		var fits bool
		switch {
		case x.flow != nil:
			fits = x.flow(flow)
		case x.left != nil:
			fits = x.left(left)
		default:
			fits = x.trail(t)
		}
		if fits == x.not {
			return false
		}
	}
	return true
}

// filterReader reads the words of a filter.
type filterReader struct {
	text   string
	at     int // of what was not read
	last   int // of the word that was read last
	drop   int // of the word that was read after the last drop, and is no reason
	filter *Filter
}

// peek returns the next word and where it is, "" at the end.
func (p *filterReader) peek() (word string, at int) {
	for at = p.at; at < len(p.text) && isSpace(p.text[at]); at++ {
	}
	end := at
	for end < len(p.text) && !isSpace(p.text[end]) {
		end++
	}
	return p.text[at:end], at
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func (p *filterReader) more() bool {
	word, _ := p.peek()
	return word != ""
}

func (p *filterReader) next() string {
	word, at := p.peek()
	p.at, p.last = at+len(word), at
	return word
}

// errorf is about the word that was read last.
func (p *filterReader) errorf(format string, args ...any) error {
	return &FilterError{Column: p.last + 1, Message: fmt.Sprintf(format, args...)}
}

// terms reads words up to an or, or the end.
func (p *filterReader) terms() (list []term, err error) {
	first := true
	for ; p.more(); first = false {
		if word, _ := p.peek(); word == "or" {
			if first {
				p.next()
				return nil, p.errorf("expected words before or")
			}
			return list, nil
		}
		t, err := p.term()
		if err != nil {
			return nil, err
		}
		if !t.empty() {
			list = append(list, t)
		}
	}
	return list, nil
}

func (p *filterReader) term() (t term, err error) {
	word := p.next()
	if word == "not" {
		if t, err = p.term(); err == nil && t.empty() {
			return t, p.errorf("expected a word after not")
		}
		t.not = !t.not
		return t, err
	}
	if proto, ok := filterProtocols()[word]; ok {
		t.flow = func(f *Flow) bool { return f.Src.IsValid() && slices.Contains(proto, f.Proto) }
		return t, nil
	}
	switch word {
	case "and":
		if next, at := p.peek(); next == "" || next == "or" {
			p.last = at
			return t, p.errorf("expected a word after and")
		}
		return t, nil
	case "", "all":
		return t, nil
	case "out", "in":
		t.left = func(left bool) bool { return left == (word == "out") }
	case "arp", "ip", "ip6":
		want := map[string]uint16{"arp": 0x0806, "ip": wire.EtherTypeIPv4, "ip6": wire.EtherTypeIPv6}[word]
		t.flow = func(f *Flow) bool { return f.EtherType == want }
	case "df":
		t.flow = func(f *Flow) bool { return f.DF }
	case "frag":
		offset := -1
		if next, _ := p.peek(); next != "" && next[0] >= '0' && next[0] <= '9' && !strings.ContainsAny(next, ".:") {
			n, err := p.number(word, 65535)
			if err != nil {
				return t, err
			}
			offset = int(n)
		}
		t.flow = func(f *Flow) bool { return f.Fragment && (offset < 0 || f.Offset == offset) }
	case "len", "greater", "less":
		n, err := p.number(word, 1<<32-1)
		t.flow = func(f *Flow) bool {
			return f.Src.IsValid() && (f.Len == int(n) || word == "greater" && f.Len > int(n) || word == "less" && f.Len < int(n))
		}
		return t, err
	case "type":
		n, err := p.number(word, 255)
		icmp := filterProtocols()["icmp"]
		t.flow = func(f *Flow) bool {
			return f.HasPorts && slices.Contains(icmp, f.Proto) && f.ICMPType == uint8(n)
		}
		return t, err
	case "proto":
		n, err := p.number(word, 255)
		t.flow = func(f *Flow) bool { return f.Src.IsValid() && f.Proto == uint8(n) }
		return t, err
	case "host", "net", "src", "dst":
		switch next, _ := p.peek(); {
		case word == "host" || word == "net":
		case next == "port":
			return p.port(map[string]string{"src": "sport", "dst": "dport"}[word], p.next())
		case next == "host" || next == "net":
			p.next()
		}
		prefix, err := p.prefix(word)
		t.flow = func(f *Flow) bool {
			return word != "dst" && prefix.Contains(f.Src) || word != "src" && prefix.Contains(f.Dst)
		}
		return t, err
	case "port", "sport", "dport":
		return p.port(word, word)
	case "spi":
		n, err := p.number(word, 1<<32-1)
		t.flow = nil
		t.trail = func(x *Trail) bool {
			return x.Flow.SPI == uint32(n) || x.any(func(s *Step) bool { return s.SPI == uint32(n) })
		}
		return t, err
	case "rule", "sa":
		name := p.next()
		if name == "" {
			return t, p.errorf("expected a name after %s", word)
		}
		if word == "rule" {
			p.filter.rules = append(p.filter.rules, name)
		} else {
			p.filter.sas = append(p.filter.sas, name)
		}
		t.trail = func(x *Trail) bool { return x.any(func(s *Step) bool { return s.has(word, name) }) }
	case "drop":
		t.trail = func(x *Trail) bool { return x.Reason != wire.DropNone }
		next, at := p.peek()
		if reason, ok := wire.ParseDropReason(next); ok {
			p.next()
			t.trail = func(x *Trail) bool { return x.Reason == reason }
		} else {
			p.drop = at
		}
	default:
		if next, _ := p.peek(); next == ">" {
			return p.ends(word)
		}
		return t, p.unknown(word)
	}
	return t, nil
}

// unknown is the error about a word.
func (p *filterReader) unknown(word string) error {
	e := &FilterError{Column: p.last + 1, Word: word, Known: FilterWords()}
	if p.drop > 0 && p.drop == p.last {
		reasons := wire.DropReasonNames()
		e.Known = append(reasons, e.Known...)
		e.Message = fmt.Sprintf("%q is no reason of a drop and no word of a filter; reasons are %s", word, strings.Join(reasons, ", "))
		return e
	}
	e.Message = fmt.Sprintf("%q is not known here; known are %s, and SRC > DST", word, strings.Join(FilterWords(), ", "))
	return e
}

// address reads one; that of IPv4 written in IPv6 is the one of IPv4.
func address(word string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(word)
	return a.Unmap(), err == nil && a.Zone() == ""
}

// port reads the number of a port; which is "port", "sport" or "dport".
func (p *filterReader) port(which, after string) (t term, err error) {
	n, err := p.number(after, 65535)
	t.flow = func(f *Flow) bool {
		return f.HasPorts && f.hasPortNumbers() && (which != "dport" && f.SrcPort == uint16(n) || which != "sport" && f.DstPort == uint16(n))
	}
	return t, err
}

func filterProtocols() map[string][]uint8 {
	return map[string][]uint8{
		"tcp": {wire.ProtoTCP}, "udp": {wire.ProtoUDP}, "icmp": {wire.ProtoICMP, wire.ProtoICMPv6}, "icmp6": {wire.ProtoICMPv6}, "icmpv6": {wire.ProtoICMPv6},
		"esp": {wire.ProtoESP}, "ah": {wire.ProtoAH}, "sctp": {wire.ProtoSCTP},
	}
}

func (f *Flow) hasPortNumbers() bool {
	switch f.Proto {
	case wire.ProtoTCP, wire.ProtoUDP, wire.ProtoUDPLite, wire.ProtoSCTP, wire.ProtoDCCP:
		return true
	}
	return false
}

// has says whether a step is about the rule or SA of that name.
func (s *Step) has(kind, name string) bool {
	if kind == "rule" {
		return s.Station == Rule && s.Name == name || s.Station == Drop && s.Verdict == name
	}
	return (s.Station == SA || s.Station == Transform || s.Station == Drop) && s.Name == name
}

func (t *Trail) any(f func(*Step) bool) bool {
	for i := range t.steps[:t.n] {
		if f(&t.steps[i]) {
			return true
		}
	}
	return false
}

func (p *filterReader) number(after string, most uint64) (uint64, error) {
	w := p.next()
	n, err := strconv.ParseUint(w, 0, 64)
	if err != nil || n > most {
		return 0, p.errorf("expected a number from 0 to %d after %s, found %q", most, after, w)
	}
	return n, nil
}

func (p *filterReader) prefix(after string) (netip.Prefix, error) {
	w := p.next()
	if a, ok := address(w); ok {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	x, err := netip.ParsePrefix(w)
	if err != nil || x.Addr().Is4In6() {
		return x, p.errorf("expected an address or prefix such as 192.0.2.0/24 or 2001:db8::9, without a zone, after %s, found %q", after, w)
	}
	return x.Masked(), nil
}

// ends reads "SRC > DST", of which src has been read.
func (p *filterReader) ends(src string) (t term, err error) {
	from, err := p.end(src)
	if err != nil {
		return t, err
	}
	p.next()
	to, err := p.end(p.next())
	t.flow = func(f *Flow) bool { return from.fits(f, f.Src, f.SrcPort) && to.fits(f, f.Dst, f.DstPort) }
	return t, err
}

type end struct {
	addr netip.Addr // invalid for any
	port uint16
	has  bool
}

// end reads one end, which is the word that was read last.
func (p *filterReader) end(word string) (e end, err error) {
	if word == "any" {
		return e, nil
	}
	if x, err := netip.ParseAddrPort(word); err == nil && x.Addr().Zone() == "" {
		return end{x.Addr().Unmap(), x.Port(), true}, nil
	}
	var ok bool
	if e.addr, ok = address(strings.Trim(word, "[]")); !ok {
		return e, p.errorf("expected an address, maybe with a port, or any, found %q", word)
	}
	return e, nil
}

func (e end) fits(f *Flow, a netip.Addr, port uint16) bool {
	return a.IsValid() && (!e.addr.IsValid() || e.addr == a) && (!e.has || f.HasPorts && f.hasPortNumbers() && port == e.port)
}
