package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"

	"bitw/config"
	"bitw/netstack/hook"
	"bitw/netstack/ipsec"
	"bitw/sa"
	"bitw/sa/keyer"
)

// ErrNeedsRestart is what Apply's error wraps when the configuration differs in what
// cannot change while an appliance runs.
var ErrNeedsRestart = errors.New("this cannot change at run time")

// applyGrace is how long SAs that are no longer configured are kept: what the peer sends
// until it has its new configuration is still taken if the policy's SA is of that name.
const applyGrace = time.Minute

// pauseLimit is how long the readers may take to come to rest.
const pauseLimit = time.Second

// Apply makes the running appliance do what cfg says, all of it or nothing: after an error
// all is as it was. It returns what differs from the configuration in force; dry stops
// there, when it is known that it could be done.
//
// What did not change keeps its SAs, sequence numbers, replay windows and counters. New
// SAs are there before the first packet needs them; the policies change in one step
// between two packets; SAs that are no longer configured are kept for a minute, for what is under
// way. Where an SA goes on with the same key and other parameters, or has the place of
// another, no packet is read from the interface for that moment; between links of
// WithLinks, what crosses then is dropped. No frame that a policy protects leaves in
// the clear at any time, since there always is one set of policies in force.
//
// neighbors changes within a second after that, without loss. The interfaces, on_failure,
// control, state_dir and what else stands in the error that wraps ErrNeedsRestart cannot
// change.
func (a *Appliance) Apply(cfg Config, dry bool) ([]config.Change, error) {
	return a.applyFor("", cfg, dry)
}

// applyFor is Apply for who asks.
func (a *Appliance) applyFor(by string, cfg Config, dry bool) ([]config.Change, error) {
	changes, err := a.apply(by, cfg, dry)
	if err != nil && !dry {
		a.refused(by, err)
	}
	return changes, err
}

// Refused tells, as Apply does of one that it refuses, that a configuration could not even
// be read: it is an event and in the log.
func (a *Appliance) Refused(err error) { a.refused("", err) }

func (a *Appliance) refused(by string, err error) {
	a.tell(Event{Kind: ConfigurationRefused, Level: "warning", By: by, Text: "a configuration was refused, and nothing was changed", Error: err.Error()})
}

func (a *Appliance) apply(by string, cfg Config, dry bool) ([]config.Change, error) {
	complete(&cfg)
	if a.opt.graph != nil {
		return nil, errors.New("a graph composes this appliance, so no configuration can be applied; its keys change with bitw keys")
	}
	a.applying.Lock()
	defer a.applying.Unlock()
	if !a.takingOver.TryLock() {
		return nil, errors.New("another process is taking over, so nothing was changed")
	}
	defer a.takingOver.Unlock()
	b := a.bump.Load()
	select {
	case <-a.ready:
	default:
		return nil, fmt.Errorf("the appliance is %s, so nothing was changed", *a.state.Load())
	}
	select {
	case <-a.done:
		return nil, errors.New("the appliance has stopped, so nothing was changed")
	default:
	}
	old := a.live.Load()
	changes := differences(old, &cfg)
	if err := needsRestart(changes, old, &cfg); err != nil {
		return changes, err
	}
	if err := cfg.CheckTwoNIC(); err != nil {
		return changes, err
	}
	if err := checkNeighbors(&cfg); err != nil && a.opt.host == nil {
		return changes, err
	}
	if err := hook.CheckClassRules(classRules(&cfg)); err != nil {
		return changes, err
	}
	plan, err := b.keys.Plan(specs(&cfg), allowedAlgorithms(cfg.AllowInsecure), dry)
	if err != nil {
		return changes, err
	}
	spd, err := b.nextSPD(&cfg, changes, plan)
	if err != nil || dry {
		return changes, errors.Join(err, plan.Abort())
	}
	resume := func() {}
	if plan.Exact() {
		if resume, err = b.pause(); err != nil {
			return changes, errors.Join(err, plan.Abort())
		}
	}
	before := b.live.Load()
	b.exchange(&cfg, spd, plan, changes)
	a.trace.apply(before, &cfg)
	a.trace.log.watch(b.watch)
	resume()
	b.decideAnew()
	if err := b.setNeighbors(cfg.Neighbors == config.Relay); err != nil {
		a.log.WithError(err).Warn("what the kernel knows of its neighbours is not all put right; it asks anew in time")
	}
	a.tellApplied(by, &cfg, changes)
	return changes, nil
}

// differences is config.Diff, with paths that are written in two ways as one.
func differences(old, next *Config) []config.Change {
	o, n := *old, *next
	for _, p := range []*string{&o.Control, &n.Control, &o.StateDir, &n.StateDir} {
		if full, err := filepath.Abs(*p); *p != "" && err == nil {
			*p = full
		}
	}
	return config.Diff(&o, &n)
}

// atRunTime are the settings that Apply can change.
var atRunTime = []string{"mtu", "log_level", "trace", "icmp_errors", "watchdog", "allow_insecure", "neighbors", "offloads"}

// needsRestart returns why changes cannot be made while the appliance runs.
func needsRestart(changes []config.Change, old, next *Config) error {
	var keys []string
	for _, c := range changes {
		switch {
		case c.Subject != config.SettingEdit:
		case !slices.Contains(atRunTime, c.Name):
			keys = append(keys, c.Name)
		}
	}
	fixed := func(cfg *Config) (list []string) {
		for _, n := range cfg.StaticNeighbors {
			if cfg.Inside != "" && cfg.IsProtected(n.Address) {
				list = append(list, n.Address.String()+" "+n.MAC.String())
			}
		}
		slices.Sort(list)
		return list
	}
	if !reflect.DeepEqual(fixed(old), fixed(next)) {
		keys = append(keys, "static_neighbors (of protected hosts)")
	}
	ring := old.Offloads.NoRing != next.Offloads.NoRing
	if ring {
		keys = append(keys, "offloads: ring")
	}
	if len(keys) == 0 {
		return nil
	}
	how := "bitw up --takeover does it without loss"
	if old.Inside != "" || next.Inside != "" || slices.Contains(keys, "interface") || ring {
		how = "bitw down and bitw up do it"
	}
	return fmt.Errorf("%s: %w: nothing was changed; %s", strings.Join(keys, ", "), ErrNeedsRestart, how)
}

// nextSPD makes the policies of cfg. Those that did not change stay the same ones.
func (b *bump) nextSPD(cfg *Config, changes []config.Change, plan *keyer.Plan) (*sa.SPD, error) {
	if err := b.keys.check(cfg, plan.Lineage); err != nil {
		return nil, err
	}
	keep := make(map[string]*sa.Policy)
	for _, p := range b.engine.SPD().Policies() {
		keep[p.Name] = p
	}
	for _, c := range changes {
		if c.Subject == config.PolicyEdit && c.Kind != config.Moved {
			delete(keep, c.Name)
		}
	}
	rules, err := policies(cfg, func(name string) *sa.Lineage { return b.keys.lineage(name, plan.Lineage) }, keep)
	if err != nil {
		return nil, err
	}
	return sa.NewSPD(rules)
}

// pause holds the readers of the interface, if there is one, until the returned function
// is called.
func (b *bump) pause() (resume func(), err error) {
	if b.device == nil {
		return func() {}, nil
	}
	b.taps.mu.Lock()
	ctx, cancel := context.WithTimeout(context.Background(), pauseLimit)
	defer cancel()
	if err := b.device.Hold(ctx); err != nil {
		b.taps.mu.Unlock()
		return nil, fmt.Errorf("the traffic cannot be held for a moment, so nothing was changed: %w", err)
	}
	return func() {
		b.device.Resume()
		b.taps.mu.Unlock()
	}, nil
}

// exchange puts everything into effect. Nothing of it can fail any more.
func (b *bump) exchange(cfg *Config, spd *sa.SPD, plan *keyer.Plan, changes []config.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.live.Load()
	err := plan.Commit(func() {
		before := make(map[string]*sa.Policy)
		for _, p := range b.engine.SPD().Policies() {
			before[p.Name] = p
		}
		for _, p := range spd.Policies() {
			if was := before[p.Name]; was != nil && was != p {
				p.Inherit(was)
			}
		}
		b.engine.SetSPD(spd)
	}, applyGrace)
	if err != nil {
		b.log.WithError(err).Warn("sequence numbers of an SA that was replaced cannot be handed back")
	}
	b.live.Store(cfg)
	for _, class := range b.classes {
		if err := class.SetRules(classRules(cfg)); err != nil {
			b.log.WithError(err).Error("the classes stay as they were")
		}
	}
	b.engine.SetICMPErrors(icmpErrors(cfg.ICMPErrors))
	if b.applied == nil {
		return // stopping
	}
	b.engine.SetRoutes(ipsec.NewRoutes(b.routes(b.applied)))
	b.engine.SetMTU(b.mtu(b.applied))
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Name == "offloads" || c.Subject == config.SAEdit }) {
		b.setOffloads(cfg.Offloads)
	}
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Subject == config.NeighborEdit }) {
		b.exchangeNeighbors(old)
	}
}

// decideAnew has the engine look again at what it let pass in the clear and what waits for a
// next hop, for the policies may have changed since.
func (b *bump) decideAnew() {
	ctx, cancel := context.WithTimeout(context.Background(), pauseLimit)
	defer cancel()
	b.awaitTurns(ctx) // who works on a frame may ask for a next hop yet
	b.engine.Again(b.resolver.TakeBack(b.engine.Revoked))
}

// exchangeNeighbors replaces the static neighbours that were old's. b.mu is held.
func (b *bump) exchangeNeighbors(old *Config) {
	b.deleted = nil // what was deleted by hand is what the file says again
	stays := make(map[netip.Addr]bool)
	for _, n := range b.live.Load().StaticNeighbors {
		stays[n.Address] = true
	}
	for _, n := range old.StaticNeighbors {
		if stays[n.Address] || b.twoNIC() && b.cfg.IsProtected(n.Address) {
			continue
		}
		err := b.stack.RemoveNeighbor(ipsec.RightNIC, protocolOf(n.Address), addressOf(n.Address))
		if _, none := err.(*tcpip.ErrBadAddress); err != nil && !none {
			b.log.WithField("neighbor", n.Address.String()).Warnf("it stays static: %v", err)
		}
	}
	if err := b.staticNeighbors(); err != nil {
		b.log.WithError(err).Warn("a static neighbour is lost")
	}
}

// tellApplied tells everybody of a configuration that is in force.
func (a *Appliance) tellApplied(by string, cfg *Config, changes []config.Change) {
	select {
	case a.reloaded <- struct{}{}:
	default: // Run has not taken the last one yet, and will look at this
	}
	if a.opt.applied != nil {
		a.opt.applied(cfg)
	}
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Subject == config.SAEdit }) {
		a.warnInsecure()
	}
	ev := Event{Kind: ConfigurationApplied, Level: "info", By: by, Text: "configuration applied"}
	for i, c := range changes {
		if i == maxEventChanges {
			ev.Changes = append(ev.Changes, fmt.Sprintf("and %d more", len(changes)-i))
			break
		}
		ev.Changes = append(ev.Changes, c.String())
	}
	a.tell(ev)
}
