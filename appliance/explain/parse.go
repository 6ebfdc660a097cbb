package explain

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"bitw/netstack/wire"
)

// Grammar tells in a few lines how a packet is written.
const Grammar = `PROTO SOURCE > DESTINATION [OPTION ...] [out|in]

  PROTO    tcp, udp, sctp, dccp, udplite, icmp, icmpv6 (icmp6), esp, ah, or a number
  SOURCE   10.0.0.5 or 2001:db8::1; with a port 10.0.0.5:1234 or [2001:db8::1]:80
  out, in  from the host or from the wire; without, as the addresses tell

  len N              octets of the datagram, its IP header included
  df                 must not be fragmented
  tos N, dscp X      the TOS or traffic class; X is a number or ef, af41, cs1, ...
  ttl N              the TTL or hop limit
  syn                of TCP, the first segment of a connection
  type N, code N     of ICMP
  frag [OFFSET]      a fragment, the first one or that at OFFSET octets
  spi N, seq N       of ESP and AH
  carrying (PACKET)  what is inside ESP or AH
  about (PACKET)     what an ICMP error is about; mtu N is what it tells

Frames without IP are arp, lldp, eapol, stp, vlan, broadcast or ethertype N.`

const (
	wordEtherType = "ethertype"
	wordBroadcast = "broadcast"

	example       = "tcp 10.0.0.5:1234 > 192.0.2.9:443 len 1500 df"
	maxText       = 1000
	maxDepth      = 3
	wordsForProto = "tcp, udp, icmp, icmpv6, esp, ah, sctp, dccp, udplite, a protocol number, or arp, lldp, eapol, stp, vlan, broadcast, ethertype"
)

// A ParseError says where a packet was not understood.
type ParseError struct {
	Text string
	// Column counts octets from 1; that behind the last says that something is missing.
	Column   int
	Found    string // empty at the end
	Expected string
	// Example is one that would do.
	Example string
}

// Error returns what was found and expected, with the place marked in the text.
func (e *ParseError) Error() string {
	found := "the end"
	if e.Found != "" {
		found = strconv.Quote(e.Found)
	}
	return fmt.Sprintf("column %d: found %s, expected %s\n  %s\n  %s^\nfor example: %s",
		e.Column, found, e.Expected, strings.Map(visible, e.Text), strings.Repeat(" ", e.Column-1), e.Example)
}

// visible keeps the columns of what no terminal should be given.
func visible(r rune) rune {
	if r < ' ' || r >= 0x7f {
		return '?'
	}
	return r
}

// Parse reads a packet as Grammar has it. The error is a *ParseError.
func Parse(text string) (*Packet, error) {
	for i := range len(text) {
		if text[i] >= 0x80 {
			return nil, &ParseError{Text: text[:i], Column: i + 1, Found: string(text[i]), Expected: "plain ASCII", Example: example}
		}
	}
	if len(text) > maxText {
		return nil, &ParseError{Text: text[:maxText], Column: maxText + 1, Found: "more", Expected: fmt.Sprintf("at most %d characters", maxText), Example: example}
	}
	r := &reader{text: text, tokens: split(text)}
	p := new(Packet)
	if w := r.peek(); w == Out || w == In {
		p.Direction = r.next().text
	}
	if err := r.packet(p, 0); err != nil {
		return nil, err
	}
	return p, nil
}

type token struct {
	text string
	at   int // offset in octets
}

// split cuts at spaces; parentheses and > are words of their own.
func split(text string) (list []token) {
	start := -1
	end := func(i int) {
		if start >= 0 {
			list = append(list, token{text[start:i], start})
			start = -1
		}
	}
	for i := range len(text) {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			end(i)
		case c == '(' || c == ')' || c == '>':
			end(i)
			list = append(list, token{text[i : i+1], i})
		case start < 0:
			start = i
		}
	}
	end(len(text))
	return list
}

type reader struct {
	text   string
	tokens []token
	n      int
}

func (r *reader) peek() string {
	if r.n < len(r.tokens) {
		return r.tokens[r.n].text
	}
	return ""
}

func (r *reader) next() token {
	if r.n < len(r.tokens) {
		r.n++
		return r.tokens[r.n-1]
	}
	return token{"", len(r.text)}
}

// expected is the error at t.
func (r *reader) expected(t token, example, format string, args ...any) error {
	return &ParseError{Text: r.text, Column: t.at + 1, Found: t.text, Expected: fmt.Sprintf(format, args...), Example: example}
}

// packet reads one up to the end, or where depth is not 0 up to the parenthesis.
func (r *reader) packet(p *Packet, depth int) error {
	t := r.next()
	switch t.text {
	case "arp", "lldp", "eapol", "stp", "vlan", wordBroadcast:
		p.Frame = t.text
		return r.finish(p, depth, "")
	case wordEtherType:
		p.Frame = wordEtherType
		n, err := r.number(wordEtherType, 0x600, 0xffff, "ethertype 0x8899")
		if err != nil {
			return err
		}
		if n == wire.EtherTypeIPv4 || n == wire.EtherTypeIPv6 {
			return r.expected(r.tokens[r.n-1], example, "an EtherType other than that of IP, of which the packet itself is asked about")
		}
		p.EtherType = uint16(n)
		return r.finish(p, depth, "")
	}
	proto, ok := protoNumber(t.text)
	if !ok {
		return r.expected(t, example, wordsForProto)
	}
	p.Proto = proto
	src := r.next()
	var srcPort, dstPort bool
	var err error
	if p.Src, p.SrcPort, srcPort, err = r.end(src, p); err != nil {
		return err
	}
	if t := r.next(); t.text != ">" {
		return r.expected(t, example, "> and the destination")
	}
	dst := r.next()
	if p.Dst, p.DstPort, dstPort, err = r.end(dst, p); err != nil {
		return err
	}
	switch {
	case p.Src.Is4() != p.Dst.Is4():
		return r.expected(dst, example, "an address of the family of %v", p.Src)
	case srcPort != dstPort:
		return r.expected(dst, example, "ports at both ends or at none")
	case p.Proto == wire.ProtoICMP && p.six():
		return r.expected(t, "icmpv6 2001:db8::1 > 2001:db8::2 type 128", "icmpv6 between IPv6 addresses")
	case p.Proto == wire.ProtoICMPv6 && !p.six():
		return r.expected(t, "icmp 10.0.0.5 > 192.0.2.9 type 8", "icmp between IPv4 addresses")
	}
	p.HasPorts = srcPort
	return r.options(p, depth)
}

// end reads an address, with its port where there must be or may be one.
func (r *reader) end(t token, p *Packet) (netip.Addr, uint16, bool, error) {
	const portless = "icmp 10.0.0.5 > 192.0.2.9 type 8"
	ported := hasPorts(p.Proto)
	ap, err := netip.ParseAddrPort(t.text)
	a, withPort := ap.Addr(), err == nil
	if !withPort {
		a, err = netip.ParseAddr(t.text)
	}
	known := err == nil
	switch {
	case known && a.Zone() != "":
		err = r.expected(t, example, "%v without a zone, for there is one interface", a.WithZone(""))
	case known && a.Is4In6():
		err = r.expected(t, example, "IPv4 written as %v", a.Unmap())
	case withPort && !ported && p.Proto != wire.ProtoESP:
		err = r.expected(t, portless, "an address without a port, for this protocol has none")
	case ported && !withPort:
		err = r.expected(t, example, "an address with its port, 0 to 65535, such as 192.0.2.9:443 or [2001:db8::9]:443")
	case !known:
		err = r.expected(t, portless, "an address, such as 192.0.2.9 or 2001:db8::9")
	}
	return a, ap.Port(), withPort, err
}

// finish reads what may end a packet. options are the words that could have stood there.
func (r *reader) finish(p *Packet, depth int, options string) error {
	t := r.next()
	switch {
	case depth > 0 && t.text == ")":
		return nil
	case depth > 0:
		return r.expected(t, example+" carrying (...)", "%s) to end the packet inside", options)
	case t.text == "":
		return nil
	case t.text == Out || t.text == In:
		if p.Direction != "" && p.Direction != t.text {
			return r.expected(t, example+" out", "one direction, and %s was said before", p.Direction)
		}
		p.Direction = t.text
		if t := r.next(); t.text != "" {
			return r.expected(t, example+" out", "nothing behind the direction")
		}
		return nil
	}
	return r.expected(t, example, "%sout or in", options)
}

// number reads the number behind a word.
func (r *reader) number(word string, low, high uint64, example string) (uint64, error) {
	t := r.next()
	n, err := strconv.ParseUint(t.text, 0, 64)
	if err != nil || n < low || n > high {
		return 0, r.expected(t, example, "a number from %d to %d behind %s", low, high, word)
	}
	return n, nil
}

// protoNumber knows the names of protocols that a configuration has, and icmp6.
func protoNumber(word string) (uint8, bool) {
	switch word {
	case "tcp":
		return wire.ProtoTCP, true
	case "udp":
		return wire.ProtoUDP, true
	case "icmp":
		return wire.ProtoICMP, true
	case "icmpv6", "icmp6":
		return wire.ProtoICMPv6, true
	case "esp":
		return wire.ProtoESP, true
	case "ah":
		return wire.ProtoAH, true
	case "sctp":
		return wire.ProtoSCTP, true
	case "dccp":
		return wire.ProtoDCCP, true
	case "udplite":
		return wire.ProtoUDPLite, true
	case "gre":
		return 47, true
	case "ipip":
		return wire.ProtoIPv4, true
	case "ipv6":
		return wire.ProtoIPv6, true
	case "mh":
		return wire.ProtoMobility, true
	}
	n, err := strconv.ParseUint(word, 0, 8)
	switch n {
	case wire.ProtoHopByHop, wire.ProtoRouting, wire.ProtoFragment, wire.ProtoDestOpts:
		return 0, false // headers of IPv6, behind which a protocol would have to come
	}
	return uint8(n), err == nil
}

func hasPorts(proto uint8) bool {
	switch proto {
	case wire.ProtoTCP, wire.ProtoUDP, wire.ProtoDCCP, wire.ProtoSCTP, wire.ProtoUDPLite:
		return true
	}
	return false
}
