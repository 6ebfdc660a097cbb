package ipsec

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// segmentsOf cuts a TCP superframe of n octets from a to b, with ports and sequence
// number of its own, as a's host sends it, and returns what is on the wire.
func segmentsOf(t testing.TB, p *pair, six bool, port uint16, seq uint32, n int) [][]byte {
	src, dst := addrA4, addrB4
	if six {
		src, dst = addrA6, addrB6
	}
	d := tcpTo(src, dst, n, true)
	in := parse(t, d)
	u := d[in.HeaderLen:]
	binary.BigEndian.PutUint16(u, port)
	binary.BigEndian.PutUint32(u[4:], seq)
	u[13] = 0x10 // the partial checksum is of the pseudo header alone, and stays right
	p.a.fromHost(d, superframe(d, 1448))
	return p.a.right.take(t, "", "")
}

// coalescing makes b join what one batch brings.
func coalescing(p *pair) { p.b.e.coalescers = make([]coalescer, 1) }

// received returns b's frames for the host as datagrams with their metadata.
func (s *station) received() (list []wire.VirtioNet, datagrams [][]byte) {
	for _, f := range s.left.frames {
		list = append(list, wire.VirtioNet(f[:wire.VirtioNetLen]))
		datagrams = append(datagrams, f[link.HeaderLen:])
	}
	s.left.frames = nil
	return list, datagrams
}

// TestR15_SegmentsReachTheHostAsOneSuperframe: what one batch brought of a flow is one
// superframe, which cuts into the very segments that were sent.
func TestR15_SegmentsReachTheHostAsOneSuperframe(t *testing.T) {
	for _, mode := range []sa.Mode{sa.Transport, sa.Tunnel} {
		for _, six := range []bool{false, true} {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, mode, six, false)
			coalescing(p)
			w := segmentsOf(t, p, six, 4000, 1000, 30000)
			p.b.fromWire(w...)
			if len(p.b.left.frames) != 0 {
				t.Fatal("a segment went on before the end of the batch")
			}
			p.b.e.EndBatch(0)
			vn, got := p.b.received()
			if len(got) != 1 || vn[0].GSOSize() == 0 {
				t.Fatalf("%v: %d frames for %d segments", modeName(mode, six, false), len(got), len(w))
			}
			in := parse(t, got[0])
			payload := got[0][in.HeaderLen+in.L4HeaderLen:]
			if !bytes.Equal(payload, pattern(30000)) {
				t.Error("the stream is not what was sent")
			}
			if r := vn[0].Check(ethernetLen + len(got[0])); r != wire.DropNone {
				t.Errorf("metadata: %v", r)
			}
			var c wire.Cutter
			if r := c.Init(got[0], &in, vn[0], 65535); r != wire.DropNone || c.Segments() != len(w) {
				t.Errorf("cut again: %v, %d segments of %d", r, c.Segments(), len(w))
			}
			buf := make([]byte, 2000)
			for n := c.Next(buf); n > 0; n = c.Next(buf) {
				s := parse(t, buf[:n])
				if !wire.VerifyL4(buf[:n], &s) {
					t.Error("a segment has a wrong checksum")
				}
			}
			if n := p.b.e.SPD().Policies()[0].Counters[sa.Inbound].Packets.Load(); n != uint64(len(w)) {
				t.Errorf("%d packets counted of %d", n, len(w))
			}
		}
	}
}

// TestR11_CoalescingKeepsTheOrderOfAFlow mixes flows, gaps, datagrams that cannot be
// joined and fragments in one batch: within each flow nothing overtakes.
func TestR11_CoalescingKeepsTheOrderOfAFlow(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	coalescing(p)
	const flows = coalesceFlows + 3
	var seqs [flows]uint32
	sent := 0
	for range 3 {
		var parts [flows][][]byte
		for i := range parts {
			port := uint16(5000 + i)
			parts[i] = segmentsOf(t, p, false, port, seqs[i], 4000)
			seqs[i] += 4000
			if i%3 == 0 {
				seqs[i] += 100 // a gap
			}
			if i%4 == 0 { // no data: nothing to join
				parts[i] = append(parts[i], segmentsOf(t, p, false, port, seqs[i], 0)...)
			}
		}
		for i := range 4 {
			for _, f := range parts {
				if i < len(f) {
					p.b.fromWire(f[i])
					sent++
				}
			}
		}
	}
	p.b.e.EndBatch(0)
	_, got := p.b.received()
	next := map[uint16]uint32{}
	octets := 0
	for _, d := range got {
		in := parse(t, d)
		seq := binary.BigEndian.Uint32(d[in.HeaderLen+4:])
		if seq < next[in.SrcPort] {
			t.Errorf("flow %d: %d after %d", in.SrcPort, seq, next[in.SrcPort])
		}
		n := len(d) - in.HeaderLen - in.L4HeaderLen
		next[in.SrcPort] = seq + uint32(n)
		octets += n
	}
	if octets != flows*12000 || len(got) >= sent {
		t.Errorf("%d octets in %d frames, sent %d in %d", octets, len(got), flows*12000, sent)
	}
	if d := p.b.drops(hook.Right); len(d) != 0 {
		t.Errorf("drops: %v", d)
	}
}

// TestR39_CoalescingLeavesWrongChecksumsAlone: a segment whose own checksum is wrong,
// though ESP vouches for it, reaches the host as it was sent.
func TestR39_CoalescingLeavesWrongChecksumsAlone(t *testing.T) {
	p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Tunnel, false, false)
	coalescing(p)
	var sent [][]byte
	for i := range 3 {
		d := tcpTo(addrA4, addrB4, 1000, false)
		binary.BigEndian.PutUint32(d[24:], uint32(1000+1000*i)) // its checksum no longer fits
		d[33] = 0x10
		sent = append(sent, bytes.Clone(d))
		p.a.fromHost(d, nil)
	}
	p.b.fromWire(p.a.right.take(t, "", "")...)
	p.b.e.EndBatch(0)
	vn, got := p.b.received()
	if len(got) != 3 {
		t.Fatalf("%d frames, expected 3", len(got))
	}
	for i := range got {
		if !bytes.Equal(got[i], sent[i]) || vn[i].GSOType() != 0 || vn[i].NeedsCsum() {
			t.Errorf("frame %d is not as it was sent", i)
		}
	}
}

// TestR15_UDPReachesTheHostAsOneSuperframe: datagrams of one flow and size that one batch
// brought are one superframe, if the link takes such, which cuts into the very datagrams.
func TestR15_UDPReachesTheHostAsOneSuperframe(t *testing.T) {
	for _, joins := range []bool{true, false} {
		for _, six := range []bool{false, true} {
			p := newPair(t, "aes128gcm16", transform.ProtoESP, sa.Transport, six, false)
			coalescing(p)
			p.b.e.SetJoinUDP(joins)
			const n = 20
			var sent [][]byte
			for i := range n {
				src, dst := addrA4, addrB4
				if six {
					src, dst = addrA6, addrB6
				}
				d := udpTo(src, dst, 4000, 4001, 100+i/(n-1)*-7) // the last is shorter
				sent = append(sent, bytes.Clone(d))
				p.a.fromHost(d, nil)
			}
			p.b.fromWire(p.a.right.take(t, "", "")...)
			p.b.e.EndBatch(0)
			vn, got := p.b.received()
			if !joins {
				if len(got) != n {
					t.Errorf("%d frames of %d for a link that takes no superframes", len(got), n)
				}
				continue
			}
			if len(got) != 1 || vn[0].GSOType() != wire.GSOUDPL4 || vn[0].GSOSize() != 100 {
				t.Fatalf("%d frames for %d datagrams", len(got), n)
			}
			in := parse(t, got[0])
			var c wire.Cutter
			if r := c.Init(got[0], &in, vn[0], 65535); r != wire.DropNone || c.Segments() != n {
				t.Fatalf("cut again: %v, %d datagrams of %d", r, c.Segments(), n)
			}
			buf := make([]byte, 2000)
			for i := range n {
				m := c.Next(buf)
				d := parse(t, buf[:m])
				if !bytes.Equal(buf[d.HeaderLen:m], sent[i][d.HeaderLen:]) {
					t.Errorf("datagram %d is not what was sent", i)
				}
			}
		}
	}
}

// cut returns the segments or datagrams of a superframe.
func cut(t testing.TB, d []byte, vn wire.VirtioNet) (list [][]byte) {
	t.Helper()
	in := parse(t, d)
	var c wire.Cutter
	if r := c.Init(d, &in, vn, 65535); r != wire.DropNone {
		t.Fatal(r)
	}
	buf := make([]byte, 2000)
	for n := c.Next(buf); n > 0; n = c.Next(buf) {
		list = append(list, bytes.Clone(buf[:n]))
	}
	return list
}

// TestR15_R16_BypassedSegmentsReachTheHostAsOneSuperframe: what no SA protects is joined, too,
// and cuts into the very datagrams that came. Fragments, superframes and datagrams whose
// checksum is not there yet go as they came, behind what came before of their flow.
func TestR15_R16_BypassedSegmentsReachTheHostAsOneSuperframe(t *testing.T) {
	s := newStation(t, macB, macA, addrB4, addrB6)
	s.policies(&sa.Policy{Name: "all", Action: sa.Bypass})
	s.e.coalescers = make([]coalescer, 1)
	s.e.SetJoinUDP(true)
	for _, ends := range [][2]netip.Addr{{addrA4, addrB4}, {addrA6, addrB6}} {
		super := tcpTo(ends[0], ends[1], 30000, true)
		super[len(super)-30000-32+13] = 0x10
		whole := frame(macA, macB, super, superframe(super, 1448))
		sent := cut(t, super, wire.VirtioNet(whole))
		before := s.e.SPD().Policies()[0].Counters[sa.Inbound].Packets.Load()
		s.fromWire(sent...)
		s.e.EndBatch(0)
		vn, got := s.received()
		if len(got) != 1 {
			t.Fatalf("%d frames for %d segments", len(got), len(sent))
		}
		if again := cut(t, got[0], vn[0]); !slices.EqualFunc(again, sent, bytes.Equal) {
			t.Error("the segments are not those that came")
		}
		if n := s.e.SPD().Policies()[0].Counters[sa.Inbound].Packets.Load() - before; n != uint64(len(sent)) {
			t.Errorf("%d packets counted of %d", n, len(sent))
		}

		if ends[0].Is4() { // of what does not count, the identification stays
			var same [][]byte
			for _, b := range sent[:3] {
				b = bytes.Clone(b)
				binary.BigEndian.PutUint16(b[4:], 7)
				wire.UpdateIPv4Checksum(b)
				same = append(same, b)
			}
			s.fromWire(same...)
			s.e.EndBatch(0)
			if _, got := s.received(); !slices.EqualFunc(got, same, bytes.Equal) {
				t.Errorf("of %d segments with one identification came %d as they were", len(same), len(got))
			}
		}

		first := udpTo(ends[0], ends[1], 5, 6, 1000)
		parts := fragments(t, udpTo(ends[0], ends[1], 5, 6, 3000), 1500)
		s.fromWire(append([][]byte{first}, parts...)...)
		s.e.EndBatch(0)
		if _, got := s.received(); !slices.EqualFunc(got, append([][]byte{first}, parts...), bytes.Equal) {
			t.Errorf("a datagram and %d fragments of another came as %d", len(parts), len(got))
		}

		s.fromWire(sent[0])
		pkt := link.NewPacket(whole, macB)
		s.e.inbound(pkt)
		pkt.DecRef()
		s.e.EndBatch(0)
		vn, got = s.received()
		if len(got) != 2 || !bytes.Equal(got[0], sent[0]) || !bytes.Equal(got[1], super) || vn[1].GSOSize() != 1448 || !vn[1].NeedsCsum() {
			t.Errorf("a superframe behind a segment: %d frames", len(got))
		}

		short := tcpTo(ends[0], ends[1], 1000, true)
		pkt = link.NewPacket(frame(macA, macB, short, func(v wire.VirtioNet) {
			superframe(short, 0)(v)
			v.SetGSOType(wire.GSONone)
		}), macB)
		s.e.inbound(pkt)
		pkt.DecRef()
		s.e.EndBatch(0)
		vn, got = s.received()
		if len(got) != 1 || !bytes.Equal(got[0], short) || !vn[0].NeedsCsum() {
			t.Error("a segment whose checksum is left to the device lost that")
		}
	}
	if d := s.drops(hook.Right); len(d) != 0 {
		t.Errorf("drops: %v", d)
	}
}
