package ipsec

import (
	"net/netip"
	"testing"
	"time"

	"bitw/netstack/wire"
)

func TestR50_RecentDropsAreBounded(t *testing.T) {
	var r recent
	flow := func(at time.Duration, dst byte, srcPort uint16) *DroppedFlow {
		return &DroppedFlow{
			Reason: wire.DropNoPolicy, Last: int64(time.Hour + at), Src: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Dst: netip.AddrFrom4([4]byte{192, 0, 2, dst}),
			Proto: wire.ProtoTCP, HasPorts: true, SrcPort: srcPort, DstPort: 443,
		}
	}
	r.note(flow(0, 9, 40000))
	r.note(flow(time.Millisecond, 8, 40000)) // too soon
	if r.n != 1 {
		t.Errorf("%d flows are kept", r.n)
	}
	r.note(flow(20*time.Millisecond, 9, 40001)) // another try of the same
	if r.n != 1 || r.list[0].SrcPort != 40001 {
		t.Errorf("%d flows are kept: %+v", r.n, r.list[:r.n])
	}
	for i := range 100 {
		r.note(flow(time.Duration(i+3)*20*time.Millisecond, byte(i), 40000))
	}
	seen := make(map[byte]bool)
	for _, f := range r.list[:r.n] {
		seen[f.Dst.As4()[3]] = true
	}
	if r.n != recentFlows || !seen[99] || !seen[98] || !seen[97] || !seen[96] {
		t.Errorf("%d flows are kept: %v", r.n, seen)
	}
	at := 10 * time.Second
	f := flow(at, 1, 1)
	if n := testing.AllocsPerRun(100, func() {
		f.Last += int64(time.Second)
		f.DstPort++
		r.note(f)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
