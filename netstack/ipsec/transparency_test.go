package ipsec

import (
	"bytes"
	"hash/crc32"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

func TestR15_NoTransportEndsHere(t *testing.T) {
	// Sequence numbers, window, options and checksum of a segment are the same on both
	// sides, with a bypass policy and through an SA.
	seg := tcpTo(addrA4, addrB4, 500, false)
	s := newStation(t, macA, macB, addrA4)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	s.fromHost(seg, nil)
	if got := s.right.take(t, macA, macB); len(got) != 1 || !bytes.Equal(got[0], seg) {
		t.Error("bypass changed the segment")
	}
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	if got, _ := p.cross(seg, nil); len(got) != 1 || !bytes.Equal(got[0], seg) {
		t.Error("the SA changed the segment")
	}
	if n := len(p.b.right.frames) + len(p.a.left.frames); n != 0 {
		t.Errorf("%d frames that no host sent: somebody answers for a transport", n)
	}
}

func TestR17_RealAddresses_R18_OnTheWire(t *testing.T) {
	for _, f := range forms {
		p := newPair(t, "aes128gcm16", transform.ProtoESP, f.mode, f.six, f.crossed)
		a, b := addrA4, addrB4
		if f.six {
			a, b = addrA6, addrB6
		}
		// cross checks the Ethernet addresses: on the wire the NIC's own is the source.
		got, wired := p.cross(udpTo(a, b, 7, 8, 90), nil)
		if len(got) != 1 || len(wired) != 1 {
			t.Fatalf("%s: nothing came", modeName(f.mode, f.six, f.crossed))
		}
		if in := parse(t, got[0]); in.Src != a || in.Dst != b || in.SrcPort != 7 || in.DstPort != 8 {
			t.Errorf("%s: the host sees %v:%d", modeName(f.mode, f.six, f.crossed), in.Src, in.SrcPort)
		}
		outer := p.a.lineages["ab"].Outbound()
		if in := parse(t, wired[0]); in.Src != outer.Src || in.Dst != outer.Key.Dst {
			t.Errorf("%s: on the wire from %v to %v", modeName(f.mode, f.six, f.crossed), in.Src, in.Dst)
		}
	}
}

// crc is a transform that nobody but this test knows: no secrecy, and a checksum
// for an ICV. Nothing in the engine, the forwarders or the SAD had to change.
type crc struct{}

func (crc) Protocol() uint8    { return transform.ProtoESP }
func (crc) HeaderLen() int     { return wire.ESPMinLen }
func (crc) TrailerLen(int) int { return 5 }
func (crc) MaxPayload(room int) int {
	return max(room-wire.ESPMinLen-5, -1)
}

func (crc) sum(b []byte) [4]byte {
	s := crc32.ChecksumIEEE(b)
	return [4]byte{byte(s), byte(s >> 8), byte(s >> 16), byte(s >> 24)}
}

func (c crc) Seal(p *transform.Packet, s transform.Sequence) wire.DropReason {
	h := wire.ESP(p.Buf[p.Hdr:p.Pay])
	h.SetSPI(s.SPI)
	h.SetSeq(uint32(s.Number))
	p.Buf[p.End] = p.NextHeader
	sum := c.sum(p.Buf[p.Hdr : p.End+1])
	copy(p.Buf[p.End+1:], sum[:])
	p.End += 5
	return wire.DropNone
}

func (c crc) Open(p *transform.Packet, _ transform.Sequence) wire.DropReason {
	if p.End-p.Hdr < wire.ESPMinLen+5 {
		return wire.DropBadLength
	}
	if sum := c.sum(p.Buf[p.Hdr : p.End-4]); !bytes.Equal(sum[:], p.Buf[p.End-4:p.End]) {
		return wire.DropICV
	}
	p.Pay, p.End, p.NextHeader = p.Hdr+wire.ESPMinLen, p.End-5, p.Buf[p.End-5]
	return wire.DropNone
}

func TestR36_TransformsArePlugIns(t *testing.T) {
	alg := transform.Algorithm{
		Name: "crc32", Protocol: transform.ProtoESP, IntegrityKeyLen: 1, ICVLen: 4, BlockLen: 4, Weak: "a test",
		New: func(_, _ []byte, _ transform.Options) (transform.Transform, error) { return crc{}, nil },
	}
	p := &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
	for _, s := range []*station{p.a, p.b} {
		for name, dst := range map[string]struct {
			dir sa.Direction
			spi uint32
		}{"ab": {sa.Outbound, 0x1001}, "ba": {sa.Inbound, 0x2002}} {
			dir, to, from := dst.dir, addrB4, addrA4
			if name == "ba" {
				to, from = from, to
			}
			if s == p.b {
				dir = sa.Inbound - dir
			}
			l := sa.NewLineage(name)
			x, err := sa.New(sa.SAConfig{
				Name: name, Key: sa.Key{SPI: dst.spi, Dst: to, Proto: transform.ProtoESP}, Src: from, Direction: dir,
				Algorithm: alg, IntegrityKey: sa.NewSecret([]byte{1}), Lineage: l,
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.sad.Add(x); err != nil {
				t.Fatal(err)
			}
			if dir == sa.Outbound {
				if _, err := l.Switch(x); err != nil {
					t.Fatal(err)
				}
			}
			s.lineages[name] = l
		}
	}
	p.a.policies(p.a.protect("to-b", addrA4, addrB4, "ab", "ba"))
	p.b.policies(p.b.protect("to-a", addrB4, addrA4, "ba", "ab"))
	super := tcpTo(addrA4, addrB4, 10000, true)
	got, wired := p.cross(super, superframe(super, 1448))
	if len(got) != 7 || len(wired) != 7 {
		t.Errorf("%d frames on the wire, %d at the host: %v %v", len(wired), len(got), p.a.drops(0), p.b.drops(1))
	}
}
