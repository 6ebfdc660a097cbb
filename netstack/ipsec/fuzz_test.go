package ipsec

import (
	"bytes"
	"slices"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/link"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// FuzzInbound gives any octets to the wire side, in every mode that the adversary knows.
// Nothing may panic, and nothing whose payload is not what a's engine sealed, in whatever
// mode, may reach the host: their keys are the same.
func FuzzInbound(f *testing.F) {
	list := targets()
	for i, g := range list {
		base := g.pair(f)
		base.a.fromHost(g.payload(64), nil)
		sealed := base.a.right.take(f, "", "")[0]
		f.Add(uint8(i), frame(macA, macB, sealed, nil))
		in := parse(f, sealed)
		if b, ok := wire.AppendTooBig(nil, sealed, &in, 900); ok {
			f.Add(uint8(i), frame(macA, macB, b, nil))
		}
	}
	f.Add(uint8(0), frame(macA, macB, udpTo(addrA4, addrB4, 1, 2, 64), nil))
	f.Add(uint8(0), frame(macA, macB, udpTo(addrA6, addrB6, 1, 2, 10), nil))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		g := list[int(kind)%len(list)]
		p := g.pair(t)
		pkt := link.NewPacket(b, macB)
		if pkt == nil {
			return
		}
		p.b.e.inbound(pkt)
		pkt.DecRef()
		for _, d := range p.b.left.take(t, "", macB) {
			sealed := func(by target) bool { return bytes.HasSuffix(d, by.payload(64)[by.ipLen():]) }
			if !slices.ContainsFunc(list, sealed) {
				t.Fatalf("%x reached the host", d)
			}
		}
		p.b.e.Close()
	})
}

// FuzzAuthentic has a peer with the right key seal any octets with any next header: what
// was never more than a stranger's may not panic, and what reaches the host fits the
// selectors of the SA. Each packet is delivered, dropped for one reason or kept as a
// fragment.
func FuzzAuthentic(f *testing.F) {
	four, six := udpTo(innerA4, innerB4, 1, 2, 40), udpTo(innerA6, innerB6, 1, 2, 40)
	kinds := []sa.Mode{sa.Transport, sa.Tunnel, sa.BEET}
	for kind := range 2 * len(kinds) {
		for _, d := range [][]byte{four, six, udpTo(addrA4, addrB4, 1, 2, 40), udpTo(addrA6, addrB6, 1, 2, 40), firstFragment(addrA4, addrB4, 40)} {
			next := uint8(wire.ProtoIPv4)
			if d[0]>>4 == 6 {
				next = wire.ProtoIPv6
			}
			f.Add(uint8(kind), next, d)
			f.Add(uint8(kind), uint8(wire.ProtoUDP), d[ipHeaderLen(sourceOf(d)):])
		}
		f.Add(uint8(kind), uint8(wire.ProtoNone), []byte{1, 2, 3})
		f.Add(uint8(kind), uint8(94), append([]byte{17, 0, 2, 0, 1, 1, 1, 1}, four[20:]...)) // BEET mode's pseudo header
	}
	f.Fuzz(func(t *testing.T, kind, next uint8, payload []byte) {
		if len(payload) > 4000 {
			return
		}
		mode, six := kinds[int(kind)%len(kinds)], int(kind)/len(kinds)%2 == 1
		var p *pair
		a, b := addrA4, addrB4
		switch {
		case mode == sa.BEET:
			p, a, b = newBEET(t, "null-sha256", six, six)
		case six:
			a, b = addrA6, addrB6
			fallthrough
		default:
			p = newPair(t, "null-sha256", transform.ProtoESP, mode, six, false)
		}
		p.b.fromWire(p.sealAs(t, next, payload))
		got := p.b.left.take(t, "", macB)
		for _, d := range got {
			if in := parse(t, d); in.Src != a || in.Dst != b {
				t.Fatalf("%x reached the host", d)
			}
		}
		if n := len(got) + int(p.b.dropped()) + p.b.e.Incomplete(); n != 1 {
			t.Fatalf("%d delivered, %d incomplete, drops %v of one packet", len(got), p.b.e.Incomplete(), p.b.drops(hook.Right))
		}
		p.b.e.Close()
	})
}

// FuzzOutbound gives any octets to the host's side. Nothing may panic, and nothing
// may leave but ESP.
func FuzzOutbound(f *testing.F) {
	super := tcpTo(addrA4, addrB4, 4000, true)
	f.Add(frame(macA, macA, super, superframe(super, 1448)))
	f.Add(frame(macA, macA, udpTo(addrA4, addrB4, 1, 2, 64), nil))
	f.Add(frame(macA, macA, udpTo(addrA6, addrB6, 1, 2, 64), nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, six := range []bool{false, true} {
			p := newPair(t, "aes256-sha256", transform.ProtoESP, sa.Tunnel, six, false)
			pkt := link.NewPacket(b, macA)
			if pkt == nil {
				return
			}
			p.a.e.outbound(pkt)
			pkt.DecRef()
			for _, d := range p.a.right.take(t, "", "") {
				if in := parse(t, d); in.Proto != transform.ProtoESP || len(d) > 1500 {
					t.Fatalf("protocol %d, %d octets left", in.Proto, len(d))
				}
			}
			p.a.e.Close()
		}
	})
}

// TestR39_Mutations flips every bit of a sealed packet, cuts and extends it: not
// one variant reaches the host, and the packet itself still does afterwards.
func TestR39_Mutations(t *testing.T) {
	for _, alg := range []struct {
		name  string
		proto uint8
	}{{"aes128gcm16", transform.ProtoESP}, {"aes128-sha256", transform.ProtoESP}, {"sha256", transform.ProtoAH}} {
		p := newPair(t, alg.name, alg.proto, sa.Transport, false, false)
		d := udpTo(addrA4, addrB4, 1, 2, 30)
		p.a.fromHost(d, nil)
		sealed := p.a.right.take(t, "", "")[0]
		fixed := func(b []byte) []byte {
			wire.SetIPv4TotalLen(b, len(b))
			return b
		}
		for bit := range len(sealed) * 8 {
			// AH leaves out the fields that may change on the way (RFC 4302 §3.3.3.1.1.1).
			if at := bit / 8; alg.proto == transform.ProtoAH && (at == 1 || at >= 6 && at <= 8 || at == 10 || at == 11) {
				continue
			}
			for _, repair := range []bool{false, true} {
				b := bytes.Clone(sealed)
				b[bit/8] ^= 1 << (bit % 8)
				if repair && b[0] == 0x45 {
					wire.UpdateIPv4Checksum(b)
				}
				if bytes.Equal(b, sealed) {
					continue
				}
				if alg.proto == transform.ProtoESP && repair && (bit/8 == 1 || bit/8 == 4 || bit/8 == 5 || bit/8 == 8 || bit/8 >= 10 && bit/8 <= 15 || bit/8 == 6) {
					continue // ESP does not protect the IP header in transport mode
				}
				p.b.fromWire(b)
				if got := p.b.left.take(t, "", ""); len(got) != 0 {
					t.Fatalf("%s: bit %d flipped, repair %v: reached the host", alg.name, bit, repair)
				}
			}
		}
		for n := range len(sealed) {
			if n >= 20 {
				p.b.fromWire(fixed(bytes.Clone(sealed[:n])))
			}
			p.b.fromWire(fixed(append(bytes.Clone(sealed), make([]byte, n+1)...)))
		}
		if got := p.b.left.take(t, "", ""); len(got) != 0 {
			t.Fatalf("%s: a cut or extended packet reached the host", alg.name)
		}
		p.b.fromWire(sealed)
		if got := p.b.left.take(t, "", ""); len(got) != 1 || !bytes.Equal(got[0], d) {
			t.Errorf("%s: the true packet is refused afterwards: %v", alg.name, p.b.drops(hook.Right))
		}
	}
}
