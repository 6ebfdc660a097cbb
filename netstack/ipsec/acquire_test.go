package ipsec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// acquirer is a pair of stations, of which a has no SA towards b before grant.
type acquirer struct {
	*pair
	lineage *sa.Lineage
	policy  *sa.Policy

	mu     sync.Mutex
	events []sa.Event
}

func newAcquirer(t *testing.T, six bool, limits HoldLimits) *acquirer {
	t.Helper()
	a, b := addrA4, addrB4
	if six {
		a, b = addrA6, addrB6
	}
	q := &acquirer{pair: &pair{newStation(t, macA, macB, a), newStation(t, macB, macA, b)}}
	q.a.e.holds.limits = limits.withDefaults()
	q.b.add("ab", "aes128gcm16", transform.ProtoESP, sa.Inbound, sa.Transport, 0x1001, a, b)
	q.b.add("ba", "aes128gcm16", transform.ProtoESP, sa.Outbound, sa.Transport, 0x2002, b, a)
	q.b.policies(q.b.protect("to-a", b, a, "ba", "ab"))
	q.lineage = &sa.Lineage{Name: "ab", Notify: func(ev sa.Event) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.events = append(q.events, ev)
	}}
	q.a.lineages["ab"] = q.lineage
	q.policy = q.a.protect("to-b", a, b, "ab", "ab")
	q.a.policies(q.policy)
	return q
}

// grant is what the key manager does.
func (q *acquirer) grant() *sa.SA {
	q.a.t.Helper()
	dst := q.policy.Selector.Remote[0].From
	s := q.a.make("ab", q.lineage, 0x1001, dst)
	if err := q.a.sad.Add(s); err != nil {
		q.a.t.Fatal(err)
	}
	if _, err := q.lineage.Switch(s); err != nil {
		q.a.t.Fatal(err)
	}
	return s
}

func (q *acquirer) expectEvents(n int) {
	q.a.t.Helper()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.events) != n {
		q.a.t.Fatalf("%d events, expected %d: %v", len(q.events), n, q.events)
	}
	for _, ev := range q.events {
		if ev.Kind != sa.Acquire || ev.Lineage != q.lineage || ev.Policy != q.policy ||
			ev.Selector.String() != q.policy.Selector.String() || ev.Flow.Remote != q.policy.Selector.Remote[0].From {
			q.a.t.Errorf("event %+v", ev)
		}
	}
}

// settle waits until nothing is on its way out of a queue.
func (q *acquirer) settle(queues int32) {
	q.a.t.Helper()
	eventually(q.a.t, func() bool {
		q.a.e.holds.mu.Lock()
		defer q.a.e.holds.mu.Unlock()
		for _, x := range q.a.e.holds.queues {
			if x.state == holdDraining {
				return false
			}
		}
		return q.a.e.holds.count.Load() == queues
	})
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen")
		}
	}
}

// arrived delivers what is on the wire and returns what b's host gets.
func (q *acquirer) arrived() [][]byte {
	for _, d := range q.a.right.take(q.a.t, macA, macB) {
		if in := parse(q.a.t, d); in.Proto != wire.ProtoESP && !in.IsFragment {
			q.a.t.Fatalf("protocol %d on the wire", in.Proto)
		}
		q.b.fromWire(bytes.Clone(d))
	}
	return q.b.left.take(q.b.t, macA, macB)
}

func (q *acquirer) udp(port uint16, n int) []byte {
	s := &q.policy.Selector
	return udpTo(s.Local[0].From, s.Remote[0].From, port, 2000, n)
}

func TestR44_AcquireHoldsInOrder(t *testing.T) {
	for _, six := range []bool{false, true} {
		t.Run(fmt.Sprintf("six=%v", six), func(t *testing.T) {
			q := newAcquirer(t, six, HoldLimits{})
			var sent [][]byte
			for i := range 10 {
				sent = append(sent, q.udp(uint16(i+1), 100+i))
				q.a.fromHost(sent[i], nil)
			}
			if n := len(q.a.right.take(t, "", "")); n != 0 || q.a.e.Held() != 10 {
				t.Fatalf("%d datagrams left without SA, %d are held", n, q.a.e.Held())
			}
			q.expectEvents(1)
			s := q.grant()
			q.settle(0)
			sent = append(sent, q.udp(99, 7))
			q.a.fromHost(sent[10], nil)
			got := q.arrived()
			if len(got) != len(sent) {
				t.Fatalf("%d of %d came (drops %v)", len(got), len(sent), q.a.drops(hook.Left))
			}
			for i := range got {
				if !bytes.Equal(got[i], sent[i]) {
					t.Errorf("datagram %d is another", i)
				}
			}
			if s.LastSeq() != 11 || len(q.a.drops(hook.Left)) != 0 {
				t.Errorf("last number %d, drops %v", s.LastSeq(), q.a.drops(hook.Left))
			}
			q.expectEvents(1)

			// An SA that is deleted is asked for anew.
			if err := q.a.sad.Delete(s); err != nil {
				t.Fatal(err)
			}
			q.a.fromHost(q.udp(1, 1), nil)
			q.expectEvents(2)
		})
	}
}

func TestR44_SuperframesAndFragmentsWaitAsTheyCame(t *testing.T) {
	q := newAcquirer(t, false, HoldLimits{})
	super := tcpTo(addrA4, addrB4, 14480, true)
	q.a.fromHost(super, superframe(super, 1448))
	whole := q.udp(5, 3000)
	var in wire.Info
	var f wire.Fragmenter
	if r := wire.Parse(whole, &in); r != wire.DropNone {
		t.Fatal(r)
	}
	if r := f.Init(whole, &in, 1500, 7); r != wire.DropNone {
		t.Fatal(r)
	}
	for {
		b := make([]byte, 1500)
		n := f.Next(b)
		if n == 0 {
			break
		}
		q.a.fromHost(b[:n], nil)
	}
	if q.a.e.Held() != 2 {
		t.Fatalf("%d datagrams are held, expected 2", q.a.e.Held())
	}
	q.grant()
	q.settle(0)
	got := q.arrived()
	if len(got) < 11 {
		t.Fatalf("%d datagrams came (drops %v %v)", len(got), q.a.drops(hook.Left), q.b.drops(hook.Right))
	}
	for i, d := range got[:10] {
		if in := parse(t, d); in.Proto != wire.ProtoTCP || !wire.VerifyL4(d, &in) {
			t.Errorf("datagram %d: protocol %d or its checksum", i, in.Proto)
		}
	}
	// The identification is not what the test made, but all else is.
	if last := got[len(got)-1]; !bytes.Equal(last[20:], whole[20:]) {
		t.Error("the datagram of the fragments is another")
	}
}

func TestR44_HeldDatagramsAreBounded(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits HoldLimits
		held   int
	}{
		{"packets", HoldLimits{Packets: 3}, 3},
		{"octets", HoldLimits{Octets: 2 * (2048 + packetCost)}, 2},
		{"memory", HoldLimits{Memory: 2048 + packetCost}, 1},
	} {
		q := newAcquirer(t, false, c.limits)
		for range 5 {
			q.a.fromHost(q.udp(1, 1000), nil)
		}
		if got := q.a.e.Held(); got != c.held {
			t.Errorf("%s: %d are held, expected %d", c.name, got, c.held)
		}
		if got := q.policy.Counters[sa.Outbound].Drops.Load(wire.DropQueueFull); got != uint64(5-c.held) {
			t.Errorf("%s: %d drops", c.name, got)
		}
		q.a.expectDrop(hook.Left, wire.DropQueueFull)
		q.a.e.Close()
		if q.a.e.holds.memory != 0 || q.a.e.Held() != 0 || q.a.e.Drops(hook.Left).Load(wire.DropEndpointGone) != uint64(c.held) {
			t.Errorf("%s: after Close %d octets are held, drops %v", c.name, q.a.e.holds.memory, q.a.drops(hook.Left))
		}
		q.a.fromHost(q.udp(1, 1), nil)
		if q.a.e.Held() != 0 {
			t.Errorf("%s: held after Close", c.name)
		}
	}
}

// expectICMP takes the errors that a's host got, and checks their type and code and
// that each quotes a datagram of the host.
func (q *acquirer) expectICMP(n int, type4, code4, type6, code6 byte) {
	q.a.t.Helper()
	got := q.a.left.take(q.a.t, "", macA)
	if len(got) != n {
		q.a.t.Fatalf("%d ICMP errors, expected %d", len(got), n)
	}
	for _, d := range got {
		in := parse(q.a.t, d)
		wantType, wantCode := type4, code4
		if in.Version == 6 {
			wantType, wantCode = type6, code6
		}
		if in.ICMPType != wantType || in.ICMPCode != wantCode {
			q.a.t.Errorf("ICMP type %d code %d, expected %d and %d", in.ICMPType, in.ICMPCode, wantType, wantCode)
		}
		if quoted := d[in.HeaderLen+8:]; !bytes.Equal(quoted[:40], q.udp(1, 100)[:40]) {
			q.a.t.Error("another datagram is quoted")
		}
	}
}

func TestRFC4301_5_1_1_NoAnswerIsHostUnreachable(t *testing.T) {
	for _, six := range []bool{false, true} {
		q := newAcquirer(t, six, HoldLimits{Time: 5 * time.Second})
		for range 20 {
			q.a.fromHost(q.udp(1, 100), nil)
		}
		q.a.now += int64(5*time.Second) - 1
		q.a.e.Tick()
		q.expectICMP(0, 0, 0, 0, 0)
		q.a.now++
		q.a.e.Tick()
		q.expectICMP(maxHoldTold, 3, 1, 1, 3)
		q.a.expectDrop(hook.Left, wire.DropAcquireTimeout)
		if n := q.policy.Counters[sa.Outbound].Drops.Load(wire.DropAcquireTimeout); n != 20 || q.a.e.Held() != 0 {
			t.Errorf("%d drops, %d held", n, q.a.e.Held())
		}
		// The key manager is asked again only now, and its late answer is welcome.
		q.expectEvents(1)
		q.a.fromHost(q.udp(1, 100), nil)
		q.expectEvents(2)
		q.grant()
		q.settle(0)
		if got := q.arrived(); len(got) != 1 {
			t.Errorf("%d datagrams came", len(got))
		}
	}
}

func TestRFC4301_5_1_1_RefusedIsProhibited(t *testing.T) {
	for _, six := range []bool{false, true} {
		q := newAcquirer(t, six, HoldLimits{Time: 5 * time.Second})
		for range 3 {
			q.a.fromHost(q.udp(1, 100), nil)
		}
		q.lineage.Refuse()
		eventually(t, func() bool { return q.a.e.Held() == 0 && q.a.left.count() == 3 })
		q.expectICMP(3, 3, 13, 1, 1)
		// For a time the same answer is given without asking.
		for range 20 {
			q.a.fromHost(q.udp(1, 100), nil)
		}
		q.expectICMP(maxHoldTold-3, 3, 13, 1, 1)
		q.expectEvents(1)
		q.a.expectDrop(hook.Left, wire.DropNoSA)
		q.a.now += int64(5 * time.Second)
		q.a.e.Tick()
		q.a.fromHost(q.udp(1, 100), nil)
		q.expectEvents(2)
		q.lineage.Refuse()
		eventually(t, func() bool { return q.a.e.Held() == 0 && q.a.left.count() == 1 })
		q.a.left.take(t, "", "")
		// An SA that comes after all is used at once.
		q.grant()
		q.a.fromHost(q.udp(1, 100), nil)
		if got := q.arrived(); len(got) != 1 {
			t.Errorf("%d datagrams came", len(got))
		}
	}
}

func TestR44_NobodyToAskIsNoSA(t *testing.T) {
	q := newAcquirer(t, false, HoldLimits{})
	q.lineage.Notify = nil
	q.a.fromHost(q.udp(1, 100), nil)
	q.a.expectDrop(hook.Left, wire.DropNoSA)
	if q.a.e.Held() != 0 {
		t.Error("a datagram waits for nobody")
	}
}

// A flow that goes on while its SA comes and goes keeps its order, and loses nothing.
func TestR44_AcquireKeepsOrderUnderLoad(t *testing.T) {
	q := newAcquirer(t, false, HoldLimits{Packets: 1 << 20, Octets: 1 << 30, Memory: 1 << 30})
	const rounds, each = 50, 40
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		// The key manager: grants, and ends the SA after a while.
		dst := addrB4
		for spi := uint32(0x3000); ; spi++ {
			select {
			case <-stop:
				return
			default:
			}
			s := q.a.make("ab", q.lineage, spi, dst)
			if _, err := q.lineage.Switch(s); err != nil {
				t.Error(err)
			}
			time.Sleep(200 * time.Microsecond)
			if _, err := q.lineage.Switch(nil); err != nil {
				t.Error(err)
			}
		}
	})
	for i := range rounds * each {
		d := q.udp(1, 100)
		binary.BigEndian.PutUint32(d[28:], uint32(i))
		q.a.fromHost(d, nil)
	}
	close(stop)
	wg.Wait()
	if _, err := q.lineage.Switch(q.a.make("ab", q.lineage, 0x2fff, addrB4)); err != nil {
		t.Fatal(err)
	}
	q.settle(0)
	// Each SPI has a key of its own, so the packets are opened here.
	var next uint32
	for _, d := range q.a.right.take(t, macA, macB) {
		in := parse(t, d)
		spi, seq, _ := spiAndSeq(d, &in)
		x := q.a.make("in", nil, spi, addrB4)
		p := transform.Packet{Buf: d, Hdr: in.HeaderLen, End: len(d)}
		if r := x.Transform.Open(&p, transform.Sequence{SPI: spi, Number: uint64(seq)}); r != wire.DropNone {
			t.Fatal(r)
		}
		if got := binary.BigEndian.Uint32(d[p.Pay+8:]); got != next {
			t.Fatalf("datagram %d came in the place of %d", got, next)
		}
		next++
	}
	if next != rounds*each {
		t.Errorf("%d of %d came; drops %v", next, rounds*each, q.a.drops(hook.Left))
	}
}

// A policy that populates its selector asks for an SA for each value, and each queue
// leaves by its own.
func TestR44_RFC4301_4_4_1_2_AcquireForEachValue(t *testing.T) {
	q := newAcquirer(t, false, HoldLimits{})
	q.policy.Selector.Proto = wire.ProtoUDP
	q.policy.Populate = sa.PopulateLocalPorts
	q.a.policies(q.policy)
	for _, port := range []uint16{7, 8, 7, 8, 7} {
		q.a.fromHost(q.udp(port, 100), nil)
	}
	if len(q.events) != 2 || q.a.e.Held() != 5 {
		t.Fatalf("%d events, %d datagrams are held; expected 2 and 5", len(q.events), q.a.e.Held())
	}
	for i, want := range []struct {
		port uint16
		n    uint64
	}{{7, 3}, {8, 2}} {
		ev := q.events[i]
		if ports := ev.Selector.LocalPorts; len(ports) != 1 || ports[0] != (sa.PortRange{From: want.port, To: want.port}) || ev.Policy.Parent() != q.policy {
			t.Errorf("event %d: selector %v of policy %v", i, ev.Selector.String(), ev.Policy.Name)
		}
		s := q.a.make("ab", ev.Lineage, 0x3000+uint32(i), addrB4)
		if _, err := ev.Lineage.Switch(s); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return s.LastSeq() == want.n })
	}
	q.settle(0)
	if n := len(q.a.right.take(t, macA, macB)); n != 5 {
		t.Errorf("%d left, expected 5", n)
	}
}

// TestRFC4301_5_1_1_RejectIsProhibited: a policy discards without a word, or tells the host.
func TestRFC4301_5_1_1_RejectIsProhibited(t *testing.T) {
	for _, reject := range []bool{false, true} {
		s := newStation(t, macA, macB, addrA4, addrA6)
		s.policies(&sa.Policy{Name: "no", Action: sa.Discard, Selector: sa.Selector{Proto: sa.AnyProto}, Reject: reject})
		for _, d := range [][]byte{udpTo(addrA4, addrB4, 1, 2, 30), udpTo(addrA6, addrB6, 1, 2, 30)} {
			s.fromHost(d, nil)
			told := s.left.take(t, "", macA)
			if !reject {
				if len(told) != 0 {
					t.Error("the host was told")
				}
				continue
			}
			if len(told) != 1 {
				t.Fatalf("%d answers", len(told))
			}
			in := parse(t, told[0])
			if v4 := in.Version == 4; v4 && (in.ICMPType != 3 || in.ICMPCode != 13) || !v4 && (in.ICMPType != 1 || in.ICMPCode != 1) {
				t.Errorf("ICMP type %d code %d", in.ICMPType, in.ICMPCode)
			}
		}
		s.expectDrop(hook.Left, wire.DropPolicyDiscard)
		// Whoever sends from the wire is told nothing.
		s.fromWire(udpTo(addrB4, addrA4, 1, 2, 30))
		s.expectDrop(hook.Right, wire.DropPolicyDiscard)
		if len(s.right.take(t, "", "")) != 0 {
			t.Error("the wire was told")
		}
	}
}
