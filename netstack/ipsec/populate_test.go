package ipsec

import (
	"bytes"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// Each value that a policy takes from the packet asks for an SA of its own, and what
// has another value does not leave by it.
func TestRFC4301_4_4_1_2_EachValueGetsItsSA(t *testing.T) {
	q := newAcquirer(t, false, HoldLimits{})
	q.policy.Selector.Proto, q.policy.Populate = wire.ProtoUDP, sa.PopulateLocalPorts
	q.a.policies(q.policy)
	// An SA of the lineage that the policy names is for nobody.
	q.grant()

	first, second := q.udp(1001, 100), q.udp(1002, 101)
	for _, d := range [][]byte{first, second, first} {
		q.a.fromHost(d, nil)
	}
	if n := len(q.a.right.take(t, "", "")); n != 0 || q.a.e.Held() != 3 || len(q.events) != 2 {
		t.Fatalf("%d left, %d are held, %d events (drops %v)", n, q.a.e.Held(), len(q.events), q.a.drops(hook.Left))
	}
	for i, ev := range q.events {
		if ev.Kind != sa.Acquire || ev.Lineage == q.lineage || ev.Lineage.Name != "ab" || ev.Policy.Parent() != q.policy ||
			len(ev.Selector.LocalPorts) != 1 || ev.Selector.LocalPorts[0] != (sa.PortRange{From: uint16(1001 + i), To: uint16(1001 + i)}) {
			t.Errorf("event %d: %v of %q for %v", i, ev.Kind, ev.Lineage.Name, &ev.Selector)
		}
	}
	l := q.events[0].Lineage
	s := q.a.make("ab", l, 0x1001, q.policy.Selector.Remote[0].From)
	if err := q.a.sad.Replace(q.lineage.Outbound(), s); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Switch(s); err != nil {
		t.Fatal(err)
	}
	q.settle(1)
	q.a.fromHost(first, nil)
	got := q.arrived()
	if len(got) != 3 || q.a.e.Held() != 1 {
		t.Fatalf("%d came, %d are held (drops %v)", len(got), q.a.e.Held(), q.a.drops(hook.Left))
	}
	for i := range got {
		if !bytes.Equal(got[i], first) {
			t.Errorf("datagram %d has another value", i)
		}
	}
}
