package keyer

import (
	"errors"
	"fmt"
	"time"

	"bitw/sa"
)

// Commands are what a key manager may do to the databases. Any goroutine may call
// them at any time; the next packet feels what they did. They do not belong into
// Notify.
type Commands struct {
	// SAD is the database itself.
	SAD *sa.SAD
	// Store remembers the sequence numbers of counter-mode keys whose SAConfig names no
	// store of its own. One that is forgotten at the end of the process will do for keys
	// that end with it, and only for those.
	Store sa.SequenceStore
	// Resume may know what the SAs were in another process; nil is allowed.
	Resume *sa.Resume
	// AllowInsecure are the parts of algorithms' names that may be used although they
	// should not; see transform.Algorithm.Insecure.
	AllowInsecure []string
	// Clock returns nanoseconds since 1970; nil stands for the system's clock.
	Clock func() int64
}

// make is sa.New with what cfg leaves to the databases.
func (c *Commands) make(cfg sa.SAConfig) (*sa.SA, error) {
	if cfg.Lineage == nil {
		return nil, fmt.Errorf("SA %q has no lineage", cfg.Name)
	}
	if cfg.Algorithm.NoSequence {
		return nil, fmt.Errorf("SA %q: algorithm %q has no sequence numbers, and is for manual keys only", cfg.Name, cfg.Algorithm.Name)
	}
	if err := cfg.Algorithm.CheckAllowed(c.AllowInsecure); err != nil {
		return nil, fmt.Errorf("SA %q: algorithm %w", cfg.Name, err)
	}
	if cfg.Clock == nil {
		cfg.Clock = c.Clock
	}
	if cfg.Store == nil && cfg.Algorithm.CounterMode {
		cfg.Store = c.Store
	}
	if cfg.Resume == nil {
		cfg.Resume = c.Resume
	}
	return sa.New(cfg)
}

// Add makes an SA and puts it into the SAD: an inbound one takes packets from now on,
// an outbound one waits for Switch. It copies the keys. After an error nothing is
// left of it. The errors are those of sa.New and SAD.Add, transform.ErrInsecure for an
// algorithm that is not allowed, and one for those without sequence numbers, which are for
// manual keys. One that wraps
// sa.ErrKeyInUse says that another SA sends with the same counter-mode key, which no
// two may, since a nonce would repeat. A counter-mode key that was used before is
// taken only if the store knows how far, and goes on from there.
func (c *Commands) Add(cfg sa.SAConfig) (*sa.SA, error) {
	s, err := c.make(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.SAD.Add(s); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// AddPair is Add for the SAs of both directions, of which there are then two or none.
func (c *Commands) AddPair(in, out sa.SAConfig) (inbound, outbound *sa.SA, err error) {
	if inbound, err = c.make(in); err != nil {
		return nil, nil, err
	}
	if outbound, err = c.make(out); err == nil {
		if err = c.SAD.AddPair(inbound, outbound); err == nil {
			return inbound, outbound, nil
		}
		err = errors.Join(err, outbound.Close())
	}
	return nil, nil, errors.Join(err, inbound.Close())
}

// Switch makes out the SA that its lineage sends by, in one step, and returns the one
// before, or nil. What waited for an SA leaves by it. The old SA stays in the SAD
// until it is retired or deleted.
func (c *Commands) Switch(out *sa.SA) (old *sa.SA, err error) {
	if out.Lineage == nil {
		return nil, fmt.Errorf("SA %q has no lineage", out.Name)
	}
	return out.Lineage.Switch(out)
}

// Retire keeps an SA that has a successor for a grace time, and then deletes it. The
// errors are those of SAD.Retire.
func (c *Commands) Retire(s *sa.SA, grace time.Duration) error { return c.SAD.Retire(s, grace) }

// Delete ends an SA at once. If its lineage sent by it, the lineage has none from now
// on, and the next datagram asks for one. The errors are those of SAD.Delete.
func (c *Commands) Delete(s *sa.SA) error { return c.SAD.Delete(s) }

// Refuse answers an Acquire for which no SA will come: what waits is dropped, and its
// sender is told that communication is prohibited (RFC 4301 §5.1.1). Without any
// answer it is dropped after a time, and the sender is told that the host cannot be
// reached.
func (c *Commands) Refuse(l *sa.Lineage) { l.Refuse() }

// DeleteAll deletes every SA of the lineage, current, retiring or not yet switched to.
func (c *Commands) DeleteAll(l *sa.Lineage) error {
	var errs []error
	for _, s := range c.SAD.All() {
		if s.Lineage == l {
			errs = append(errs, c.SAD.Delete(s))
		}
	}
	return errors.Join(errs...)
}
