package graphcomp

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"bitw/config"
)

// An Option is one romopt of a node. Its arguments fit what the node takes.
type Option struct {
	Name string          `json:"name"`
	Args []string        `json:"args,omitempty"`
	Pos  config.Position `json:"-"`
}

// String is the option as romopt has it.
func (o Option) String() string { return strings.Join(append([]string{o.Name}, o.Args...), " ") }

// An optionKind is an option that a node knows.
type optionKind struct {
	name   string
	args   []argument
	repeat bool
	// excludes is another option that cannot stand beside it.
	excludes string
}

// usage is how the option is written.
func (k *optionKind) usage() string {
	text := k.name
	for _, a := range k.args {
		if a.optional {
			text += " [" + a.name + "]"
		} else {
			text += " " + a.name
		}
	}
	return text
}

// An argument is a word of an option; check says what is wrong with one.
type argument struct {
	name     string
	optional bool
	check    func(string) error
}

func optional(a argument) argument {
	a.optional = true
	return a
}

var (
	interfaceArg = argument{name: "NAME", check: func(s string) error {
		if len(s) > 15 || strings.ContainsAny(s, "/:") || s == "." || s == ".." {
			return fmt.Errorf("%s is not the name of an interface", quote(s))
		}
		return nil
	}}
	addressArg = argument{name: "ADDRESS", check: func(s string) error {
		_, err := parseAddress(s)
		return err
	}}
	macArg = argument{name: "MAC", check: func(s string) error {
		_, err := parseMAC(s)
		return err
	}}
	prefixArg = argument{name: "NETWORK", check: func(s string) error {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			return fmt.Errorf("%s is not a network such as 198.51.100.0/24", quote(s))
		}
		return nil
	}}
	durationArg = argument{name: "TIME", check: func(s string) error {
		if d, err := time.ParseDuration(s); err != nil || d < time.Second || d > time.Hour {
			return fmt.Errorf("%s is not a time from 1s to 1h", quote(s))
		}
		return nil
	}}
	mtuArg = argument{name: "OCTETS", check: func(s string) error {
		if n, err := strconv.Atoi(s); err != nil || n < 576 || n > 65535 {
			return fmt.Errorf("%s is not a number of octets from 576 to 65535", quote(s))
		}
		return nil
	}}
	pathArg = argument{name: "PATH", check: func(string) error { return nil }}
)

func octetsArg(name string) argument {
	return argument{name: name, check: func(s string) error {
		_, err := parseCount(s, 1)
		return err
	}}
}

func rangeArg(name string) argument {
	return argument{name: name, check: func(s string) error {
		_, _, err := parseRange(s)
		return err
	}}
}

func enumArg(values ...string) argument {
	return argument{name: strings.Join(values, "|"), check: func(s string) error {
		if !slices.Contains(values, s) {
			return fmt.Errorf("expected %s, found %s", strings.Join(values, " or "), quote(s))
		}
		return nil
	}}
}

func parseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%s is not an address", quote(s))
	}
	return a, nil
}

func parseMAC(s string) (net.HardwareAddr, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 {
		return nil, fmt.Errorf("%s is not an Ethernet address such as 02:00:00:00:00:09", quote(s))
	}
	if m[0]&1 != 0 {
		return nil, fmt.Errorf("%s is a group's Ethernet address, not a station's", s)
	}
	return m, nil
}

// maxCount is the most octets of an address or key, and keys of a map.
const maxCount = 65535

func parseCount(s string, least int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > maxCount || strings.HasPrefix(s, "+") {
		return 0, fmt.Errorf("%s is not a number from %d to %d", quote(s), least, maxCount)
	}
	return n, nil
}

// parseRange reads N or N-M.
func parseRange(s string) (least, most int, err error) {
	first, last, isRange := strings.Cut(s, "-")
	if least, err = parseCount(first, 0); err != nil {
		return 0, 0, err
	}
	if !isRange {
		return least, least, nil
	}
	if most, err = parseCount(last, 0); err == nil && most < least {
		err = fmt.Errorf("the range %s ends before it begins", quote(s))
	}
	return least, most, err
}

// option checks one romopt and gives it to its node.
func (c *compiler) option(n *Node, words []word) {
	at := words[0]
	var names []string
	for _, k := range n.kind.options {
		if k.name != at.text {
			names = append(names, k.name)
			continue
		}
		given := words[1:]
		least := len(k.args)
		if least > 0 && k.args[least-1].optional {
			least--
		}
		if len(given) < least || len(given) > len(k.args) {
			c.fail(at, fmt.Sprintf("write romopt %s %s;", n.Name, k.usage()), "%s takes %d words, found %d", k.name, len(k.args), len(given))
			return
		}
		o := Option{Name: k.name, Pos: c.position(at)}
		for i, w := range given {
			if err := k.args[i].check(w.text); err != nil {
				c.fail(w, fmt.Sprintf("write romopt %s %s;", n.Name, k.usage()), "%v", err)
				return
			}
			o.Args = append(o.Args, w.text)
		}
		for _, before := range n.Options {
			switch {
			case before.Name == k.name && (!k.repeat || slices.Equal(before.Args, o.Args)):
				c.fail(at, "keep one of them", "%s has the option %s already in line %d of %s", n.Name, k.name, before.Pos.Line, before.Pos.File)
				return
			case k.excludes != "" && before.Name == k.excludes:
				c.fail(at, "keep one of them", "%s has the option %s, with which %s cannot stand", n.Name, before.Name, k.name)
				return
			}
		}
		n.Options = append(n.Options, o)
		return
	}
	hint := "it takes none"
	if len(names) > 0 {
		hint = meant(at.text, names, "it knows "+strings.Join(names, ", "))
	}
	c.fail(at, hint, "%s does not know the option %s", n.Name, quote(at.text))
}
