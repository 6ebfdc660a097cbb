package appliance

import (
	"errors"
	"fmt"

	"bitw/sa"
	"bitw/sa/keyer"
)

// keyers are the key managers of one appliance: sauser, which has the SAs of the
// configuration, and those of WithKeyManager.
type keyers struct {
	*keyer.SAUser
	others  []keyer.Manager
	started []keyer.Manager // of others
	memory  *sa.MemoryStore // of others
	resume  *sa.Resume
	clock   func() int64
}

// Lineage finds a name at all managers. The SAs of the configuration come first;
// check tells of a name that two have.
func (k *keyers) Lineage(name string) *sa.Lineage { return k.lineage(name, k.SAUser.Lineage) }

// lineage is Lineage with what the SAs of the configuration are to be.
func (k *keyers) lineage(name string, own func(string) *sa.Lineage) *sa.Lineage {
	if l := own(name); l != nil {
		return l
	}
	for _, m := range k.others {
		if l := m.Lineage(name); l != nil {
			return l
		}
	}
	return nil
}

// check finds names of SAs in cfg that two managers have, own telling those of the
// configuration.
func (k *keyers) check(cfg *Config, own func(string) *sa.Lineage) error {
	var errs []error
	for i := range cfg.Policies {
		p := &cfg.Policies[i]
		for _, name := range append(append([]string(nil), p.Out...), p.In...) {
			owner := ""
			if own(name) != nil {
				owner = k.SAUser.Name()
			}
			for _, m := range k.others {
				switch {
				case m.Lineage(name) == nil:
				case owner == "":
					owner = m.Name()
				default:
					errs = append(errs, fmt.Errorf("policy %q: the key managers %s and %s both have an SA named %q", p.Name, owner, m.Name(), name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

// Start starts all managers, or none. Keys that the others make end with the process,
// so their sequence numbers are kept in memory.
func (k *keyers) Start(c *keyer.Commands) error {
	if err := k.SAUser.Start(c); err != nil {
		return err
	}
	memory := &keyer.Commands{SAD: c.SAD, Store: k.memory, Resume: k.resume, AllowInsecure: c.AllowInsecure, Clock: k.clock}
	for _, m := range k.others {
		if err := m.Start(memory); err != nil {
			return errors.Join(fmt.Errorf("key manager %s: %w", m.Name(), err), k.Close())
		}
		k.started = append(k.started, m)
	}
	return nil
}

// Close closes the managers that were started, the last one first.
func (k *keyers) Close() error {
	var errs []error
	for i := len(k.started) - 1; i >= 0; i-- {
		errs = append(errs, k.started[i].Close())
	}
	k.started = nil
	return errors.Join(append(errs, k.SAUser.Close())...)
}

// saEvent is told what happens to SAs, also on the packet path.
func (a *Appliance) saEvent(x sa.Event) {
	kind, ok := saKinds[x.Kind]
	if !ok || !a.events.admits(kind) {
		return
	}
	ev := Event{Kind: kind, Level: "debug", onPath: true}
	if x.Lineage != nil {
		ev.SA = x.Lineage.Name
	}
	if s := x.SA; s != nil {
		ev.SA, ev.Direction, ev.Destination = s.Name, s.Direction.String(), s.Key.Dst.String()
		ev.SPI, ev.Algorithm = spiText(s.Key.SPI), s.Algorithm.Name
	}
	if x.Old != nil {
		ev.OldSPI = spiText(x.Old.Key.SPI)
	}
	switch x.Kind {
	case sa.Added:
		ev.Text = "an SA was added"
	case sa.Replaced:
		ev.Text = "an SA has taken the place of another"
	case sa.Switched:
		ev.Text = "outbound packets go by this SA now"
	case sa.Retired:
		ev.Text = "an SA is kept for a grace time only"
	case sa.Revived:
		ev.Text = "an SA that was kept for a grace time is in use again"
	case sa.Deleted:
		ev.Text = "an SA was deleted"
	case sa.ExpireSoft:
		ev.Level, ev.Text = "warning", "the soft lifetime of an SA is over"
	case sa.ExpireHard:
		ev.Level, ev.Text = "warning", "the hard lifetime of an SA is over, it drops everything"
	case sa.SequenceLow:
		ev.Level, ev.Text = "warning", "an SA has few sequence numbers left"
	case sa.PeerMoved:
		ev.Level, ev.Text, ev.Peer = "info", "the peer of an SA has moved", x.Peer.String()
	case sa.Dead:
		ev.Level, ev.Text = "warning", "packets leave by an SA, and none comes back"
	case sa.PathMTU:
		ev.Level, ev.Text, ev.PathMTU = "info", "a path MTU was learned", x.PMTU
	case sa.Acquire:
		ev.Text, ev.Policy, ev.Packet = "a packet needs an SA", x.Policy.Name, x.Flow.String()
	}
	a.events.put(&ev)
}

var saKinds = map[sa.EventKind]EventKind{
	sa.Acquire: Acquire, sa.ExpireSoft: ExpireSoft, sa.ExpireHard: ExpireHard, sa.SequenceLow: SequenceLow, sa.PeerMoved: PeerMoved,
	sa.Dead: PeerDead, sa.Added: SAAdded, sa.Replaced: SAReplaced, sa.Switched: SASwitched, sa.Retired: SARetired, sa.Revived: SARevived,
	sa.Deleted: SADeleted, sa.PathMTU: PathMTULearned,
}
