package sa

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"bitw/netstack/wire"
)

// modelWindow is the slow and obvious replay window: a set and a highest number.
type modelWindow struct {
	size, top uint64
	seen      map[uint64]bool
}

func (m *modelWindow) check(seq uint64) wire.DropReason {
	switch {
	case seq > m.top:
		return wire.DropNone
	case m.top-seq >= m.size:
		return wire.DropReplayOld
	case m.seen[seq] || seq == 0:
		return wire.DropReplay
	}
	return wire.DropNone
}

func (m *modelWindow) accept(seq uint64) {
	m.seen[seq] = true
	m.top = max(m.top, seq)
}

// infer is what RFC 4303 Appendix A2 wants: of all numbers with that low half, the
// one in [bottom, bottom+2^32), where bottom is the left edge of the window.
func (m *modelWindow) infer(low uint32) (uint64, bool) {
	if m.top < m.size-1 { // the left edge lies below 0
		if full := uint64(low); full < m.top+(1<<32)-(m.size-1) {
			return full, true
		}
		return 0, false
	}
	bottom := m.top - (m.size - 1)
	full := bottom&^math.MaxUint32 | uint64(low)
	if full < bottom {
		if full > math.MaxUint64-1<<32 {
			return 0, false
		}
		full += 1 << 32
	}
	return full, true
}

var windowSizes = []int{32, 33, 63, 64, 65, 128, 1000, 65535, 65536}

func TestR40_ReplayWindowIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(windowSizes).Draw(t, "size")
		esn := rapid.Bool().Draw(t, "ESN")
		cfg := testConfig(Inbound)
		cfg.ReplayWindow, cfg.ESN = size, esn
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m := &modelWindow{size: uint64(size), seen: make(map[uint64]bool)}
		limit := uint64(math.MaxUint32)
		if esn {
			limit = math.MaxUint64
			if start := rapid.SampledFrom([]uint64{0, 1<<32 - 5, 1 << 32, 5<<32 + 7, 1<<33 - 40000, math.MaxUint64 - 9}).Draw(t, "start"); start != 0 {
				s.Accept(start)
				m.accept(start)
			}
		}
		for range rapid.IntRange(1, 200).Draw(t, "packets") {
			step := rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64Range(-int64(size)-2, int64(size)+2),
				rapid.Int64Range(-200000, 200000)).Draw(t, "step")
			seq := m.top + uint64(step)
			if step < 0 && uint64(-step) > m.top || step > 0 && limit-m.top < uint64(step) {
				continue
			}
			low := uint32(seq)
			full, got := s.CheckReplay(low)
			want, ok := uint64(low), true
			if esn {
				want, ok = m.infer(low)
			}
			reason := wire.DropReplayOld
			if ok {
				reason = m.check(want)
			}
			if got != reason || ok && full != want {
				t.Fatalf("number %#x, top %#x: got %#x, %v, want %#x, %v", seq, m.top, full, got, want, reason)
			}
			if got == wire.DropNone && rapid.IntRange(0, 3).Draw(t, "forged") != 0 {
				if r := s.Accept(full); r != wire.DropNone {
					t.Fatalf("accept %#x: %v", full, r)
				}
				m.accept(full)
				if r := s.Accept(full); r != wire.DropReplay {
					t.Fatalf("accept %#x again: %v", full, r)
				}
			}
		}
	})
}

// A run is accepted as its numbers would be one after the other: near ones and far ones, in
// any order, again, and 0.
func TestR40_ARunIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.SampledFrom(windowSizes).Draw(t, "size")
		s := &SA{replay: newReplayWindow(size)}
		m := &modelWindow{size: uint64(size), seen: make(map[uint64]bool)}
		for range rapid.IntRange(1, 30).Draw(t, "runs") {
			at, fulls := m.top, []uint64(nil)
			for range rapid.IntRange(0, 20).Draw(t, "numbers") {
				step := rapid.OneOf(rapid.Just[int64](1), rapid.Int64Range(-3, 3), rapid.Int64Range(-200, 200),
					rapid.Int64Range(-int64(size)-70, int64(size)+70), rapid.Int64Range(-200000, 200000)).Draw(t, "step")
				if at += uint64(step); int64(at) < 0 {
					at = 0
				}
				fulls = append(fulls, at)
			}
			reasons := make([]wire.DropReason, len(fulls))
			for i := range reasons {
				reasons[i] = wire.DropICV // to be overwritten
			}
			s.AcceptRun(fulls, reasons)
			for i, full := range fulls {
				if want := m.check(full); reasons[i] != want {
					t.Fatalf("%v: number %d: %v, want %v", fulls, full, reasons[i], want)
				} else if want == wire.DropNone {
					m.accept(full)
				}
			}
			for full := m.top - min(m.top, uint64(size)+100); full <= m.top+1; full++ {
				if _, got := s.CheckReplay(uint32(full)); got != m.check(full) {
					t.Fatalf("after %v: number %d: %v, want %v", fulls, full, got, m.check(full))
				}
			}
		}
	})
}

// RFC 4303 Appendix A2.2, the cases by name.
func TestR40_ESNOverTheBoundary(t *testing.T) {
	const g = uint64(1) << 32
	for _, size := range []int{32, 64, 65536} {
		w := uint64(size)
		for _, c := range []struct {
			name      string
			top, want uint64
			ok        bool
		}{
			{"case A, in the window", 5*g + w + 10, 5*g + w + 5, true},
			{"case A, left edge", 5*g + w + 10, 5*g + 11, true},
			{"case A, right of the window", 5*g + w + 10, 5*g + 2*w, true},
			{"case A, left of the edge is the next subspace", 5*g + w + 10, 6*g + 10, true},
			{"case A, smallest top", 5*g + w - 1, 5 * g, true},
			{"case B, in the previous subspace", 5*g + 3, 5*g - 2, true},
			{"case B, left edge", 5*g + 3, 5*g + 4 - w, true},
			{"case B, left of the edge is this subspace", 5*g + 3, 5*g + (g + 3 - w), true},
			{"case B, this subspace", 5*g + 3, 5*g + 9, true},
			{"case B in the first subspace", 3, g - 1, false},
			{"beyond 64 bits", math.MaxUint64, 5, false},
		} {
			r := newReplayWindow(size)
			(&SA{replay: r}).Accept(c.top)
			got, ok := r.inferESN(uint32(c.want))
			if ok != c.ok || ok && got != c.want {
				t.Errorf("window %d, %s: got %#x, %v, want %#x, %v", size, c.name, got, ok, c.want, c.ok)
			}
		}
	}
}

func TestR40_WindowSizes(t *testing.T) {
	for _, c := range []struct {
		window, want int
		ok           bool
	}{
		{0, 64, true}, {32, 32, true}, {65536, 65536, true}, {ReplayOff, 0, true},
		{31, 0, false}, {65537, 0, false}, {-2, 0, false},
	} {
		cfg := testConfig(Inbound)
		cfg.ReplayWindow = c.window
		s, err := New(cfg)
		if (err == nil) != c.ok || c.ok && s.ReplayWindow != c.want {
			t.Errorf("window %d: got %v, %v", c.window, s, err)
		}
	}
	cfg := testConfig(Inbound)
	cfg.ReplayWindow = ReplayOff
	s := mustNew(t, cfg)
	for range 2 {
		full, r := s.CheckReplay(7)
		want(t, "check without window", r, wire.DropNone)
		want(t, "accept without window", s.Accept(full), wire.DropNone)
	}
	cfg.ESN = true
	if _, err := New(cfg); err == nil {
		t.Error("ESN without a replay window is no error")
	}
}

// Of many workers with the same numbers each number is accepted once, by itself or in runs.
func TestR40_AcceptOnceAmongWorkers(t *testing.T) {
	for _, size := range []int{32, 64, 1024} {
		cfg := testConfig(Inbound)
		cfg.ReplayWindow, cfg.ESN = size, true
		s := mustNew(t, cfg)
		const numbers = 20000
		counts := make([]atomic.Int32, numbers+1)
		var wg sync.WaitGroup
		for worker := range 4 {
			wg.Go(func() {
				var fulls []uint64
				reasons := make([]wire.DropReason, 1+3*worker)
				for n := uint32(1); n <= numbers; n++ {
					full, r := s.CheckReplay(n)
					// A number far left of the window is taken for one of the next subspace, and
					// the ICV would tell.
					if r == wire.DropNone && full <= numbers {
						fulls = append(fulls, full)
					}
					if n < numbers && len(fulls) < len(reasons) {
						continue
					}
					s.AcceptRun(fulls, reasons)
					for i, full := range fulls {
						if reasons[i] == wire.DropNone {
							counts[full].Add(1)
						}
					}
					fulls = fulls[:0]
				}
			})
		}
		wg.Wait()
		for n := range counts {
			if c := counts[n].Load(); c > 1 {
				t.Fatalf("window %d: number %d was accepted %d times", size, n, c)
			}
		}
		if counts[numbers].Load() != 1 {
			t.Errorf("window %d: the last number was not accepted", size)
		}
	}
}

func TestPacketPathAllocatesNothing(t *testing.T) {
	in := mustNew(t, testConfig(Inbound))
	cfg := testConfig(Outbound)
	cfg.SequenceBlock = 1 << 30
	out := mustNew(t, cfg)
	db := NewSAD()
	if err := db.Add(in); err != nil {
		t.Fatal(err)
	}
	seq := uint32(0)
	for name, f := range map[string]func(){
		"CheckReplay and Accept": func() {
			seq++
			full, _ := in.CheckReplay(seq)
			in.Accept(full)
			in.CheckReplay(seq)
		},
		"TakeSeq":         func() { out.TakeSeq(44) },
		"Used and Usable": func() { out.Used(3, 4000, 5); out.Usable(6); out.PMTU(6) },
		"Lookup":          func() { db.Lookup(in.Key.SPI, in.Key.Dst, in.Key.Proto); db.LookupOutbound(1, in.Key.Dst, 50) },
	} {
		if n := testing.AllocsPerRun(200, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func ExampleSA_CheckReplay() {
	s := &SA{ESN: true, replay: newReplayWindow(64)}
	s.Accept(1<<32 - 1)
	full, _ := s.CheckReplay(2)
	fmt.Printf("%#x", full)
	// Output: 0x100000002
}
