package sa

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bitw/netstack/wire"
)

func TestR31_BadConfigurationsAreErrors(t *testing.T) {
	v6 := netip.MustParseAddr("2001:db8::1")
	for _, c := range []struct {
		name   string
		change func(*SAConfig)
		want   string
	}{
		{"name", func(c *SAConfig) { c.Name = "" }, "name is empty"},
		{"direction", func(c *SAConfig) { c.Direction = 2 }, "unknown direction"},
		{"mode", func(c *SAConfig) { c.Mode = 7 }, "unknown mode"},
		{"protocol", func(c *SAConfig) { c.Key.Proto = 6 }, "protocol is 6, want 50 (ESP) or 51 (AH)"},
		{"SPI", func(c *SAConfig) { c.Key.SPI = 255 }, "reserved"},
		{"destination", func(c *SAConfig) { c.Key.Dst = netip.Addr{} }, "destination address is missing"},
		{"zone", func(c *SAConfig) { c.Key.Dst = netip.MustParseAddr("fe80::1%x") }, "zone"},
		{"tunnel source", func(c *SAConfig) { c.Mode = Tunnel }, "needs a source"},
		{"families", func(c *SAConfig) { c.Src = v6 }, "not of one address family"},
		{"algorithm", func(c *SAConfig) { c.Algorithm.New = nil }, "algorithm is missing"},
		{"algorithm of AH", func(c *SAConfig) { c.Key.Proto = 51 }, "is for protocol 50"},
		{"key length", func(c *SAConfig) { c.EncryptionKey = key(19, 1) }, "keys have 19 and 0 octets, want 20 and 0"},
		{"negative time", func(c *SAConfig) { c.Soft.Time = -1 }, "negative"},
		{"soft packets", func(c *SAConfig) { c.Soft.Packets, c.Hard.Packets = 2, 1 }, "soft lifetime of 2 packets"},
		{"soft bytes", func(c *SAConfig) { c.Soft.Bytes, c.Hard.Bytes = 2, 1 }, "soft lifetime of 2 octets"},
		{"soft time", func(c *SAConfig) { c.Soft.Time, c.Hard.Time = 2, 1 }, "soft lifetime of 2ns"},
	} {
		cfg := testConfig(Outbound)
		c.change(&cfg)
		if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), `SA "`+cfg.Name) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

func TestR31_EmptyInvalidAndDiscardingSAs(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.EncryptionKey = Secret{}
	empty := mustNew(t, cfg)
	want(t, "no key", empty.Usable(0), wire.DropKeyInvalid)
	_, r := empty.TakeSeq(1)
	want(t, "number without key", r, wire.DropKeyInvalid)

	s := mustNew(t, testConfig(Outbound))
	want(t, "fresh", s.Usable(0), wire.DropNone)
	s.Invalidate()
	want(t, "invalidated", s.Usable(0), wire.DropKeyInvalid)
	s.Revalidate()
	want(t, "valid again", s.Usable(0), wire.DropNone)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s.Revalidate()
	want(t, "closed", s.Usable(0), wire.DropKeyInvalid)

	cfg = testConfig(Inbound)
	cfg.Discard = true
	want(t, "discarding", mustNew(t, cfg).Usable(0), wire.DropPolicyDiscard)
}

func TestR41_Lifetimes(t *testing.T) {
	const start = int64(1e18)
	for _, c := range []struct {
		name       string
		soft, hard Lifetime
		use        func(*SA, int) // the i-th step
		softAt     int            // step after which it is over
		hardAt     int
	}{
		{"packets", Lifetime{Packets: 3}, Lifetime{Packets: 5}, func(s *SA, i int) { s.Used(1, 9, start) }, 3, 5},
		{"bytes", Lifetime{Bytes: 300}, Lifetime{Bytes: 500}, func(s *SA, i int) { s.Used(1, 100, start) }, 3, 5},
		{"time, used", Lifetime{Time: 3 * time.Second}, Lifetime{Time: 5 * time.Second},
			func(s *SA, i int) { s.Used(1, 1, start+int64(i)*1e9) }, 3, 5},
		{"time, idle", Lifetime{Time: 3 * time.Second}, Lifetime{Time: 5 * time.Second},
			func(s *SA, i int) { s.Tick(start + int64(i)*1e9) }, 3, 5},
		{"the first of all", Lifetime{Packets: 9, Bytes: 300, Time: time.Hour}, Lifetime{Packets: 5, Bytes: 1000, Time: time.Hour},
			func(s *SA, i int) { s.Used(1, 100, start) }, 3, 5},
	} {
		var events []EventKind
		cfg := testConfig(Inbound)
		if c.name == "the first of all" {
			c.soft.Packets = 4
		}
		cfg.Soft, cfg.Hard = c.soft, c.hard
		cfg.Lineage = &Lineage{Name: "a", Notify: func(e Event) { events = append(events, e.Kind) }}
		s := mustNew(t, cfg)
		for i := 1; i <= 8; i++ {
			c.use(s, i)
			soft, hard := s.Expired()
			if soft != (i >= c.softAt) || hard != (i >= c.hardAt) {
				t.Errorf("%s: step %d: soft %v, hard %v", c.name, i, soft, hard)
			}
			reason := wire.DropNone
			if i >= c.hardAt {
				reason = wire.DropLifetimeExpired
			}
			want(t, c.name, s.Usable(start), reason)
		}
		if len(events) != 2 || events[0] != ExpireSoft || events[1] != ExpireHard {
			t.Errorf("%s: events are %v", c.name, events)
		}
	}
}

func TestR41_HardTimeIsNoticedByTheNextPacket(t *testing.T) {
	events := 0
	cfg := testConfig(Inbound)
	cfg.Hard.Time = time.Second
	cfg.Lineage = &Lineage{Name: "a", Notify: func(Event) { events++ }}
	s := mustNew(t, cfg)
	want(t, "before", s.Usable(1e18+1e9-1), wire.DropNone)
	want(t, "after", s.Usable(1e18+1e9), wire.DropLifetimeExpired)
	want(t, "clock set back", s.Usable(1e18), wire.DropLifetimeExpired)
	if events != 1 {
		t.Errorf("%d events", events)
	}
}

// TakeSeq holds the hard limit of packets exactly, whatever workers are at it.
func TestR41_HardPacketsAreExact(t *testing.T) {
	var events [8]int
	var mu sync.Mutex
	cfg := testConfig(Outbound)
	cfg.Soft.Packets, cfg.Hard.Packets = 500, 1001
	cfg.Lineage = &Lineage{Name: "a", Notify: func(e Event) { mu.Lock(); events[e.Kind]++; mu.Unlock() }}
	s := mustNew(t, cfg)
	if _, r := s.TakeSeq(1002); r != wire.DropLifetimeExpired {
		t.Fatalf("more than the lifetime: %v", r)
	}
	want(t, "a run too long", s.Usable(0), wire.DropNone)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				n := 3
				_, r := s.TakeSeq(n)
				if r != wire.DropNone {
					n = 1
					_, r = s.TakeSeq(n)
				}
				if r != wire.DropNone {
					return
				}
				s.Used(n, n*100, 1)
			}
		})
	}
	wg.Wait()
	if s.Packets.Load() != 1001 || s.LastSeq() != 1001 {
		t.Errorf("%d packets, last number %d", s.Packets.Load(), s.LastSeq())
	}
	want(t, "at the end", s.Usable(0), wire.DropLifetimeExpired)
	if events != [8]int{ExpireSoft: 1, ExpireHard: 1} {
		t.Errorf("events by kind: %v", events)
	}
}

func TestR29_PMTU(t *testing.T) {
	const now, minute = int64(1e18), int64(time.Minute)
	s := mustNew(t, testConfig(Outbound))
	for _, c := range []struct {
		at      int64
		set     int // 0 for none
		changed bool
		want    int
	}{
		{0, 0, false, 0}, {0, 1400, true, 1400}, {1, 1500, false, 1400}, {2, 1300, true, 1300}, {3, 1300, false, 1300},
		{4, 67, false, 1300}, {4, 65536, false, 1300}, {4, -5, false, 1300},
		{12, 0, false, 1300}, {13, 0, false, 0}, // 10 minutes after minute 3
		{14, 1450, true, 1450},
	} {
		at := now + c.at*minute
		if c.set != 0 && s.SetPMTU(c.set, at) != c.changed {
			t.Errorf("minute %d: setting %d is %v", c.at, c.set, !c.changed)
		}
		if got := s.PMTU(at); got != c.want {
			t.Errorf("minute %d: %d, want %d", c.at, got, c.want)
		}
	}
	cfg := testConfig(Outbound)
	cfg.Key.Dst = netip.MustParseAddr("2001:db8::2")
	cfg.PMTUAge = time.Second
	s = mustNew(t, cfg)
	if s.SetPMTU(1279, now) || !s.SetPMTU(1280, now) || s.PMTU(now) != 1280 || s.PMTU(now+2e9) != 0 {
		t.Error("IPv6 floor or age is wrong")
	}
}

func TestR41_LineageSwitch(t *testing.T) {
	l, other := NewLineage("l"), NewLineage("other")
	if l.Outbound() != nil {
		t.Error("a new lineage has an SA")
	}
	make := func(d Direction, of *Lineage) *SA {
		cfg := testConfig(d)
		cfg.Lineage = of
		return mustNew(t, cfg)
	}
	first, second := make(Outbound, l), make(Outbound, l)
	if old, err := l.Switch(first); old != nil || err != nil || l.Outbound() != first {
		t.Error(old, err)
	}
	for _, bad := range []*SA{make(Inbound, l), make(Outbound, other), make(Outbound, nil)} {
		if _, err := l.Switch(bad); err == nil || l.Outbound() != first {
			t.Errorf("%v of %v was taken", bad.Direction, bad.Lineage)
		}
	}
	if old, err := l.Switch(second); old != first || err != nil || l.Outbound() != second {
		t.Error(old, err)
	}
	if old, err := l.Switch(nil); old != second || err != nil || l.Outbound() != nil {
		t.Error(old, err)
	}
}

// A sender and a receiver at full speed lose nothing in a thousand rollovers: new
// inbound first, outbound by one switch, old inbound last.
func TestR41_RolloverLosesNothing(t *testing.T) {
	l, db := NewLineage("l"), NewSAD()
	next := func(d Direction, spi int) *SA {
		cfg := testConfig(d)
		cfg.Lineage, cfg.Key.SPI = l, uint32(0x1000+spi)
		return mustNew(t, cfg)
	}
	stop := make(chan struct{})
	var sent sync.WaitGroup
	var grace sync.RWMutex // read-held by what is under way
	begin := func(spi int) *SA {
		in := next(Inbound, spi)
		if err := db.Add(in); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Switch(next(Outbound, spi)); err != nil {
			t.Fatal(err)
		}
		return in
	}
	old := begin(0)
	for range 2 {
		sent.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				grace.RLock()
				out := l.Outbound()
				n, r := out.TakeSeq(1)
				in := db.Lookup(out.Key.SPI, out.Key.Dst, out.Key.Proto)
				if r != wire.DropNone || in == nil {
					t.Errorf("lost a packet: %v, %v", r, in)
				} else if full, r := in.CheckReplay(uint32(n)); r == wire.DropReplay || r == wire.DropNone && in.Accept(full) == wire.DropReplay {
					t.Errorf("number %d twice", n)
				}
				grace.RUnlock()
			}
		})
	}
	for i := 1; i <= 1000; i++ {
		in := begin(i)
		grace.Lock() // waits for what took the old SA
		removed := db.Remove(old)
		grace.Unlock()
		if !removed {
			t.Fatal("not in the SAD")
		}
		old = in
	}
	close(stop)
	sent.Wait()
	if db.Len() != 1 {
		t.Errorf("%d SAs are left", db.Len())
	}
}

// A random walk against a map, with readers that must never see a wrong SA.
func TestR31_SADIsAMap(t *testing.T) {
	type place struct {
		Key
		d Direction
	}
	db, model := NewSAD(), make(map[place]*SA)
	rnd := rand.New(rand.NewPCG(1, 2))
	stop := make(chan struct{})
	var readers sync.WaitGroup
	dst := func(i int) netip.Addr {
		if i%2 == 0 {
			return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		}
		a := netip.MustParseAddr("2001:db8::").As16()
		a[15] = byte(i)
		return netip.AddrFrom16(a)
	}
	readers.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			k := Key{uint32(0x1000 + i%40), dst(i % 6), 50 + uint8(i%2)}
			if s := db.Lookup(k.SPI, k.Dst, k.Proto); s != nil && (s.Key != k || s.Direction != Inbound) {
				t.Errorf("looked for %v, found %v", k, s.Key)
				return
			}
		}
	})
	for range 20000 {
		p := place{Key{uint32(0x1000 + rnd.IntN(40)), dst(rnd.IntN(6)), 50 + uint8(rnd.IntN(2))}, Direction(rnd.IntN(2))}
		s := &SA{Name: "n", Key: p.Key, Direction: p.d}
		old := model[p]
		switch rnd.IntN(4) {
		case 0, 1:
			err := db.Add(s)
			if (err == nil) != (old == nil) {
				t.Fatalf("add %v: %v", p, err)
			}
			if err == nil {
				model[p] = s
			}
		case 2:
			if old != nil && !db.Remove(old) || db.Remove(s) {
				t.Fatalf("remove %v", p)
			}
			delete(model, p)
		case 3:
			if old == nil {
				old = &SA{Key: p.Key, Direction: p.d}
			}
			err := db.Replace(old, s)
			if (err == nil) != (model[p] != nil) {
				t.Fatalf("replace %v: %v", p, err)
			}
			if err == nil {
				model[p] = s
			}
		}
		find := db.Lookup
		if p.d == Outbound {
			find = db.LookupOutbound
		}
		if got := find(p.SPI, p.Dst, p.Proto); got != model[p] {
			t.Fatalf("look up %v: got %v, want %v", p, got, model[p])
		}
	}
	close(stop)
	readers.Wait()
	if db.Len() != len(model) || len(db.All()) != len(model) {
		t.Errorf("%d SAs, All has %d, want %d", db.Len(), len(db.All()), len(model))
	}
	for p := range model {
		if p.Dst.Is4() && p.d == Inbound && db.Lookup(p.SPI, netip.AddrFrom16(p.Dst.As16()), p.Proto) == nil {
			t.Errorf("%v is not found by its IPv4-mapped address", p)
		}
	}
}

func TestR31_SADErrorsNameBoth(t *testing.T) {
	db := NewSAD()
	a, b := mustNew(t, testConfig(Inbound)), testConfig(Inbound)
	b.Name = "b"
	twin := mustNew(t, b)
	if err := db.Add(a); err != nil {
		t.Fatal(err)
	}
	if err := db.Add(twin); err == nil || !strings.Contains(err.Error(), `SA "a" and SA "b" are both esp 0x00001001 to 10.0.0.2`) {
		t.Error(err)
	}
	b.Key.SPI++
	if err := db.Replace(a, mustNew(t, b)); err == nil {
		t.Error("an SA of another key took the place")
	}
	s := mustNew(t, testConfig(Outbound))
	if err := db.Add(s); err != nil {
		t.Errorf("the same key in the other direction: %v", err)
	}
	if all := db.All(); len(all) != 2 || all[0] != s || all[1] != a {
		t.Errorf("All: %v", all)
	}
	a.hardEnd = 5
	if err := db.Tick(6); err != nil {
		t.Error(err)
	}
	want(t, "after Tick", a.Usable(1), wire.DropLifetimeExpired)
}
