package sa

import (
	"errors"
	"fmt"
	"time"
)

// AddPair puts an inbound and an outbound SA into the database, or neither. The
// outbound one is not current before Lineage.Switch. The errors are those of Add.
func (d *SAD) AddPair(in, out *SA) error {
	if in.Direction != Inbound || out.Direction != Outbound {
		return fmt.Errorf("SA %q (%v) and SA %q (%v) are no pair, want inbound and outbound", in.Name, in.Direction, out.Name, out.Direction)
	}
	if err := d.Add(in); err != nil {
		return err
	}
	if err := d.Add(out); err != nil {
		d.Remove(in)
		return err
	}
	return nil
}

// Retire keeps s for a grace time more, as its clock tells it, and then lets Tick
// delete it: an old inbound SA still takes what the peer sent before it switched, an
// old outbound one still recognizes what comes back about its packets. Retiring
// again sets another time. It is an error if s is not in the database, or is the one
// that its lineage sends by.
func (d *SAD) Retire(s *SA, grace time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.find(s.Direction, &s.Key) != s:
		return fmt.Errorf("SA %q (%v) is not in the SAD", s.Name, s.Key)
	case s.Direction == Outbound && s.Lineage != nil && !s.Lineage.retire(s, false):
		return fmt.Errorf("SA %q (%v) cannot retire while its lineage sends by it: switch first", s.Name, s.Key)
	}
	d.keepUntil(s, grace)
	d.tell(Retired, s, nil)
	return nil
}

// Withdraw is Retire for an SA without successor, whose lineage no policy in force names
// any more: what is on its way by an older policy still leaves by it. It is an error if s
// is not in the database.
func (d *SAD) Withdraw(s *SA, grace time.Duration) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(s.Direction, &s.Key) != s {
		return fmt.Errorf("SA %q (%v) is not in the SAD", s.Name, s.Key)
	}
	d.keepUntil(s, grace)
	d.tell(Retired, s, nil)
	return nil
}

// Revive ends the grace time of a retiring SA: it is as it was before. It returns false if
// s does not retire, or is not there any more.
func (d *SAD) Revive(s *SA) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.retiring[s]; !ok {
		return false
	}
	delete(d.retiring, s)
	s.state.And(^uint32(stateRetiring))
	d.tell(Revived, s, nil)
	return true
}

// keepUntil lets Tick delete s after a grace time. d.mu is held.
func (d *SAD) keepUntil(s *SA, grace time.Duration) {
	if d.retiring == nil {
		d.retiring = make(map[*SA]int64)
	}
	d.retiring[s] = s.clock() + int64(grace)
	s.state.Or(stateRetiring)
}

// Retiring says whether s is kept for a grace time only.
func (s *SA) Retiring() bool { return s.state.Load()&stateRetiring != 0 }

// Delete takes s out of its lineage and of the database, and closes it. The error is
// that of Close, or says that s was not there; s is gone in any case.
func (d *SAD) Delete(s *SA) error {
	if s.Direction == Outbound && s.Lineage != nil {
		s.Lineage.retire(s, true)
	}
	var absent error
	if !d.Remove(s) {
		absent = fmt.Errorf("SA %q (%v) is not in the SAD", s.Name, s.Key)
	}
	return errors.Join(absent, s.Close())
}

// Tick notices lifetimes that ended at now (nanoseconds since 1970) while no packet
// came, and peers that are silent, and deletes SAs whose grace time is over. The
// owner of the database calls it about once a second. The error joins those of the
// stores of sequence numbers.
func (d *SAD) Tick(now int64) error {
	d.ticks.Lock()
	defer d.ticks.Unlock()
	var silent []*Lineage
	for _, dir := range []Direction{Outbound, Inbound} {
		for _, s := range d.list(dir) {
			s.Tick(now)
			if l := s.Lineage; l != nil && l.DeadAfter > 0 {
				silent = l.life.note(l, s, silent)
			}
		}
	}
	for _, l := range silent {
		if l.life.check(l, now) && d.observer != nil {
			d.observer(Event{Kind: Dead, Lineage: l})
		}
	}
	var over []*SA
	d.mu.Lock()
	for s, until := range d.retiring {
		if now >= until {
			over = append(over, s)
		}
	}
	d.mu.Unlock()
	var errs []error
	for _, s := range over {
		errs = append(errs, d.bury(s))
	}
	return errors.Join(errs...)
}

// bury deletes s, unless it was revived meanwhile. Whoever finds s in the database may
// still revive it.
func (d *SAD) bury(s *SA) error {
	d.mu.Lock()
	_, still := d.retiring[s]
	was := still && d.exchange(s, nil)
	if was {
		d.encap.remove(s)
	}
	delete(d.retiring, s)
	d.mu.Unlock()
	if !still {
		return nil
	}
	if was {
		d.tell(Deleted, s, nil)
	}
	if s.Direction == Outbound && s.Lineage != nil {
		s.Lineage.retire(s, true)
	}
	return s.Close()
}

// life is what Tick knows of the traffic of one lineage. It watches the times that
// the SAs keep anyway, so that it costs the packet path nothing.
type life struct {
	in, out int64 // last use of the SAs of a direction
	waiting int64 // since when what leaves is not answered, 0 for not
	dead    bool
	noted   bool // in the list of this tick
}

// note takes in the last use of s, and puts l on the list unless it is.
func (f *life) note(l *Lineage, s *SA, list []*Lineage) []*Lineage {
	last := &f.out
	if s.Direction == Inbound {
		last = &f.in
	}
	*last = max(*last, s.LastUse.Load())
	if f.noted {
		return list
	}
	f.noted = true
	return append(list, l)
}

// check tells that the other end is dead, and returns true, if it has become so.
func (f *life) check(l *Lineage, now int64) bool {
	f.noted = false
	switch {
	case f.in >= f.out || f.waiting != 0 && f.in >= f.waiting:
		f.waiting, f.dead = 0, false
		if f.out > f.in {
			f.waiting = f.out
		}
	case f.waiting == 0:
		f.waiting = f.out
	}
	if f.waiting == 0 || f.dead || now-f.waiting < int64(l.DeadAfter) {
		return false
	}
	f.dead = true
	l.tell(Event{Kind: Dead})
	return true
}
