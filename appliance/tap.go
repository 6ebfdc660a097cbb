package appliance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"bitw/netstack/ethtap"
	"bitw/sa"
)

// A TapRequest sets the states of the two taps by hand. A state is "closed",
// "passive" or "active"; empty leaves that tap as it is.
type TapRequest struct {
	// Interface is the one that is meant; empty for whichever it is.
	Interface string `json:"interface,omitempty"`
	Kernel    string `json:"kernel,omitempty"`
	Wire      string `json:"wire,omitempty"`
	// Clear says that it is wanted that traffic passes without protection, as it does
	// when neither tap is active.
	Clear bool `json:"clear,omitempty"`
}

// Taps are the states of the two taps.
type Taps struct {
	Interface string `json:"interface"`
	Kernel    string `json:"kernel"`
	Wire      string `json:"wire"`
	// Flow is "active" when both taps are: all goes by the policies. It is "clear"
	// when neither is: all passes without bitw. It is "severed" when only one is:
	// nothing passes, since frames that the other tap does not take cannot go on.
	Flow string `json:"flow"`
}

// ErrClear is returned for a TapRequest that would let protected traffic pass in the
// clear without saying so.
var ErrClear = errors.New("protected traffic would pass in the clear")

// ErrNoTaps is returned for a TapRequest where there is nothing to set.
var ErrNoTaps = errors.New("no taps to set")

// tapTimeout bounds the drain and the wait for readers of one change, and of a stop.
const tapTimeout = 2 * time.Second

// taps are the states of the taps as an operator sets them.
type taps struct {
	device *ethtap.Device
	gates  [2]*tapGate // of the kernel's and the wire's tap
	// before readies the neighbours for a direct flow, after has a last look at them, and
	// back has bitw answer for them again.
	before func(context.Context) error
	after  func() error
	back   func()

	mu     sync.Mutex // one change at a time
	moved  bool       // the states are not those of the start
	failed bool       // they are those in which the watchdog has put them
	ended  bool
}

// SetTaps sets the states of the taps of a running appliance. What an Active tap had
// accepted is delivered, also when the other remains Active.
//
// It returns the states as they are then. The error matches ErrClear or ErrNoTaps,
// after which nothing has changed, or says why the drain was not complete.
func (a *Appliance) SetTaps(ctx context.Context, r TapRequest) (Taps, error) {
	b := a.bump.Load()
	select {
	case <-a.ready:
	default:
		b = nil
	}
	if b == nil || b.taps == nil {
		return Taps{}, fmt.Errorf("%w: the appliance is %s and cuts %s", ErrNoTaps, *a.state.Load(), b.cutWords())
	}
	name := b.device.Info().Name
	if r.Interface != "" && r.Interface != name && r.Interface != a.cfg.Interface {
		return Taps{}, fmt.Errorf("%w of %s: the appliance cuts %s", ErrNoTaps, r.Interface, name)
	}
	b.taps.mu.Lock()
	defer b.taps.mu.Unlock()
	was := b.taps.states()
	want := was
	for i, s := range []string{r.Kernel, r.Wire} {
		if s == "" {
			continue
		}
		var err error
		if want[i], err = tapState(s); err != nil {
			return Taps{}, err
		}
	}
	if flowWord(want) == flowClear && flowWord(was) != flowClear && !r.Clear {
		for _, p := range b.engine.SPD().Policies() {
			if p.Action == sa.Protect {
				return Taps{}, fmt.Errorf("%w: policy %q says protect", ErrClear, p.Name)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, tapTimeout)
	defer cancel()
	err := b.taps.set(ctx, want)
	now := b.taps.states()
	b.taps.failed = b.taps.failed && now == was
	t := Taps{Interface: name, Kernel: stateWord(now[0]), Wire: stateWord(now[1]), Flow: flowWord(now)}
	if now != was {
		// Status tells what is so for the traffic; stopping has the last word.
		if !b.taps.ended {
			a.setState(t.Flow)
		}
		a.tell(Event{Kind: TapsSet, Level: "warning", Text: "taps set by hand", Kernel: t.Kernel, Wire: t.Wire, Flow: t.Flow, By: who(ctx)})
	}
	return t, err
}

// cutWords says what an appliance cuts that has no taps to set.
func (b *bump) cutWords() string {
	if b == nil {
		return "nothing yet"
	}
	return "links, not an interface"
}

func (t *taps) states() [2]ethtap.State {
	return [2]ethtap.State{t.device.Kernel().State(), t.device.Wire().State()}
}

// set changes the states. t.mu is held.
func (t *taps) set(ctx context.Context, want [2]ethtap.State) error {
	if t.ended {
		return fmt.Errorf("%w: the appliance is stopping", ErrNoTaps)
	}
	was := t.states()
	if want == was {
		return nil
	}
	var corrected, drained error
	direct := flowWord(was) != flowClear && flowWord(want) == flowClear
	if direct {
		corrected = t.before(ctx)
	}
	switch leaves := [2]bool{was[0] == ethtap.Active && want[0] != ethtap.Active, was[1] == ethtap.Active && want[1] != ethtap.Active}; {
	case leaves[0] && leaves[1]:
		drained = t.device.Drain(ctx)
	case leaves[0]:
		drained = t.device.Kernel().Drain(ctx)
	case leaves[1]:
		drained = t.device.Wire().Drain(ctx)
	}
	was = t.states()
	for i, g := range t.gates {
		if want[i] != ethtap.Active {
			g.live.Store(false)
			continue
		}
		if was[i] == ethtap.Active {
			continue
		}
		// A copy that a reader still holds has passed; it must not go a second time.
		mid := was
		mid[i] = ethtap.Closed
		if err := t.device.SetStates(mid[0], mid[1]); err != nil {
			return err
		}
		was = mid
		if err := g.settle(ctx); err != nil {
			return fmt.Errorf("the taps are %s and %s: the readers of the tap did not come back: %w", stateWord(was[0]), stateWord(was[1]), err)
		}
		g.live.Store(true)
	}
	if err := t.device.SetStates(want[0], want[1]); err != nil {
		return err
	}
	t.moved = true
	for i, g := range t.gates {
		if want[i] != ethtap.Closed {
			g.change()
		}
	}
	switch {
	case direct:
		corrected = errors.Join(corrected, t.after())
	case flowWord(want) == flowActive:
		t.back()
	}
	return errors.Join(drained, corrected)
}

// stop is called once before the device is closed or released. shut says that the
// interface is to stay shut, whatever has been set meanwhile; else the flow is made
// direct, of which the device's own end only does what could not be done here.
func (t *taps) stop(shut bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.ended = true }()
	if shut {
		if !t.moved {
			return nil
		}
		return t.device.SetStates(ethtap.Active, ethtap.Active)
	}
	ctx, cancel := context.WithTimeout(context.Background(), tapTimeout)
	defer cancel()
	err := t.set(ctx, [2]ethtap.State{})
	if errors.Is(err, ethtap.ErrHeld) {
		return nil
	}
	return err
}

const (
	flowActive  = "active"
	flowClear   = "clear"
	flowSevered = "severed"
)

// flow is Taps.Flow, which after a takeover need not be "active".
func (b *bump) flow() string {
	if b.taps == nil {
		return flowActive
	}
	return flowWord(b.taps.states())
}

// flowWord says what two states come to, as Taps.Flow.
func flowWord(s [2]ethtap.State) string {
	switch kernel, wire := s[0] == ethtap.Active, s[1] == ethtap.Active; {
	case kernel && wire:
		return flowActive
	case !kernel && !wire:
		return flowClear
	}
	return flowSevered
}

func stateWord(s ethtap.State) string { return strings.ToLower(s.String()) }

func tapState(word string) (ethtap.State, error) {
	for _, s := range []ethtap.State{ethtap.Closed, ethtap.Passive, ethtap.Active} {
		if stateWord(s) == word {
			return s, nil
		}
	}
	return 0, fmt.Errorf("%q is no state of a tap; expected closed, passive or active", word)
}

// serveTap answers POST /v1/tap.
func (a *Appliance) serveTap(w http.ResponseWriter, r *http.Request) error {
	req, err := requested[TapRequest](r)
	if err != nil {
		return err
	}
	t, err := a.SetTaps(r.Context(), req)
	switch {
	case errors.Is(err, ErrClear):
		return &ControlError{Status: http.StatusForbidden, Code: CodeClear, Message: err.Error()}
	case errors.Is(err, ErrNoTaps):
		return &ControlError{Status: http.StatusConflict, Code: CodeNoTaps, Message: err.Error()}
	case err != nil && t == Taps{}:
		return badRequest("%v", err)
	case err != nil:
		return fmt.Errorf("kernel tap %s, wire tap %s: %w", t.Kernel, t.Wire, err)
	}
	return answer(w, t)
}
