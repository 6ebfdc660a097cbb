package wire

import (
	"bytes"
	"testing"
)

// FuzzLikeness: whatever two frames hold, those that go together differ only behind their
// SPIs and in what of the IP header says nothing about where they go.
func FuzzLikeness(f *testing.F) {
	v4 := make([]byte, VirtioNetLen+ethernetLen+40)
	v4[VirtioNetLen+12], v4[VirtioNetLen+ethernetLen], v4[VirtioNetLen+ethernetLen+9] = 8, 0x45, ProtoESP
	f.Add(v4, v4)
	v6 := make([]byte, VirtioNetLen+ethernetLen+60)
	v6[VirtioNetLen+12], v6[VirtioNetLen+13], v6[VirtioNetLen+ethernetLen], v6[VirtioNetLen+ethernetLen+6] = 0x86, 0xdd, 0x60, ProtoESP
	f.Add(v6, v6)
	f.Fuzz(func(t *testing.T, a, b []byte) {
		at := ESPAt(a)
		var l Likeness
		if l.Of(a) != at || at == 0 || !l.Fits(b) {
			return
		}
		if ESPAt(b) != at {
			t.Errorf("% x goes together with another and has its ESP at %d, not at %d", b, ESPAt(b), at)
		}
		var in, other Info
		d := a[VirtioNetLen+ethernetLen:]
		if Parse(d, &in) == DropNone && (in.Proto != ProtoESP || in.IsFragment || VirtioNetLen+ethernetLen+in.HeaderLen != at) {
			t.Errorf("% x is no plain ESP", a)
		}
		if Parse(d, &in) == DropNone && Parse(b[VirtioNetLen+ethernetLen:], &other) == DropNone && (in.Src != other.Src || in.Dst != other.Dst) {
			t.Error("packets of two flows go together")
		}
		if !bytes.Equal(a[VirtioNetLen:VirtioNetLen+ethernetLen], b[VirtioNetLen:VirtioNetLen+ethernetLen]) || !bytes.Equal(a[at:at+4], b[at:at+4]) {
			t.Error("packets of two stations or SAs go together")
		}
	})
}
