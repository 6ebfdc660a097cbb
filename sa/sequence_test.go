package sa

import (
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"

	"bitw/netstack/wire"
)

// A shakyStore is a MemoryStore that can be told to fail. reserved gets a value
// for each attempt to reserve.
type shakyStore struct {
	*MemoryStore
	mu       sync.Mutex
	fail     error
	reserved chan error
}

func newShakyStore() *shakyStore {
	return &shakyStore{MemoryStore: NewMemoryStore(), reserved: make(chan error, 1000)}
}

func (s *shakyStore) setFail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

type shakyClaim struct {
	SequenceClaim
	store *shakyStore
}

func (s *shakyStore) Claim(name string) (SequenceClaim, uint64, error) {
	c, next, err := s.MemoryStore.Claim(name)
	if err != nil {
		return nil, 0, err
	}
	return shakyClaim{c, s}, next, nil
}

func (c shakyClaim) Reserve(until uint64) error {
	c.store.mu.Lock()
	err := c.store.fail
	c.store.mu.Unlock()
	if err == nil {
		err = c.SequenceClaim.Reserve(until)
	}
	c.store.reserved <- err
	return err
}

// take takes one number, waiting for the background while it is late.
func take(t *testing.T, s *SA) uint64 {
	t.Helper()
	for {
		n, r := s.TakeSeq(1)
		if r == wire.DropNone {
			return n
		}
		if r != wire.DropSeqUnreserved {
			t.Fatalf("TakeSeq: %v", r)
		}
		runtime.Gosched()
	}
}

func TestR40_FirstNumberIsOneAndRunsFollow(t *testing.T) {
	s := mustNew(t, testConfig(Outbound))
	next := uint64(1)
	for _, n := range []int{1, 44, 1, 64} {
		first, r := s.TakeSeq(n)
		if first != next || r != wire.DropNone {
			t.Fatalf("run of %d: got %d, %v, want %d", n, first, r, next)
		}
		next += uint64(n)
		if s.LastSeq() != next-1 {
			t.Fatalf("last is %d, want %d", s.LastSeq(), next-1)
		}
	}
	if _, r := s.TakeSeq(0); r == wire.DropNone {
		t.Error("a run of none")
	}
	if _, r := mustNew(t, testConfig(Inbound)).TakeSeq(1); r != wire.DropKeyInvalid {
		t.Errorf("an inbound SA gives numbers: %v", r)
	}
}

// RFC 4303 §3.3.3: the counter must not cycle.
func TestR40_NumbersNeverWrap(t *testing.T) {
	for _, c := range []struct {
		name string
		esn  bool
		last uint64
	}{{"32 bits", false, math.MaxUint32}, {"ESN", true, math.MaxUint64 - 1}} {
		cfg := testConfig(Outbound)
		cfg.ESN, cfg.Algorithm, cfg.EncryptionKey, cfg.IntegrityKey, cfg.Store = c.esn, fakeAlgorithm(50, false), key(16, 1), key(4, 1), nil
		s := mustNew(t, cfg)
		s.seq.used.Store(c.last - 3)
		if _, r := s.TakeSeq(4); r != wire.DropSeqExhausted {
			t.Errorf("%s: run beyond the end: %v", c.name, r)
		}
		if first, r := s.TakeSeq(3); first != c.last-2 || r != wire.DropNone {
			t.Errorf("%s: the last run: %d, %v", c.name, first, r)
		}
		for range 3 {
			if _, r := s.TakeSeq(1); r != wire.DropSeqExhausted {
				t.Errorf("%s: after the end: %v", c.name, r)
			}
		}
		if !s.Sent(uint32(c.last)) || s.Sent(uint32(c.last)+1) {
			t.Errorf("%s: Sent does not know the last number", c.name)
		}
	}
}

func TestR40_ExhaustedKeyIsRefused(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.SequenceBlock = 1 << 31
	s := mustNew(t, cfg)
	s.seq.used.Store(math.MaxUint32 - 1)
	s.seq.limit.Store(math.MaxUint32)
	if n := take(t, s); n != math.MaxUint32 {
		t.Fatalf("last number is %d", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg); !errors.Is(err, ErrSequenceExhausted) {
		t.Fatalf("got %v, want ErrSequenceExhausted", err)
	}
	if _, err := New(cfg); !errors.Is(err, ErrSequenceExhausted) {
		t.Fatalf("the refused SA kept its claim: %v", err)
	}
}

func TestR40_CounterModeNeedsAStore(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.Store = nil
	if _, err := New(cfg); !errors.Is(err, ErrNoSequenceStore) {
		t.Errorf("outbound: got %v, want ErrNoSequenceStore", err)
	}
	cfg.Direction = Inbound
	if _, err := New(cfg); err != nil {
		t.Errorf("inbound: %v", err)
	}
}

// The same key under another algorithm makes the same key stream.
func TestR40_OneUserForAKey(t *testing.T) {
	cfg := testConfig(Outbound)
	s := mustNew(t, cfg)
	other := cfg
	other.Key.SPI++
	other.Algorithm.Name = "fakegcm8"
	if _, err := New(other); !errors.Is(err, ErrKeyInUse) {
		t.Fatalf("got %v, want ErrKeyInUse", err)
	}
	take(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, r := s.TakeSeq(1); r != wire.DropKeyInvalid {
		t.Errorf("a closed SA gives numbers: %v", r)
	}
	if n := take(t, mustNew(t, other)); n != 2 {
		t.Errorf("the next user begins with %d, want 2", n)
	}
}

func TestR40_NoNumberTwiceAmongWorkers(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.SequenceBlock = 512
	s := mustNew(t, cfg)
	const workers, runs = 4, 5000
	taken := make([][]uint64, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range runs {
				n := 1 + i%5
				if first, r := s.TakeSeq(n); r == wire.DropNone {
					for j := range n {
						taken[w] = append(taken[w], first+uint64(j))
					}
				}
			}
		})
	}
	wg.Wait()
	seen := make(map[uint64]bool)
	for _, list := range taken {
		for _, n := range list {
			if seen[n] {
				t.Fatalf("number %d was given twice", n)
			}
			seen[n] = true
		}
	}
	if last := s.LastSeq(); uint64(len(seen)) != last {
		t.Fatalf("%d numbers given, the last is %d", len(seen), last)
	}
}

func TestR40_FailingStoreStopsTheSA(t *testing.T) {
	store, clock := newShakyStore(), new(fakeClock)
	clock.now.Store(1e18)
	cfg := testConfig(Outbound)
	cfg.Store, cfg.SequenceBlock, cfg.Clock = store, 100, clock.read
	s := mustNew(t, cfg)
	<-store.reserved
	broken := errors.New("disk full")
	store.setFail(broken)
	for n := uint64(1); n <= 100; n++ {
		if got := take(t, s); got != n {
			t.Fatalf("number is %d, want %d", got, n)
		}
	}
	if err := <-store.reserved; err != broken {
		t.Fatal(err)
	}
	for s.SequenceError() == nil || s.seq.busy.Load() {
		runtime.Gosched()
	}
	for range 50 {
		_, r := s.TakeSeq(1)
		want(t, "beyond the reserved numbers", r, wire.DropSeqUnreserved)
	}
	if len(store.reserved) != 0 {
		t.Errorf("the store was asked %d times more within its pause", len(store.reserved))
	}
	if !errors.Is(s.SequenceError(), broken) {
		t.Errorf("status says %v", s.SequenceError())
	}
	store.setFail(nil)
	clock.now.Add(retryAfter)
	if n := take(t, s); n != 101 {
		t.Fatalf("after recovery the number is %d, want 101", n)
	}
	for s.SequenceError() != nil {
		runtime.Gosched()
	}
}

func TestR29_SentKnowsWhatLeft(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.ESN = true
	s := mustNew(t, cfg)
	if s.Sent(0) || s.Sent(1) {
		t.Error("a packet left before the first")
	}
	s.TakeSeq(10)
	for n, want := range map[uint32]bool{0: false, 1: true, 10: true, 11: false, math.MaxUint32: false} {
		if s.Sent(n) != want {
			t.Errorf("Sent(%d) is %v", n, !want)
		}
	}
	s.seq.used.Store(1<<32 + 5)
	for n, want := range map[uint32]bool{5: true, 0: true, math.MaxUint32: true, 6: false, 1 << 31: false} {
		if s.Sent(n) != want {
			t.Errorf("over the boundary Sent(%d) is %v", n, !want)
		}
	}
}

// Without sequence numbers packets are counted for the lifetime only: beyond 32 bits, with
// no store, no replay window and nothing that an ICMP error could prove. ESN and ESP in
// UDP, which need them or came later, are refused.
func TestR38_NoSequence(t *testing.T) {
	cfg := testConfig(Outbound)
	cfg.Algorithm.NoSequence, cfg.Algorithm.CounterMode = true, false
	cfg.Store = newShakyStore()
	cfg.Hard.Packets = math.MaxUint32 + 2
	s := mustNew(t, cfg)
	if n := len(cfg.Store.(*shakyStore).reserved); n != 0 {
		t.Errorf("%d reservations for numbers that no packet carries", n)
	}
	for _, n := range []int{math.MaxUint32, 2} {
		_, r := s.TakeSeq(n)
		want(t, "packets within the lifetime", r, wire.DropNone)
	}
	_, r := s.TakeSeq(1)
	want(t, "a packet beyond", r, wire.DropLifetimeExpired)
	if s.Sent(uint32(s.LastSeq())) {
		t.Error("a packet without number is known to have left")
	}
	st := s.State()
	if err := st.check(); err != nil || !st.NoSequence || st.Next != math.MaxUint32+3 {
		t.Errorf("state: %v, %+v", err, st)
	}

	cfg = testConfig(Inbound)
	cfg.Algorithm.NoSequence, cfg.Algorithm.CounterMode = true, false
	cfg.ReplayWindow = 64
	in := mustNew(t, cfg)
	if in.ReplayWindow != 0 {
		t.Errorf("a replay window of %d", in.ReplayWindow)
	}
	for range 2 {
		full, r := in.CheckReplay(7)
		want(t, "the same again", r, wire.DropNone)
		want(t, "the same again, accepted", in.Accept(full), wire.DropNone)
	}
	for name, change := range map[string]func(*SAConfig){
		"there are no extended ones": func(c *SAConfig) { c.ESN = true },
		"older than ESP in UDP":      func(c *SAConfig) { c.Src, c.Encap = c.Key.Dst.Prev(), &Encap{LocalPort: 4500, RemotePort: 4500} },
	} {
		bad := cfg
		change(&bad)
		if _, err := New(bad); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
