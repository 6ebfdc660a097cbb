package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// text reads n as a scalar; want is for messages, such as "a name".
func (s *source) text(n *node, want string) (string, bool) {
	if n.kind != scalar || n.text == "" {
		s.fail(n.place, "", "expected %s, found %s", want, n.found())
		return "", false
	}
	return n.text, true
}

// enum reads one of some words.
func enum[T ~string](s *source, n *node, allowed ...T) T {
	words := make([]string, len(allowed))
	for i, a := range allowed {
		words[i] = string(a)
	}
	want := strings.Join(words, " or ")
	if len(words) > 2 {
		want = "one of " + strings.Join(words, ", ")
	}
	t, ok := s.text(n, want)
	if !ok {
		return ""
	}
	if !contains(words, t) {
		s.fail(n.place, s.suggest(t, words, ""), "expected %s, found %s", want, quote(t))
		return ""
	}
	return T(t)
}

// nameForm is what a name looks like.
var nameForm = pattern(`^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,63}$`)

func isName(t string) bool { return nameForm().MatchString(t) }

// name reads the name of an SA or a policy. It must fit into a key file, a metric
// and a command line without quotes.
func (s *source) name(n *node) string {
	t, ok := s.text(n, "a name")
	if ok && !isName(t) {
		s.fail(n.place, "use 1 to 64 letters, digits and _ . : / -, a letter or digit first", "%s cannot be a name", quote(t))
		return ""
	}
	return t
}

// boolean reads true or false; yes and no are how swanctl says it.
func (s *source) boolean(n *node) bool {
	t, ok := s.text(n, "true or false")
	switch {
	case !ok:
	case t == "true", t == "yes":
		return true
	case t != "false" && t != "no":
		s.fail(n.place, "", "expected true or false, found %s", quote(t))
	}
	return false
}

// number reads a decimal or 0x number from lo to hi; underscores may group digits.
func (s *source) number(n *node, lo, hi uint64) (uint64, bool) {
	want := fmt.Sprintf("a number from %d to %d", lo, hi)
	t, ok := s.text(n, want)
	if !ok {
		return 0, false
	}
	v, err := parseNumber(t)
	if err != nil || v < lo || v > hi {
		s.fail(n.place, numberHint(t), "expected %s, found %s", want, quote(t))
		return 0, false
	}
	return v, true
}

// numberHint tells about octal numbers, which YAML's versions read differently.
func numberHint(t string) string {
	if len(t) > 1 && t[0] == '0' && strings.Trim(t, "0123456789") == "" {
		return "write decimal numbers without leading zeros, hexadecimal ones with 0x"
	}
	return ""
}

func parseNumber(t string) (uint64, error) {
	if len(t) > 1 && t[0] == '0' && t[1] != 'x' && t[1] != 'X' {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(t, 0, 64)
}

var byteUnits = []struct {
	suffix string
	size   uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// bytes reads a number of octets, with KiB, MiB, GiB or TiB if wanted.
func (s *source) bytes(n *node) uint64 {
	const want = "a number of octets such as 1000000 or 64GiB"
	t, ok := s.text(n, want)
	if !ok {
		return 0
	}
	size := uint64(1)
	digits := t
	for _, u := range byteUnits {
		if d, ok := strings.CutSuffix(t, u.suffix); ok {
			digits, size = strings.TrimSpace(d), u.size
		}
	}
	v, err := parseNumber(digits)
	if err != nil || v > (1<<64-1)/size {
		s.fail(n.place, "", "expected %s, found %s", want, quote(t))
		return 0
	}
	return v * size
}

func (s *source) duration(n *node) time.Duration {
	return s.time(n, "a time such as 30m, 8h or 1h30m")
}

// time reads a time, which is wanted in these words.
func (s *source) time(n *node, want string) time.Duration {
	t, ok := s.text(n, want)
	if !ok {
		return 0
	}
	v, err := time.ParseDuration(t)
	if err != nil || v < 0 {
		s.fail(n.place, "", "expected %s, found %s", want, quote(t))
		return 0
	}
	return v
}

// isStation says whether a can be the address of one host on a wire.
func isStation(a netip.Addr) bool {
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// address reads one IP address without zone.
func (s *source) address(n *node) (netip.Addr, bool) {
	t, ok := s.text(n, "an IP address")
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(t)
	switch {
	case err != nil:
		s.fail(n.place, "", "expected an IP address, found %s", quote(t))
	case a.Zone() != "":
		s.fail(n.place, fmt.Sprintf("write %s", a.WithZone("")), "address %s has a zone, and there is only one interface", quote(t))
	case a.Is4In6():
		s.fail(n.place, fmt.Sprintf("write %s", a.Unmap()), "address %s is IPv4 mapped into IPv6", quote(t))
	default:
		return a, true
	}
	return netip.Addr{}, false
}

// prefix reads a prefix, or an address as the prefix that holds only it.
func (s *source) prefix(n *node) (netip.Prefix, bool) {
	t, ok := s.text(n, "a prefix such as 10.0.0.0/8")
	if !ok {
		return netip.Prefix{}, false
	}
	if !strings.Contains(t, "/") {
		a, ok := s.address(n)
		if !ok {
			return netip.Prefix{}, false
		}
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(t)
	switch {
	case err != nil:
		s.fail(n.place, "", "expected a prefix such as 10.0.0.0/8, found %s", quote(t))
	case p.Addr().Is4In6():
		s.fail(n.place, "write it as an IPv4 prefix", "prefix %s is IPv4 mapped into IPv6", quote(t))
	case p.Masked() != p:
		s.fail(n.place, fmt.Sprintf("write %s or %s", p.Masked(), p.Addr()), "prefix %s has bits set after its %d bits", quote(t), p.Bits())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// addressRange reads an address, a prefix or first-last.
func (s *source) addressRange(n *node) (AddressRange, bool) {
	t, ok := s.text(n, "an address, a prefix or a range")
	if !ok {
		return AddressRange{}, false
	}
	if t == "any" {
		s.fail(n.place, "leave the key out to match any address", "expected an address, a prefix or a range, found %q", t)
		return AddressRange{}, false
	}
	first, last, isRange := strings.Cut(t, "-")
	if !isRange {
		p, ok := s.prefix(n)
		if !ok {
			return AddressRange{}, false
		}
		return AddressRange{p.Addr(), lastAddr(p)}, true
	}
	a, ok := s.address(&node{kind: scalar, place: n.place, text: strings.TrimSpace(first)})
	if !ok {
		return AddressRange{}, false
	}
	b, ok := s.address(&node{kind: scalar, place: n.place, text: strings.TrimSpace(last)})
	if !ok {
		return AddressRange{}, false
	}
	switch {
	case a.BitLen() != b.BitLen():
		s.fail(n.place, "", "range %s begins with %s and ends with %s", quote(t), family(a), family(b))
	case b.Less(a):
		s.fail(n.place, fmt.Sprintf("write %s-%s", b, a), "range %s ends before it begins", quote(t))
	default:
		return AddressRange{a, b}, true
	}
	return AddressRange{}, false
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// numberRange reads n or first-last, each from 0 to hi.
func (s *source) numberRange(n *node, what string, hi uint64) (first, last uint64, ok bool) {
	want := fmt.Sprintf("%s from 0 to %d, or a range first-last", what, hi)
	t, ok := s.text(n, want)
	if !ok {
		return 0, 0, false
	}
	a, b, isRange := strings.Cut(t, "-")
	if !isRange {
		b = a
	}
	first, err := parseNumber(strings.TrimSpace(a))
	last, err2 := parseNumber(strings.TrimSpace(b))
	switch {
	case err != nil || err2 != nil || first > hi || last > hi:
		s.fail(n.place, numberHint(t), "expected %s, found %s", want, quote(t))
	case last < first:
		s.fail(n.place, fmt.Sprintf("write %d-%d", last, first), "range %s ends before it begins", quote(t))
	default:
		return first, last, true
	}
	return 0, 0, false
}

// oneOrMore gives the items of a list, or a value that stands for a list of one.
func (s *source) oneOrMore(n *node, want string) []*node {
	switch {
	case n.kind == list && len(n.items) == 0:
		s.fail(n.place, "leave the key out if it has nothing to say", "expected %s, found an empty list", want)
		return nil
	case n.kind == list:
		return n.items
	case n.kind == scalar:
		return []*node{n}
	}
	s.fail(n.place, "", "expected %s, found %s", want, n.found())
	return nil
}

// list gives the items of a list; an entry without a value is an empty one.
func (s *source) list(n *node, want string) []*node {
	if n.kind != list && n.kind != null {
		s.fail(n.place, "begin each with a dash", "expected a list of %s, found %s", want, n.found())
		return nil
	}
	return n.items
}

// decodeHex reads a key. Its errors never hold more of the key than one digit.
func decodeHex(t string) ([]byte, error) {
	t = strings.TrimSpace(t)
	if len(t) >= 2 && t[0] == '0' && (t[1] == 'x' || t[1] == 'X') {
		t = t[2:]
	}
	digits := make([]byte, 0, len(t))
	for _, r := range t {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'f', r >= 'A' && r <= 'F':
			digits = append(digits, byte(r))
		case r == ' ' || r == '\t' || r == '\n' || r == ':' || r == '_':
		default:
			return nil, fmt.Errorf("expected hexadecimal digits, found %q as digit %d", r, len(digits)+1)
		}
	}
	if len(digits)%2 != 0 {
		return nil, fmt.Errorf("expected two hexadecimal digits an octet, found %d digits", len(digits))
	}
	if len(digits) == 0 {
		return nil, fmt.Errorf("expected hexadecimal digits, found none")
	}
	b := make([]byte, len(digits)/2)
	hex.Decode(b, digits)
	clear(digits)
	return b, nil
}
