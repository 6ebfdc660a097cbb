package explain

import (
	"strconv"
	"strings"

	"bitw/netstack/wire"
)

// words lists the options that p can have, for errors.
func (p *Packet) words() string {
	list := []string{"len", "df", "tos", "dscp", "ttl", "frag"}
	switch {
	case p.Proto == wire.ProtoTCP:
		list = append(list, "syn")
	case p.isICMP():
		list = append(list, "type", "code", "mtu", "about")
	case p.protected():
		list = append(list, "spi", "seq", "carrying")
	}
	return strings.Join(list, ", ") + ", "
}

// options reads all behind the addresses.
func (r *reader) options(p *Packet, depth int) error {
	seen := make(map[string]bool)
	for {
		t := r.next()
		word := t.text
		known := strings.Contains(", "+p.words(), ", "+word+", ")
		if word == "" || !known {
			r.n -= min(1, len(word)) // finish says what it is
			if p.isICMP() && !seen["type"] {
				p.ICMPType = p.usualType()
			}
			if err := r.check(p, seen); err != nil {
				return err
			}
			return r.finish(p, depth, p.words())
		}
		if seen[word] || word == "dscp" && seen["tos"] || word == "tos" && seen["dscp"] {
			return r.expected(t, example, "%s once", word)
		}
		seen[word] = true
		if err := r.option(p, word, depth); err != nil {
			return err
		}
	}
}

// option reads what stands behind one word.
func (r *reader) option(p *Packet, word string, depth int) (err error) {
	number := func(low, high uint64) (n uint64) {
		if err == nil {
			n, err = r.number(word, low, high, exampleOf(word))
		}
		return n
	}
	switch word {
	case "len":
		p.Len = int(number(20, 65535))
	case "df":
		p.DF = true
	case "syn":
		p.SYN = true
	case "tos":
		p.TOS = uint8(number(0, 255))
	case "dscp":
		return r.dscp(p)
	case "ttl":
		p.TTL = uint8(number(1, 255))
	case "type":
		p.ICMPType = uint8(number(0, 255))
	case "code":
		p.ICMPCode = uint8(number(0, 255))
	case "mtu":
		p.MTU = int(number(1, 65535))
	case "spi":
		p.SPI = uint32(number(1, 1<<32-1))
	case "seq":
		p.Seq = uint32(number(0, 1<<32-1))
	case "frag":
		p.Fragment = true
		t := r.next()
		n, numeric := strconv.ParseUint(t.text, 0, 16)
		switch {
		case numeric != nil:
			r.n -= min(1, len(t.text))
		case n%8 != 0:
			return r.expected(t, exampleOf("frag"), "an offset in octets, a multiple of 8")
		default:
			p.Offset = int(n)
		}
	case "carrying", "about":
		if t := r.next(); t.text != "(" && word == "about" {
			return r.expected(t, exampleOf("about"), "( and the packet that the error is about")
		} else if t.text != "(" {
			return r.expected(t, "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7 carrying (udp 10.2.0.1:53 > 10.1.0.1:1024)", "( and the packet inside")
		}
		if depth == maxDepth {
			return r.expected(r.next(), example, "no more packets inside one another")
		}
		p.Inner = new(Packet)
		return r.packet(p.Inner, depth+1)
	}
	return err
}

// check looks at what belongs together.
func (r *reader) check(p *Packet, seen map[string]bool) error {
	end := token{r.peek(), len(r.text)}
	if r.n < len(r.tokens) {
		end.at = r.tokens[r.n].at
	}
	need := p.headers()
	switch {
	case p.protected() && !seen["spi"]:
		return r.expected(end, "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7", "spi and its number")
	case p.Inner != nil && p.isICMP() && !p.isError():
		return r.expected(end, exampleOf("about"), "the type of an error before about, such as type 3, or of IPv6 type 1, and not type %d", p.ICMPType)
	case p.Inner != nil && p.Inner.Frame != "":
		return r.expected(end, "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 carrying (udp 10.2.0.1:53 > 10.1.0.1:1024)", "a datagram inside, and not %s", p.Inner.Frame)
	case p.Inner != nil && p.isICMP() && p.Inner.six() != p.six():
		return r.expected(end, exampleOf("about"), "an ICMP error about a datagram of its own family")
	case p.Inner != nil && p.Inner.Fragment:
		return r.expected(end, example, "a whole datagram inside")
	case p.Len != 0 && p.Len < need:
		return r.expected(end, example, "len %d or more, for so long are the headers", need)
	case p.DF && p.six():
		return r.expected(end, "udp [2001:db8::1]:1024 > [2001:db8::2]:53 len 1500", "no df, for no router fragments IPv6")
	case p.DF && p.Fragment:
		return r.expected(end, example, "df or frag, for what must not be fragmented is no fragment")
	case p.Fragment && p.Offset+p.length() > 65535:
		return r.expected(end, exampleOf("frag"), "a fragment that ends within 65535 octets")
	}
	return nil
}

// dscp reads a code point by number or name (RFC 2474, RFC 2597, RFC 3246, RFC 5865).
func (r *reader) dscp(p *Packet) error {
	t := r.next()
	n, err := strconv.ParseUint(t.text, 0, 8)
	w := t.text
	digit := func(i int, low, high byte) bool { return w[i] >= low && w[i] <= high }
	switch {
	case err == nil && n < 64:
	case w == "ef":
		n = 46
	case w == "va", w == "voice-admit":
		n = 44
	case len(w) == 3 && w[:2] == "cs" && digit(2, '0', '7'):
		n = uint64(w[2]-'0') * 8
	case len(w) == 4 && w[:2] == "af" && digit(2, '1', '4') && digit(3, '1', '3'):
		n = uint64(w[2]-'0')*8 + uint64(w[3]-'0')*2
	default:
		return r.expected(t, example+" dscp ef", "a code point: 0 to 63, ef, af11 to af43 or cs0 to cs7")
	}
	p.TOS = uint8(n) << 2
	return nil
}

// exampleOf is a packet with that option.
func exampleOf(word string) string {
	switch word {
	case "tos":
		return "tcp 10.0.0.5:1234 > 192.0.2.9:443 tos 0x10"
	case "ttl":
		return "tcp 10.0.0.5:1234 > 192.0.2.9:443 ttl 64"
	case "frag":
		return "udp 10.0.0.5:1024 > 192.0.2.9:53 len 1500 frag 1480"
	case "type", "code", "mtu":
		return "icmp 203.0.113.1 > 10.0.0.5 type 3 code 4 mtu 1400"
	case "about":
		return "icmp 203.0.113.1 > 10.0.0.5 type 3 code 4 mtu 1400 about (udp 10.0.0.5:1 > 192.0.2.9:2)"
	case "spi", "seq":
		return "esp 192.0.2.9 > 10.0.0.5 spi 0x1000 seq 7"
	}
	return example
}
