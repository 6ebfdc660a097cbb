package sa

import (
	"errors"
	"fmt"
	"slices"
)

// An SPD is the security policy database (RFC 4301 §4.4.1): policies in order, of
// which the first that matches decides. It does not change once it is made; a
// change of policy makes another SPD, so that no answer outlives the rules that it
// came from. There is no cache in front of it, as it would not pay (see
// BenchmarkFlowCache).
type SPD struct {
	policies []*Policy
	index    *classifier
	shadow   *Shadow // that this is, or nil
}

// NewSPD compiles policies, the first being the strongest. It keeps the policies;
// the caller must not change them afterwards. The error joins one error for each
// policy that cannot stand: no name or a name twice, a selector that contradicts
// itself, an action protect without SAs, or another with SAs.
func NewSPD(policies []*Policy) (*SPD, error) {
	var errs []error
	seen := make(map[string]int)
	for i, p := range policies {
		if p == nil || p.Name == "" {
			errs = append(errs, fmt.Errorf("policy %d has no name", i+1))
			continue
		}
		if first, twice := seen[p.Name]; twice {
			errs = append(errs, fmt.Errorf("policies %d and %d are both named %q", first+1, i+1, p.Name))
		} else {
			seen[p.Name] = i
		}
		if err := p.check(); err != nil {
			errs = append(errs, fmt.Errorf("policy %q: %w", p.Name, err))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	d := &SPD{policies: slices.Clone(policies)}
	d.index = newClassifier(d.policies)
	return d, nil
}

// Lookup returns the first policy that applies in direction d and matches f, or
// nil, which means discard (RFC 4301 §5). For a policy that populates selectors it
// returns the entry for the values of f if there is one, else the policy itself,
// whose SAs are not for use (see Policy.Demand). For the packet path: it allocates nothing, and any number of
// goroutines may call it.
func (spd *SPD) Lookup(d Direction, f *Flow) *Policy {
	i := spd.index.first(d, f)
	if spd.shadow != nil {
		return spd.shadow.answer(d, f, i)
	}
	if i < 0 {
		return nil
	}
	return spd.policies[i].entry(f)
}

// Policies returns the policies in order. The slice is the caller's.
func (spd *SPD) Policies() []*Policy { return slices.Clone(spd.policies) }
