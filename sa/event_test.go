package sa

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// Who observes a database is told what happens to its SAs, in the order in which it does.
func TestR50_Observe(t *testing.T) {
	var clock fakeClock
	clock.now.Store(1e18)
	var told []string
	asked := 0
	l := &Lineage{Name: "l", Notify: func(Event) { asked++ }}
	db := NewSAD()
	db.Observe(func(ev Event) {
		text := ev.Kind.String()
		if ev.SA != nil {
			text += fmt.Sprintf(" %#x", ev.SA.Key.SPI)
		}
		if ev.Old != nil {
			text += fmt.Sprintf(" for %#x", ev.Old.Key.SPI)
		}
		if ev.Kind != Acquire && ev.Lineage != l {
			t.Errorf("%s is of lineage %v", text, ev.Lineage)
		}
		told = append(told, text)
	})
	expect := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(told, want) {
			t.Errorf("%s: told %q, want %q", what, told, want)
		}
		told = nil
	}
	make := func(spi uint32, fill byte, dir Direction) *SA {
		cfg := testConfig(dir)
		cfg.Key.SPI, cfg.EncryptionKey, cfg.Lineage, cfg.Clock = spi, key(20, fill), l, clock.read
		cfg.Soft.Packets, cfg.Hard.Packets = 2, 3
		return mustNew(t, cfg)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p := &Policy{}
	db.NeedSA(l, p, &Flow{})
	expect("a packet needs an SA", "acquire")
	in, first, second, third := make(0x2001, 1, Inbound), make(0x1001, 2, Outbound), make(0x1002, 3, Outbound), make(0x1002, 4, Outbound)
	must(db.AddPair(in, first))
	_, err := l.Switch(first)
	must(err)
	expect("a pair", "added 0x2001", "added 0x1001", "switched 0x1001")
	if db.Add(first) == nil {
		t.Error("twice")
	}
	_, err = l.Switch(first)
	must(err)
	expect("nothing new")
	first.SetPMTU(1400, clock.read())
	first.SetPMTU(1400, clock.read())
	first.SetPMTU(1450, clock.read())
	first.SetPMTU(1300, clock.read())
	expect("a path MTU, lowered twice", "path-mtu 0x1001", "path-mtu 0x1001")
	for range 4 {
		first.Used(1, 100, clock.read())
	}
	expect("lifetimes", "expire-soft 0x1001", "expire-hard 0x1001")
	must(db.Add(second))
	_, err = l.Switch(second)
	must(err)
	must(db.Retire(first, time.Second))
	expect("a rollover", "added 0x1002", "switched 0x1002 for 0x1001", "retired 0x1001")
	if !db.Revive(first) {
		t.Error("it does not retire")
	}
	must(db.Withdraw(first, time.Second))
	clock.now.Add(int64(2 * time.Second))
	must(db.Tick(clock.read()))
	must(db.Tick(clock.read()))
	expect("the old one", "revived 0x1001", "retired 0x1001", "deleted 0x1001")
	must(db.Replace(second, third))
	_, err = l.Switch(third)
	must(err)
	expect("another key", "replaced 0x1002 for 0x1002", "switched 0x1002 for 0x1002")
	must(db.Delete(third))
	db.Remove(in)
	db.Remove(in)
	expect("the end", "deleted 0x1002", "deleted 0x2001")
	if asked != 3 { // acquire, and two lifetimes
		t.Errorf("the key manager was told %d things", asked)
	}
	// A copy for a rehearsal tells nobody.
	NewShadow(nil, db, nil).SA(first).SetPMTU(1290, clock.read())
	expect("a shadow")
}
