package appliance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sirupsen/logrus"

	"bitw/config"
	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/trace"
)

// watchLooks is how often the watchdog looks in its time. It counts looks and not the
// time between them: after a suspend or a stop of the process one look is late, and the
// readers have had no more time than the watchdog.
const watchLooks = 5

// A watchdog looks whether the readers of both sides make progress. A reader that works
// on one frame for Config.Watchdog, or that leaves frames in the queue of an Active tap
// for so long, is stalled: the taps go to their fail state until every reader goes on.
//
// A reader that waits for a frame of a link, or at the gate of a tap that is Closed or
// Passive, is not stalled, however long it waits.
type watchdog struct {
	a     *Appliance
	b     *bump
	limit time.Duration // Config.Watchdog
	every time.Duration
	looks int
	ends  [2]*link.Endpoint
	sides [2]pace
	chore pace // of what is done once a second; it moves no taps
	turns []uint64

	beat, sinceBeat int  // in looks
	out             bool // the taps were put into their fail state, or would be
}

// newWatchdog returns nil if there is nothing to look for.
func newWatchdog(a *Appliance, b *bump) *watchdog {
	limit, beat := a.live.Load().Watchdog, a.opt.heartbeatEvery
	configured := limit
	if a.opt.heartbeat == nil {
		beat = 0
	}
	if limit == 0 {
		limit = beat
	}
	out := b.taps.inFailState()
	if limit == 0 && !out {
		return nil
	}
	if limit == 0 {
		limit = config.Default().Watchdog // only to see when they can be put back
	}
	w := &watchdog{a: a, b: b, limit: configured, out: out, ends: [2]*link.Endpoint{hook.Left: b.kern, hook.Right: b.dev}, every: limit / watchLooks}
	if beat != 0 {
		w.every = min(w.every, beat)
		w.beat = int(beat / w.every)
	}
	w.every = max(w.every, time.Millisecond)
	w.looks = int((limit + w.every - 1) / w.every)
	return w
}

// run looks until ctx ends.
func (w *watchdog) run(ctx context.Context) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look(ctx)
		}
	}
}

// look counts, for each reader, the looks since it was last seen to make progress.
func (w *watchdog) look(ctx context.Context) {
	calm, well := true, true
	for side := range w.sides {
		w.turns = w.ends[side].Turns(w.turns[:0])
		still := w.sides[side].look(w.turns, func(i int) bool { return w.b.taps.waiting(side, i) })
		calm = calm && still == 0
		if still < w.looks {
			continue
		}
		well = false
		if !w.a.stalled[side].Swap(true) {
			w.a.tell(Event{Kind: Stalled, Level: "error", Side: hook.Side(side).String(),
				Text: fmt.Sprintf("no progress for %v with frames from the %s", time.Duration(w.looks)*w.every, sideWords[side])})
		}
	}
	if w.a.trace.nodes[trace.Watchdog].On(trace.FullTrace) {
		w.a.log.WithFields(logrus.Fields{"node": trace.Watchdog.String(), "well": well, "calm": calm}).Info("a look at both sides")
	}
	w.turns = append(w.turns[:0], w.b.chores.Load())
	if w.chore.look(w.turns, func(int) bool { return false }) >= w.looks {
		well = false
	}
	switch {
	case w.limit != 0 && !well && !w.out && w.stalled():
		w.out = true
		w.move(ctx, w.b.taps.fail(ctx, w.every, w.a.cfg.OnFailure == config.Open), "the taps are in their fail state")
	case w.out && calm:
		if err := w.b.taps.restore(ctx, w.every); err != nil {
			well = false
			break // the next look tries again
		}
		w.out = false
		w.move(ctx, nil, "progress again, back to service")
	}
	if !w.out && calm {
		for side := range w.a.stalled {
			w.a.stalled[side].Store(false)
		}
	}
	if w.sinceBeat++; w.beat > 0 && well && !w.out && w.sinceBeat >= w.beat {
		w.sinceBeat = 0
		w.a.opt.heartbeat()
	}
}

func (w *watchdog) stalled() bool {
	return w.a.stalled[hook.Left].Load() || w.a.stalled[hook.Right].Load()
}

// move tells what became of the taps.
func (w *watchdog) move(ctx context.Context, err error, what string) {
	ev := Event{Kind: FailState, Level: "warning"}
	if !w.out {
		ev.Kind = Resumed
	}
	if w.b.taps == nil {
		what = "no taps to move"
		if !w.out {
			what = "progress again"
		}
	} else if flow := flowWord(w.b.taps.states()); ctx.Err() == nil {
		w.a.setState(flow)
		what += ", the flow is " + flow
		ev.Flow = flow
	}
	if ev.Text = what; err != nil {
		ev.Error = err.Error()
	}
	w.a.tell(ev)
}

// sideWords says where the frames of a side come from.
var sideWords = [2]string{hook.Left: "host", hook.Right: "wire"}

// pace is what was seen of readers, by their number.
type pace struct {
	last  []uint64
	still []int
}

// look returns for how many looks the slowest reader has made no progress. waiting says
// whether frames wait for a reader that works on none.
func (p *pace) look(turns []uint64, waiting func(i int) bool) (most int) {
	if len(p.last) != len(turns) {
		p.last, p.still = append([]uint64(nil), turns...), make([]int, len(turns))
		return 0
	}
	for i, n := range turns {
		if p.last[i] == n && (n%2 == 1 || waiting(i)) {
			p.still[i]++
		} else {
			p.still[i] = 0
		}
		p.last[i] = n
		most = max(most, p.still[i])
	}
	return most
}

// waiting says whether frames wait in a queue that goes to the engine. t may be nil.
func (t *taps) waiting(side, queue int) bool {
	if t == nil || !t.gates[side].live.Load() {
		return false
	}
	tap := [2]*ethtap.Tap{t.device.Kernel(), t.device.Wire()}[side]
	return tap.State() == ethtap.Active && queue < len(tap.Queues()) && tap.Queues()[queue].Waiting()
}

// fail puts taps that are both Active into the fail state: under shut one alone stays
// Active, so that nothing passes and nothing is lost to the direct flow; under open
// neither. t may be nil.
func (t *taps) fail(ctx context.Context, patience time.Duration, open bool) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || flowWord(t.states()) != flowActive {
		return nil
	}
	want := [2]ethtap.State{ethtap.Active, ethtap.Closed}
	if open {
		want[0] = ethtap.Closed
	}
	ctx, cancel := context.WithTimeout(ctx, max(patience, minPatience))
	defer cancel()
	err := t.set(ctx, want)
	t.failed = true
	return err
}

// restore makes both taps Active again after fail, unless somebody has set them
// meanwhile. It is an error if a reader has not come back yet. t may be nil.
func (t *taps) restore(ctx context.Context, patience time.Duration) error {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.failed || t.ended {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, max(patience, minPatience))
	defer cancel()
	if err := t.set(ctx, [2]ethtap.State{ethtap.Active, ethtap.Active}); err != nil {
		return err
	}
	t.failed = false
	return nil
}

// inFailState says whether a watchdog has put the taps there. t may be nil.
func (t *taps) inFailState() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// minPatience is the least time that a drain or the readers get.
const minPatience = 250 * time.Millisecond

// errHangs is returned by a stop that had to leave a reader where it hangs.
var errHangs = errors.New("a reader still hangs with a frame; what it holds is not taken down")

// endReaders closes the links and waits until their readers are back. One that does not
// come back must not keep the process from its end. But it may take a sequence number
// yet, so the keys are not given back then: the numbers that were reserved are skipped.
func (b *bump) endReaders() error {
	back := make(chan struct{})
	go func() {
		defer close(back)
		for _, end := range []*link.Endpoint{b.kern, b.dev} {
			if end != nil {
				end.Close()
				end.Wait()
			}
		}
	}()
	limit := time.NewTimer(tapTimeout)
	defer limit.Stop()
	select {
	case <-back:
		return nil
	case <-limit.C:
		b.kern.Close()
		b.dev.Close()
		return errHangs
	}
}
