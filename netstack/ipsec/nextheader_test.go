package ipsec

import (
	"bytes"
	"testing"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
	"bitw/sa/transform"
)

// sealAs has a seal a payload with any next header by its SA to b: what a peer with the
// right key could send.
func (p *pair) sealAs(t testing.TB, next uint8, payload []byte) []byte {
	t.Helper()
	s := p.a.lineages["ab"].Outbound()
	seq, reason := s.TakeSeq(1)
	if reason != wire.DropNone {
		t.Fatal(reason)
	}
	src := s.Src
	if !src.IsValid() {
		src = addrA4
		if s.Key.Dst.Is6() {
			src = addrA6
		}
	}
	head, tr := ipHeaderLen(s.Key.Dst), s.Transform
	buf := append(ip(src, s.Key.Dst, s.Key.Proto, false, make([]byte, tr.HeaderLen())), payload...)
	end := len(buf)
	buf = append(buf, make([]byte, tr.TrailerLen(len(payload)))...)
	wire.SetLength(buf, int(buf[0]>>4), len(buf))
	pkt := transform.Packet{Buf: buf, Hdr: head, Pay: head + tr.HeaderLen(), End: end, NextHeader: next}
	if reason := tr.Seal(&pkt, transform.Sequence{SPI: s.Key.SPI, Number: seq, ESN: s.ESN}); reason != wire.DropNone {
		t.Fatal(reason)
	}
	return buf
}

// TestRFC4303_2_6_NextHeaderByMode has authentic packets bring what their SA's mode does not
// allow, and dummies (next header 59), whose payload nobody looks at.
func TestRFC4303_2_6_NextHeaderByMode(t *testing.T) {
	four, six := udpTo(addrA4, addrB4, 1, 2, 30), udpTo(addrA6, addrB6, 1, 2, 30)
	garbage := bytes.Repeat([]byte{0xff}, 40)
	for _, proto := range []uint8{transform.ProtoESP, transform.ProtoAH} {
		algorithm := map[uint8]string{transform.ProtoESP: "aes128gcm16", transform.ProtoAH: "sha256"}[proto]
		for _, c := range []struct {
			name     string
			mode     sa.Mode
			six      bool
			next     uint8
			payload  []byte
			want     wire.DropReason
			received []byte
		}{
			{"IPv4", sa.Tunnel, false, wire.ProtoIPv4, four, wire.DropNone, four},
			{"IPv6", sa.Tunnel, true, wire.ProtoIPv6, six, wire.DropNone, six},
			{"IPv6 as IPv4", sa.Tunnel, true, wire.ProtoIPv4, six, wire.DropBadNextHeader, nil},
			{"IPv4 as IPv6", sa.Tunnel, false, wire.ProtoIPv6, four, wire.DropBadNextHeader, nil},
			{"IPv4 as UDP", sa.Tunnel, false, wire.ProtoUDP, four, wire.DropBadNextHeader, nil},
			{"UDP in a tunnel", sa.Tunnel, false, wire.ProtoUDP, four[20:], wire.DropBadNextHeader, nil},
			{"TCP in a tunnel", sa.Tunnel, true, wire.ProtoTCP, garbage, wire.DropBadNextHeader, nil},
			{"hop-by-hop options in a tunnel", sa.Tunnel, true, wire.ProtoHopByHop, six, wire.DropBadNextHeader, nil},
			{"no datagram in a tunnel", sa.Tunnel, false, wire.ProtoIPv4, garbage, wire.DropMalformed, nil},
			{"nothing in a tunnel", sa.Tunnel, false, wire.ProtoIPv4, nil, wire.DropMalformed, nil},
			{"dummy in a tunnel", sa.Tunnel, false, wire.ProtoNone, garbage, wire.DropDummy, nil},
			{"dummy with a datagram", sa.Tunnel, true, wire.ProtoNone, six, wire.DropDummy, nil},
			{"empty dummy", sa.Tunnel, false, wire.ProtoNone, nil, wire.DropDummy, nil},
			{"UDP", sa.Transport, false, wire.ProtoUDP, four[20:], wire.DropNone, four},
			{"UDP over IPv6", sa.Transport, true, wire.ProtoUDP, six[40:], wire.DropNone, six},
			{"dummy in transport mode", sa.Transport, false, wire.ProtoNone, garbage, wire.DropDummy, nil},
			{"dummy over IPv6", sa.Transport, true, wire.ProtoNone, garbage, wire.DropDummy, nil},
			{"unknown SPI inside", sa.Transport, false, wire.ProtoESP, garbage, wire.DropUnknownSPI, nil},
		} {
			p := newPair(t, algorithm, proto, c.mode, c.six, false)
			head := 20
			if c.six {
				head = 40
			}
			p.b.fromWire(p.sealAs(t, c.next, c.payload))
			got := p.b.left.take(t, "", "")
			if c.want != wire.DropNone {
				if len(got) != 0 {
					t.Errorf("%s: reached the host", c.name)
				}
				if drops := p.b.drops(hook.Right); len(drops) != 1 || drops[c.want.String()] != 1 {
					t.Errorf("%d %s: drops %v, want %v", proto, c.name, drops, c.want)
				}
				continue
			}
			if len(got) != 1 || !bytes.Equal(got[0][head:], c.received[head:]) {
				t.Errorf("%s: %d packets arrived, drops %v", c.name, len(got), p.b.drops(hook.Right))
			}
		}
	}
}
