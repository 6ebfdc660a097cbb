package keyer

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

var (
	_ Manager = (*SAUser)(nil)
	_ Manager = (*Sink)(nil)
)

// fakeTransform has sizes and no effect.
type fakeTransform struct{ proto uint8 }

func (f fakeTransform) Protocol() uint8    { return f.proto }
func (fakeTransform) HeaderLen() int       { return 16 }
func (fakeTransform) TrailerLen(int) int   { return 18 }
func (fakeTransform) MaxPayload(r int) int { return r - 34 }
func (fakeTransform) Seal(*transform.Packet, transform.Sequence) wire.DropReason {
	return wire.DropNone
}
func (fakeTransform) Open(*transform.Packet, transform.Sequence) wire.DropReason {
	return wire.DropNone
}

// lookup knows gcm (counter mode, 20 octets), ctr (counter mode, 16 and 4) and cbc
// (16 and 4).
func lookup(proto uint8, name string) (transform.Algorithm, error) {
	a := transform.Algorithm{Name: name, Protocol: proto}
	switch name {
	case "gcm":
		a.EncryptionKeyLen, a.CounterMode = 20, true
	case "ctr":
		a.EncryptionKeyLen, a.IntegrityKeyLen, a.CounterMode = 16, 4, true
	case "cbc":
		a.EncryptionKeyLen, a.IntegrityKeyLen = 16, 4
	default:
		return a, fmt.Errorf("unknown algorithm %q", name)
	}
	a.New = func(enc, integ []byte, _ transform.Options) (transform.Transform, error) {
		if len(enc) != a.EncryptionKeyLen || len(integ) != a.IntegrityKeyLen {
			return nil, fmt.Errorf("keys have %d and %d octets, want %d and %d", len(enc), len(integ), a.EncryptionKeyLen, a.IntegrityKeyLen)
		}
		return fakeTransform{proto}, nil
	}
	return a, nil
}

func key(n int, fill byte) sa.Secret { return sa.NewSecret([]byte(strings.Repeat(string(fill), n))) }

func spec(name string, d sa.Direction, spi uint32, fill byte) Spec {
	return Spec{
		Name: name, Direction: d, SPI: spi, Dst: netip.MustParseAddr("10.0.0.2"), Proto: transform.ProtoESP,
		Algorithm: "gcm", EncryptionKey: key(20, fill),
	}
}

func started(t *testing.T, store sa.SequenceStore, specs ...Spec) (*SAUser, *sa.SAD) {
	t.Helper()
	u, err := NewSAUser(SAUserConfig{Specs: specs, Algorithms: lookup, Store: store})
	if err != nil {
		t.Fatal(err)
	}
	db := sa.NewSAD()
	if err := u.Start(&Commands{SAD: db}); err != nil {
		t.Fatal(err)
	}
	return u, db
}

func inbound(db *sa.SAD, spi uint32) *sa.SA {
	return db.Lookup(spi, netip.MustParseAddr("10.0.0.2"), transform.ProtoESP)
}

func TestR44_BadSpecsAreErrors(t *testing.T) {
	out, in := spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')
	change := func(s Spec, f func(*Spec)) Spec { f(&s); return s }
	for _, c := range []struct {
		name  string
		specs []Spec
		want  string
	}{
		{"name twice", []Spec{out, change(in, func(s *Spec) { s.Name = "out" })}, `two SAs are named "out"`},
		{"SPI twice", []Spec{in, change(in, func(s *Spec) { s.Name, s.EncryptionKey = "in2", key(20, 'x') })}, `SA "in" and SA "in2" are both esp 0x00001002 to 10.0.0.2`},
		{"key both ways", []Spec{out, change(in, func(s *Spec) { s.EncryptionKey = out.EncryptionKey })}, `SA "out" and SA "in" have the same counter-mode key`},
		{"key length", []Spec{change(out, func(s *Spec) { s.EncryptionKey = key(19, 'o') })}, `SA "out": keys have 19 and 0 octets, want 20 and 0`},
		{"algorithm", []Spec{change(out, func(s *Spec) { s.Algorithm = "rot13" })}, `SA "out": unknown algorithm "rot13"`},
		{"SPI", []Spec{change(out, func(s *Spec) { s.SPI = 1 })}, "reserved"},
	} {
		if err := Check(c.specs, lookup); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if _, err := NewSAUser(SAUserConfig{Specs: c.specs, Algorithms: lookup, Store: sa.NewMemoryStore()}); err == nil {
			t.Errorf("%s: a sauser was made", c.name)
		}
	}
	if err := Check([]Spec{out, in}, lookup); err != nil {
		t.Error(err)
	}
	cbc := func(s *Spec) { s.Algorithm, s.EncryptionKey, s.IntegrityKey = "cbc", key(16, 'c'), key(4, 'c') }
	if err := Check([]Spec{change(out, cbc), change(in, cbc)}, lookup); err != nil {
		t.Errorf("one CBC key both ways: %v", err)
	}
	if _, err := NewSAUser(SAUserConfig{Specs: []Spec{out}, Algorithms: lookup}); !errors.Is(err, sa.ErrNoSequenceStore) {
		t.Errorf("without store: got %v, want ErrNoSequenceStore", err)
	}
	// An empty key is none that two SAs share.
	none := func(s *Spec) { s.EncryptionKey = sa.Secret{} }
	if err := Check([]Spec{change(out, none), change(in, none)}, lookup); err != nil {
		t.Error(err)
	}
}

func TestR44_StartAndClose(t *testing.T) {
	store := sa.NewMemoryStore()
	specs := []Spec{spec("out", sa.Outbound, 0x1001, 'o'), spec("in", sa.Inbound, 0x1002, 'i')}
	u, db := started(t, store, specs...)
	specs[0].EncryptionKey.Clear() // the caller may
	out, in := u.Lineage("out").Outbound(), inbound(db, 0x1002)
	if out == nil || in == nil || in.Lineage != u.Lineage("in") || out.Usable(0) != wire.DropNone || in.Usable(0) != wire.DropNone {
		t.Fatalf("SAs are not at work: %v %v", out, in)
	}
	if u.Lineage("in").Outbound() != nil || u.Lineage("nobody") != nil || u.Name() != "sauser" {
		t.Error("lineages or name are wrong")
	}
	if err := u.Start(&Commands{SAD: db}); err == nil {
		t.Error("started twice")
	}
	if first, r := out.TakeSeq(5); first != 1 || r != wire.DropNone {
		t.Errorf("numbers begin with %d, %v", first, r)
	}
	if err := u.Close(); err != nil {
		t.Fatal(err)
	}
	if db.Len() != 0 || u.Lineage("out").Outbound() != nil || out.Usable(0) != wire.DropKeyInvalid {
		t.Error("SAs are at work after Close")
	}
	if err := u.SetKey("out", key(20, 'n'), sa.Secret{}); err == nil {
		t.Error("a key was set after Close")
	}
	again, _ := started(t, store, spec("out", sa.Outbound, 0x1001, 'o'))
	if first, r := again.Lineage("out").Outbound().TakeSeq(1); first != 6 || r != wire.DropNone {
		t.Errorf("numbers go on with %d, %v, want 6", first, r)
	}
}

func TestR44_FailedStartLeavesNothing(t *testing.T) {
	store := sa.NewMemoryStore()
	started(t, store, spec("b", sa.Outbound, 0x1009, 'b')) // holds the key of b
	u, err := NewSAUser(SAUserConfig{Algorithms: lookup, Store: store,
		Specs: []Spec{spec("a", sa.Outbound, 0x1001, 'a'), spec("b", sa.Outbound, 0x1002, 'b')}})
	if err != nil {
		t.Fatal(err)
	}
	db := sa.NewSAD()
	if err := u.Start(&Commands{SAD: db}); !errors.Is(err, sa.ErrKeyInUse) {
		t.Fatalf("got %v, want ErrKeyInUse", err)
	}
	if db.Len() != 0 || u.Lineage("a").Outbound() != nil {
		t.Error("half of the SAs are at work")
	}
	started(t, store, spec("a", sa.Outbound, 0x1001, 'a')) // its claim was given back
}

func TestR44_KeyStates(t *testing.T) {
	empty := spec("in", sa.Inbound, 0x1002, 'i')
	empty.EncryptionKey = sa.Secret{}
	out := spec("out", sa.Outbound, 0x1001, 'o')
	u, db := started(t, sa.NewMemoryStore(), empty, out)
	state := func(name string, want KeyState, reason wire.DropReason) *sa.SA {
		t.Helper()
		s := inbound(db, 0x1002)
		if name == "out" {
			s = u.Lineage("out").Outbound()
		}
		if got, err := u.State(name); got != want || err != nil {
			t.Fatalf("state of %s is %v, %v, want %v", name, got, err, want)
		}
		if got := s.Usable(0); got != reason {
			t.Fatalf("%s: got %v, want %v", name, got, reason)
		}
		return s
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	state("in", Empty, wire.DropKeyInvalid)
	do(u.InvalidateKey("in"))
	state("in", Empty, wire.DropKeyInvalid)
	do(u.SetKey("in", key(20, 'i'), sa.Secret{}))
	first := state("in", Valid, wire.DropNone)
	first.Accept(7)

	do(u.InvalidateKey("in"))
	if s := state("in", Invalid, wire.DropKeyInvalid); s != first {
		t.Error("InvalidateKey made another SA")
	}
	do(u.SetKey("in", key(20, 'i'), sa.Secret{}))
	if _, r := state("in", Valid, wire.DropNone).CheckReplay(7); r != wire.DropReplay {
		t.Errorf("the same key has forgotten what it saw: %v", r)
	}
	do(u.SetKey("in", key(20, 'j'), sa.Secret{}))
	if s := state("in", Valid, wire.DropNone); s == first {
		t.Error("another key kept the SA")
	}
	if r := first.Usable(0); r != wire.DropKeyInvalid {
		t.Errorf("the old key still works: %v", r)
	}

	sender := state("out", Valid, wire.DropNone)
	sender.TakeSeq(9)
	do(u.InvalidateKey("out"))
	do(u.SetKey("out", key(20, 'o'), sa.Secret{}))
	if n, _ := state("out", Valid, wire.DropNone).TakeSeq(1); n != 10 {
		t.Errorf("the same key goes on with %d, want 10", n)
	}
	do(u.SetKey("out", key(20, 'p'), sa.Secret{}))
	if n, _ := state("out", Valid, wire.DropNone).TakeSeq(1); n != 1 {
		t.Errorf("another key begins with %d, want 1", n)
	}
	do(u.ClearKey("out"))
	state("out", Empty, wire.DropKeyInvalid)
	do(u.SetKey("out", key(20, 'o'), sa.Secret{}))
	if n, _ := state("out", Valid, wire.DropNone).TakeSeq(1); n != 11 {
		t.Errorf("the first key goes on with %d, want 11", n)
	}
	do(u.Close())
}

func TestR44_RefusedKeysChangeNothing(t *testing.T) {
	u, db := started(t, sa.NewMemoryStore(), spec("in", sa.Inbound, 0x1002, 'i'), spec("out", sa.Outbound, 0x1001, 'o'))
	before := inbound(db, 0x1002)
	for _, c := range []struct {
		name, sa string
		enc      sa.Secret
		want     string
	}{
		{"length", "in", key(21, 'x'), "keys have 21 and 0 octets"},
		{"empty", "in", sa.Secret{}, "the key is empty"},
		{"nonce", "in", key(20, 'o'), `SA "out" and SA "in" have the same counter-mode key`},
		{"name", "nobody", key(20, 'x'), `called "nobody"`},
	} {
		if err := u.SetKey(c.sa, c.enc, sa.Secret{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	// An invalid key has been used, so nobody else may have it.
	if err := u.InvalidateKey("out"); err != nil {
		t.Fatal(err)
	}
	if err := u.SetKey("in", key(20, 'o'), sa.Secret{}); err == nil {
		t.Error("the invalid key of another SA was taken")
	}
	if inbound(db, 0x1002) != before || before.Usable(0) != wire.DropNone {
		t.Error("a refused key changed the SA")
	}
	for _, err := range []error{u.InvalidateKey("nobody"), u.ClearKey("nobody")} {
		if err == nil {
			t.Error("nobody's key was changed")
		}
	}
}

// With CTR and an HMAC the nonces belong to the encryption key, whatever the
// integrity key.
func TestR40_NewIntegrityKeyDoesNotRestartNonces(t *testing.T) {
	s := spec("out", sa.Outbound, 0x1001, 'o')
	s.Algorithm, s.EncryptionKey, s.IntegrityKey = "ctr", key(16, 'e'), key(4, 'i')
	u, _ := started(t, sa.NewMemoryStore(), s)
	u.Lineage("out").Outbound().TakeSeq(4)
	if err := u.SetKey("out", key(16, 'e'), key(4, 'j')); err != nil {
		t.Fatal(err)
	}
	if n, r := u.Lineage("out").Outbound().TakeSeq(1); n != 5 || r != wire.DropNone {
		t.Errorf("got %d, %v, want 5", n, r)
	}
}

func TestR44_KeysBeforeStart(t *testing.T) {
	s := spec("out", sa.Outbound, 0x1001, 'o')
	s.EncryptionKey = sa.Secret{}
	i := spec("in", sa.Inbound, 0x1002, 'i')
	u, err := NewSAUser(SAUserConfig{Specs: []Spec{s, i}, Algorithms: lookup, Store: sa.NewMemoryStore()})
	if err != nil {
		t.Fatal(err)
	}
	k := key(20, 'o')
	if err := errors.Join(u.SetKey("out", k, sa.Secret{}), u.InvalidateKey("in")); err != nil {
		t.Fatal(err)
	}
	k.Clear()
	db := sa.NewSAD()
	if err := u.Start(&Commands{SAD: db}); err != nil {
		t.Fatal(err)
	}
	if r := u.Lineage("out").Outbound().Usable(0); r != wire.DropNone {
		t.Errorf("out: %v", r)
	}
	if r := inbound(db, 0x1002).Usable(0); r != wire.DropKeyInvalid {
		t.Errorf("in: %v", r)
	}
}

func TestR41_EventsReachTheOwner(t *testing.T) {
	var events []string
	s := spec("in", sa.Inbound, 0x1002, 'i')
	s.Soft.Packets, s.Hard.Packets = 1, 2
	u, err := NewSAUser(SAUserConfig{Specs: []Spec{s}, Algorithms: lookup, Events: func(e sa.Event) {
		events = append(events, fmt.Sprint(e.SA.Name, " ", e.Kind))
	}})
	if err != nil {
		t.Fatal(err)
	}
	db := sa.NewSAD()
	if err := u.Start(&Commands{SAD: db}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		inbound(db, 0x1002).Used(1, 1, 1)
	}
	if got := strings.Join(events, ", "); got != "in expire-soft, in expire-hard" {
		t.Errorf("events: %s", got)
	}
}

func TestR44_SinkDiscardsAndCounts(t *testing.T) {
	k, err := NewSink([]Spec{spec("out", sa.Outbound, 0x1001, 0), spec("in", sa.Inbound, 0x1002, 0)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	db := sa.NewSAD()
	if err := k.Start(&Commands{SAD: db}); err != nil {
		t.Fatal(err)
	}
	if err := k.Start(&Commands{SAD: db}); err == nil {
		t.Error("started twice")
	}
	for _, s := range []*sa.SA{k.Lineage("out").Outbound(), inbound(db, 0x1002)} {
		r := s.Usable(0)
		if r != wire.DropPolicyDiscard {
			t.Errorf("%s: %v", s.Name, r)
		}
		s.Drops.Add(r)
	}
	if k.Discarded() != 2 || k.Name() != "sink" {
		t.Errorf("%s discarded %d", k.Name(), k.Discarded())
	}
	other, err := NewSink([]Spec{spec("out", sa.Outbound, 0x1003, 0), spec("in", sa.Inbound, 0x1002, 0)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(&Commands{SAD: db}); !errors.Is(err, sa.ErrDuplicateSA) || db.Len() != 2 || other.Lineage("out").Outbound() != nil {
		t.Errorf("a failed start: %v, %d SAs", err, db.Len())
	}
	if err := k.Close(); err != nil || db.Len() != 0 || k.Lineage("out").Outbound() != nil {
		t.Errorf("after Close: %v, %d SAs", err, db.Len())
	}
	if _, err := NewSink([]Spec{{Name: "x"}}, nil); err == nil {
		t.Error("an SA without addresses")
	}
}
