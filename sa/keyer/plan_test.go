package keyer

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

func changed(s Spec, f func(*Spec)) Spec { f(&s); return s }

// apply makes u's SAs those of specs and returns the plan.
func apply(t *testing.T, u *SAUser, specs ...Spec) *Plan {
	t.Helper()
	p, err := u.Plan(specs, lookup, false)
	if err != nil {
		t.Fatal(err)
	}
	called := false
	if err := p.Commit(func() { called = true }, time.Minute); err != nil || !called {
		t.Fatalf("commit: %v, policies put in force: %t", err, called)
	}
	return p
}

func take(t *testing.T, s *sa.SA, n int) uint64 {
	t.Helper()
	first, reason := s.TakeSeq(n)
	if reason != wire.DropNone {
		t.Fatalf("TakeSeq: %v", reason)
	}
	return first
}

func TestR50_PlanKeepsWhatDidNotChange(t *testing.T) {
	out, in := spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')
	u, db := started(t, sa.NewMemoryStore(), out, in)
	l, was, wasIn := u.Lineage("out"), u.Lineage("out").Outbound(), inbound(db, 0x1002)
	take(t, was, 5)
	apply(t, u, in, spec("more", sa.Outbound, 0x1003, 'm'), out)
	switch {
	case u.Lineage("out") != l || l.Outbound() != was || inbound(db, 0x1002) != wasIn:
		t.Error("an SA that did not change is another")
	case take(t, was, 1) != 6:
		t.Error("its numbers do not go on")
	case u.Lineage("more").Outbound() == nil || db.Len() != 3:
		t.Error("the added SA is not there")
	}
	apply(t, u, in, out)
	if db.Len() != 3 || u.Lineage("more") != nil {
		t.Error("the removed SA has a name, or is gone before its grace time")
	}
	if err := db.Tick(time.Now().Add(2 * time.Minute).UnixNano()); err != nil || db.Len() != 2 {
		t.Errorf("after its grace time: %d SAs, %v", db.Len(), err)
	}
}

func TestR32_PlanRollsOverAndBack(t *testing.T) {
	old := []Spec{spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')}
	next := []Spec{spec("out", sa.Outbound, 0x1011, 'p'), spec("in", sa.Inbound, 0x1012, 'j')}
	u, db := started(t, sa.NewMemoryStore(), old...)
	l, first := u.Lineage("out"), u.Lineage("out").Outbound()
	take(t, first, 3)
	if p := apply(t, u, next...); p.Exact() {
		t.Error("a rollover needs no pause")
	}
	second := l.Outbound()
	if second == first || u.Lineage("out") != l || inbound(db, 0x1002) == nil || inbound(db, 0x1012) == nil || !inbound(db, 0x1002).Retiring() {
		t.Fatal("not both inbound SAs are there, or the outbound one was not switched")
	}
	if inbound(db, 0x1012).Lineage != inbound(db, 0x1002).Lineage {
		t.Error("the two inbound SAs are of different lineages")
	}
	take(t, second, 2)
	if p := apply(t, u, old...); p.Exact() {
		t.Error("the way back needs no pause")
	}
	if l.Outbound() != first || first.Retiring() || take(t, first, 1) != 4 || !second.Retiring() {
		t.Error("the first SA does not go on where it was")
	}
	if err := db.Tick(time.Now().Add(2 * time.Minute).UnixNano()); err != nil || db.Len() != 2 {
		t.Errorf("after the grace time: %d SAs, %v", db.Len(), err)
	}
	// Later, the key is known to the store.
	apply(t, u, next...)
	if n := take(t, l.Outbound(), 1); n != 3 {
		t.Errorf("the second key goes on with %d, want 3", n)
	}
}

func TestR44_PlanGoesOnWithOtherParameters(t *testing.T) {
	out, in := spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')
	for _, c := range []struct {
		name  string
		specs []Spec
		out   string
		next  uint64
	}{
		{"lifetime", []Spec{changed(out, func(s *Spec) { s.Hard.Packets = 1000 }), in}, "out", 8},
		{"name", []Spec{changed(out, func(s *Spec) { s.Name = "other" }), changed(in, func(s *Spec) { s.Name = "another" })}, "other", 8},
		{"window", []Spec{out, changed(in, func(s *Spec) { s.ReplayWindow = 256 })}, "out", 8},
		{"spi", []Spec{changed(out, func(s *Spec) { s.SPI = 0x2001 }), in}, "out", 8},
		{"name of the other", []Spec{changed(out, func(s *Spec) { s.Name = "in" }), changed(in, func(s *Spec) { s.Name = "out" })}, "in", 8},
	} {
		u, db := started(t, sa.NewMemoryStore(), out, in)
		take(t, u.Lineage("out").Outbound(), 7)
		if reason := inbound(db, 0x1002).Accept(9); reason != wire.DropNone {
			t.Fatal(reason)
		}
		p := apply(t, u, c.specs...)
		if !p.Exact() {
			t.Errorf("%s: no pause", c.name)
		}
		if n := take(t, u.Lineage(c.out).Outbound(), 1); n != c.next {
			t.Errorf("%s: the numbers go on with %d, want %d", c.name, n, c.next)
		}
		if _, reason := inbound(db, 0x1002).CheckReplay(9); reason != wire.DropReplay {
			t.Errorf("%s: a packet that was seen is taken again", c.name)
		}
		if db.Len() != 2 {
			t.Errorf("%s: %d SAs", c.name, db.Len())
		}
		if err := u.Close(); err != nil || db.Len() != 0 {
			t.Errorf("%s: close: %v, %d SAs left", c.name, err, db.Len())
		}
	}
}

// Two SAs that exchange their places, and one that takes the place of another key.
func TestR44_PlanMovesPlaces(t *testing.T) {
	a, b := spec("a", sa.Inbound, 0x1001, 'a'), spec("b", sa.Inbound, 0x1002, 'b')
	u, db := started(t, sa.NewMemoryStore(), a, b)
	apply(t, u, changed(a, func(s *Spec) { s.SPI = 0x1002 }), changed(b, func(s *Spec) { s.SPI = 0x1001 }))
	if inbound(db, 0x1001).Name != "b" || inbound(db, 0x1002).Name != "a" || db.Len() != 2 {
		t.Errorf("%v", db.All())
	}
	out := spec("o", sa.Outbound, 0x1003, 'o')
	apply(t, u, out)
	apply(t, u, changed(out, func(s *Spec) { s.EncryptionKey = key(20, 'n') }))
	if n := take(t, u.Lineage("o").Outbound(), 1); n != 1 {
		t.Errorf("a new key begins with %d", n)
	}
	// Outbound SAs that exchange SPIs, so that each number goes on with its key.
	x, y := spec("x", sa.Outbound, 0x1004, 'x'), spec("y", sa.Outbound, 0x1005, 'y')
	apply(t, u, x, y)
	take(t, u.Lineage("x").Outbound(), 4)
	x.SPI, y.SPI = y.SPI, x.SPI
	apply(t, u, x, y)
	if n, m := take(t, u.Lineage("x").Outbound(), 1), take(t, u.Lineage("y").Outbound(), 1); n != 5 || m != 1 {
		t.Errorf("x goes on with %d and y with %d, want 5 and 1", n, m)
	}
}

func TestR44_PlanRefusesAndChangesNothing(t *testing.T) {
	out, in := spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')
	u, db := started(t, sa.NewMemoryStore(), out, in)
	foreign, err := sa.New(sa.SAConfig{Name: "foreign", Key: sa.Key{SPI: 0x9999, Dst: netip.MustParseAddr("10.0.0.2"), Proto: transform.ProtoESP}, Direction: sa.Inbound, Discard: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Add(foreign); err != nil {
		t.Fatal(err)
	}
	was, wasIn := u.Lineage("out").Outbound(), inbound(db, 0x1002)
	for _, c := range []struct {
		name  string
		specs []Spec
		want  string
		is    error
	}{
		{"unknown algorithm", []Spec{out, changed(in, func(s *Spec) { s.Algorithm = "rot13" })}, "rot13", nil},
		{"a received key for sending", []Spec{changed(out, func(s *Spec) { s.EncryptionKey = key(20, 'i') })}, "counter-mode key", sa.ErrKeyInUse},
		{"a sent key for receiving", []Spec{changed(in, func(s *Spec) { s.EncryptionKey = key(20, 'o') })}, "counter-mode key", sa.ErrKeyInUse},
		{"another manager's SPI", []Spec{spec("new", sa.Outbound, 0x1003, 'n'), changed(in, func(s *Spec) { s.SPI, s.EncryptionKey = 0x9999, key(20, 'z') })}, "another key manager", sa.ErrDuplicateSA},
		{"one name twice", []Spec{out, changed(in, func(s *Spec) { s.Name = "out" })}, "two SAs are named", nil},
	} {
		for _, trial := range []bool{true, false} {
			if _, err := u.Plan(c.specs, lookup, trial); err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.want)
			}
		}
		if u.Lineage("out").Outbound() != was || inbound(db, 0x1002) != wasIn || db.Len() != 3 {
			t.Errorf("%s: something changed: %v", c.name, db.All())
		}
	}
	p, err := u.Plan([]Spec{spec("new", sa.Outbound, 0x1003, 'n')}, lookup, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Abort(); err != nil || db.Len() != 3 || u.Lineage("out").Outbound() != was {
		t.Errorf("abort: %v, %d SAs", err, db.Len())
	}
	// What was aborted left no claim behind.
	apply(t, u, out, in, spec("new", sa.Outbound, 0x1003, 'n'))
}
