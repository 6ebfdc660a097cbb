package appliance

import (
	"testing"
	"time"
)

// A clock that another process had wrong is gone on with, so that lifetimes go on too, and
// the machine's clock is known to be another.
func TestR50_SteadyClock(t *testing.T) {
	c := newSteadyClock()
	if d := time.Duration(time.Now().UnixNano() - c.now()); d.Abs() > time.Minute || c.set() != 0 {
		t.Errorf("a new clock is %v behind, and was set by %v", d, c.set())
	}
	c.follow(c.now() + int64(time.Millisecond))
	if c.ahead.Load() != 0 {
		t.Error("it follows what a message took")
	}
	then := time.Date(1970, 1, 1, 0, 10, 0, 0, time.UTC).UnixNano()
	c.follow(then)
	if d := time.Duration(c.now() - then); d < 0 || d > time.Minute {
		t.Errorf("after it followed it is %v ahead", d)
	}
	if years := c.set().Hours() / 24 / 365; years < 50 {
		t.Errorf("the machine's clock was set by %v", c.set())
	}
	s := well()
	s.ClockSet = c.set().Seconds()
	f := health(s)
	if len(f) != 1 || f[0].Severity != Notice {
		t.Errorf("findings %v", f)
	}
}
