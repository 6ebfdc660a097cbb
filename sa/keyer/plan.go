package keyer

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"bitw/sa"
)

// A Plan is what makes the SAs of a sauser those of other specs. Everything that can fail
// has been done when there is one: Commit cannot. Until Commit or Abort, of which one must
// follow, all other methods of the sauser wait.
//
// By name and direction an SA is what it was, with sequence numbers, replay window and
// counters, if nothing of its spec differs. With another SPI and key it is a rollover
// (RFC 4301 §4.5): the new one is there before the first packet needs it, and the old one
// is kept for a grace time. With the same key and other parameters, or another name, it
// goes on where it was. One counter-mode key never has its numbers used twice.
type Plan struct {
	u     *SAUser
	trial bool
	next  []*entry
	by    map[string]*entry
	made  []*change
	// revived were retiring, and are to be again if it comes to nothing.
	revived []*sa.SA
	after   []*entry // live or past before, and not in next
	stays   map[*sa.SA]bool
	ended   bool
}

// A change gives an entry a new SA.
type change struct {
	e     *entry
	sa    *sa.SA
	added bool   // it is in the SAD already
	from  *sa.SA // it goes on where this was; nil if it begins
	out   *sa.SA // has its place in the SAD
}

// Plan works out how the SAs become those of specs, with algorithms of lookup. A trial
// claims nothing, changes nothing that a packet could notice, and can only be aborted. The
// errors are those of NewSAUser and Start; after an error everything is as it was.
func (u *SAUser) Plan(specs []Spec, lookup AlgorithmLookup, trial bool) (*Plan, error) {
	var store sa.SequenceStore
	if u.cfg.Store != nil {
		store = sa.NewMemoryStore()
	}
	if err := check(specs, lookup, store, nil); err != nil {
		return nil, err
	}
	u.mu.Lock()
	if u.db == nil || u.closed {
		u.mu.Unlock()
		return nil, errors.New("sauser is not started, or closed")
	}
	u.prune()
	p := &Plan{u: u, trial: trial, by: make(map[string]*entry), stays: make(map[*sa.SA]bool)}
	for i := range specs {
		if err := p.add(&specs[i], lookup); err != nil {
			return nil, errors.Join(err, p.Abort())
		}
	}
	for _, e := range append(append([]*entry(nil), u.entries...), u.past...) {
		if !p.stays[e.sa] {
			p.after = append(p.after, e)
		}
	}
	if err := p.distinct(); err != nil {
		return nil, errors.Join(err, p.Abort())
	}
	return p, nil
}

// prune forgets what is no longer in the SAD.
func (u *SAUser) prune() {
	var there []*entry
	for _, e := range u.past {
		if find(u.db, e.sa.Direction, e.sa.Key) == e.sa {
			there = append(there, e)
		}
	}
	u.past = there
}

// add plans one SA.
func (p *Plan) add(spec *Spec, lookup AlgorithmLookup) error {
	u := p.u
	alg, err := lookup(spec.Proto, spec.Algorithm)
	if err != nil {
		return fmt.Errorf("SA %q: %w", spec.Name, err)
	}
	e := &entry{spec: *spec, alg: alg, lineage: u.lineage(spec)}
	e.spec.EncryptionKey, e.spec.IntegrityKey = sa.Secret{}, sa.Secret{}
	if !spec.EncryptionKey.Empty() || !spec.IntegrityKey.Empty() {
		e.state, e.id = Valid, identify(spec.EncryptionKey, spec.IntegrityKey)
		if err := u.checkSide(e, e.id); err != nil {
			return err
		}
	}
	p.next = append(p.next, e)
	p.by[spec.Name] = e
	if was := p.unchanged(e); was != nil {
		e.sa, e.state, e.lineage = was.sa, was.state, was.lineage
		p.stays[e.sa] = true
		return nil
	}
	return p.make(e, spec)
}

// lineage returns that of the SAs which had the name and direction of spec, or a new one.
func (u *SAUser) lineage(spec *Spec) *sa.Lineage {
	for _, list := range [][]*entry{u.entries, u.past} {
		for _, e := range list {
			if e.spec.Name == spec.Name && e.spec.Direction == spec.Direction {
				return e.lineage
			}
		}
	}
	return &sa.Lineage{Name: spec.Name, Notify: u.cfg.Events}
}

// unchanged returns the entry, live or past, of which nothing differs from e.
func (p *Plan) unchanged(e *entry) *entry {
	for _, was := range p.u.entries {
		if was.like(e) {
			return was
		}
	}
	for _, was := range p.u.past {
		if !was.like(e) {
			continue
		}
		if p.trial {
			return was
		}
		if p.u.db.Revive(was.sa) {
			p.revived = append(p.revived, was.sa)
			return was
		}
	}
	return nil
}

// like says that e and o are one SA by all that is configured. A key that somebody took
// away is another.
func (e *entry) like(o *entry) bool {
	a, b := e.spec, o.spec
	a.EncryptionKey, a.IntegrityKey, b.EncryptionKey, b.IntegrityKey = sa.Secret{}, sa.Secret{}, sa.Secret{}, sa.Secret{}
	return (e.state == Empty) == (o.state == Empty) && e.id == o.id && reflect.DeepEqual(a, b)
}

// make makes a new SA for e.
func (p *Plan) make(e *entry, spec *Spec) error {
	u := p.u
	cfg := u.config(e, spec.EncryptionKey, spec.IntegrityKey)
	trial, err := sa.Prepare(cfg)
	if err != nil {
		return err
	}
	c := &change{e: e}
	for _, old := range u.db.All() {
		if !trial.Continues(old) {
			continue
		}
		was := u.owner(old)
		if was == nil {
			return fmt.Errorf("SA %q has the key of SA %q, which another key manager has: %w", spec.Name, old.Name, sa.ErrKeyInUse)
		}
		if c.from = old; was.state == Invalid {
			e.state = Invalid
			trial.Invalidate()
		}
	}
	if at := find(u.db, spec.Direction, trial.Key); at != nil {
		if u.owner(at) == nil {
			return fmt.Errorf("SA %q and SA %q of another key manager are both %v: %w", at.Name, spec.Name, trial.Key, sa.ErrDuplicateSA)
		}
		c.out = at
	}
	if p.trial || c.from != nil {
		c.sa = trial
		p.made = append(p.made, c)
		return p.revive(c.from)
	}
	if err := trial.Close(); err != nil {
		return err
	}
	if c.sa, err = sa.New(cfg); err != nil {
		return err
	}
	p.made = append(p.made, c)
	if c.out != nil {
		return p.revive(c.out)
	}
	// It may as well be there before it is needed: no policy names an SA of a new lineage
	// yet, and one of an old lineage is as good as its predecessor.
	if err := u.db.Add(c.sa); err != nil {
		return err
	}
	c.added = true
	return nil
}

// revive keeps an SA that retires from being deleted before Commit.
func (p *Plan) revive(s *sa.SA) error {
	if s != nil && !p.trial && s.Retiring() && p.u.db.Revive(s) {
		p.revived = append(p.revived, s)
	}
	return nil
}

// distinct refuses two SAs that would go on where one was.
func (p *Plan) distinct() error {
	heir := make(map[*sa.SA]string)
	for _, c := range p.made {
		if c.from == nil {
			continue
		}
		if other, twice := heir[c.from]; twice || p.stays[c.from] {
			return fmt.Errorf("SA %q has the key of SA %q: give each SA a key of its own: %w", c.e.spec.Name, max(other, c.from.Name), sa.ErrKeyInUse)
		}
		heir[c.from] = c.e.spec.Name
	}
	return nil
}

// find returns the SA at a place of the SAD.
func find(db *sa.SAD, dir sa.Direction, k sa.Key) *sa.SA {
	if dir == sa.Inbound {
		return db.Lookup(k.SPI, k.Dst, k.Proto)
	}
	return db.LookupOutbound(k.SPI, k.Dst, k.Proto)
}

// owner returns the entry, live or past, whose SA is s, or nil.
func (u *SAUser) owner(s *sa.SA) *entry {
	for _, list := range [][]*entry{u.entries, u.past} {
		for _, e := range list {
			if e.sa == s {
				return e
			}
		}
	}
	return nil
}

// sided is how a counter-mode key was used. The two directions never share one, not even
// one after the other: the peer has used the numbers of the other.
type sided struct {
	name string
	dir  sa.Direction
}

// side notes how the key of e is used.
func (u *SAUser) side(e *entry) {
	if e.state != Empty && e.alg.CounterMode {
		u.sides[e.id.nonce] = sided{e.spec.Name, e.spec.Direction}
	}
}

// checkSide returns why e cannot have the key id.
func (u *SAUser) checkSide(e *entry, id keyID) error {
	was, used := u.sides[id.nonce]
	if !used || !e.alg.CounterMode || was.dir == e.spec.Direction {
		return nil
	}
	return fmt.Errorf("SA %q (%v) has the counter-mode key that SA %q (%v) had, so nonces would repeat: give each SA a key of its own: %w",
		e.spec.Name, e.spec.Direction, was.name, was.dir, sa.ErrKeyInUse)
}

// Lineage is Manager.Lineage as it will be.
func (p *Plan) Lineage(name string) *sa.Lineage {
	if e := p.by[name]; e != nil {
		return e.lineage
	}
	return nil
}

// Exact says that packets would be dropped if some were under way at the time of Commit,
// because an SA goes on with other parameters or another has its SPI.
func (p *Plan) Exact() bool {
	for _, c := range p.made {
		if !c.added {
			return true
		}
	}
	return false
}

// Commit puts the plan into effect. policies is called when all new SAs are there and
// before any old one retires, to put in force the policies that go with them. What
// retires is kept for a grace time. The error is of the store, about numbers of old SAs
// that it could not take back; all is done nevertheless.
func (p *Plan) Commit(policies func(), grace time.Duration) error {
	if p.trial || p.ended {
		panic("keyer: Commit of a trial, or twice")
	}
	p.ended = true
	u := p.u
	defer u.mu.Unlock()
	var errs []error
	gone := make(map[*sa.SA]bool)
	for _, c := range p.made {
		if c.from != nil {
			c.sa.Succeed(c.from)
			gone[c.from] = true
		}
		if c.out != nil {
			gone[c.out] = true
		}
	}
	// Where an SA goes on in another place, its own is free before others are taken.
	for _, c := range p.made {
		if c.from != nil && !p.wanted(c.from) {
			u.db.Remove(c.from)
		}
	}
	for _, c := range p.made {
		switch {
		case c.added:
		case c.out != nil:
			errs = append(errs, u.db.Replace(c.out, c.sa))
		default:
			errs = append(errs, u.db.Add(c.sa))
		}
	}
	for _, e := range p.next {
		if e.spec.Direction == sa.Outbound && e.lineage.Outbound() != e.sa && e.sa != nil {
			errs = append(errs, e.current(e.sa)) // one that was revived
		}
	}
	for _, c := range p.made {
		u.side(c.e)
		c.e.sa = c.sa
		errs = append(errs, c.e.current(c.sa))
	}
	policies()
	u.past = nil
	for _, e := range p.after {
		switch {
		case gone[e.sa]:
			if e.lineage.Outbound() == e.sa {
				_, _ = e.lineage.Switch(nil)
			}
			errs = append(errs, e.sa.Close())
			continue
		case e.sa.Retiring():
		case p.named(e.lineage) || e.spec.Direction == sa.Inbound:
			errs = append(errs, u.db.Retire(e.sa, grace))
		default:
			errs = append(errs, u.db.Withdraw(e.sa, grace))
		}
		u.past = append(u.past, e)
	}
	u.entries, u.byName = p.next, p.by
	return errors.Join(errs...)
}

// wanted says whether an SA's place will be taken in one step.
func (p *Plan) wanted(s *sa.SA) bool {
	for _, c := range p.made {
		if c.out == s {
			return true
		}
	}
	return false
}

// named says whether an SA of the plan has the lineage.
func (p *Plan) named(l *sa.Lineage) bool {
	for _, e := range p.next {
		if e.lineage == l {
			return true
		}
	}
	return false
}

// Abort leaves everything as it was. The error is of the store.
func (p *Plan) Abort() error {
	if p.ended {
		return nil
	}
	p.ended = true
	defer p.u.mu.Unlock()
	var errs []error
	for _, c := range p.made {
		if c.added {
			p.u.db.Remove(c.sa)
		}
		if c.sa != nil {
			errs = append(errs, c.sa.Close())
		}
	}
	for _, s := range p.revived {
		// The lineages that it could be of go on without it.
		errs = append(errs, p.u.db.Withdraw(s, abortGrace))
	}
	return errors.Join(errs...)
}

// abortGrace is how long what was revived in vain is kept once more.
const abortGrace = 10 * time.Second

// config is what an SA of e with the keys is made of.
func (u *SAUser) config(e *entry, encryptionKey, integrityKey sa.Secret) sa.SAConfig {
	cfg := e.spec.config()
	cfg.Algorithm, cfg.EncryptionKey, cfg.IntegrityKey = e.alg, encryptionKey, integrityKey
	cfg.Lineage, cfg.Store, cfg.Clock = e.lineage, u.cfg.Store, u.cfg.Clock
	cfg.Resume = u.cfg.Resume
	return cfg
}
