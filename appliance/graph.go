package appliance

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"bitw/appliance/hostnet"
	"bitw/config"
	"bitw/config/graphcomp"
	"bitw/sa/keyer"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

// A graph is what an appliance knows of the graph that it was composed by.
type graph struct {
	*graphcomp.Graph
	build graphcomp.BuildOptions
	// invalid are the SAs that begin with an invalid key.
	invalid []string

	mu   sync.Mutex // one change of keys at a time
	keys *graphcomp.Keys
	sas  []config.SA
	// policies are those in force.
	policies []config.Policy
}

// WithInterface names the interface to cut where a graph names none. It has no effect on
// New with a configuration.
func WithInterface(name string) Option { return func(o *options) { o.iface = name } }

// FromGraph is New with the configuration that a graph in the language of the x-kernel
// composes, with its rom and its key files; package graphcomp has the language. Where
// the graph has prottest, its transforms are tested before. The error is config.Errors
// where the files are wrong.
func FromGraph(path string, opts ...Option) (*Appliance, error) {
	cfg, known, err := LoadGraph(path, opts...)
	if err != nil {
		return nil, err
	}
	return New(cfg, append(slices.Clone(opts), known)...)
}

// LoadGraph is the first half of FromGraph, for who wants to see the configuration before:
// New takes it together with opts and the returned option. Of opts it reads WithLinks,
// WithNetNS and WithInterface. It reads files and the addresses of the interface, and
// changes nothing.
func LoadGraph(path string, opts ...Option) (Config, Option, error) {
	o := defaultOptions()
	for _, f := range opts {
		f(&o)
	}
	g, err := graphcomp.Load(path, nil)
	if err != nil {
		return Config{}, nil, err
	}
	keys, err := g.Keys(nil)
	if err != nil {
		return Config{}, nil, err
	}
	x := &graph{Graph: g, keys: keys, build: graphcomp.BuildOptions{
		Interface: o.iface, Transform: suites, CheckKey: checkKey,
	}}
	if x.build.Addresses, err = ownAddresses(g, &o); err != nil {
		return Config{}, nil, err
	}
	plan, err := g.Build(keys, x.build)
	if err != nil {
		return Config{}, nil, err
	}
	if o.host != nil {
		plan.Interface = ""
		if n := g.Node("init"); n == nil || !n.Has("control") {
			plan.Control = "" // it would be named after an interface
		}
	}
	plan.AllowInsecure = plan.Insecure
	x.invalid, x.sas, x.policies = plan.Invalid, plan.SAs, plan.Policies
	return plan.Config, func(o *options) { o.graph = x }, nil
}

// ownAddresses are the host's where the graph needs and does not name them.
func ownAddresses(g *graphcomp.Graph, o *options) ([]netip.Addr, error) {
	var prefixes []netip.Prefix
	if o.host != nil {
		prefixes = o.host.Addresses
	} else {
		name, err := g.Interface()
		if err != nil {
			if name = o.iface; name == "" {
				return nil, err
			}
		}
		if g.Node("vnet").Has("address") || !g.Protects() {
			return nil, nil
		}
		i, err := hostnet.Read(o.netNS, name)
		if err != nil {
			return nil, fmt.Errorf("the host's own addresses: %w", err)
		}
		prefixes = i.Addresses
	}
	var list []netip.Addr
	for _, p := range prefixes {
		if !p.Addr().IsLinkLocalUnicast() {
			list = append(list, p.Addr())
		}
	}
	return list, nil
}

// suites are those of a plug-in.
func suites(name string, options []string) ([]graphcomp.Suite, error) {
	p, err := legacy.NewPlugIn(name, options...)
	if err != nil {
		return nil, err
	}
	var list []graphcomp.Suite
	for _, a := range p.Algorithms {
		s := graphcomp.Suite{Protocol: config.ESP, Algorithm: a.Name, KeyLen: a.EncryptionKeyLen, Insecure: a.Insecure}
		if a.Protocol == config.AH.Number() {
			s.Protocol, s.KeyLen = config.AH, a.IntegrityKeyLen
		}
		list = append(list, s)
	}
	return list, nil
}

// checkKey says what an algorithm has against a key.
func checkKey(p config.Protocol, algorithm string, encryption, integrity []byte) error {
	a, err := algorithms().Lookup(p.Number(), algorithm)
	if err == nil {
		_, err = a.New(encryption, integrity, transform.Options{})
	}
	return err
}

// begin gives the key manager what the configuration does not say.
func (g *graph) begin(keys *keyer.SAUser) error {
	var errs []error
	for _, name := range g.invalid {
		errs = append(errs, keys.InvalidateKey(name))
	}
	return errors.Join(errs...)
}
