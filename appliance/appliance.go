package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/sa"
	"bitw/sa/keyer"
)

// dummyInterval is how often it is looked whether dummy packets are due.
const dummyInterval = 10 * time.Millisecond

// An Appliance is one bump in the wire. It runs once.
type Appliance struct {
	// cfg is the configuration that it was made with, and live the one in force, which
	// differs from it by what Apply can change.
	cfg   Config
	live  atomic.Pointer[Config]
	opt   options
	log   logrus.FieldLogger
	since time.Time

	ready   chan struct{}
	closing chan struct{}
	done    chan struct{}
	failed  chan error
	// handed gets the connection to the process that has taken over.
	handed chan *handoverConn
	// takingOver is held while another process takes over.
	takingOver sync.Mutex
	// applying is held while a configuration is applied, and reloaded tells Run of it.
	applying sync.Mutex
	reloaded chan struct{}
	started  atomic.Bool
	closeOne sync.Once
	// openOnStop says that stopping restores the direct flow even where the
	// configuration says shut.
	openOnStop atomic.Bool
	leftOpen   atomic.Bool
	// bump is what runs between start and stop; nil before, kept after for Status.
	bump  atomic.Pointer[bump]
	state atomic.Pointer[string]
	// stalled are the sides that the watchdog has found without progress.
	stalled  [2]atomic.Bool
	trace    *traceLevels
	watchers watchers
	events   *eventHub
}

// New checks cfg and makes an appliance that does not run yet. It touches nothing
// of the machine. cfg need not come from config.Load; the errors name the SA or
// policy at fault.
func New(cfg Config, opts ...Option) (*Appliance, error) {
	a := &Appliance{
		cfg: cfg, opt: defaultOptions(),
		ready: make(chan struct{}), closing: make(chan struct{}), done: make(chan struct{}),
		failed: make(chan error, 1), handed: make(chan *handoverConn, 1),
		reloaded: make(chan struct{}, 1),
	}
	for _, o := range opts {
		o(&a.opt)
	}
	a.events = newEventHub(a.opt.clock)
	complete(&a.cfg)
	a.live.Store(&a.cfg)
	a.openOnStop.Store(a.opt.openOnStop)
	a.log = a.opt.log
	if cfg.Interface != "" {
		a.log = a.opt.log.WithField("interface", cfg.Interface)
	}
	var err error
	if a.trace, err = newTraceLevels(&a.cfg, a.opt.graph, a.log); err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	a.setState("new")
	if a.opt.host == nil && cfg.Interface == "" {
		return nil, errors.New("appliance: the configuration names no interface, and there is no WithLinks")
	}
	if err := checkNeighbors(&a.cfg); err != nil && a.opt.host == nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	if err := cfg.CheckTwoNIC(); err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	if cfg.Inside != "" && a.opt.host != nil {
		return nil, errors.New("appliance: WithLinks gives the links, and inside and outside name two interfaces")
	}
	if h := a.opt.host; h != nil && len(h.MAC) != 6 {
		return nil, fmt.Errorf("appliance: WithLinks: the host's MAC has %d octets, expected 6", len(h.MAC))
	}
	// The same steps as when it starts, with a store that leaves nothing behind.
	keys, _, err := a.databases(sa.NewMemoryStore(), nil)
	if err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	if err := keys.Close(); err != nil {
		return nil, err
	}
	if err := a.protTest(); err != nil {
		return nil, fmt.Errorf("appliance: %w", err)
	}
	return a, nil
}

// complete fills in what follows from the rest.
func complete(cfg *Config) {
	if cfg.OnFailure == "" {
		cfg.OnFailure = config.Shut
	}
	if cfg.Neighbors == "" {
		cfg.Neighbors = config.DefaultNeighbors(cfg.OnFailure)
	}
}

// databases makes the key managers and the SPD of the configuration.
func (a *Appliance) databases(store sa.SequenceStore, resume *sa.Resume) (*keyers, *sa.SPD, error) {
	own, err := keyer.NewSAUser(keyer.SAUserConfig{
		Specs: specs(&a.cfg), Algorithms: allowedAlgorithms(a.cfg.AllowInsecure), Store: store, Resume: resume, Clock: a.opt.clock,
	})
	if err != nil {
		return nil, nil, err
	}
	keys := &keyers{SAUser: own, others: a.opt.keyManagers, clock: a.opt.clock, memory: sa.NewMemoryStore(), resume: resume}
	if err := keys.check(&a.cfg, keys.SAUser.Lineage); err != nil {
		return nil, nil, err
	}
	if a.opt.graph != nil {
		if err := a.opt.graph.begin(own); err != nil {
			return nil, nil, err
		}
	}
	rules, err := policies(&a.cfg, keys.Lineage, nil)
	if err != nil {
		return nil, nil, err
	}
	spd, err := sa.NewSPD(rules)
	if err != nil {
		return nil, nil, err
	}
	return keys, spd, nil
}

// Ready is closed once the appliance has both sides in its hands. It stays open
// if Run fails before.
func (a *Appliance) Ready() <-chan struct{} { return a.ready }

// Run starts the appliance, serves until ctx ends or something fails that it
// cannot go on without, and stops it. It returns nil when it was ctx or Close
// that ended it, and ErrHandedOver when another process has taken over. What the
// interface is left in, is told at WithOpenOnStop.
func (a *Appliance) Run(ctx context.Context) error {
	if !a.started.CompareAndSwap(false, true) {
		return errors.New("appliance: it runs once, and has run")
	}
	defer close(a.done)
	defer a.logEvents()()
	defer a.trace.log.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a.setState("starting")
	b, err := a.start(ctx, cancel)
	if err != nil {
		a.setState("failed")
		return err
	}
	a.setState(b.flow())
	close(a.ready)
	a.warnInsecure()
	a.log.WithFields(logrus.Fields{"policies": len(a.cfg.Policies), "sas": len(a.cfg.SAs), "cut": b.cut()}).Info("active")

	unwatch := a.watch(ctx, b)
	defer func() { unwatch() }()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	often := time.NewTicker(dummyInterval)
	defer often.Stop()
	dummies := a.dummyTicks(often)
	for running := true; running; {
		select {
		case <-tick.C:
			b.tick()
			a.events.tick()
		case <-dummies:
			b.engine.SendDummies()
		case <-a.reloaded:
			unwatch()
			unwatch, dummies = a.watch(ctx, b), a.dummyTicks(often)
		case c := <-a.handed:
			unwatch()
			return a.leave(b, c)
		case err = <-a.failed:
			running = false
		case <-ctx.Done():
			running = false
		case <-a.closing:
			running = false
		}
	}
	unwatch()
	a.setState("stopping")
	// After a failure the fail state holds, whatever a clean end would leave.
	open := a.cfg.OnFailure == config.Open || err == nil && a.openOnStop.Load()
	err = errors.Join(err, b.stop(open))
	a.leftOpen.Store(open)
	a.setState("stopped")
	a.log.WithField("open", open).Info("stopped")
	return err
}

// watch starts the watchdog, and returns what ends it.
func (a *Appliance) watch(ctx context.Context, b *bump) (unwatch func()) {
	w := newWatchdog(a, b)
	if w == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// dummyTicks returns t's ticks if dummy packets are to be sent, else nothing.
func (a *Appliance) dummyTicks(t *time.Ticker) <-chan time.Time {
	if slices.ContainsFunc(a.live.Load().SAs, func(s config.SA) bool { return s.Dummies > 0 }) {
		return t.C
	}
	return nil
}

// LeftOpen tells whether an appliance that has stopped restored the direct flow.
func (a *Appliance) LeftOpen() bool { return a.leftOpen.Load() }

// Close stops a running appliance and waits until it is down.
func (a *Appliance) Close() error {
	a.closeOne.Do(func() { close(a.closing) })
	if a.started.Load() {
		<-a.done
	}
	return nil
}

// fail ends Run with an error.
func (a *Appliance) fail(err error) {
	select {
	case a.failed <- err:
	default:
	}
}

func (a *Appliance) setState(s string) {
	a.state.Store(&s)
	a.tell(Event{Kind: StateChanged, Level: "debug", Text: "state " + s, State: s})
	if a.opt.state != nil {
		a.opt.state(s)
	}
}

// Recover restores by hand the flow of an interface that a dead appliance left
// shut; of two, of which iface is the outside, each passes its frames to the other from
// then on, and joined is true. It is an error if a live one holds it.
func Recover(iface string) (joined bool, err error) {
	// The dead one may have told the kernel that its neighbours are where itself is.
	o := ethtap.Options{Interface: iface}
	if err := ethtap.Recover(o); err != nil {
		return false, err
	}
	joined, err = ethtap.Joined(o)
	if errors.Is(err, ethtap.ErrNoInterface) {
		return false, nil // recovered by the name that it had
	}
	return joined, err
}

// GiveUp is Recover, but of two interfaces it gives both back to the box's own kernel:
// nothing passes between them then.
func GiveUp(iface string) error {
	return ethtap.Remove(ethtap.Options{Interface: iface})
}

// KeepShut keeps an interface shut on which nothing runs, whether it is there or not, until
// an appliance has cut it, which begins without a moment in the clear, or Recover gives it
// back; with inside both of two NICs, of which iface is the outside. whole is false where
// the kernel can drop IP only. It is an error if a live appliance holds it.
func KeepShut(iface, inside string) (whole bool, err error) {
	kind, err := ethtap.KeepShut(ethtap.Options{Interface: iface, Inside: inside})
	return kind == ethtap.GuardNetdev, err
}

// KeptShut are the interfaces that KeepShut, or an appliance that is gone, keeps shut by
// more than a cut that is still in place.
func KeptShut() ([]string, error) { return ethtap.KeptShut("") }

// IsShut tells whether nothing passes by an interface that no live appliance holds: one was
// left shut there, or KeepShut was called.
func IsShut(iface string) (bool, error) {
	return ethtap.Left(ethtap.Options{Interface: iface})
}
