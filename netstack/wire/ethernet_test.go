package wire

import (
	"bytes"
	"testing"
)

func TestEthernet(t *testing.T) {
	addrs := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	for _, c := range []struct {
		name string
		rest []byte
		ok   bool
		n    int
		typ  uint16
	}{
		{"IPv4", []byte{0x08, 0, 0x45}, true, 14, EtherTypeIPv4},
		{"no payload", []byte{0x86, 0xdd}, true, 14, EtherTypeIPv6},
		{"no type", []byte{0x86}, false, 0, 0},
		{"802.1Q", []byte{0x81, 0, 0, 5, 0x08, 0x06, 1}, true, 18, EtherTypeARP},
		{"802.1Q cut short", []byte{0x81, 0, 0, 5, 0x08}, false, 0, 0},
		{"802.1ad", []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x08, 0, 1}, true, 22, EtherTypeIPv4},
		{"three tags", []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6, 0x81, 0, 1}, true, 22, EtherTypeVLAN},
	} {
		b := append(bytes.Clone(addrs), c.rest...)
		e, ok := NewEthernet(b)
		if ok != c.ok {
			t.Errorf("%s: ok = %v", c.name, ok)
			continue
		}
		if !ok {
			continue
		}
		if e.HeaderLen() != c.n || e.Type() != c.typ || !bytes.Equal(e.Payload(), b[c.n:]) ||
			!bytes.Equal(e.Dst(), addrs[:6]) || !bytes.Equal(e.Src(), addrs[6:]) || !e.IsGroup() {
			t.Errorf("%s: header %d, type %#x, payload % x", c.name, e.HeaderLen(), e.Type(), e.Payload())
		}
		e.SetType(EtherTypeIPv6)
		if e.Type() != EtherTypeIPv6 || e.HeaderLen() != c.n {
			t.Errorf("%s: type %#x after SetType", c.name, e.Type())
		}
	}
	if e, _ := NewEthernet(make([]byte, 14)); e.IsGroup() {
		t.Error("00:00:00:00:00:00 is a group address")
	}
}
