package appliance

import (
	"fmt"
	"sync"
	"time"

	"bitw/netstack/ethtap"
	"bitw/netstack/hook"
	"bitw/netstack/wire"
)

// tapCounts is what the taps did with frames that no reader ever saw, since bitw has the
// interface.
type tapCounts struct {
	mu   sync.Mutex
	seen [2]ethtap.Stats // by side
	open [2]uint64       // frames that passed because of the dead man's switch
	last time.Time       // when open grew
}

// begin takes what was before for the beginning.
func (c *tapCounts) begin(d *ethtap.Device) (err error) {
	for side, tap := range [2]*ethtap.Tap{hook.Left: d.Kernel(), hook.Right: d.Wire()} {
		if c.seen[side], err = tap.Stats(); err != nil {
			return err
		}
	}
	return nil
}

// countTaps adds to the drops what the taps dropped since it was called last, and tells of
// frames that passed because bitw was held up under on_failure: open.
func (b *bump) countTaps() {
	if b.device == nil {
		return
	}
	c := &b.tapCounts
	c.mu.Lock()
	defer c.mu.Unlock()
	for side, tap := range [2]*ethtap.Tap{hook.Left: b.device.Kernel(), hook.Right: b.device.Wire()} {
		now, err := tap.Stats()
		if err != nil {
			continue // closed, or gone for now
		}
		was := c.seen[side]
		c.seen[side] = now
		drops := &b.drops[side]
		drops.Grow(wire.DropTapFull, since(now.Overflow, was.Overflow))
		drops.Grow(wire.DropTapClosed, since(now.Severed, was.Severed)+since(now.Discarded, was.Discarded))
		drops.Grow(wire.DropTapOversize, since(now.Oversize, was.Oversize))
		// What was written came from the other side.
		b.drops[1-side].Grow(wire.DropTapClosed, since(now.Refused, was.Refused))
		if n := since(now.Open, was.Open); n != 0 {
			c.open[side] += n
			c.last = time.Unix(0, b.clock())
			b.tell(Event{Kind: PassedOpen, Level: "error", Side: hook.Side(side).String(),
				Text: fmt.Sprintf("bitw was held up for so long that the interface opened (on_failure: open), and %s from the %s passed without protection", some(n, "frame"), sideWords[side])})
		}
	}
}

// since is by how much a counter has grown; those of taps that were made anew begin at 0.
func since(now, was uint64) uint64 {
	if now < was {
		return now
	}
	return now - was
}

// passedOpen is for Status.
func (c *tapCounts) passedOpen() (n [2]uint64, last time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.open, c.last
}
