package sa

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// heap returns the octets that are in use. What sync.Pools hold outlives one
// collection, and is in it.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// An SA with its keys, expanded, and its place in the database has 4 KiB at most, so
// that 100,000 have less than 400 MB. The replay window has the size that was asked
// for, and more for nobody. AES-GCM and ChaCha20-Poly1305 keep nothing for an SA that is at
// work beside it.
func TestR31_MemoryOfAnSA(t *testing.T) {
	const n = 2000
	for _, c := range []struct {
		direction Direction
		algorithm string
		window    int
		most      uint64
	}{
		{Outbound, "aes256gcm16", 0, 4096},
		{Inbound, "aes256gcm16", 0, 4096},
		{Inbound, "aes256gcm16", 1024, 4096},
		{Inbound, "aes256gcm16", MaxReplayWindow, 4096 + 2*MaxReplayWindow/8},
	} {
		alg, err := transform.Lookup(transform.ProtoESP, c.algorithm)
		if err != nil {
			t.Fatal(err)
		}
		db, store, lineage := NewSAD(), NewMemoryStore(), NewLineage("l")
		before := heap()
		for i := range n {
			enc := make([]byte, alg.EncryptionKeyLen)
			enc[0], enc[1] = byte(i>>8), byte(i)
			s, err := New(SAConfig{
				Name: fmt.Sprintf("sa-%d", i), Key: Key{uint32(0x1000 + i), netip.MustParseAddr("10.0.0.2"), transform.ProtoESP},
				Direction: c.direction, Algorithm: alg, EncryptionKey: NewSecret(enc), Store: store,
				ReplayWindow: c.window, Lineage: lineage,
			})
			if err != nil {
				t.Fatal(err)
			}
			// The first packet would make what the transform keeps besides.
			p := transform.Packet{Buf: make([]byte, 100), Hdr: 20, Pay: 20 + s.Transform.HeaderLen(), End: 60}
			if reason := s.Transform.Seal(&p, transform.Sequence{SPI: s.Key.SPI, Number: 1}); reason != wire.DropNone {
				t.Fatal(reason)
			}
			if err := db.Add(s); err != nil {
				t.Fatal(err)
			}
		}
		each := (heap() - before) / n
		runtime.KeepAlive(db)
		t.Logf("%v %s, window %d: %d octets an SA", c.direction, c.algorithm, c.window, each)
		if each > c.most {
			t.Errorf("%v %s, window %d: %d octets an SA, want %d at most", c.direction, c.algorithm, c.window, each, c.most)
		}
	}
}
