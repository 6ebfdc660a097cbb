package appliance

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"bitw/config"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/sa"
	"bitw/sa/keyer"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
)

// ConfigOptions returns what config.Load needs to know of this build: its
// algorithms and its classes of frames.
func ConfigOptions() config.Options {
	return config.Options{
		Algorithm: func(p config.Protocol, name string) (config.Algorithm, error) {
			a, err := algorithms().Lookup(p.Number(), name)
			if err != nil {
				return config.Algorithm{}, err
			}
			return config.Algorithm{
				EncryptionKeyLen: a.EncryptionKeyLen, IntegrityKeyLen: a.IntegrityKeyLen,
				CounterMode: a.CounterMode, NoSequence: a.NoSequence, Weak: a.Weak, Insecure: a.Insecure,
			}, nil
		},
		AlgorithmNames: func(p config.Protocol) []string {
			var names []string
			for _, a := range algorithms().Algorithms() {
				if a.Protocol == p.Number() {
					names = append(names, a.Name)
				}
			}
			return names
		},
		InsecureNames: algorithms().Insecure(),
		Classes:       hook.ClassNames(),
	}
}

// algorithms are those of this build.
var algorithms = sync.OnceValue(func() *transform.Registry {
	return transform.NewRegistry(append(transform.Families(), legacy.Families()...)...)
})

// allowedAlgorithms finds algorithms by name, and refuses those of which a part is
// insecure and not among allowed. config.Load has said so before, but not every Config
// comes from there.
func allowedAlgorithms(allowed []string) keyer.AlgorithmLookup {
	registry := algorithms()
	return func(protocol uint8, name string) (transform.Algorithm, error) {
		a, err := registry.Lookup(protocol, name)
		if err == nil {
			err = a.CheckAllowed(allowed)
		}
		return a, err
	}
}

// specs are the SAs of a configuration as the key manager sauser takes them.
func specs(cfg *Config) []keyer.Spec {
	list := make([]keyer.Spec, 0, len(cfg.SAs))
	for i := range cfg.SAs {
		c := &cfg.SAs[i]
		s := keyer.Spec{
			Name: c.Name, SPI: c.SPI, Src: c.Source, Dst: c.Destination,
			InnerSrc: c.InnerSource, InnerDst: c.InnerDestination,
			Proto: c.Protocol.Number(), Algorithm: c.Algorithm,
			EncryptionKey: c.EncryptionKey, IntegrityKey: c.IntegrityKey,
			ESN: c.ESN, ReplayWindow: c.ReplayWindow,
			Hard: sa.Lifetime(c.Lifetime), Soft: sa.Lifetime(c.SoftLifetime),
		}
		if c.Direction == config.In {
			s.Direction = sa.Inbound
		}
		switch c.Mode {
		case config.Tunnel:
			s.Mode = sa.Tunnel
		case config.BEET:
			s.Mode = sa.BEET
		}
		s.Headers = headers(&c.Headers)
		s.Encap, s.TFCPadding, s.Dummies = encap(c.Encap), c.TFCPadding, c.Dummies
		if c.TFCPadding == config.PadToMTU {
			s.TFCPadding = sa.PadToMTU
		}
		list = append(list, s)
	}
	return list
}

// classRules are the rules for frames that no policy decides.
func classRules(cfg *Config) []hook.ClassRule {
	var rules []hook.ClassRule
	for _, c := range cfg.Classes {
		if cfg.Neighbors == config.Proxy && (c.Name == "arp" || c.Name == "ndp") {
			continue // it holds where they cross
		}
		rules = append(rules, hook.ClassRule{Name: c.Name, Bypass: c.Action == config.Bypass})
	}
	return rules
}

// icmpErrors is the rule for ICMP errors in the clear.
func icmpErrors(c config.ICMPErrors) ipsec.ICMPErrorRule {
	switch c {
	case config.ICMPVerify:
		return ipsec.ICMPErrorsVerify
	case config.ICMPDiscard:
		return ipsec.ICMPErrorsDiscard
	}
	return ipsec.ICMPErrorsAccept
}

// holdLimits bound what waits for SAs.
func holdLimits(c *config.AcquireLimits) ipsec.HoldLimits {
	return ipsec.HoldLimits{Packets: int(c.Packets), Octets: int(c.Bytes), Memory: int(c.Memory), Time: c.Time}
}

// headers are an SA's rules for outer headers.
func headers(c *config.Headers) sa.Headers {
	h := sa.Headers{
		NoECN: c.CopyECN == config.CopyNo, TTL: c.TTL,
		CopyFlowLabel: c.CopyFlowLabel, FlowLabel: c.FlowLabel,
		FragmentBefore: c.Fragment == config.Before,
	}
	switch c.CopyDF {
	case config.CopySet:
		h.DF = sa.SetDF
	case config.CopyNo:
		h.DF = sa.ClearDF
	}
	switch c.CopyDSCP {
	case config.CopyIn:
		h.DSCP = sa.CopyDSCPIn
	case config.CopyYes:
		h.DSCP = sa.CopyDSCPBoth
	case config.CopyNo:
		h.DSCP = sa.CopyDSCPNone
	}
	if len(c.DSCP) > 0 {
		mapped := new([64]uint8)
		for inner := range mapped {
			mapped[inner] = h.OuterTOS(uint8(inner)<<2) >> 2
		}
		for inner, outer := range c.DSCP {
			mapped[inner] = outer
		}
		h.DSCPMap = mapped
	}
	return h
}

func encap(c *config.Encap) *sa.Encap {
	if c == nil {
		return nil
	}
	return &sa.Encap{
		LocalPort: c.LocalPort, RemotePort: c.RemotePort, Checksum: udpChecksum(c.Checksum), Keepalive: c.Keepalive, Float: c.Float,
		OriginalLocal: c.OriginalLocal, OriginalRemote: c.OriginalRemote,
	}
}

func udpChecksum(c config.UDPChecksum) sa.UDPChecksum {
	switch c {
	case config.ChecksumFilled:
		return sa.ChecksumFilled
	case config.ChecksumZero:
		return sa.ChecksumZero
	}
	return sa.ChecksumAuto
}

// policies are the rules of a configuration, with the lineages of their SAs. One that
// keep has, by name, stays what it is.
func policies(cfg *Config, lineage func(name string) *sa.Lineage, keep map[string]*sa.Policy) ([]*sa.Policy, error) {
	var (
		list []*sa.Policy
		errs []error
	)
	lineages := func(policy string, names []string) []*sa.Lineage {
		var ls []*sa.Lineage
		for _, name := range names {
			l := lineage(name)
			if l == nil {
				errs = append(errs, fmt.Errorf("policy %q: there is no SA named %q", policy, name))
			}
			ls = append(ls, l)
		}
		return ls
	}
	for i := range cfg.Policies {
		c := &cfg.Policies[i]
		p := &sa.Policy{Name: c.Name, Selector: selector(c), Reject: c.Reject, DiscardFragments: c.DiscardFragments, MSSClamp: c.MSSClamp}
		if c.MSSClamp == config.ClampToPMTU {
			p.MSSClamp = sa.ClampToPMTU
		}
		switch c.Action {
		case config.Protect:
			p.Action = sa.Protect
		case config.Bypass:
			p.Action = sa.Bypass
		case config.Discard:
		default:
			errs = append(errs, fmt.Errorf("policy %q: action is %q; expected protect, bypass or discard", c.Name, c.Action))
		}
		switch c.Direction {
		case config.Out:
			p.Directions = sa.OnlyOutbound
		case config.In:
			p.Directions = sa.OnlyInbound
		}
		for _, key := range c.Populate {
			p.Populate |= populateFlag(key)
		}
		p.Out, p.In = lineages(c.Name, c.Out), lineages(c.Name, c.In)
		if was := keep[c.Name]; was != nil && slices.Equal(was.Out, p.Out) && slices.Equal(was.In, p.In) {
			p = was
		}
		list = append(list, p)
	}
	return list, errors.Join(errs...)
}

// populateFlag returns what a name in populate: stands for.
func populateFlag(key string) sa.Populate {
	switch key {
	case "local":
		return sa.PopulateLocal
	case "remote":
		return sa.PopulateRemote
	case "protocol":
		return sa.PopulateProto
	case "local_ports":
		return sa.PopulateLocalPorts
	case "remote_ports":
		return sa.PopulateRemotePorts
	case "icmp":
		return sa.PopulateICMP
	case "mh_type":
		return sa.PopulateMH
	}
	return 0
}

func selector(c *config.Policy) sa.Selector {
	s := sa.Selector{Local: addresses(c.Local), Remote: addresses(c.Remote), Proto: sa.AnyProto}
	if c.Protocol != nil {
		s.Proto = *c.Protocol
	}
	s.LocalPorts, s.RemotePorts = ports(c.LocalPorts), ports(c.RemotePorts)
	s.Opaque = c.Opaque
	for _, r := range c.MHTypes {
		s.MHTypes = append(s.MHTypes, sa.ByteRange{From: r.First, To: r.Last})
	}
	if c.ICMP != nil {
		s.ICMPTypes = []sa.ByteRange{{From: c.ICMP.TypeFirst, To: c.ICMP.TypeLast}}
		s.ICMPCodes = []sa.ByteRange{{From: c.ICMP.CodeFirst, To: c.ICMP.CodeLast}}
	}
	return s
}

func addresses(list []config.AddressRange) []sa.AddrRange {
	var out []sa.AddrRange
	for _, r := range list {
		out = append(out, sa.AddrRange{From: r.First, To: r.Last})
	}
	return out
}

func ports(list []config.PortRange) []sa.PortRange {
	var out []sa.PortRange
	for _, r := range list {
		out = append(out, sa.PortRange{From: r.First, To: r.Last})
	}
	return out
}

// crossing says by side how ARP and neighbour discovery are dealt with. The stack has
// its next hops on the right.
func crossing(relay bool) [2]hook.Neighbors {
	if relay {
		return [2]hook.Neighbors{hook.Left: hook.Cross, hook.Right: hook.CrossAndLearn}
	}
	return [2]hook.Neighbors{}
}
