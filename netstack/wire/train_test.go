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

// What fits a likeness differs from it in nothing but what says neither where a packet goes
// nor what it is, octet by octet.
func TestLikeness(t *testing.T) {
	const head = VirtioNetLen + ethernetLen
	for _, six := range []bool{false, true} {
		for _, proto := range []uint8{ProtoESP, ProtoUDP} {
			f := make([]byte, head+ipv6Len+40)
			b, at := f[head:], head+ipv4MinLen
			f[head-2], b[0], b[ipv4ProtoAt] = 8, 0x45, proto
			free := map[int]byte{head + 1: 0xff, head + 6: 0xc0, head + 8: 0xff} // TOS, DF, TTL
			if six {
				at, f[head-2], f[head-1], b[0], b[ipv4ProtoAt], b[ipv6ProtoAt] = head+ipv6Len, 0x86, 0xdd, 0x60, 0, proto
				free = map[int]byte{head: 0x0f, head + 1: 0xff, head + 2: 0xff, head + 3: 0xff, head + 7: 0xff}
				free[head+4], free[head+5] = 0xff, 0xff
			} else {
				for _, i := range []int{2, 3, 4, 5, 10, 11} { // lengths, identification, checksum
					free[head+i] = 0xff
				}
			}
			free[vnFlags] = 0xff
			if proto == ProtoESP {
				free[vnFlags] ^= VirtioNetNeedsCsum
			}
			for i := vnGSOType + 1; i < VirtioNetLen; i++ {
				free[i] = 0xff
			}
			for i := at + 4; i < len(f); i++ {
				free[i] = 0xff
			}
			var l Likeness
			if got := l.Of(f); got != at {
				t.Fatalf("six %v, protocol %d: at %d, expected %d", six, proto, got, at)
			}
			for i := range f {
				for bit := byte(1); bit != 0; bit <<= 1 {
					f[i] ^= bit
					if got, want := l.Fits(f), free[i]&bit != 0; got != want {
						t.Errorf("six %v, protocol %d, bit %#x of octet %d is another: fits %v, expected %v", six, proto, bit, i, got, want)
					}
					f[i] ^= bit
				}
			}
			if l.Fits(f[:at+4]) {
				t.Errorf("six %v, protocol %d: a frame that was cut short fits", six, proto)
			}
		}
	}
	var none Likeness
	if none.Fits(make([]byte, 100)) {
		t.Error("something fits nothing")
	}
}
