//go:build linux

package ethtap

import (
	"testing"
	"time"
)

// TestR07_WhatPassedOpenIsCounted: a process that comes back after it hung can tell that
// frames went past it.
func TestR07_WhatPassedOpenIsCounted(t *testing.T) {
	hooks(t, func(t *testing.T, hook Hook) {
		l := newLab(t)
		ua, ub := l.a.udp(t, l.a.addr4), l.b.udp(t, l.b.addr4)
		d := l.a.open(t, Options{Hook: hook, OnFailure: FailOpen, DeadMan: time.Minute})
		if err := d.SetStates(Active, Active); err != nil {
			t.Fatal(err)
		}
		pu := startPump(t, d)
		probe(t, ua, ub, "by the loop")
		open := func(tap *Tap) uint64 {
			s, err := tap.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return s.Open
		}
		if n := open(d.Kernel()) + open(d.Wire()); n != 0 {
			t.Errorf("%d frames passed by themselves while the loop was fed", n)
		}
		d.starve()
		d.cut.setDeadline(1)
		probe(t, ua, ub, "past it")
		if n := open(d.Kernel()); n == 0 {
			t.Error("a frame went out past the loop, and is not counted")
		}
		probe(t, ub, ua, "past it")
		if n := open(d.Wire()); n == 0 {
			t.Error("a frame came in past the loop, and is not counted")
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		pu.wg.Wait()
	})
}
