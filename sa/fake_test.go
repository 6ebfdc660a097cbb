package sa

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// fakeTransform has sizes and no effect.
type fakeTransform struct{ proto uint8 }

func (f fakeTransform) Protocol() uint8    { return f.proto }
func (fakeTransform) HeaderLen() int       { return 16 }
func (fakeTransform) TrailerLen(int) int   { return 18 }
func (fakeTransform) MaxPayload(r int) int { return r - 34 }
func (fakeTransform) Seal(*transform.Packet, transform.Sequence) wire.DropReason {
	return wire.DropNone
}
func (fakeTransform) Open(*transform.Packet, transform.Sequence) wire.DropReason {
	return wire.DropNone
}

// fakeAlgorithm wants an encryption key of 20 octets for counter mode, else an
// encryption key of 16 and an integrity key of 4.
func fakeAlgorithm(proto uint8, counterMode bool) transform.Algorithm {
	a := transform.Algorithm{Name: "fakecbc", Protocol: proto, EncryptionKeyLen: 16, IntegrityKeyLen: 4, CounterMode: counterMode}
	if counterMode {
		a.Name, a.EncryptionKeyLen, a.IntegrityKeyLen = "fakegcm", 20, 0
	}
	a.New = func(enc, integ []byte, _ transform.Options) (transform.Transform, error) {
		if len(enc) != a.EncryptionKeyLen || len(integ) != a.IntegrityKeyLen {
			return nil, fmt.Errorf("keys have %d and %d octets, want %d and %d", len(enc), len(integ), a.EncryptionKeyLen, a.IntegrityKeyLen)
		}
		return fakeTransform{proto}, nil
	}
	return a
}

func key(n int, fill byte) Secret {
	b := make([]byte, n)
	for i := range b {
		b[i] = fill
	}
	return NewSecret(b)
}

// testConfig is a transport mode SA with a counter-mode key.
func testConfig(d Direction) SAConfig {
	return SAConfig{
		Name: "a", Key: Key{0x1001, netip.MustParseAddr("10.0.0.2"), transform.ProtoESP}, Direction: d,
		Algorithm: fakeAlgorithm(transform.ProtoESP, true), EncryptionKey: key(20, 1), Store: NewMemoryStore(),
		Clock: func() int64 { return 1e18 },
	}
}

func mustNew(t testing.TB, cfg SAConfig) *SA {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func want(t testing.TB, what string, got, want wire.DropReason) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// A fakeClock stands still until it is moved.
type fakeClock struct{ now atomic.Int64 }

func (c *fakeClock) read() int64 { return c.now.Load() }
