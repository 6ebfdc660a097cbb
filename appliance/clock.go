package appliance

import (
	"sync/atomic"
	"time"
)

// A steadyClock tells nanoseconds since 1970 as the machine's clock had them when it was
// made. When somebody sets that one, as NTP does after a start in 1970, no lifetime ends
// early and none late.
type steadyClock struct {
	start time.Time
	ahead atomic.Int64 // of that, in nanoseconds
}

func newSteadyClock() *steadyClock { return &steadyClock{start: time.Now()} }

func (c *steadyClock) now() int64 {
	// What Since gives does not depend on the machine's clock (package time).
	return c.start.UnixNano() + int64(time.Since(c.start)) + c.ahead.Load()
}

// follow goes on where another process's clock is, from which SAs are taken over.
func (c *steadyClock) follow(other int64) {
	if d := other - c.now(); time.Duration(d).Abs() > time.Second {
		c.ahead.Add(d)
	}
}

// set is by how much the machine's clock was set since; 0 for less than it drifts.
func (c *steadyClock) set() time.Duration {
	if d := time.Duration(time.Now().UnixNano() - c.now()); d.Abs() > 5*time.Second {
		return d
	}
	return 0
}
