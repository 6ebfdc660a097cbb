package ipsec

import (
	"bytes"
	"hash/crc32"
	"testing"

	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
	"bitw/sa/transform/legacy"
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

// crcAlgorithm is all that registering crc takes.
func crcAlgorithm() transform.Algorithm {
	return transform.Algorithm{
		Name: "crc32", Protocol: transform.ProtoESP, IntegrityKeyLen: 1, ICVLen: 4, BlockLen: 4, Weak: "a test",
		New: func(_, _ []byte, _ transform.Options) (transform.Transform, error) { return crc{}, nil },
	}
}

// A family that only this test has joins the registry beside the others, and stands in two
// slots of a table, each with an SA of its own.
func TestR36_TransformsArePlugIns(t *testing.T) {
	registry := transform.NewRegistry(append(transform.Families(), transform.Family{Algorithms: []transform.Algorithm{crcAlgorithm()}})...)
	found, err := registry.Lookup(transform.ProtoESP, "crc32")
	if err != nil {
		t.Fatal(err)
	}
	crypt, err := legacy.NewPlugIn("crypt", "useipsec")
	if err != nil {
		t.Fatal(err)
	}
	plugIn := transform.PlugIn{Name: "crc", Algorithms: []transform.Algorithm{found}}
	table, err := transform.NewTable(plugIn, crypt, plugIn)
	if err != nil {
		t.Fatal(err)
	}
	slots := table.Numbers("crc")
	if len(slots) != 2 {
		t.Fatalf("crc stands in slots %v", slots)
	}
	p := &pair{newStation(t, macA, macB, addrA4), newStation(t, macB, macA, addrB4)}
	for _, s := range []*station{p.a, p.b} {
		for slot, name := range map[int]string{slots[0]: "ab", slots[1]: "ba"} {
			standing, _ := table.Slot(slot)
			alg, err := standing.Algorithm(0, 1)
			if err != nil {
				t.Fatal(err)
			}
			dir, to, from := sa.Outbound, addrB4, addrA4
			if name == "ba" {
				dir, to, from = sa.Inbound, from, to
			}
			if s == p.b {
				dir = sa.Inbound - dir
			}
			s.add(name, "aes128gcm16", transform.ProtoESP, dir, sa.Transport, uint32(0x1001+slot), from, to, func(c *sa.SAConfig) {
				c.Algorithm, c.EncryptionKey, c.IntegrityKey = alg, sa.Secret{}, sa.NewSecret([]byte{1})
			})
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
