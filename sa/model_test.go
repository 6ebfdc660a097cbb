package sa

import (
	"flag"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// modelRun is how many steps one history has.
const modelRun = 400

// TestModel drives the databases through histories of random steps and compares each
// answer with that of a slow and obvious model. BITW_MODEL_STEPS is the number of
// steps; it takes about two seconds without.
func TestModel_R31R32R33R40R41(t *testing.T) {
	steps := modelStepsOf(t, 20*modelRun)
	checks := flag.Lookup("rapid.checks")
	before := checks.Value.String()
	defer func() { _ = checks.Value.Set(before) }()
	if err := checks.Value.Set(strconv.Itoa((steps + modelRun - 1) / modelRun)); err != nil {
		t.Fatal(err)
	}
	done := 0
	rapid.Check(t, func(t *rapid.T) {
		m := newModel(t)
		for range modelRun {
			m.step(t)
			done++
		}
	})
	t.Logf("%d steps", done)
}

// A model is the databases, and what they should hold.
type model struct {
	names int

	policies []*Policy
	entries  map[*Policy]map[string]*Policy // by parent and narrowed selector
	spd      *SPD

	sad     *SAD
	sas     map[modelPlace]*SA
	lineage *Lineage
	current *SA

	windows []*modelReplay
}

type modelPlace struct {
	Direction
	Key
}

type modelReplay struct {
	sa     *SA
	window modelWindow
}

func newModel(t *rapid.T) *model {
	m := &model{entries: make(map[*Policy]map[string]*Policy), sad: NewSAD(), sas: make(map[modelPlace]*SA), lineage: NewLineage("l")}
	m.compile(t)
	for i, size := range []int{32, 33, 64, 1000, 4096, 65535, 65536} {
		cfg := testConfig(Inbound)
		cfg.ReplayWindow, cfg.ESN = size, i%2 == 0 || rapid.Bool().Draw(t, "ESN")
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		m.windows = append(m.windows, &modelReplay{s, modelWindow{size: uint64(size), seen: make(map[uint64]bool)}})
	}
	return m
}

func (m *model) step(t *rapid.T) {
	switch what := rapid.IntRange(0, 99).Draw(t, "what"); {
	case what < 6:
		m.changePolicies(t)
	case what < 10:
		m.removeEntry(t)
	case what < 40:
		m.lookup(t)
	case what < 55:
		m.changeSAD(t)
	case what < 65:
		m.lookupSA(t)
	case what < 68:
		m.rollover(t)
	default:
		m.receive(t)
	}
}

func (m *model) compile(t *rapid.T) {
	var err error
	if m.spd, err = NewSPD(m.policies); err != nil {
		t.Fatal(err)
	}
}

// changePolicies adds, removes, replaces or moves a rule.
func (m *model) changePolicies(t *rapid.T) {
	at := rapid.IntRange(0, len(m.policies)).Draw(t, "place")
	how := rapid.IntRange(0, 4).Draw(t, "change")
	if how >= 2 || at == len(m.policies) {
		p := m.drawPolicy(t)
		if p == nil {
			return
		}
		if how == 4 && at < len(m.policies) {
			m.policies[at] = p
		} else {
			m.policies = slices.Insert(m.policies, at, p)
		}
	} else {
		p := m.policies[at]
		m.policies = slices.Delete(m.policies, at, at+1)
		if how == 1 {
			m.policies = slices.Insert(m.policies, rapid.IntRange(0, len(m.policies)).Draw(t, "to"), p)
		}
	}
	m.compile(t)
}

// drawPolicy returns nil for a rule that cannot be.
func (m *model) drawPolicy(t *rapid.T) *Policy {
	m.names++
	p := &Policy{Name: fmt.Sprint(m.names), Action: Action(rapid.IntRange(0, 2).Draw(t, "action")), Directions: Directions(rapid.IntRange(0, 2).Draw(t, "directions"))}
	drawSelector(t, &p.Selector)
	if p.Action == Protect {
		if p.Directions.Has(Outbound) {
			p.Out = []*Lineage{NewLineage("out")}
		}
		if p.Directions.Has(Inbound) {
			p.In = []*Lineage{NewLineage("in")}
		}
		if rapid.Bool().Draw(t, "populate") {
			p.Populate = Populate(rapid.IntRange(1, int(populateAll)).Draw(t, "selectors"))
		}
	}
	if p.check() != nil {
		return nil
	}
	return p
}

// modelNarrow is the table of RFC 4301 §4.4.1.2, by the words of the result.
func modelNarrow(p *Policy, f *Flow) (words string, ok bool) {
	s := p.Selector
	has := func(flag Populate) bool { return p.Populate&flag != 0 }
	if has(PopulateLocal) {
		s.Local = []AddrRange{{f.Local, f.Local}}
	}
	if has(PopulateRemote) {
		s.Remote = []AddrRange{{f.Remote, f.Remote}}
	}
	if has(PopulateProto) {
		s.Proto = f.Proto
	}
	needs := false
	switch f.Proto {
	case 6, 17, 33, 132, 136:
		needs = has(PopulateLocalPorts) || has(PopulateRemotePorts)
		if has(PopulateLocalPorts) {
			s.LocalPorts = []PortRange{{f.LocalPort, f.LocalPort}}
		}
		if has(PopulateRemotePorts) {
			s.RemotePorts = []PortRange{{f.RemotePort, f.RemotePort}}
		}
	case 1, 58:
		if needs = has(PopulateICMP); needs {
			s.ICMPTypes, s.ICMPCodes = []ByteRange{{f.ICMPType, f.ICMPType}}, []ByteRange{{f.ICMPCode, f.ICMPCode}}
		}
	case 135:
		if needs = has(PopulateMH); needs {
			s.MHTypes = []ByteRange{{f.MHType, f.MHType}}
		}
	}
	if needs && !f.HasPorts {
		return "", false
	}
	return s.String(), true
}

// lookup asks the SPD, and for a rule that populates mostly makes the entry, too.
func (m *model) lookup(t *rapid.T) {
	d, f := drawFlow(t)
	rule := modelLookup(m.policies, d, f)
	want := rule
	if rule != nil && rule.Populate != 0 {
		words, ok := modelNarrow(rule, f)
		if entry := m.entries[rule][words]; ok && entry != nil {
			want = entry
		}
		if got := m.spd.Lookup(d, f); got != want {
			t.Fatalf("%v %v: got %s, want %s", d, f, nameOf(got), nameOf(want))
		}
		if rapid.IntRange(0, 3).Draw(t, "demand") > 0 {
			want = m.demand(t, rule, f, words, ok)
		}
	}
	got := m.spd.Lookup(d, f)
	if got != want {
		t.Fatalf("%v %v: got %s, want %s", d, f, nameOf(got), nameOf(want))
	}
	m.inbound(t, f)
}

func (m *model) demand(t *rapid.T, rule *Policy, f *Flow, words string, ok bool) *Policy {
	entry, reason := rule.Demand(f, 1)
	if !ok {
		if reason != wire.DropFragPolicy {
			t.Fatalf("%v for %v: %v, want %v", rule.Populate, f, reason, wire.DropFragPolicy)
		}
		return rule
	}
	if known := m.entries[rule][words]; reason != wire.DropNone || known != nil && known != entry || entry.Selector.String() != words {
		t.Fatalf("%v for %v: got %s, want %s", rule.Populate, f, nameOf(entry), words)
	}
	if m.entries[rule] == nil {
		m.entries[rule] = make(map[string]*Policy)
	}
	m.entries[rule][words] = entry
	return entry
}

// inbound compares what may come in the clear, and by an SA of some rule or entry.
func (m *model) inbound(t *rapid.T, f *Flow) {
	p := m.spd.Lookup(Inbound, f)
	want := wire.DropNoPolicy
	switch {
	case p == nil:
	case p.Action == Bypass:
		want = wire.DropNone
	case p.Action == Protect:
		want = wire.DropClearNotProtected
	default:
		want = wire.DropPolicyDiscard
	}
	if got := p.CheckInbound(nil); got != want {
		t.Fatalf("%v in the clear by %s: got %v, want %v", f, nameOf(p), got, want)
	}
	if len(m.policies) == 0 {
		return
	}
	other := m.policies[rapid.IntRange(0, len(m.policies)-1).Draw(t, "SA of")]
	if len(other.In) == 0 {
		return
	}
	passes := p == other && p.Populate == 0
	if got := p.CheckInbound([]*SA{{Lineage: other.In[0]}}); (got == wire.DropNone) != passes {
		t.Fatalf("%v by the SA of %s: got %v from %s", f, nameOf(other), got, nameOf(p))
	}
	if p != nil && p.Parent() != nil && p.CheckInbound([]*SA{{Lineage: p.In[0]}}) != wire.DropNone {
		t.Fatalf("%v by its own SA: does not pass", f)
	}
}

func (m *model) removeEntry(t *rapid.T) {
	for _, p := range m.policies {
		for words, entry := range m.entries[p] {
			if rapid.IntRange(0, 3).Draw(t, "keep") > 0 {
				continue
			}
			if !p.Remove(entry) || p.Remove(entry) {
				t.Fatalf("%s: removed not once", nameOf(entry))
			}
			delete(m.entries[p], words)
		}
		if got := len(p.Entries()); got != len(m.entries[p]) {
			t.Fatalf("%s has %d entries, want %d", nameOf(p), got, len(m.entries[p]))
		}
	}
}

// drawPlace draws from few places, so that many are taken.
func drawPlace(t *rapid.T) modelPlace {
	i := rapid.IntRange(0, 199).Draw(t, "SA")
	dst := netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 3)})
	if i%2 == 0 {
		dst = netip.AddrFrom16([16]byte{0x20, 1, 15: byte(i % 5)})
	}
	return modelPlace{Direction(i / 2 % 2), Key{uint32(0x1000 + i/4), dst, transform.ProtoESP + uint8(i/4%2)}}
}

func (m *model) changeSAD(t *rapid.T) {
	at := drawPlace(t)
	old, next := m.sas[at], &SA{Name: "n", Key: at.Key, Direction: at.Direction, Lineage: m.lineage}
	switch rapid.IntRange(0, 3).Draw(t, "change of SAD") {
	case 0, 1:
		err := m.sad.Add(next)
		if (err == nil) != (old == nil) {
			t.Fatalf("add %v: %v", at, err)
		}
		if old == nil {
			m.sas[at] = next
		}
	case 2:
		if old == nil {
			if m.sad.Remove(next) {
				t.Fatalf("removed %v, which was not there", at)
			}
			return
		}
		if !m.sad.Remove(old) || m.sad.Remove(old) {
			t.Fatalf("%v: removed not once", at)
		}
		delete(m.sas, at)
	default:
		if old == nil {
			return
		}
		if err := m.sad.Replace(old, next); err != nil {
			t.Fatal(err)
		}
		m.sas[at] = next
	}
}

func (m *model) lookupSA(t *rapid.T) {
	at := drawPlace(t)
	dst := at.Dst
	if dst.Is4() && rapid.Bool().Draw(t, "mapped") {
		dst = netip.AddrFrom16(dst.As16())
	}
	got := m.sad.Lookup(at.SPI, dst, at.Proto)
	if at.Direction == Outbound {
		got = m.sad.LookupOutbound(at.SPI, dst, at.Proto)
	}
	if got != m.sas[at] {
		t.Fatalf("%v: got %v, want %v", at, got, m.sas[at])
	}
	if m.sad.Len() != len(m.sas) || m.sad.Lookup(at.SPI, dst, 17) != nil {
		t.Fatalf("%d SAs, want %d", m.sad.Len(), len(m.sas))
	}
}

func (m *model) rollover(t *rapid.T) {
	at := drawPlace(t)
	next := m.sas[at]
	old, err := m.lineage.Switch(next)
	if next != nil && next.Direction == Inbound {
		if err == nil {
			t.Fatalf("switched to an inbound SA, %v", at)
		}
		return
	}
	if err != nil || old != m.current || m.lineage.Outbound() != next {
		t.Fatalf("switch to %v: %v, %v", at, old, err)
	}
	m.current = next
}

// receive is a packet with a number around the replay window, as its header shows it.
func (m *model) receive(t *rapid.T) {
	r := m.windows[rapid.IntRange(0, len(m.windows)-1).Draw(t, "window")]
	w := &r.window
	var seq uint64
	switch rapid.IntRange(0, 6).Draw(t, "number") {
	case 0, 1:
		seq = w.top + uint64(rapid.IntRange(1, 3).Draw(t, "next"))
	case 2:
		seq = w.top - uint64(rapid.IntRange(0, 80).Draw(t, "late"))
	case 3:
		seq = w.top - w.size + uint64(rapid.IntRange(-1, 2).Draw(t, "at the edge"))
	case 4:
		seq = w.top + uint64(rapid.IntRange(1, 3*int(w.size)).Draw(t, "leap"))
	case 5:
		seq = w.top + 1<<32 - w.size + uint64(rapid.IntRange(-2, 1).Draw(t, "end of inference"))
	default:
		seq = uint64(rapid.IntRange(0, math.MaxUint32).Draw(t, "any"))
	}
	low := uint32(seq)
	full, possible := uint64(low), true
	if r.sa.ESN {
		full, possible = w.infer(low)
	}
	want := wire.DropReplayOld
	if possible {
		want = w.check(full)
	}
	got, reason := r.sa.CheckReplay(low)
	if reason != want || possible && got != full {
		t.Fatalf("window %d at %d, header %d: got %d %v, want %d %v", w.size, w.top, low, got, reason, full, want)
	}
	if reason != wire.DropNone || rapid.IntRange(0, 9).Draw(t, "forged") == 0 {
		return // a forgery changes nothing
	}
	if again := r.sa.Accept(full); again != wire.DropNone {
		t.Fatalf("window %d at %d: %d is new, and not accepted: %v", w.size, w.top, full, again)
	}
	if again := r.sa.Accept(full); again == wire.DropNone {
		t.Fatalf("window %d: %d accepted twice", w.size, full)
	}
	w.accept(full)
	if len(w.seen) > 4*int(w.size) {
		for old := range w.seen {
			if w.top-old >= w.size {
				delete(w.seen, old)
			}
		}
	}
}
