package sa

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bitw/netstack/wire"
)

func TestR41_DeadIsToldOnceUntilASignOfLife(t *testing.T) {
	const second = int64(time.Second)
	dead := 0
	l := &Lineage{Name: "peer", DeadAfter: 10 * time.Second, Notify: func(ev Event) {
		if ev.Kind != Dead || ev.Lineage == nil || ev.Lineage.Name != "peer" {
			t.Errorf("event %+v", ev)
		}
		dead++
	}}
	db := NewSAD()
	now := int64(1e18)
	var in, out *SA
	for _, dir := range []Direction{Inbound, Outbound} {
		cfg := testConfig(dir)
		cfg.Lineage, cfg.Clock = l, func() int64 { return now }
		s := mustNew(t, cfg)
		if err := db.Add(s); err != nil {
			t.Fatal(err)
		}
		if dir == Inbound {
			in = s
		} else {
			out = s
		}
	}
	for _, c := range []struct {
		what          string
		seconds       int // of ticks
		sends, hears  bool
		dead          int // in all, at the end
		hearsAtTheEnd bool
	}{
		{"nothing sent", 60, false, false, 0, false},
		{"both ways", 60, true, true, 0, false},
		{"nothing heard, not long enough", 9, true, false, 0, true},
		{"heard in time", 9, true, false, 0, false},
		{"nothing heard", 5, true, false, 1, false},
		{"still nothing", 60, true, false, 1, true},
		{"anew", 12, true, false, 2, false},
		{"silent, too", 60, false, false, 2, false},
	} {
		for range c.seconds {
			now += second
			if c.sends {
				out.Used(1, 1, now)
			}
			if c.hears {
				in.Used(1, 1, now)
			}
			if err := db.Tick(now); err != nil {
				t.Fatal(err)
			}
		}
		if c.hearsAtTheEnd {
			in.Used(1, 1, now)
		}
		if dead != c.dead {
			t.Errorf("%s: %d events, expected %d", c.what, dead, c.dead)
		}
	}
}

func TestR40_RFC4303_3_3_3_FewNumbersLeftIsToldOnce(t *testing.T) {
	var kinds []EventKind
	cfg := testConfig(Outbound)
	cfg.Lineage = &Lineage{Name: "a", Notify: func(ev Event) { kinds = append(kinds, ev.Kind) }}
	cfg.SequenceBlock = 1 << 32
	s := mustNew(t, cfg)
	const low = math.MaxUint32 - math.MaxUint32/8
	if _, r := s.TakeSeq(low); r != wire.DropNone {
		t.Fatal(r)
	}
	if len(kinds) != 0 {
		t.Errorf("events %v too early", kinds)
	}
	for range 3 {
		s.TakeSeq(1)
	}
	if len(kinds) != 1 || kinds[0] != SequenceLow {
		t.Errorf("events %v, expected sequence-low once", kinds)
	}
	s.TakeSeq(math.MaxUint32 - low - 3)
	if _, r := s.TakeSeq(1); r != wire.DropSeqExhausted {
		t.Errorf("after the last number: %v", r)
	}
}

func TestR44_WaitersAreAnsweredOnce(t *testing.T) {
	l := NewLineage("a")
	var answers []bool
	note := func(granted bool) { answers = append(answers, granted) }
	l.Wait(note)
	stopped := l.Wait(note)
	if !stopped.Stop() || stopped.Stop() {
		t.Error("a waiter stops once")
	}
	l.Refuse()
	l.Refuse()
	cfg := testConfig(Outbound)
	cfg.Lineage = l
	s := mustNew(t, cfg)
	l.Wait(note)
	for range 2 {
		if _, err := l.Switch(s); err != nil {
			t.Fatal(err)
		}
	}
	w := l.Wait(note) // it has one
	if w.Stop() {
		t.Error("an answered waiter stopped")
	}
	if fmt.Sprint(answers) != "[false true true]" {
		t.Errorf("answers %v", answers)
	}
	// Whoever waits while the SA comes hears of it, however the two meet.
	for range 1000 {
		if _, err := l.Switch(nil); err != nil {
			t.Fatal(err)
		}
		answered := make(chan struct{}, 1)
		var wg sync.WaitGroup
		wg.Go(func() { l.Wait(func(bool) { answered <- struct{}{} }) })
		wg.Go(func() { _, _ = l.Switch(s) })
		wg.Wait()
		select {
		case <-answered:
		case <-time.After(20 * time.Second):
			t.Fatal("never answered")
		}
	}
	// A closed SA cannot be switched to.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Switch(s); err == nil {
		t.Error("switched to a closed SA")
	}
}

// modelStepsOf is how many steps a model test takes: BITW_MODEL_STEPS, or few.
func modelStepsOf(t *testing.T, few int) int {
	if v := os.Getenv("BITW_MODEL_STEPS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			t.Fatalf("BITW_MODEL_STEPS is %q, expected a number of steps", v)
		}
		return n
	}
	return few
}

// A modelSA is what an SA should be, in obvious form.
type modelSA struct {
	sa             *SA
	key            byte
	packets, bytes uint64
	made           int64
	next           uint64 // number
	retireAt       int64  // 0 for never
	soft, hard     bool
	deleted        bool
}

const (
	modelSoftPackets, modelHardPackets = 20, 30
	modelSoftBytes, modelHardBytes     = 2000, 3000
	modelSoftTime, modelHardTime       = 40 * time.Second, 60 * time.Second
)

// notice is what Tick and Used should notice.
func (m *modelSA) notice(now int64) {
	if m.packets >= modelSoftPackets || m.bytes >= modelSoftBytes || now >= m.made+int64(modelSoftTime) {
		m.soft = true
	}
	if m.packets >= modelHardPackets || m.bytes >= modelHardBytes || now >= m.made+int64(modelHardTime) {
		m.hard = true
	}
}

// A rollover is a SAD with one lineage, driven at random, and its model.
type rollover struct {
	now     int64
	db      *SAD
	l       *Lineage
	store   *MemoryStore
	all     []*modelSA // not deleted
	current *modelSA
	used    map[byte]uint64 // next number of each key
	spi     uint32
	events  map[*SA][2]int // soft, hard
}

func newRollover() *rollover {
	r := &rollover{now: 1e18, db: NewSAD(), store: NewMemoryStore(), used: make(map[byte]uint64), spi: 0x1000, events: make(map[*SA][2]int)}
	r.l = &Lineage{Name: "a", Notify: func(ev Event) {
		n := r.events[ev.SA]
		n[ev.Kind-ExpireSoft]++
		r.events[ev.SA] = n
	}}
	return r
}

func (r *rollover) pick(t *rapid.T) *modelSA {
	if len(r.all) == 0 {
		return nil
	}
	return r.all[rapid.IntRange(0, len(r.all)-1).Draw(t, "sa")]
}

func (r *rollover) add(t *rapid.T) {
	dir := Direction(rapid.IntRange(0, 1).Draw(t, "direction"))
	m := &modelSA{key: rapid.ByteRange(1, 6).Draw(t, "key"), made: r.now, next: 1}
	r.spi++
	cfg := testConfig(dir)
	cfg.Key.SPI, cfg.EncryptionKey, cfg.Lineage, cfg.Store = r.spi, key(20, m.key), r.l, r.store
	cfg.Clock = func() int64 { return r.now }
	cfg.Soft = Lifetime{Packets: modelSoftPackets, Bytes: modelSoftBytes, Time: modelSoftTime}
	cfg.Hard = Lifetime{Packets: modelHardPackets, Bytes: modelHardBytes, Time: modelHardTime}
	held := false
	for _, other := range r.all {
		held = held || dir == Outbound && other.sa.Direction == Outbound && other.key == m.key
	}
	s, err := New(cfg)
	if (err != nil) != held {
		t.Fatalf("key %d, which is held: %v: %v", m.key, held, err)
	}
	if held {
		return
	}
	if dir == Outbound {
		m.next = max(1, r.used[m.key])
	}
	m.sa = s
	if err := r.db.Add(s); err != nil {
		t.Fatal(err)
	}
	r.all = append(r.all, m)
}

func (r *rollover) switchTo(t *rapid.T) {
	m := r.pick(t)
	if m == nil {
		return
	}
	old, err := r.l.Switch(m.sa)
	if m.sa.Direction == Inbound || m.retireAt != 0 {
		if err == nil {
			t.Fatal("switched to an SA that is inbound or retiring")
		}
		return
	}
	if err != nil || r.current == nil && old != nil || r.current != nil && old != r.current.sa {
		t.Fatalf("switched from %v, %v", old, err)
	}
	r.current = m
}

func (r *rollover) retire(t *rapid.T) {
	m := r.pick(t)
	if m == nil {
		return
	}
	grace := time.Duration(rapid.IntRange(0, 20).Draw(t, "grace")) * time.Second
	err := r.db.Retire(m.sa, grace)
	if (err != nil) != (m == r.current) {
		t.Fatalf("retiring, current: %v: %v", m == r.current, err)
	}
	if err == nil {
		m.retireAt = r.now + int64(grace)
	}
}

// forget is what a deletion should leave.
func (r *rollover) forget(m *modelSA) {
	m.deleted = true
	if m.sa.Direction == Outbound {
		r.used[m.key] = m.next
	}
	if r.current == m {
		r.current = nil
	}
	for i := range r.all {
		if r.all[i] == m {
			r.all = append(r.all[:i], r.all[i+1:]...)
			break
		}
	}
}

func (r *rollover) delete(t *rapid.T) {
	m := r.pick(t)
	if m == nil {
		return
	}
	if err := r.db.Delete(m.sa); err != nil {
		t.Fatal(err)
	}
	r.forget(m)
	if r := m.sa.Usable(r.now); r != wire.DropKeyInvalid {
		t.Fatalf("a deleted SA is %v", r)
	}
}

func (r *rollover) tick(t *rapid.T) {
	r.now += int64(rapid.IntRange(0, 10).Draw(t, "seconds")) * int64(time.Second)
	if err := r.db.Tick(r.now); err != nil {
		t.Fatal(err)
	}
	for _, m := range append([]*modelSA(nil), r.all...) {
		m.notice(r.now)
		if m.retireAt != 0 && r.now >= m.retireAt {
			r.forget(m)
		}
	}
}

// carry sends or receives packets as the engine does.
func (r *rollover) carry(t *rapid.T) {
	n, octets := rapid.IntRange(1, 4).Draw(t, "packets"), rapid.IntRange(1, 300).Draw(t, "octets")
	m := r.current
	if s := r.l.Outbound(); (s == nil) != (m == nil) || m != nil && s != m.sa {
		t.Fatalf("the lineage sends by %v", s)
	}
	if rapid.Bool().Draw(t, "inbound") {
		m = r.pick(t)
	}
	if m == nil {
		return
	}
	reason := m.sa.Usable(r.now)
	if r.now >= m.made+int64(modelHardTime) {
		m.hard = true
	}
	if (reason == wire.DropLifetimeExpired) != m.hard {
		t.Fatalf("Usable is %v, hard lifetime over: %v", reason, m.hard)
	}
	if m.hard {
		return
	}
	if m.sa.Direction == Outbound {
		first, reason := m.sa.TakeSeq(n)
		fits := m.packets+uint64(n) <= modelHardPackets
		if (reason == wire.DropNone) != fits {
			t.Fatalf("%d numbers after %d packets: %v", n, m.packets, reason)
		}
		if !fits {
			return
		}
		if first != m.next {
			t.Fatalf("number %d, expected %d", first, m.next)
		}
		m.next += uint64(n)
	}
	m.sa.Used(n, octets, r.now)
	m.packets += uint64(n)
	m.bytes += uint64(octets)
	m.notice(r.now)
}

// check compares everything that can be seen.
func (r *rollover) check(t *rapid.T) {
	if r.db.Len() != len(r.all) {
		t.Fatalf("%d SAs, expected %d", r.db.Len(), len(r.all))
	}
	for _, m := range r.all {
		find := r.db.Lookup
		if m.sa.Direction == Outbound {
			find = r.db.LookupOutbound
		}
		if find(m.sa.Key.SPI, m.sa.Key.Dst, m.sa.Key.Proto) != m.sa {
			t.Fatalf("%v is not found", m.sa.Key)
		}
		soft, hard := m.sa.Expired()
		if soft != m.soft || hard != m.hard || m.sa.Retiring() != (m.retireAt != 0) {
			t.Fatalf("soft %v, hard %v, retiring %v; expected %v, %v, %v", soft, hard, m.sa.Retiring(), m.soft, m.hard, m.retireAt != 0)
		}
		told := r.events[m.sa]
		if told[0] != count(m.soft) || told[1] != count(m.hard) {
			t.Fatalf("events %v, soft %v, hard %v", told, m.soft, m.hard)
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Lineage, lifetimes, retirement and sequence numbers against an obvious model.
// BITW_MODEL_STEPS sets how many steps.
func TestR41_R40_RolloverModel(t *testing.T) {
	left := modelStepsOf(t, 20000)
	for left > 0 {
		rapid.Check(t, func(t *rapid.T) {
			r := newRollover()
			actions := []func(*rapid.T){r.add, r.add, r.switchTo, r.retire, r.delete, r.tick, r.carry, r.carry, r.carry}
			for range rapid.IntRange(1, 200).Draw(t, "steps") {
				actions[rapid.IntRange(0, len(actions)-1).Draw(t, "action")](t)
				r.check(t)
				left--
			}
		})
	}
}
