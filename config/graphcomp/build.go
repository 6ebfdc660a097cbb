package graphcomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"bitw/config"
)

// BuildOptions are what a configuration needs beside the graph and its keys.
type BuildOptions struct {
	// Interface is the one to cut where the graph names none.
	Interface string
	// Addresses are the host's own where the graph gives vnet none.
	Addresses []netip.Addr
	// CheckKey says what is wrong with the octets of a key for an algorithm; nil checks
	// only lengths.
	CheckKey func(protocol config.Protocol, algorithm string, encryption, integrity []byte) error
	// Transform returns the suites of a transform such as "crypt3" with its options, of one
	// protocol, the one to be taken first. It is needed by a graph with rfc1825.
	Transform func(name string, options []string) ([]Suite, error)
}

// A Plan is the configuration that a graph comes to.
type Plan struct {
	config.Config
	// Invalid names the SAs whose key is there and must not be used.
	Invalid []string
	// Insecure is what allow_insecure must name for the transforms in the slots, whether an
	// SA uses them or not: to write one into a graph is to allow it.
	Insecure []string
}

// ErrNoInterface is returned by Interface for a graph that names none.
var ErrNoInterface = errors.New("the graph names no interface: write romopt ethdev interface NAME; in the graph or its rom, or give it by hand")

// Interface is the interface that the graph names.
func (g *Graph) Interface() (string, error) {
	for _, driver := range []string{"ethkern", "ethdev"} {
		if o := interfaceOf(g.only(driver)); o.Name != "" {
			return o.Args[0], nil
		}
	}
	return "", ErrNoInterface
}

// A builder makes a plan.
type builder struct {
	graph *Graph
	keys  *Keys
	opt   BuildOptions
	plan  *Plan
	own   []netip.Addr
	errs  config.Errors
	sas   map[string]int // index in plan.SAs by name
	forms map[*Node][]Suite
}

// Build makes the configuration of the graph with these keys. The error is config.Errors,
// and shows no key.
func (g *Graph) Build(keys *Keys, opt BuildOptions) (*Plan, error) {
	b := &builder{graph: g, keys: keys, opt: opt, plan: &Plan{Config: config.Default()}, own: slices.Clone(opt.Addresses), sas: make(map[string]int), forms: make(map[*Node][]Suite)}
	b.settings()
	b.neighbours()
	b.transforms()
	b.policies()
	if len(b.errs) > 0 {
		return nil, b.errs
	}
	return b.plan, nil
}

func (b *builder) fail(pos config.Position, hint, format string, args ...any) {
	if len(b.errs) < maxErrors {
		b.errs = append(b.errs, &config.Error{File: pos.File, Line: pos.Line, Column: pos.Column, Hint: hint, Msg: fmt.Sprintf(format, args...)})
	}
}

// settings takes what watchdog, the drivers, vnet and init say.
func (b *builder) settings() {
	c, g := &b.plan.Config, b.graph
	c.Interface = b.opt.Interface
	if name, err := g.Interface(); err == nil {
		c.Interface = name
	}
	if c.Interface != "" {
		c.Control = config.DefaultControl(c.Interface)
	}
	if w := g.only("watchdog"); w == nil {
		c.Watchdog = 0
	} else if _, off := w.Option("off"); off {
		c.Watchdog = 0
	} else if o, ok := w.Option("timeout"); ok {
		c.Watchdog, _ = time.ParseDuration(o.Args[0]) // all arguments were checked as such
	}
	if o, ok := g.only("vnet").Option("mtu"); ok {
		c.MTU, _ = strconv.Atoi(o.Args[0])
	}
	given := false
	for _, o := range g.only("vnet").Options {
		if o.Name == "address" {
			if !given {
				b.own, given = nil, true
			}
			b.own = append(b.own, netip.MustParseAddr(o.Args[0]))
		}
	}
	if n := g.only("init"); n != nil {
		for _, o := range n.Options {
			switch o.Name {
			case "on_failure":
				c.OnFailure = config.OnFailure(o.Args[0])
			case "control":
				c.Control = g.beside(o.Args[0])
			case "state_dir":
				c.StateDir = g.beside(o.Args[0])
			case "log_level":
				c.LogLevel = o.Args[0]
			}
		}
	}
	c.Neighbors = config.DefaultNeighbors(c.OnFailure)
}

// neighbours takes what the wire's arp and ip say.
func (b *builder) neighbours() {
	seen := make(map[netip.Addr]Option)
	for _, o := range b.graph.side("ethdev").arp.Options {
		a := netip.MustParseAddr(o.Args[0])
		if before, twice := seen[a]; twice {
			b.fail(o.Pos, "keep one of them", "%s has an Ethernet address in line %d already", a, before.Pos.Line)
			continue
		}
		seen[a] = o
		mac, _ := parseMAC(o.Args[1])
		b.plan.StaticNeighbors = append(b.plan.StaticNeighbors, config.Neighbor{Address: a, MAC: mac, Pos: o.Pos})
	}
	for _, o := range b.graph.only("ip").Options {
		r := config.Route{Pos: o.Pos}
		switch o.Name {
		case "gateway":
			r.Via = netip.MustParseAddr(o.Args[0])
			r.Destination = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.Via.Is6() {
				r.Destination = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
		case "route":
			r.Destination = netip.MustParsePrefix(o.Args[0])
			if len(o.Args) > 1 {
				r.Via = netip.MustParseAddr(o.Args[1])
				if r.Via.BitLen() != r.Destination.Addr().BitLen() {
					b.fail(o.Pos, "", "%s is not of the family of %s", r.Via, r.Destination)
				}
			}
		}
		b.plan.Routes = append(b.plan.Routes, r)
	}
}

// transforms checks that each transform can have keys of the lengths that its key manager
// holds, and lists the algorithms.
func (b *builder) transforms() {
	slots := b.graph.only("rfc1825")
	if slots == nil {
		return
	}
	for _, n := range slots.Lower {
		if _, checked := b.forms[n]; checked || !isTransform(n.Protocol) {
			continue
		}
		list, err := b.suites(n)
		if err != nil {
			b.fail(n.Pos, "", "%s: %v", n.Name, err)
			continue
		}
		b.forms[n] = list
		m, fits := b.keys.Map(n.Lower[0].Name), false
		for _, s := range list {
			fits = fits || s.KeyLen >= m.Least && s.KeyLen <= m.Most
			for _, name := range s.Insecure {
				if !slices.Contains(b.plan.Insecure, name) {
					b.plan.Insecure = append(b.plan.Insecure, name)
				}
			}
		}
		if !fits {
			pos := n.Lower[0].Pos
			if o, ok := n.Lower[0].Option("kmparams"); ok {
				pos = o.Pos
			}
			b.fail(pos, "", "%s takes keys of %s octets, and kmparams of %s says %s", n.Name, lengths(list), n.Lower[0].Name, m.Params)
		}
	}
}

func lengths(list []Suite) string {
	text := ""
	var seen []int
	for _, s := range list {
		if slices.Contains(seen, s.KeyLen) {
			continue
		}
		seen = append(seen, s.KeyLen)
		if text != "" {
			text += " or "
		}
		text += strconv.Itoa(s.KeyLen)
	}
	return text
}

// association makes the SA that protects by an SPI to a destination, once, and returns its
// name, "" after an error. The source may be invalid when it is not known.
func (b *builder) association(k *Key, spi uint32, source, destination netip.Addr) string {
	slots := b.graph.only("rfc1825")
	if spi < 256 {
		b.fail(k.Pos, "choose a number from 0x100", "SPI 0x%x is reserved (RFC 1825 §3)", spi)
		return ""
	}
	address := append(binary.BigEndian.AppendUint32(nil, spi), destination.AsSlice()...)
	alg := b.keys.Map("km/alg").find(address)
	where := fmt.Sprintf("SPI 0x%08x to %s", spi, destination)
	if alg == nil || alg.State != Valid {
		b.fail(k.Pos, fmt.Sprintf("add a line to km/alg: 0x%08x/%s SLOT", spi, destination), "%s has no valid slot of rfc1825 in km/alg", where)
		return ""
	}
	slot := 0
	for _, x := range alg.Value.Bytes() {
		slot = slot<<8 | int(x)
	}
	if alg.Value.Len() > 2 || slot >= len(slots.Lower) || !isTransform(slots.Lower[slot].Protocol) {
		b.fail(alg.Pos, "transforms are in "+slotWords(slots), "%s is to use slot %d of rfc1825, which holds no transform", where, slot)
		return ""
	}
	n := slots.Lower[slot]
	name := fmt.Sprintf("%s/0x%08x/%s", n.Name, spi, destination)
	if i, made := b.sas[name]; made {
		s := &b.plan.SAs[i]
		switch {
		case !source.IsValid() || s.Source == source:
		case !s.Source.IsValid():
			s.Source = source
		default:
			b.fail(k.Pos, "give each an SPI of its own", "%s protects what comes from %s already", where, s.Source)
		}
		return name
	}
	key := b.keys.Map(n.Lower[0].Name).Resolve(address)
	u, ok := suiteFor(b.forms[n], key.Value.Len())
	if !ok {
		b.fail(key.Pos, "", "key of %s: %s takes %s octets, found %d", where, n.Name, lengths(b.forms[n]), key.Value.Len())
		return ""
	}
	s := config.SA{
		Name: name, Direction: config.Out, Protocol: u.Protocol, Mode: config.Transport, SPI: spi,
		Source: source, Destination: destination, Algorithm: u.Algorithm, ReplayWindow: config.DefaultReplayWindow,
		KeyFile: key.Pos.File, Pos: key.Pos,
	}
	if slices.Contains(b.own, destination) {
		s.Direction = config.In
	}
	if u.Protocol == config.AH {
		s.IntegrityKey = key.Value
	} else {
		s.EncryptionKey = key.Value
	}
	if key.State != Empty && b.opt.CheckKey != nil {
		if err := b.opt.CheckKey(s.Protocol, s.Algorithm, s.EncryptionKey.Bytes(), s.IntegrityKey.Bytes()); err != nil {
			b.fail(key.Pos, "", "key of %s: %v", where, err)
			return ""
		}
	}
	if key.State == Invalid {
		b.plan.Invalid = append(b.plan.Invalid, name)
	}
	b.sas[name] = len(b.plan.SAs)
	b.plan.SAs = append(b.plan.SAs, s)
	return name
}

func slotWords(slots *Node) string {
	text := ""
	for i, n := range slots.Lower {
		if isTransform(n.Protocol) {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d (%s)", i, n.Name)
		}
	}
	return text
}
