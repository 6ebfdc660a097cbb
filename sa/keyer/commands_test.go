package keyer

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// command returns commands on an empty SAD, with a clock that the test moves, and the
// configuration of an SA of l.
func command(t *testing.T) (c *Commands, now *int64, cfg func(*sa.Lineage, sa.Direction, uint32, byte) sa.SAConfig) {
	t.Helper()
	now = new(int64)
	*now = 1e18
	c = &Commands{SAD: sa.NewSAD(), Store: sa.NewMemoryStore(), Clock: func() int64 { return *now }}
	return c, now, func(l *sa.Lineage, d sa.Direction, spi uint32, fill byte) sa.SAConfig {
		alg, err := lookup(transform.ProtoESP, "gcm")
		if err != nil {
			t.Fatal(err)
		}
		return sa.SAConfig{
			Name: l.Name, Lineage: l, Direction: d, Algorithm: alg, EncryptionKey: key(20, fill),
			Key: sa.Key{SPI: spi, Dst: netip.MustParseAddr("10.0.0.2"), Proto: transform.ProtoESP},
		}
	}
}

func TestR41_MakeBeforeBreak(t *testing.T) {
	c, now, cfg := command(t)
	l := sa.NewLineage("peer")
	in1, out1, err := c.AddPair(cfg(l, sa.Inbound, 0x1001, 'a'), cfg(l, sa.Outbound, 0x2001, 'b'))
	if err != nil {
		t.Fatal(err)
	}
	if l.Outbound() != nil {
		t.Error("an SA that was only added sends")
	}
	if old, err := c.Switch(out1); old != nil || err != nil {
		t.Fatal(old, err)
	}
	if err := c.Retire(out1, time.Second); err == nil {
		t.Error("the current SA retired")
	}
	in2, out2, err := c.AddPair(cfg(l, sa.Inbound, 0x1002, 'c'), cfg(l, sa.Outbound, 0x2002, 'd'))
	if err != nil {
		t.Fatal(err)
	}
	if old, err := c.Switch(out2); old != out1 || err != nil {
		t.Fatal(old, err)
	}
	for _, s := range []*sa.SA{in1, out1} {
		if err := c.Retire(s, 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	*now += int64(10*time.Second) - 1
	if err := c.SAD.Tick(*now); err != nil {
		t.Fatal(err)
	}
	if inbound(c.SAD, 0x1001) != in1 || in1.Usable(*now) != wire.DropNone || !in1.Retiring() || in2.Retiring() {
		t.Error("the old inbound SA is not taken any more within its grace time")
	}
	*now++
	if err := c.SAD.Tick(*now); err != nil {
		t.Fatal(err)
	}
	if inbound(c.SAD, 0x1001) != nil || in1.Usable(*now) != wire.DropKeyInvalid || c.SAD.Len() != 2 {
		t.Error("the old inbound SA is taken after its grace time")
	}
	if err := c.Retire(in1, 0); err == nil {
		t.Error("an SA that is gone retired")
	}
	if err := c.Delete(out2); err != nil || l.Outbound() != nil {
		t.Errorf("after Delete the lineage sends by %v, %v", l.Outbound(), err)
	}
	if _, err := c.Switch(out2); err == nil {
		t.Error("switched to a deleted SA")
	}
	if err := c.DeleteAll(l); err != nil || c.SAD.Len() != 0 {
		t.Errorf("%d SAs after DeleteAll, %v", c.SAD.Len(), err)
	}
}

func TestR40_ACounterModeKeySendsForOneSAOnly(t *testing.T) {
	c, _, cfg := command(t)
	l := sa.NewLineage("peer")
	first, err := c.Add(cfg(l, sa.Outbound, 0x2001, 'k'))
	if err != nil {
		t.Fatal(err)
	}
	first.TakeSeq(41)
	if _, err := c.Add(cfg(l, sa.Outbound, 0x2002, 'k')); !errors.Is(err, sa.ErrKeyInUse) {
		t.Errorf("the key of an SA at work under another: %v, expected ErrKeyInUse", err)
	}
	if _, _, err := c.AddPair(cfg(l, sa.Inbound, 0x1002, 'i'), cfg(l, sa.Outbound, 0x2002, 'k')); !errors.Is(err, sa.ErrKeyInUse) || c.SAD.Len() != 1 {
		t.Errorf("in a pair: %v, %d SAs", err, c.SAD.Len())
	}
	// Once it is gone the store vouches for the numbers that are left.
	if err := c.Delete(first); err != nil {
		t.Fatal(err)
	}
	again, err := c.Add(cfg(l, sa.Outbound, 0x2002, 'k'))
	if err != nil {
		t.Fatal(err)
	}
	if n, r := again.TakeSeq(1); n != 42 || r != wire.DropNone {
		t.Errorf("goes on with %d, %v; expected 42", n, r)
	}
	c.Store = nil
	if _, err := c.Add(cfg(l, sa.Outbound, 0x2003, 'z')); !errors.Is(err, sa.ErrNoSequenceStore) {
		t.Errorf("without store: %v", err)
	}
}

func TestR44_RefusedCommandsLeaveNothing(t *testing.T) {
	c, _, cfg := command(t)
	l := sa.NewLineage("peer")
	if _, err := c.Add(cfg(l, sa.Inbound, 0x1001, 'a')); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Add(cfg(l, sa.Inbound, 0x1001, 'b')); !errors.Is(err, sa.ErrDuplicateSA) {
		t.Errorf("SPI twice: %v", err)
	}
	bad := cfg(l, sa.Outbound, 0x2001, 'o')
	bad.EncryptionKey = key(3, 'x')
	if _, _, err := c.AddPair(cfg(l, sa.Inbound, 0x1002, 'c'), bad); err == nil {
		t.Error("a pair with a bad key")
	}
	if _, _, err := c.AddPair(cfg(l, sa.Inbound, 0x1003, 'c'), cfg(l, sa.Inbound, 0x1004, 'd')); err == nil {
		t.Error("a pair of one direction")
	}
	// The outbound half is in the way, so the inbound one must not stay.
	if _, err := c.Add(cfg(l, sa.Outbound, 0x2001, 'e')); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.AddPair(cfg(l, sa.Inbound, 0x1005, 'f'), cfg(l, sa.Outbound, 0x2001, 'g')); !errors.Is(err, sa.ErrDuplicateSA) {
		t.Errorf("outbound SPI twice: %v", err)
	}
	none := cfg(l, sa.Inbound, 0x1006, 'h')
	none.Lineage = nil
	if _, err := c.Add(none); err == nil {
		t.Error("an SA without lineage")
	}
	if c.SAD.Len() != 2 {
		t.Errorf("%d SAs, expected 2", c.SAD.Len())
	}
}

func TestR44_EventsAreKeptInOrderAndOnce(t *testing.T) {
	q := NewEvents()
	a, b := sa.NewLineage("a"), sa.NewLineage("b")
	first, second := netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.1:2")
	q.Put(sa.Event{Kind: sa.PeerMoved, Lineage: a, Peer: first})
	q.Put(sa.Event{Kind: sa.Acquire, Lineage: b})
	q.Put(sa.Event{Kind: sa.PeerMoved, Lineage: a, Peer: second}) // in the place of the first
	q.Put(sa.Event{Kind: sa.Acquire, Lineage: a})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var got []string
	for range 3 {
		ev, err := q.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, ev.Kind.String()+" "+ev.Lineage.Name)
		if ev.Kind == sa.PeerMoved && ev.Peer != second {
			t.Errorf("peer %v, expected the newest", ev.Peer)
		}
	}
	if want := []string{"peer-moved a", "acquire b", "acquire a"}; !slices.Equal(got, want) {
		t.Errorf("events %v, expected %v", got, want)
	}
	over, stop := context.WithCancel(ctx)
	stop()
	if _, err := q.Next(over); !errors.Is(err, context.Canceled) {
		t.Errorf("empty queue: %v", err)
	}
	// Several may take, and each event is taken once.
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := q.Next(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, kind := range []sa.EventKind{sa.Acquire, sa.Dead, sa.ExpireSoft} {
		q.Put(sa.Event{Kind: kind, Lineage: a})
	}
	wg.Wait()
}

// What is insecure takes its name, and what has no sequence numbers a manual key.
func TestR38_CommandsRefuseOldAlgorithms(t *testing.T) {
	c, _, cfg := command(t)
	l := sa.NewLineage("peer")
	old := cfg(l, sa.Inbound, 0x1001, 'a')
	old.Algorithm.Insecure = []string{"des", "md5"}
	for _, allowed := range [][]string{nil, {"des"}, {"md5", "3des", "des-md5"}} {
		c.AllowInsecure = allowed
		if _, err := c.Add(old); !errors.Is(err, transform.ErrInsecure) {
			t.Errorf("%q allowed: %v", allowed, err)
		}
	}
	c.AllowInsecure = []string{"md5", "des"}
	if _, err := c.Add(old); err != nil {
		t.Error(err)
	}
	older := cfg(l, sa.Inbound, 0x1002, 'b')
	older.Algorithm.NoSequence = true
	if _, err := c.Add(older); err == nil || !strings.Contains(err.Error(), "manual keys only") {
		t.Error(err)
	}
	if n := len(c.SAD.All()); n != 1 {
		t.Errorf("%d SAs", n)
	}
}
