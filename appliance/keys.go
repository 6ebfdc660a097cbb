package appliance

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"bitw/config"
	"bitw/config/graphcomp"
	"bitw/sa"
)

// A KeyStatus is what is told of one key.
type KeyStatus struct {
	// Name is that of the SA, and with a graph MANAGER/ADDRESS, such as
	// km/md5/0x00001001/192.0.2.2.
	Name string `json:"name"`
	// State is "empty", "valid" or "invalid".
	State string `json:"state"`
	// Octets is the length of the key, or of both keys of an SA together; with a graph 0 for
	// the empty key.
	Octets int `json:"octets"`
	// Value is the key in the form that SetKey reads. It is there only when it was asked for
	// and there is a graph: other keys are not kept.
	Value string `json:"value,omitempty"`
}

// ErrKey is matched by the errors about a key that cannot be set, or is not there. They
// show no key.
var ErrKey = errors.New("the key cannot be changed")

func keyError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrKey, err)
}

// running is what is at work from Ready until Run returns, or an error.
func (a *Appliance) running() (*bump, error) {
	select {
	case <-a.done:
	default:
		select {
		case <-a.ready:
			return a.bump.Load(), nil
		default:
		}
	}
	return nil, fmt.Errorf("the appliance is %s, so nothing is at work in it", *a.state.Load())
}

// Keys tells the states of all keys of a running appliance, in the order of the
// configuration or of the graph and its key files. Values are shown only if show.
func (a *Appliance) Keys(show bool) ([]KeyStatus, error) {
	b, err := a.running()
	if err != nil {
		return nil, err
	}
	list := []KeyStatus{}
	if g := a.opt.graph; g != nil {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, m := range g.keys.Maps() {
			for _, k := range m.Keys() {
				s := KeyStatus{Name: m.Manager + "/" + m.AddressText(k.Address), State: k.State.String(), Octets: k.Value.Len()}
				if show {
					s.Value = m.ValueText(k.Value)
				}
				list = append(list, s)
			}
		}
		return list, nil
	}
	for _, name := range b.keys.Names() {
		state, err := b.keys.State(name)
		if err != nil {
			continue // it went between the two questions
		}
		enc, integ, _ := b.keys.KeyLengths(name)
		list = append(list, KeyStatus{Name: name, State: state.String(), Octets: enc + integ})
	}
	return list, nil
}

// SetKey makes a key valid from the next packet on. With a graph the value is what a key
// file would have; otherwise it is what a line of one has behind the name: the SA's
// encryption key and its integrity key in hexadecimal, without those that its algorithm does
// not take. After an error nothing has changed; it matches ErrKey where the name or the
// value is at fault.
func (a *Appliance) SetKey(name, value string) error {
	return a.setKey("", name, value)
}

// setKey is SetKey for who asks.
func (a *Appliance) setKey(by, name, value string) error {
	return a.alterKey(by, name, "set", func(b *bump) error { return setKey(b, name, value) },
		func(m *graphcomp.KeyMap, address []byte) error {
			octets, err := m.ValueOctets(value)
			if err != nil {
				return err
			}
			defer clear(octets)
			return m.Set(address, octets)
		})
}

// setKey sets the keys of an SA of the configuration.
func setKey(b *bump, name, value string) error {
	enc, integ, err := b.keys.KeyLengths(name)
	if err != nil {
		return keyError(err)
	}
	var secrets [2]sa.Secret
	fields := strings.Fields(value)
	for i, n := range []int{enc, integ} {
		if n == 0 {
			continue
		}
		if len(fields) == 0 {
			return keyError(fmt.Errorf("SA %q takes an encryption key of %d octets and an integrity key of %d, and one is missing", name, enc, integ))
		}
		octets, err := hex.DecodeString(strings.NewReplacer(":", "", "_", "").Replace(strings.TrimPrefix(fields[0], "0x")))
		if err != nil {
			return keyError(fmt.Errorf("expected a key of %d octets in hexadecimal, and found something else", n))
		}
		secrets[i] = config.NewSecret(octets)
		defer secrets[i].Clear()
		clear(octets)
		fields = fields[1:]
	}
	if len(fields) > 0 {
		return keyError(fmt.Errorf("SA %q takes an encryption key of %d octets and an integrity key of %d, and there is one more", name, enc, integ))
	}
	return keyError(b.keys.SetKey(name, secrets[0], secrets[1]))
}

// InvalidateKey makes a key invalid from the next packet on: what it protects is dropped.
// SetKey makes it valid again. The errors are as for SetKey.
func (a *Appliance) InvalidateKey(name string) error { return a.invalidateKey("", name) }

// invalidateKey is InvalidateKey for who asks.
func (a *Appliance) invalidateKey(by, name string) error {
	return a.alterKey(by, name, "invalidated", func(b *bump) error { return keyError(b.keys.InvalidateKey(name)) },
		(*graphcomp.KeyMap).Invalidate)
}

// ClearKey makes a key empty from the next packet on, and forgets it. The errors are as
// for SetKey.
func (a *Appliance) ClearKey(name string) error { return a.clearKey("", name) }

// clearKey is ClearKey for who asks.
func (a *Appliance) clearKey(by, name string) error {
	return a.alterKey(by, name, "cleared", func(b *bump) error { return keyError(b.keys.ClearKey(name)) },
		(*graphcomp.KeyMap).Clear)
}

// alterKey changes a key of the configuration by plain, and one of a graph by mapped.
func (a *Appliance) alterKey(by, name, how string, plain func(*bump) error, mapped func(m *graphcomp.KeyMap, address []byte) error) error {
	b, err := a.running()
	if err != nil {
		return err
	}
	if g := a.opt.graph; g != nil {
		err = g.change(b, func(keys *graphcomp.Keys) error {
			m, address, err := keys.Find(name)
			if err != nil {
				return err
			}
			return mapped(m, address)
		})
	} else {
		err = plain(b)
	}
	return a.keyChanged(by, name, how, err)
}

func (a *Appliance) keyChanged(by, name, how string, err error) error {
	if err == nil {
		a.tell(Event{Kind: KeyChanged, Level: "info", Text: "a key was " + how + " by hand", Key: name, By: by})
	}
	return err
}

// change changes keys of the graph's managers, and has what follows of it take effect: SAs
// that come and go, their keys, and the policies. What cannot be composed changes nothing.
func (g *graph) change(b *bump, f func(*graphcomp.Keys) error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys := g.keys.Clone()
	if err := f(keys); err != nil {
		return keyError(err)
	}
	plan, err := g.Graph.Build(keys, g.build)
	if err != nil {
		return keyError(err)
	}
	next := config.Config{SAs: plan.SAs, Policies: plan.Policies}
	var added []string
	undo := func(err error) error {
		for _, name := range added {
			err = errors.Join(err, b.keys.Remove(name))
		}
		return keyError(err)
	}
	list := specs(&next)
	for i := range list {
		if was, has := saNamed(g.sas, list[i].Name); has && was.Algorithm == plan.SAs[i].Algorithm {
			continue
		} else if has {
			// Until the new one is there what it protects is dropped.
			if err := b.keys.Remove(was.Name); err != nil {
				return undo(err)
			}
		}
		if err := b.keys.Add(list[i]); err != nil {
			return undo(err)
		}
		added = append(added, list[i].Name)
	}
	rules, err := policies(&next, b.keys.Lineage, nil)
	if err != nil {
		return undo(err)
	}
	g.keepCounters(b, rules, plan.Policies)
	spd, err := sa.NewSPD(rules)
	if err != nil {
		return undo(err)
	}
	// The SAs come before the policies that use them, and go after.
	for i := range plan.SAs {
		if err := g.rekey(b, &plan.SAs[i], slices.Contains(plan.Invalid, plan.SAs[i].Name)); err != nil {
			return undo(err)
		}
	}
	b.engine.SetSPD(spd)
	var errs []error
	for i := range g.sas {
		if _, stays := saNamed(plan.SAs, g.sas[i].Name); !stays {
			errs = append(errs, b.keys.Remove(g.sas[i].Name))
		}
	}
	g.forget(keys)
	g.keys, g.sas, g.policies = keys, plan.SAs, plan.Policies
	return errors.Join(errs...)
}

// forget clears the values that are not among keys any more.
func (g *graph) forget(keys *graphcomp.Keys) {
	for _, old := range g.keys.Maps() {
		for _, k := range old.Keys() {
			if now := keys.Map(old.Manager).Resolve(k.Address); !now.Value.Equal(k.Value) {
				k.Value.Clear()
			}
		}
	}
}

// rekey brings the key of an SA to what a plan says.
func (g *graph) rekey(b *bump, s *config.SA, invalid bool) error {
	empty := s.EncryptionKey.Empty() && s.IntegrityKey.Empty()
	was, had := saNamed(g.sas, s.Name)
	changed := had && was.Algorithm == s.Algorithm && !(was.EncryptionKey.Equal(s.EncryptionKey) && was.IntegrityKey.Equal(s.IntegrityKey))
	state, err := b.keys.State(s.Name)
	switch {
	case err != nil:
		return err
	case empty && state.String() != "empty":
		return b.keys.ClearKey(s.Name)
	case empty:
		return nil
	case changed || !invalid && state.String() != "valid":
		if err := b.keys.SetKey(s.Name, s.EncryptionKey, s.IntegrityKey); err != nil {
			return err
		}
	}
	if invalid {
		return b.keys.InvalidateKey(s.Name)
	}
	return nil
}

func saNamed(list []config.SA, name string) (*config.SA, bool) {
	i := slices.IndexFunc(list, func(s config.SA) bool { return s.Name == name })
	if i < 0 {
		return nil, false
	}
	return &list[i], true
}

// keepCounters puts the policies in force in the place of rules that say the same, so that
// they count on.
func (g *graph) keepCounters(b *bump, rules []*sa.Policy, plan []config.Policy) {
	inForce := make(map[string]*sa.Policy)
	for _, p := range b.engine.SPD().Policies() {
		inForce[p.Name] = p
	}
	for i := range plan {
		for j := range g.policies {
			old := &g.policies[j]
			if old.Name == plan[i].Name && old.Action == plan[i].Action && old.Direction == plan[i].Direction &&
				*old.Protocol == *plan[i].Protocol && slices.Equal(old.Local, plan[i].Local) && slices.Equal(old.Remote, plan[i].Remote) &&
				slices.Equal(old.Out, plan[i].Out) && slices.Equal(old.In, plan[i].In) && sameLineages(inForce[old.Name], rules[i]) {
				rules[i] = inForce[old.Name]
			}
		}
	}
}

// sameLineages says whether two policies name the very same SAs: one that went and came
// again under its name has another lineage.
func sameLineages(a, b *sa.Policy) bool {
	return a != nil && slices.Equal(a.Out, b.Out) && slices.Equal(a.In, b.In)
}
