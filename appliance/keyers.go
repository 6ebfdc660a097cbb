package appliance

import (
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/netstack/trace"
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

// keyEvent is told what happens to the SAs of the configuration. It is on the packet
// path, so it hands the logging to another goroutine; these events are rare, but for the
// moves of a peer between two NATs, or between it and somebody who copies its packets.
// Of those at most one a second is logged.
func (a *Appliance) keyEvent(ev sa.Event) {
	log := a.log.WithFields(logrus.Fields{"sa": ev.Lineage.Name, "event": ev.Kind.String()})
	if ev.Kind != sa.PeerMoved && a.trace.nodes[trace.KM].On(trace.Events) {
		go log.WithField("node", trace.KM.String()).Info("an event of an SA")
	}
	switch ev.Kind {
	case sa.ExpireSoft, sa.ExpireHard:
		go log.Warn("lifetime of an SA is over")
	case sa.SequenceLow:
		go log.Warn("an SA has few sequence numbers left")
	case sa.PeerMoved:
		now, last := a.opt.clock(), a.moveLogged.Load()
		if now-last >= int64(time.Second) && a.moveLogged.CompareAndSwap(last, now) {
			go log.WithField("peer", ev.Peer.String()).Info("the peer of an SA has moved")
		}
	}
}
