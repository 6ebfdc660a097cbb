package appliance

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"bitw/config"
	"bitw/sa"
)

func TestR50_EventsAreKeptAndBounded(t *testing.T) {
	now := int64(0)
	h := newEventHub(func() int64 { return now })
	slow := h.subscribe(0)
	put := func(n int) {
		for range n {
			if h.admits(SAAdded) {
				h.put(&Event{Kind: SAAdded})
			}
		}
	}
	const tooMany = 3 * eventsPerSecond
	put(tooMany)
	if h.last != eventsPerSecond {
		t.Errorf("%d events within a second", h.last)
	}
	h.tick()
	if h.last != eventsPerSecond {
		t.Error("what is omitted is told before the second is over")
	}
	now += int64(time.Second)
	h.tick()
	all := h.subscribe(1 << 30)
	var last Event
	for ev, ok := all.take(); ok; ev, ok = all.take() {
		last = ev
	}
	if last.Kind != EventsOmitted || last.Of != SAAdded || last.Omitted != tooMany-eventsPerSecond || last.Number != eventsPerSecond+1 {
		t.Errorf("the last is %+v", last)
	}
	for range 8 {
		now += int64(time.Second)
		put(eventsPerSecond)
	}
	ev, ok := slow.take()
	if !ok || ev.Missed == 0 || ev.Number != ev.Missed+1 || ev.Missed != h.last-KeptEvents {
		t.Errorf("a slow reader gets %+v, of %d", ev, h.last)
	}
	if ev, _ = slow.take(); ev.Missed != 0 || ev.Number != h.last-KeptEvents+2 {
		t.Errorf("then %+v", ev)
	}
	some := h.subscribe(3)
	for i := range uint64(3) {
		if ev, ok := some.take(); !ok || ev.Number != h.last-2+i {
			t.Errorf("replayed %+v", ev)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := some.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting ends with %v", err)
	}
	for _, s := range []*Subscription{slow, all, some} {
		s.Close()
	}
	if len(h.readers) != 0 {
		t.Error("readers are left")
	}
}

// Many tell and read at the same time; each reader has all events in their order, or is
// told how many it lacks.
func TestR50_EventsConcurrently(t *testing.T) {
	now := int64(0)
	h := newEventHub(func() int64 { return now })
	const writers, each = 4, 3000
	var readers, all sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 4 {
		s := h.subscribe(0)
		readers.Go(func() {
			defer s.Close()
			for seen := uint64(0); seen < writers*each; {
				ev, err := s.Next(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				if seen += ev.Missed + 1; ev.Number != seen {
					t.Errorf("event %d after %d with %d missed", ev.Number, seen-ev.Missed-1, ev.Missed)
					return
				}
			}
		})
	}
	for range writers {
		all.Go(func() {
			for range each {
				h.put(&Event{Kind: StateChanged})
			}
		})
	}
	all.Wait()
	time.AfterFunc(time.Minute, cancel)
	readers.Wait()
	cancel()
}

// What a query of events may be; nothing else is taken.
func FuzzEventsRequest(f *testing.F) {
	for _, s := range []string{"", "last=20&since=10m&once=true", "last=-1", "last=1&last=2", "since=1e9h", "of=all", "once=maybe", "%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		v, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		q, err := eventsRequest(v)
		var no *ControlError
		switch {
		case err != nil && (!errors.As(err, &no) || no.Status != 400):
			t.Errorf("%q: %v", query, err)
		case err != nil:
		case q.Last < 0 || q.Since < 0:
			t.Errorf("%q is %+v", query, q)
		default:
			if v, err = url.ParseQuery(q.Query()); err != nil {
				t.Fatal(err)
			}
			if again, err := eventsRequest(v); err != nil || again != q {
				t.Errorf("%q is %+v, and written anew %+v, %v", query, q, again, err)
			}
		}
	})
}

// awaitEvent reads events until one fits.
func awaitEvent(t *testing.T, s *Subscription, fits func(*Event) bool) Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var seen []EventKind
	for {
		ev, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("%v after %q", err, seen)
		}
		seen = append(seen, ev.Kind)
		if fits(&ev) {
			return ev
		}
	}
}

func ofKind(k EventKind) func(*Event) bool { return func(ev *Event) bool { return ev.Kind == k } }

// What happens to an appliance is an event and in the log, under the same names.
func TestR50_EventsOfAnAppliance(t *testing.T) {
	log, lines := keepLog()
	cfg := protectAll(t)
	p := newMemoryPair(t, cfg, mirror(cfg), WithLogger(log))
	s := p.boxA.Subscribe(1000)
	defer s.Close()
	if ev := awaitEvent(t, s, ofKind(StateChanged)); ev.State != "new" || ev.Number != 1 {
		t.Errorf("first %+v", ev)
	}
	names := make(map[string]bool)
	for range cfg.SAs {
		ev := awaitEvent(t, s, ofKind(SAAdded))
		names[ev.SA+" "+ev.Direction+" "+ev.SPI] = true
	}
	if !names["ab out 0x00001001"] || !names["ba6 in 0x00002006"] {
		t.Errorf("SAs %v", names)
	}
	awaitEvent(t, s, func(ev *Event) bool { return ev.Kind == StateChanged && ev.State == "active" })

	if err := p.boxA.SetKey("ab", "000102030405060708090a0b0c0d0e0f10111213"); err != nil {
		t.Fatal(err)
	}
	if ev := awaitEvent(t, s, ofKind(SAReplaced)); ev.SA != "ab" || ev.SPI != "0x00001001" || ev.OldSPI != ev.SPI {
		t.Errorf("a key: %+v", ev)
	}
	awaitEvent(t, s, ofKind(KeyChanged))
	lines.await(t, "event=key-changed", "key=ab", "a key was set by hand")

	next := another(t, cfg)
	next.SAs = next.SAs[2:] // ab and ba go, more comes
	next.Policies = slices.DeleteFunc(next.Policies, func(p config.Policy) bool { return p.Name == "v4" })
	if _, err := p.boxA.Apply(next, false); err != nil {
		t.Fatal(err)
	}
	if ev := awaitEvent(t, s, ofKind(SASwitched)); ev.SA != "more" {
		t.Errorf("switched %+v", ev)
	}
	awaitEvent(t, s, func(ev *Event) bool { return ev.Kind == SARetired && ev.SA == "ab" })
	if ev := awaitEvent(t, s, ofKind(ConfigurationApplied)); !slices.ContainsFunc(ev.Changes, func(c string) bool { return c != "" }) {
		t.Errorf("applied %+v", ev)
	}
	lines.await(t, "event=configuration-applied", "changes=")
	next.Control = "/nowhere/else"
	if _, err := p.boxA.Apply(next, true); err == nil {
		t.Error("control can change")
	}
	if _, err := p.boxA.Apply(next, false); err == nil {
		t.Error("control can change")
	}
	before := p.boxA.events.last
	if ev := awaitEvent(t, s, ofKind(ConfigurationRefused)); ev.Error == "" || ev.Number != before {
		t.Errorf("refused %+v, of %d: the dry run is none", ev, before)
	}
	lines.await(t, "event=configuration-refused", "level=warning")
	if err := p.boxA.Close(); err != nil {
		t.Error(err)
	}
	awaitEvent(t, s, ofKind(SADeleted))
	awaitEvent(t, s, func(ev *Event) bool { return ev.State == "stopped" })
}

// Events of the packet path, and how many of them there may be.
func TestR50_EventsOfThePacketPath(t *testing.T) {
	log, lines := keepLog()
	cfg := protectAll(t)
	cfg.SAs = slices.Clone(cfg.SAs)
	cfg.SAs[0].SoftLifetime.Packets = 5
	cfg.SAs[0].Lifetime.Packets = 10
	p := newMemoryPair(t, cfg, mirror(cfg), WithLogger(log))
	s := p.boxA.Subscribe(0)
	defer s.Close()
	p.datagrams(t, 40)
	if ev := awaitEvent(t, s, ofKind(ExpireSoft)); ev.SA != "ab" || ev.Level != "warning" {
		t.Errorf("soft %+v", ev)
	}
	awaitEvent(t, s, ofKind(ExpireHard))
	lines.await(t, "event=expire-hard", "sa=ab", "level=warning")
	for range 100 {
		p.boxA.saEvent(sa.Event{Kind: sa.PeerMoved})
	}
	ev := awaitEvent(t, s, ofKind(EventsOmitted))
	if ev.Of != PeerMoved || ev.Omitted > 100-outsideEventsPerSecond {
		t.Errorf("of a flood %+v", ev)
	}
	lines.await(t, "event=omitted", "of=peer-moved")
}
