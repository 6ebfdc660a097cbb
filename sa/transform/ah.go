package transform

import (
	"crypto/subtle"
	"encoding/binary"
	"fmt"

	"bitw/netstack/wire"
	"bitw/sa/transform/internal/invariant"
	"bitw/sa/transform/internal/primitive"
)

// ahFixedLen is what stands before the ICV: next header, payload length, reserved,
// SPI and sequence number (RFC 4302 §2).
const ahFixedLen = 12

// ahFamily is AH (RFC 4302) with every integrity algorithm, and with AES-GMAC
// (RFC 4543 §4), for which swanctl has a name in ESP only.
func ahFamily() Family {
	f := Family{Aliases: integrityAliases()}
	add := func(a Algorithm, newMAC func(a *Algorithm, encryptionKey, integrityKey []byte) (*primitive.MAC, error)) {
		a.New = func(encryptionKey, integrityKey []byte, opt Options) (Transform, error) {
			mac, err := newMAC(&a, encryptionKey, integrityKey)
			if err != nil {
				return nil, err
			}
			return newAH(&a, mac, opt), nil
		}
		f.Algorithms = append(f.Algorithms, a)
	}
	for _, i := range append(integrities(), md5Integrity()) {
		a := Algorithm{
			Name:            i.name,
			Protocol:        ProtoAH,
			IntegrityKeyLen: i.keyLen,
			ICVLen:          i.icvLen,
			BlockLen:        4,
			Weak:            i.weak,
		}
		if i.name == md5Integrity().name {
			a.Insecure = []string{i.name}
		}
		add(a, func(a *Algorithm, encryptionKey, integrityKey []byte) (*primitive.MAC, error) {
			if err := CheckKeys(a, encryptionKey, integrityKey, 0); err != nil {
				return nil, err
			}
			return i.mac(integrityKey)
		})
	}
	for _, bits := range []int{128, 192, 256} {
		a := gmacAlgorithm(ProtoAH, bits)
		a.Weak = "AES-GMAC in AH is optional, the other end may lack it (RFC 8221 §6)"
		add(a, newGMAC)
	}
	return f
}

func newAH(a *Algorithm, mac *primitive.MAC, opt Options) *ah {
	t := &ah{name: a.Name, mac: mac, ipv6: opt.IPv6, icvLen: mac.IVLen() + mac.TagLen()}
	t.hdrLen = (ahFixedLen + t.icvLen + 3) &^ 3
	if opt.IPv6 {
		t.hdrLen = (t.hdrLen + 7) &^ 7
	}
	return t
}

// An ah is AH with a MAC. The IP header at Packet.Net is the one that AH follows: in
// transport mode the packet's own, in tunnel mode the outer one.
type ah struct {
	name   string
	mac    *primitive.MAC
	ipv6   bool
	icvLen int // of the ICV field: the IV of a MAC that has one stands in it, in front
	hdrLen int // ICV padding included (RFC 4302 §3.3.3.2.1)
}

func (t *ah) Protocol() uint8         { return ProtoAH }
func (t *ah) HeaderLen() int          { return t.hdrLen }
func (t *ah) TrailerLen(int) int      { return 0 }
func (t *ah) MaxPayload(room int) int { return max(room-t.hdrLen, -1) }
func (t *ah) payloadLen() byte        { return byte(t.hdrLen/4 - 2) } // RFC 4302 §2.2

// Format keeps keys out of logs, whatever the verb.
func (t *ah) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "ah %s, keys (hidden)", t.name) }

func (t *ah) Seal(p *Packet, s Sequence) wire.DropReason {
	if !p.valid(t.hdrLen) {
		return wire.DropBadLength
	}
	h := p.Buf[p.Hdr:p.Pay]
	clear(h)
	h[0] = p.NextHeader
	h[1] = t.payloadLen()
	binary.BigEndian.PutUint32(h[4:], s.SPI)
	binary.BigEndian.PutUint32(h[8:], uint32(s.Number))
	if t.mac.IVLen() > 0 {
		binary.BigEndian.PutUint64(h[ahFixedLen:], s.Number) // which an SA never uses twice
	}
	d := t.mac.Start()
	icv, ok := t.icv(d, p, s)
	if ok {
		copy(h[ahFixedLen+t.mac.IVLen():], icv)
	}
	t.mac.Done(d)
	if !ok {
		return wire.DropBadLength
	}
	return wire.DropNone
}

func (t *ah) Open(p *Packet, s Sequence) wire.DropReason {
	if p.Hdr < 0 || p.End > len(p.Buf) || p.End-p.Hdr < t.hdrLen || p.Buf[p.Hdr+1] != t.payloadLen() {
		return wire.DropBadLength
	}
	h := p.Buf[p.Hdr : p.Hdr+t.hdrLen]
	if !s.names(h[4:]) {
		return wire.DropICV
	}
	d := t.mac.Start()
	icv, known := t.icv(d, p, s)
	fits := known && subtle.ConstantTimeCompare(icv, h[ahFixedLen+t.mac.IVLen():ahFixedLen+t.icvLen]) == 1
	t.mac.Done(d)
	switch {
	case !known:
		return wire.DropBadLength
	case !fits:
		return wire.DropICV
	}
	p.NextHeader = h[0]
	p.Pay = p.Hdr + t.hdrLen
	return wire.DropNone
}

// icv computes the ICV of p, whatever stands in the ICV field; it stays valid until
// t.mac.Done(d). It is false if the IP header is not one that AH can follow at p.Hdr.
func (t *ah) icv(d *primitive.Digest, p *Packet, s Sequence) ([]byte, bool) {
	if p.Net < 0 || p.Net > p.Hdr {
		return nil, false
	}
	ip := p.Buf[p.Net:p.Hdr]
	if t.ipv6 && !invariant.HashIPv6(d, ip, invariant.RFC4302) || !t.ipv6 && !invariant.HashIPv4(d, ip, invariant.RFC4302) {
		return nil, false
	}
	icv := p.Hdr + ahFixedLen
	d.SetIV(p.Buf[icv : icv+t.mac.IVLen()])
	d.Write(p.Buf[p.Hdr:icv])
	d.WriteZeros(t.icvLen)
	d.Write(p.Buf[icv+t.icvLen : p.End]) // ICV padding and payload
	if s.ESN {
		d.WriteUint32(s.high())
	}
	return d.Tag(t.mac), true
}
