package sa

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// handed sends an Export by the way that it takes between processes.
func handed(t testing.TB, e Export) *Resume {
	t.Helper()
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseExport(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if strings.Contains(string(text), "(hidden)") {
		t.Errorf("a key in %s", text)
	}
	return NewResume(got)
}

// closed ends an SA and exports it.
func closed(t testing.TB, cfg SAConfig, s *SA) *Resume {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return handed(t, MakeExport([]*SA{s}, cfg.Resume, cfg.Store))
}

func TestRFC4303_3_3_3_NumbersGoOnInAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	file, err := NewFileStore(dir + "/state")
	if err != nil {
		t.Fatal(err)
	}
	for name, stores := range map[string][2]SequenceStore{
		"memory": {NewMemoryStore(), NewMemoryStore()},
		"file":   {file, file},
		"lost":   {file, NewMemoryStore()},
		"none":   {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(Outbound)
			if name == "none" {
				cfg.Algorithm, cfg.EncryptionKey, cfg.IntegrityKey = fakeAlgorithm(transform.ProtoESP, false), key(16, 1), key(4, 1)
			}
			cfg.EncryptionKey, cfg.Store = key(cfg.Algorithm.EncryptionKeyLen, name[0]), stores[0]
			cfg.Hard.Packets = 100
			s := mustNew(t, cfg)
			for range 41 {
				take(t, s)
			}
			cfg.Resume = closed(t, cfg, s)
			if st := s.State(); st.First != 1 || st.Next != 42 {
				t.Errorf("state after Close: %+v", st)
			}
			cfg.Store = stores[1]
			next := mustNew(t, cfg)
			if n := take(t, next); n != 42 {
				t.Errorf("the first number is %d, want 42", n)
			}
			if !next.Sent(41) {
				t.Error("what the predecessor sent is not known as sent")
			}
			// 42 of 100 packets of its lifetime are gone.
			if _, r := next.TakeSeq(59); r != wire.DropLifetimeExpired {
				t.Errorf("59 more: %v, want %v", r, wire.DropLifetimeExpired)
			}
			if _, r := next.TakeSeq(58); r != wire.DropNone {
				t.Errorf("58 more: %v", r)
			}
		})
	}
}

// The nonces of a counter-mode key do not repeat, whatever becomes of name, SPI, store
// and the process in between.
func TestR40_CounterModeKeyUnderAnotherName(t *testing.T) {
	cfg := testConfig(Outbound)
	s := mustNew(t, cfg)
	for range 7 {
		take(t, s)
	}
	r := closed(t, cfg, s)

	// A process that does not use the key hands on what it was told.
	other := testConfig(Outbound)
	other.EncryptionKey, other.Resume = key(20, 9), r
	r = closed(t, other, mustNew(t, other))

	again := testConfig(Outbound)
	again.Name, again.Key.SPI, again.ESN, again.Resume = "b", 0x2002, true, r
	s = mustNew(t, again)
	if n := take(t, s); n != 8 {
		t.Errorf("the first number under another SPI is %d, want 8", n)
	}
	if s.Packets.Load() != 0 || s.State().First != 8 {
		t.Errorf("it is another SA, and has %d packets and began with %d", s.Packets.Load(), s.State().First)
	}

	// A key that was in use and is not any more, in the same memory store.
	store := NewMemoryStore()
	cfg = testConfig(Outbound)
	cfg.Store = store
	s = mustNew(t, cfg)
	take(t, s)
	_ = s.Close()
	cfg.Resume = handed(t, MakeExport(nil, nil, store))
	cfg.Store = NewMemoryStore()
	if n := take(t, mustNew(t, cfg)); n != 2 {
		t.Errorf("the first number of a key that was used earlier is %d, want 2", n)
	}

	// The peer has used the numbers of a key by which we received.
	in := testConfig(Inbound)
	in.Resume = closed(t, in, mustNew(t, in))
	in.Direction, in.Store = Outbound, NewMemoryStore()
	if _, err := New(in); !errors.Is(err, ErrKeyInUse) {
		t.Errorf("sending by a key that was the peer's: %v, want %v", err, ErrKeyInUse)
	}
}

func TestRFC4303_3_3_3_ExhaustedInAnotherProcess(t *testing.T) {
	cfg := testConfig(Outbound)
	e := MakeExport([]*SA{mustNew(t, cfg)}, nil)
	e.SAs[0].Next = math.MaxUint32 + 1
	cfg.Resume, cfg.Store = handed(t, e), NewMemoryStore()
	if _, err := New(cfg); !errors.Is(err, ErrSequenceExhausted) {
		t.Errorf("error %v, want %v", err, ErrSequenceExhausted)
	}
}

func TestRFC4303_3_4_3_WindowGoesOnInAnotherProcess(t *testing.T) {
	for _, c := range []struct {
		name     string
		esn      bool
		was, now int
		base     uint64
	}{
		{"same", false, 64, 64, 1},
		{"from the start", false, 4096, 4096, 0},
		{"wider", false, 64, 1000, 5000},
		{"narrower", false, 1024, 100, 5000},
		{"ESN", true, 100, 100, 5<<32 + 40},
		{"ESN, wider", true, 64, 65536, 1 << 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(Inbound)
			cfg.ESN, cfg.ReplayWindow = c.esn, c.was
			s := mustNew(t, cfg)
			s.replay.top.Store(c.base) // far from 0 nothing else is known
			r := rand.New(rand.NewPCG(1, uint64(c.was)))
			seen := make(map[uint64]bool)
			top := c.base
			for range 3000 {
				n := top + r.Uint64N(40) - min(top, 20)
				if c.base < 40 {
					n = top + r.Uint64N(40)
				}
				if s.Accept(n) == wire.DropNone {
					seen[n] = true
				}
				top = max(top, n)
			}
			cfg.Resume = closed(t, cfg, s)
			cfg.ReplayWindow = c.now
			next := mustNew(t, cfg)
			for n := top + 100; n > top-min(top, uint64(c.was+c.now+10)); n-- {
				old, now := s.replay.check(n), next.replay.check(n)
				switch {
				case now == wire.DropNone && old != wire.DropNone:
					t.Fatalf("number %d was %v and now is new", n, old)
				case now != wire.DropNone && old == wire.DropNone && top-n < uint64(min(c.was, c.now)):
					t.Fatalf("number %d was new and now is %v", n, now)
				}
				if got, _ := next.CheckReplay(uint32(n)); c.esn && top-n < uint64(c.now) && got != n {
					t.Fatalf("the high half of %#x is taken for that of %#x", n, got)
				}
			}
			if next.Accept(top+1) != wire.DropNone {
				t.Error("the next number is not accepted")
			}
		})
	}
}

func TestR40_StateGoesOnInAnotherProcess(t *testing.T) {
	clock := new(fakeClock)
	clock.now.Store(1e18)
	cfg := testConfig(Outbound)
	cfg.Clock, cfg.Soft, cfg.Hard = clock.read, Lifetime{Bytes: 1000}, Lifetime{Bytes: 2000, Time: time.Hour}
	s := mustNew(t, cfg)
	s.Used(3, 900, clock.read())
	s.Drops.Add(wire.DropTooBig)
	if !s.SetPMTU(1400, clock.read()) {
		t.Fatal("path MTU not taken")
	}
	clock.now.Add(int64(5 * time.Minute))
	var events []EventKind
	cfg.Lineage = &Lineage{Name: "a", Notify: func(ev Event) { events = append(events, ev.Kind) }}
	want := s.State()
	cfg.Resume = closed(t, cfg, s)
	next := mustNew(t, cfg)
	if got := next.State(); !reflect.DeepEqual(got, want) {
		t.Errorf("state %+v\nwant  %+v", got, want)
	}
	if next.PMTU(clock.read()) != 1400 || next.PMTU(clock.read()+int64(6*time.Minute)) != 0 {
		t.Error("the path MTU does not hold for the rest of its time")
	}
	next.Used(1, 100, clock.read())
	clock.now.Add(int64(55 * time.Minute))
	if r := next.Usable(clock.read()); r != wire.DropLifetimeExpired {
		t.Errorf("an hour after it was made: %v", r)
	}
	if !reflect.DeepEqual(events, []EventKind{ExpireSoft, ExpireHard}) {
		t.Errorf("events %v", events)
	}

	// Where the peer of an SA in UDP has moved to, it still is.
	e := testConfig(Outbound)
	e.Src, e.Encap, e.Lineage = netip.MustParseAddr("10.0.0.1"), &Encap{LocalPort: 4500, RemotePort: 4500, Float: true}, NewLineage("a")
	in := testConfig(Inbound)
	in.Src, in.Encap, in.EncryptionKey = e.Src, e.Encap, key(20, 3)
	out, from := mustNew(t, e), netip.MustParseAddrPort("203.0.113.7:1024")
	if _, err := e.Lineage.Switch(out); err != nil {
		t.Fatal(err)
	}
	if !e.Lineage.Follow(mustNew(t, in), 7, from) {
		t.Fatal("the peer did not move")
	}
	e.Resume, e.Lineage = closed(t, e, out), NewLineage("a")
	if s := mustNew(t, e); s.Remote() != from {
		t.Errorf("the peer is at %v, want %v", s.Remote(), from)
	}

	// Another key, or other addresses, make another SA.
	for name, change := range map[string]func(*SAConfig){
		"key":         func(c *SAConfig) { c.EncryptionKey = key(20, 2) },
		"SPI":         func(c *SAConfig) { c.Key.SPI++ },
		"destination": func(c *SAConfig) { c.Key.Dst = netip.MustParseAddr("10.0.0.3") },
		"ESN":         func(c *SAConfig) { c.ESN = true },
	} {
		c := cfg
		change(&c)
		c.Store = NewMemoryStore()
		if s := mustNew(t, c); s.Packets.Load() != 0 || s.Created != clock.read() {
			t.Errorf("with another %s: %+v", name, s.State())
		}
	}
}

// good is an Export of one SA each way.
func goodExport(t testing.TB) []byte {
	t.Helper()
	out, in := mustNew(t, testConfig(Outbound)), mustNew(t, testConfig(Inbound))
	_, _ = out.TakeSeq(5)
	in.Accept(9)
	text, err := json.Marshal(MakeExport([]*SA{out, in}, nil, out.storeForTest()))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// storeForTest is a store that knows one key.
func (s *SA) storeForTest() SequenceStore {
	m := NewMemoryStore()
	_, _, _ = m.Claim(s.keyID)
	return m
}

func TestParseExportRefuses(t *testing.T) {
	good := string(goodExport(t))
	if _, err := ParseExport([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, says string }{
		{`"spi":4097`, `"spi":255`, "reserved"},
		{`"spi":4097`, `"spi":-1`, "spi"},
		{`"name":"a"`, `"name":""`, "0 octets"},
		{`"direction":"out"`, `"direction":"up"`, `direction is "up"`},
		{`"direction":"out"`, `"direction":"in"`, "hands out no numbers"},
		{`"direction":"in"`, `"direction":"out"`, "no replay window"},
		{`"10.0.0.2"`, `""`, "no destination"},
		{`"10.0.0.2"`, `"fe80::1%eth0"`, "no destination"},
		{`"protocol":50`, `"protocol":6`, "protocol is 6"},
		{`"key_id":"`, `"key_id":"../../`, "names no key"},
		{`"next":6`, `"next":0`, "cannot be"},
		{`"next":6`, `"next":4294967297`, "cannot be"},
		{`"first":1`, `"first":7`, "cannot be"},
		{`"size":64`, `"size":31`, "31 packets"},
		{`"size":64`, `"size":65`, "has 8 octets, want 9"},
		{`"top":9`, `"top":4294967296`, "extended"},
		{`"created":1000000000000000000`, `"created":-1`, "1970"},
		{`"created":1000000000000000000`, `"created":1,"path_mtu":65536`, "path MTU"},
		{`"created":1000000000000000000`, `"created":1,"path_mtu_until":9223372036854775807`, "path MTU"},
		{`"created"`, `"made"`, "unknown field"},
		{`":1}}`, `":0}}`, "cannot be"},
		{`":1}}`, `":1}} {}`, "more follows"},
	} {
		text := strings.Replace(good, c.from, c.to, 1)
		if text == good {
			t.Errorf("%s is not in %s", c.from, good)
		}
		if _, err := ParseExport([]byte(text)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: error %v, expected one that says %q", c.to, err, c.says)
		}
	}
}

func FuzzParseExport(f *testing.F) {
	f.Add(goodExport(f))
	f.Add([]byte(`{"security_associations":[]}`))
	f.Add([]byte(`{"security_associations":[{"name":"a","direction":"in","spi":256,"destination":"::1","protocol":51,"key_id":"00000000000000000000000000000000","created":0,"packets":0,"bytes":0,"esn":true,"replay":{"size":32,"top":18446744073709551615,"seen":"/////w=="}}]}`))
	f.Add([]byte(``))
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseExport(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseExport(again); err != nil {
			t.Fatalf("%v\n%s", err, again)
		}
		r := NewResume(e)
		// Whatever it says, an SA can be made of it, or is refused.
		for _, d := range []Direction{Outbound, Inbound} {
			cfg := testConfig(d)
			cfg.Resume = r
			for i := range e.SAs {
				st := &e.SAs[i]
				cfg.ESN = st.ESN
				s := mustMaybe(cfg)
				if s == nil {
					continue
				}
				s.restore(st)
				if n, r := s.TakeSeq(1); r == wire.DropNone && n < e.Next[s.keyID] {
					t.Fatalf("number %d, but %d was told to be next", n, e.Next[s.keyID])
				}
				if st.Replay != nil && s.replay != nil && s.Accept(st.Replay.Top) == wire.DropNone && st.Replay.Seen[0]&1 != 0 {
					t.Fatalf("number %d is accepted again", st.Replay.Top)
				}
				_ = s.State()
				_ = s.Close()
			}
		}
	})
}

func mustMaybe(cfg SAConfig) *SA {
	cfg.Store = NewMemoryStore()
	s, err := New(cfg)
	if err != nil {
		return nil
	}
	return s
}
