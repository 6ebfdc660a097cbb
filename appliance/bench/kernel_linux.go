package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"bitw/appliance"
	"bitw/appliance/netns"
	"bitw/config"
	"bitw/netstack/ethtap"
)

// card is the interface of each host.
const card = "eth0"

// A pair is two hosts over a veth, and the appliances that cut it, if any.
type pair struct {
	name  string
	hosts [2]*netns.Namespace
	boxes [2]*box
	rates map[string]float64 // that were found last, by the measure of UDP
}

// cannotMeasure says that an error is about what this machine lacks.
func cannotMeasure(err error) bool {
	return errors.Is(err, errNoNamespaces) || errors.Is(err, ethtap.ErrNoHook) || errors.Is(err, ethtap.ErrNoTUN) || errors.Is(err, ethtap.ErrPermission)
}

var errNoNamespaces = errors.New("no network namespaces")

// newPairs makes the pairs in the order of cases.
func newPairs(ctx context.Context, s *suite, wire string) (pairs []*pair, err error) {
	if err := netns.Usable(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoNamespaces, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, stopPairs(pairs))
			pairs = nil
		}
	}()
	for _, name := range cases() {
		p := &pair{name: name, rates: make(map[string]float64)}
		pairs = append(pairs, p)
		if err := p.join(wire); err != nil {
			return pairs, err
		}
		if name != casePlain {
			for i, h := range p.hosts {
				// The namespaces end with the bench, and the cut with them.
				p.boxes[i], err = startBox(ctx, s.configOf(name, i), appliance.WithNetNS(h.Path()), appliance.WithOpenOnStop())
				if err != nil {
					return pairs, err
				}
			}
		}
		if err := p.reach(ctx); err != nil {
			return pairs, fmt.Errorf("bench: %s: %w", name, err)
		}
	}
	return pairs, nil
}

// configOf is the configuration of a host's appliance in a case.
func (s *suite) configOf(name string, host int) appliance.Config {
	if name == caseBypass {
		return s.config(host, card, config.Bypass)
	}
	cfg := s.config(host, card, config.Protect)
	for i := range cfg.SAs {
		if name == caseEncap {
			cfg.SAs[i].Encap = &config.Encap{LocalPort: config.DefaultEncapPort, RemotePort: config.DefaultEncapPort, Float: true}
		}
	}
	return cfg
}

// join makes the hosts.
func (p *pair) join(wire string) (err error) {
	for i := range p.hosts {
		if p.hosts[i], err = netns.New(); err != nil {
			return fmt.Errorf("%w: %w", errNoNamespaces, err)
		}
	}
	if err := netns.Join(p.hosts[0], p.hosts[1], card, mac(0), mac(1), wireMTU); err != nil {
		return fmt.Errorf("%w: %w", errNoNamespaces, err)
	}
	for i, h := range p.hosts {
		set := map[string]func(string) error{WireOff: netns.OffloadsOff, WireGSO: netns.DeviceOffloadsOff}[wire]
		if set != nil {
			if err := h.Do(func() error { return set(card) }); err != nil {
				return fmt.Errorf("bench: %w", err)
			}
		}
		if err := h.Up(card, address(i)); err != nil {
			return fmt.Errorf("bench: %s of a host: %w", card, err)
		}
	}
	return nil
}

// wireMTU is Ethernet's, in octets.
const wireMTU = 1500

// stopPairs ends what newPairs made.
func stopPairs(pairs []*pair) error {
	var errs []error
	for _, p := range pairs {
		errs = append(errs, stopBoxes(p.boxes))
		for _, h := range p.hosts {
			if h != nil {
				h.Close()
			}
		}
	}
	return errors.Join(errs...)
}

// measureKernels takes the measures between real kernels.
func (r *run) measureKernels(ctx context.Context, s *suite) (err error) {
	r.progress("making %d pairs of hosts", len(cases()))
	pairs, err := newPairs(ctx, s, r.o.Wire)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopPairs(pairs)) }()
	// As many as the appliances would have, each in a process of its own (see
	// appliance.Readers).
	processors := runtime.GOMAXPROCS(0)
	for _, p := range pairs {
		for _, b := range p.boxes {
			if b != nil {
				processors += appliance.Readers
			}
		}
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(processors))
	var last time.Duration // that a round took
	for round := range r.plan.kernelRounds {
		began := time.Now()
		if round > 0 && began.Add(last).Sub(r.started) > r.plan.limit {
			r.progress("the machine is too slow for more rounds in its time")
			break
		}
		for _, m := range kernelMeasures() {
			r.progress("round %d of %d between kernels: %s", round+1, r.plan.kernelRounds, m.name)
			values := make([][]float64, len(pairs))
			for i := range pairs {
				at := (i + round) % len(pairs) // nobody is always first
				if err := context.Cause(ctx); err != nil {
					return err
				}
				if values[at], err = m.take(ctx, pairs[at], &r.plan); err != nil {
					return fmt.Errorf("bench: %s, %s: %w", pairs[at].name, m.name, err)
				}
			}
			for at, p := range pairs {
				for k, what := range m.values {
					name := "kernel/" + p.name + "/" + what
					if p.name == casePlain {
						r.notes.add(name, m.unit, values[at][k])
					} else {
						r.notes.compare(name, "kernel/"+casePlain+"/"+what, m.unit, values[at][k])
					}
				}
			}
		}
		last = time.Since(began)
	}
	return nil
}
