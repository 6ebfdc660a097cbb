package sa

import (
	"net/netip"
	"testing"
	"time"

	"bitw/sa/transform"
)

// encapSA is an ESP SA in UDP.
func encapSA(t *testing.T, dir Direction, l *Lineage, spi uint32, created int64, change func(*SAConfig)) *SA {
	t.Helper()
	alg, err := transform.Lookup(transform.ProtoESP, "null-sha256")
	if err != nil {
		t.Fatal(err)
	}
	cfg := SAConfig{
		Name: "x", Key: Key{spi, netip.MustParseAddr("192.0.2.2"), transform.ProtoESP}, Src: netip.MustParseAddr("192.0.2.1"),
		Direction: dir, Mode: Tunnel, Algorithm: alg, IntegrityKey: NewSecret(make([]byte, 32)), Lineage: l,
		Encap: &Encap{LocalPort: 4500, RemotePort: 4500, Float: true}, Clock: func() int64 { return created },
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestR42_FollowForwardOnly(t *testing.T) {
	l := NewLineage("pair")
	var events []Event
	l.Notify = func(ev Event) { events = append(events, ev) }
	out := encapSA(t, Outbound, l, 0x1000, 1, nil)
	if _, err := l.Switch(out); err != nil {
		t.Fatal(err)
	}
	old, next := encapSA(t, Inbound, l, 0x2000, 10, nil), encapSA(t, Inbound, l, 0x2001, 20, nil)
	still := encapSA(t, Inbound, l, 0x2002, 30, func(c *SAConfig) { c.Encap = &Encap{LocalPort: 4500, RemotePort: 4500} })
	at := netip.MustParseAddrPort
	steps := []struct {
		in    *SA
		seq   uint64
		from  string
		moved bool
	}{
		{old, 5, "192.0.2.2:4500", false}, // there already
		{old, 6, "203.0.113.1:1", true},
		{old, 6, "203.0.113.2:2", false}, // not higher
		{old, 5, "203.0.113.2:2", false},
		{old, 7, "203.0.113.1:1", false},   // there already
		{next, 1, "203.0.113.3:3", true},   // another SA counts for itself
		{old, 100, "203.0.113.1:1", false}, // an older SA knows no better
		{still, 9, "203.0.113.9:9", false},
		{next, 2, "[2001:db8::1]:3", false},
		{next, 2, "0.0.0.0:3", false},
		{next, 2, "127.0.0.1:3", false},
		{next, 2, "255.255.255.255:3", false},
		{next, 2, "192.0.2.2:4500", true}, // home again
	}
	moves := uint64(0)
	for i, s := range steps {
		if got := l.Follow(s.in, s.seq, at(s.from)); got != s.moved {
			t.Errorf("step %d, %s with number %d: moved %v", i, s.from, s.seq, got)
		}
		if s.moved {
			moves++
			if out.Remote() != at(s.from) {
				t.Errorf("step %d: packets go to %v", i, out.Remote())
			}
		}
	}
	if l.Moves() != moves || len(events) != int(moves) || events[0].Kind != PeerMoved {
		t.Errorf("%d moves, events %v", l.Moves(), events)
	}
}

func TestR42_EncapIndex(t *testing.T) {
	db := NewSAD()
	here := netip.MustParseAddr("192.0.2.2")
	a, b := encapSA(t, Inbound, nil, 0x2000, 1, nil), encapSA(t, Inbound, nil, 0x2001, 1, nil)
	c := encapSA(t, Inbound, nil, 0x2001, 1, nil)
	out := encapSA(t, Outbound, nil, 0x2000, 1, nil)
	expect := func(want bool, outbound int) {
		t.Helper()
		if db.Encapsulated(here, 4500) != want || db.Encapsulated(here, 4501) || db.Encapsulated(netip.MustParseAddr("192.0.2.3"), 4500) {
			t.Errorf("listening: %v, expected %v", db.Encapsulated(here, 4500), want)
		}
		if n := len(db.Encapsulating()); n != outbound {
			t.Errorf("%d outbound SAs, expected %d", n, outbound)
		}
	}
	expect(false, 0)
	for _, s := range []*SA{a, b, out} {
		if err := db.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	expect(true, 1)
	if err := db.Replace(b, c); err != nil {
		t.Fatal(err)
	}
	db.Remove(a)
	db.Remove(a)
	expect(true, 1)
	db.Remove(c)
	db.Remove(out)
	expect(false, 0)
}

func TestR42_EncapConfig(t *testing.T) {
	alg, _ := transform.Lookup(transform.ProtoESP, "null-sha256")
	for name, change := range map[string]func(*SAConfig){
		"no port":        func(c *SAConfig) { c.Encap.LocalPort = 0 },
		"no source":      func(c *SAConfig) { c.Mode, c.Src = Transport, netip.Addr{} },
		"keepalive":      func(c *SAConfig) { c.Encap.Keepalive = time.Millisecond },
		"float, no mind": func(c *SAConfig) { c.Direction, c.ReplayWindow = Inbound, ReplayOff },
		"original":       func(c *SAConfig) { c.Encap.OriginalRemote = netip.MustParseAddr("10.0.0.1") },
		"family":         func(c *SAConfig) { c.Mode, c.Encap.OriginalRemote = Transport, netip.MustParseAddr("::1") },
		"padding":        func(c *SAConfig) { c.TFCPadding = -2 },
		"dummies":        func(c *SAConfig) { c.Dummies = MaxDummies + 1 },
	} {
		cfg := SAConfig{
			Name: "x", Key: Key{0x1000, netip.MustParseAddr("192.0.2.2"), transform.ProtoESP}, Src: netip.MustParseAddr("192.0.2.1"),
			Direction: Outbound, Mode: Tunnel, Algorithm: alg, IntegrityKey: NewSecret(make([]byte, 32)),
			Encap: &Encap{LocalPort: 4500, RemotePort: 4500, Float: true},
		}
		change(&cfg)
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
