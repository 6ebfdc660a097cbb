package ipsec

import (
	"encoding/binary"
	"testing"

	"bitw/sa"
	"bitw/sa/transform"
)

// TestR11_HostBatchKeepsTheOrder: what became of one batch of the host's goes to the wire
// by one call, and no frame overtakes another, whatever else the batch has.
func TestR11_HostBatchKeepsTheOrder(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, false, false)
	p.a.e.hostBatches = make([]hostBatch, 1)
	datagram := func() { p.a.fromHost(udpTo(addrA4, addrB4, 4000, 4001, 100), nil) }
	for range 5 {
		datagram()
	}
	if n := len(p.a.right.frames); n != 0 {
		t.Fatalf("%d frames before the end of the batch", n)
	}
	p.a.e.EndHostBatch(0)
	if p.a.right.calls != 1 || len(p.a.right.frames) != 5 {
		t.Errorf("%d frames by %d calls, expected 5 by one", len(p.a.right.frames), p.a.right.calls)
	}
	for range 3 {
		datagram()
	}
	d := tcpTo(addrA4, addrB4, 30000, true)
	p.a.fromHost(d, superframe(d, 1448))
	for range hostBatchLen + 3 {
		datagram()
	}
	p.a.e.EndHostBatch(0)
	p.a.e.EndHostBatch(0)
	p.a.e.EndHostBatch(7)
	for i, b := range p.a.right.take(t, "", "") {
		if seq := binary.BigEndian.Uint32(b[24:]); seq != uint32(i+1) {
			t.Fatalf("sequence number %d in place %d", seq, i+1)
		}
	}
	if len(p.a.right.frames) != 0 {
		t.Error("frames after the end")
	}
}
