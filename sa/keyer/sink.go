package keyer

import (
	"errors"
	"sync"

	"bitw/netstack/wire"
	"bitw/sa"
)

// A Sink is the key manager whose SAs discard everything, as DropPolicyDiscard,
// and count it.
type Sink struct {
	lineages map[string]*sa.Lineage
	sas      []*sa.SA

	mu sync.Mutex
	db *sa.SAD // nil unless started
}

// NewSink makes the manager with one SA for each spec, of which only name,
// direction, mode, addresses, SPI and protocol count.
func NewSink(specs []Spec, clock func() int64) (*Sink, error) {
	k := &Sink{lineages: make(map[string]*sa.Lineage)}
	errs := []error{checkNames(specs)}
	for i := range specs {
		s := &specs[i]
		l := sa.NewLineage(s.Name)
		made, err := sa.New(sa.SAConfig{
			Name: s.Name, Key: s.Key(), Direction: s.Direction, Mode: s.Mode, Src: s.Src,
			InnerSrc: s.InnerSrc, InnerDst: s.InnerDst,
			Discard: true, Lineage: l, Clock: clock,
		})
		if err != nil {
			errs = append(errs, err)
			continue
		}
		k.lineages[s.Name] = l
		k.sas = append(k.sas, made)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return k, nil
}

// Name returns "sink".
func (k *Sink) Name() string { return "sink" }

// Lineage implements Manager.
func (k *Sink) Lineage(name string) *sa.Lineage { return k.lineages[name] }

// Start implements Manager.
func (k *Sink) Start(c *Commands) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	db := c.SAD
	if k.db != nil {
		return errors.New("sink was started before")
	}
	for i, s := range k.sas {
		err := db.Add(s)
		if err == nil && s.Direction == sa.Outbound {
			_, err = s.Lineage.Switch(s)
		}
		if err != nil {
			withdraw(db, k.sas[:i])
			return err
		}
	}
	k.db = db
	return nil
}

// Discarded returns how many packets the SAs discarded so far.
func (k *Sink) Discarded() uint64 {
	var n uint64
	for _, s := range k.sas {
		n += s.Drops.Load(wire.DropPolicyDiscard)
	}
	return n
}

// Close implements Manager.
func (k *Sink) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.db == nil {
		return nil
	}
	withdraw(k.db, k.sas)
	k.db = nil
	var errs []error
	for _, s := range k.sas {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

func withdraw(db *sa.SAD, sas []*sa.SA) {
	for _, s := range sas {
		if s.Direction == sa.Outbound {
			_, _ = s.Lineage.Switch(nil) // nil fits every lineage
		}
		db.Remove(s)
	}
}
