//go:build linux

package ethtap

import (
	"context"
	"sync"
	"testing"
)

// TestR01_OneTapDrainsAlone brings one tap to Closed: what it had accepted arrives, what
// comes then is stopped, and the other tap stays Active.
func TestR01_OneTapDrainsAlone(t *testing.T) {
	for _, side := range []string{"kernel", "wire"} {
		t.Run(side, func(t *testing.T) {
			l := newLab(t)
			d := l.a.open(t, Options{})
			from, to, drained, other := l.a, l.b, d.Kernel(), d.Wire()
			if side == "wire" {
				from, to, drained, other = l.b, l.a, d.Wire(), d.Kernel()
			}
			rf, rt, arrived := from.raw(t), to.raw(t), l.a.allFrames(t)
			set(t, d, Active, Active)
			const frames = 200
			for i := range frames {
				rf.send(t, frame(from.mac, to.mac, i, 100))
			}
			if side == "wire" {
				arrived.await(t, frames, isTest)
			}
			until(t, "queued frames", func() bool { return drained.queued() && d.cut.count(drained.offTaken()) >= frames })
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				done <- drained.Drain(ctx)
			}()
			until(t, "the drain to begin", func() bool { return drained.State() == Closed })
			p := new(pump)
			p.copy(drained, other)
			for i := range frames {
				rt.want(t, frame(from.mac, to.mac, i, 100))
			}
			if err := <-done; err != nil {
				t.Error(err)
			}
			p.wg.Wait() // the reader got ErrClosed
			if err := p.bad.Load(); err != nil {
				t.Error(*err)
			}
			if s := other.State(); s != Active {
				t.Errorf("the other tap is %v, expected Active", s)
			}
			// Severed, and the other tap still takes what comes to it.
			before, err := drained.Stats()
			if err != nil {
				t.Fatal(err)
			}
			_ = rf.trySend(frame(from.mac, to.mac, 1000, 100))
			until(t, "a severed frame", func() bool {
				s, err := drained.Stats()
				return err == nil && s.Severed > before.Severed
			})
			rt.send(t, frame(to.mac, from.mac, 2000, 100))
			readTest(t, other)
			var rest sync.WaitGroup
			defer rest.Wait()
			rest.Go(func() { // a drain takes for granted that somebody reads
				for b := make([]byte, MaxFrame); ; {
					if _, err := other.Read(b); err != nil {
						return
					}
				}
			})
			if err := other.Drain(context.Background()); err != nil {
				t.Error(err)
			}
			passes(t, l)
		})
	}
}

// TestR01_DrainKeepsAPassiveTap drains one tap while the other is Passive.
func TestR01_DrainKeepsAPassiveTap(t *testing.T) {
	l := newLab(t)
	d := l.a.open(t, Options{})
	set(t, d, Active, Passive)
	p := new(pump)
	p.copy(d.Kernel(), d.Wire())
	if err := d.Kernel().Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.wg.Wait()
	if k, w := d.Kernel().State(), d.Wire().State(); k != Closed || w != Passive {
		t.Errorf("states %v and %v, expected Closed and Passive", k, w)
	}
	passes(t, l)
	l.b.raw(t).send(t, frame(l.b.mac, l.a.mac, 7, 80))
	readTest(t, d.Wire())
}
