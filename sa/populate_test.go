package sa

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bitw/netstack/wire"
)

func flowTo(remote string, port uint16) *Flow {
	return &Flow{Local: netip.MustParseAddr("10.0.0.1"), Remote: netip.MustParseAddr(remote), Proto: 6, LocalPort: 4000, RemotePort: port, HasPorts: true}
}

// Each selector with its flag set takes the value of the packet, and each without
// keeps that of the policy; a value that is not available discards.
func TestRFC4301_4_4_1_2_PopulateFromPacket(t *testing.T) {
	ten := []AddrRange{AddrRangeFromPrefix(netip.MustParsePrefix("10.0.0.0/8"))}
	tcp := *flowTo("10.2.0.1", 80)
	fragment := tcp
	fragment.HasPorts = false
	echo := Flow{Local: tcp.Local, Remote: tcp.Remote, Proto: 1, ICMPType: 8, ICMPCode: 3, HasPorts: true}
	binding := Flow{Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddr("2001:db8::2"), Proto: 135, MHType: 5, HasPorts: true}
	nets := Selector{Local: ten, Remote: ten, Proto: 6, RemotePorts: []PortRange{{1, 1000}}}
	for _, c := range []struct {
		name     string
		selector Selector
		populate Populate
		flow     Flow
		want     string // the narrowed selector; empty for discard
	}{
		{"nothing", nets, 0, tcp, "local 10.0.0.0/8 remote 10.0.0.0/8 tcp remote port 1-1000"},
		{"local", nets, PopulateLocal, tcp, "local 10.0.0.1 remote 10.0.0.0/8 tcp remote port 1-1000"},
		{"remote", nets, PopulateRemote, tcp, "local 10.0.0.0/8 remote 10.2.0.1 tcp remote port 1-1000"},
		{"local port of any", nets, PopulateLocalPorts, tcp, "local 10.0.0.0/8 remote 10.0.0.0/8 tcp local port 4000 remote port 1-1000"},
		{"remote port of a range", nets, PopulateRemotePorts, tcp, "local 10.0.0.0/8 remote 10.0.0.0/8 tcp remote port 80"},
		{"remote port not available", Selector{Proto: 6}, PopulateRemotePorts, fragment, ""},
		{"address of a fragment", Selector{Proto: 6}, PopulateRemote, fragment, "local any remote 10.2.0.1 tcp"},
		{"protocol of any", Selector{}, PopulateProto, tcp, "local any remote any tcp"},
		{"protocol and ports of any", Selector{}, PopulateProto | PopulateLocalPorts | PopulateRemotePorts, tcp, "local any remote any tcp local port 4000 remote port 80"},
		{"protocol without ports", Selector{}, PopulateProto | PopulateRemotePorts, echo, "local any remote any icmp"},
		{"ICMP", Selector{Proto: 1}, PopulateICMP, echo, "local any remote any icmp type 8 code 3"},
		{"mobility header", Selector{Proto: 135}, PopulateMH, binding, "local any remote any mh mh-type 5"},
		{"all", Selector{}, populateAll, tcp, "local 10.0.0.1 remote 10.2.0.1 tcp local port 4000 remote port 80"},
	} {
		p := &Policy{Name: "p", Selector: c.selector, Action: Protect, Populate: c.populate}
		narrow, ok := p.Narrow(&c.flow)
		got := ""
		if ok {
			got = narrow.String()
			if err := narrow.check(); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
}

// A policy that populates protects by its entries: one for each value, none else,
// and each asks the key manager for SAs of its own.
func TestR32_EachPopulatedValueHasItsSAs(t *testing.T) {
	var asked []Event
	both := NewLineage("both")
	both.Notify = func(ev Event) { asked = append(asked, ev) }
	p := &Policy{Name: "web", Selector: Selector{Proto: 6}, Action: Protect, Populate: PopulateRemote | PopulateRemotePorts,
		Out: []*Lineage{both}, In: []*Lineage{both}, MSSClamp: 1000, DiscardFragments: true}
	spd, err := NewSPD([]*Policy{p})
	if err != nil {
		t.Fatal(err)
	}
	a, b := flowTo("10.2.0.1", 80), flowTo("10.2.0.2", 80)
	if got := spd.Lookup(Outbound, a); got != p {
		t.Fatalf("before: %s", nameOf(got))
	}
	entry, reason := p.Demand(a, 1)
	want(t, "Demand", reason, wire.DropNone)
	if entry.MSSClamp != 1000 || !entry.DiscardFragments {
		t.Error("the entry does not do as its policy")
	}
	l := entry.Out[0]
	if l == both || entry.In[0] != l || l.Name != "both" || entry.Parent() != p || p.Parent() != nil {
		t.Fatalf("entry has %v %v", entry.Out, entry.In)
	}
	if !l.NeedSA(entry, a) || len(asked) != 1 || asked[0].Lineage != l || asked[0].Policy != entry ||
		asked[0].Selector.String() != "local any remote 10.2.0.1 tcp remote port 80" {
		t.Errorf("asked for %+v", asked)
	}
	again := *a
	again.LocalPort = 4001
	for _, f := range []*Flow{a, &again} {
		if got := spd.Lookup(Outbound, f); got != entry {
			t.Errorf("%v: %s", f, nameOf(got))
		}
		if got, _ := p.Demand(f, 2); got != entry {
			t.Errorf("%v: another entry", f)
		}
	}
	want(t, "by its SA", spd.Lookup(Inbound, a).CheckInbound([]*SA{{Lineage: l}}), wire.DropNone)
	want(t, "by an SA of the model", spd.Lookup(Inbound, a).CheckInbound([]*SA{{Lineage: both}}), wire.DropSelectorMismatch)
	want(t, "another value by that SA", spd.Lookup(Inbound, b).CheckInbound([]*SA{{Lineage: l}}), wire.DropSelectorMismatch)
	want(t, "another value by the model's", spd.Lookup(Inbound, b).CheckInbound([]*SA{{Lineage: both}}), wire.DropSelectorMismatch)
	want(t, "another value in the clear", spd.Lookup(Inbound, b).CheckInbound(nil), wire.DropClearNotProtected)
	fragment := *a
	fragment.HasPorts = false
	if got := spd.Lookup(Outbound, &fragment); got != p {
		t.Errorf("a fragment without ports: %s", nameOf(got))
	}
	if _, reason := p.Demand(&fragment, 3); reason != wire.DropFragPolicy {
		t.Errorf("a fragment without ports: %v", reason)
	}

	p.Counters[Outbound].Add(1, 10, 5)
	entry.Counters[Outbound].Add(2, 20, 7)
	entry.Counters[Outbound].Drops.Add(wire.DropReplay)
	for _, when := range []string{"with the entry", "without"} {
		c := p.Traffic(Outbound)
		if c.Packets.Load() != 3 || c.Bytes.Load() != 30 || c.LastUse.Load() != 7 || c.Drops.Load(wire.DropReplay) != 1 {
			t.Errorf("%s: %d packets, %d octets", when, c.Packets.Load(), c.Bytes.Load())
		}
		if removed := p.Remove(entry); removed != (when == "with the entry") {
			t.Errorf("%s: Remove says %v", when, removed)
		}
	}
	if spd.Lookup(Outbound, a) != p || len(p.Entries()) != 0 {
		t.Error("a removed entry is still there")
	}
}

func TestR32_PopulateContradictions(t *testing.T) {
	l := []*Lineage{NewLineage("l")}
	for _, c := range []struct {
		policy *Policy
		want   string
	}{
		{&Policy{Action: Bypass, Populate: PopulateLocal}, "action bypass populates no selectors"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: PopulateICMP, Selector: Selector{Proto: 6}}, "no ICMP type"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: PopulateLocalPorts, Selector: Selector{Proto: 1}}, "has no ports"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: PopulateMH, Selector: Selector{Proto: 6}}, "no MH type"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: PopulateRemotePorts}, "remote_ports needs a protocol"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: PopulateRemotePorts, Selector: Selector{Proto: 6, Opaque: true}}, "opaque leaves no"},
		{&Policy{Action: Protect, Out: l, In: l, Populate: 1 << 7}, "unknown selectors"},
	} {
		c.policy.Name = "p"
		if _, err := NewSPD([]*Policy{c.policy}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got error %v, want one with %q", c.policy.Populate, err, c.want)
		}
	}
}

func TestRFC4301_4_4_1_1_MobilityHeaderType(t *testing.T) {
	f := Flow{Local: netip.MustParseAddr("2001:db8::1"), Remote: netip.MustParseAddr("2001:db8::2"), Proto: 135, HasPorts: true}
	some := &Policy{Name: "some", Action: Bypass, Selector: Selector{Proto: 135, MHTypes: []ByteRange{{1, 3}, {5, 5}}}}
	hidden := &Policy{Name: "opaque", Action: Bypass, Selector: Selector{Proto: 135, Opaque: true}}
	spd, err := NewSPD([]*Policy{some, hidden})
	if err != nil {
		t.Fatal(err)
	}
	for mh, want := range []*Policy{nil, some, some, some, nil, some, nil} {
		f.MHType = uint8(mh)
		if got := spd.Lookup(Outbound, &f); got != want {
			t.Errorf("type %d: got %s, want %s", mh, nameOf(got), nameOf(want))
		}
	}
	f.HasPorts = false
	if got := spd.Lookup(Outbound, &f); got != hidden {
		t.Errorf("type not known: got %s", nameOf(got))
	}
}

// RFC 4301 §7: a fragment that is not the first matches only policies whose ports
// are ANY or OPAQUE, whatever the order.
func TestRFC4301_7_2_FragmentsMatchAnyAndOpaque(t *testing.T) {
	whole := flowTo("10.2.0.1", 80)
	fragment := *whole
	fragment.HasPorts = false
	ports := &Policy{Name: "ports", Action: Bypass, Selector: Selector{Proto: 6, RemotePorts: []PortRange{{0, 65535}}}}
	hidden := &Policy{Name: "opaque", Action: Bypass, Selector: Selector{Proto: 6, Opaque: true}}
	anything := &Policy{Name: "any", Action: Bypass, Selector: Selector{Proto: 6}}
	for _, c := range []struct {
		policies        []*Policy
		whole, fragment *Policy
	}{
		{[]*Policy{ports}, ports, nil},
		{[]*Policy{ports, hidden, anything}, ports, hidden},
		{[]*Policy{hidden, ports}, ports, hidden},
		{[]*Policy{hidden}, nil, hidden},
		{[]*Policy{anything, ports, hidden}, anything, anything},
	} {
		spd, err := NewSPD(c.policies)
		if err != nil {
			t.Fatal(err)
		}
		if got := spd.Lookup(Outbound, whole); got != c.whole {
			t.Errorf("%v whole: got %s, want %s", c.policies[0].Name, nameOf(got), nameOf(c.whole))
		}
		if got := spd.Lookup(Outbound, &fragment); got != c.fragment {
			t.Errorf("%v fragment: got %s, want %s", c.policies[0].Name, nameOf(got), nameOf(c.fragment))
		}
	}
}

// What traffic makes has an end, and what no key manager answered is forgotten.
func TestR32_PopulatedEntriesAreBounded(t *testing.T) {
	l := []*Lineage{NewLineage("l")}
	p := &Policy{Name: "p", Selector: Selector{Proto: 6}, Action: Protect, Populate: PopulateRemote | PopulateRemotePorts, Out: l, In: l}
	spd, err := NewSPD([]*Policy{p})
	if err != nil {
		t.Fatal(err)
	}
	demand := func(i int, now time.Duration) (*Flow, wire.DropReason) {
		f := flowTo(fmt.Sprintf("10.0.%d.%d", i>>8&255, i&255), uint16(i>>16))
		_, reason := p.Demand(f, int64(now))
		return f, reason
	}
	var f *Flow
	for i := range maxPopulated {
		var reason wire.DropReason
		if f, reason = demand(i, time.Second); reason != wire.DropNone {
			t.Fatalf("entry %d: %v", i, reason)
		}
	}
	served := spd.Lookup(Outbound, f)
	if n := testing.AllocsPerRun(100, func() { spd.Lookup(Outbound, f) }); n != 0 || served == p {
		t.Errorf("%v allocations per lookup", n)
	}
	list := p.Entries()
	for i := 1; i < len(list); i++ {
		if list[i-1].key.compare(&list[i].key) >= 0 {
			t.Fatal("entries are not in order")
		}
	}
	_, reason := demand(maxPopulated, 2*time.Second)
	want(t, "one too many", reason, wire.DropNoSA)
	served.Out[0].out.Store(&SA{})
	_, reason = demand(maxPopulated, 2*time.Minute)
	want(t, "after a while", reason, wire.DropNone)
	if n := len(p.Entries()); n != 2 || spd.Lookup(Outbound, f) != served {
		t.Errorf("%d entries are left, want that with an SA and the new one", n)
	}
}
