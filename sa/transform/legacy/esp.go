package legacy

import (
	"encoding/binary"
	"fmt"

	"bitw/netstack/wire"
	"bitw/sa/transform"
	"bitw/sa/transform/internal/primitive"
)

const (
	spiLen   = 4 // RFC 1827 §3
	tailLen  = 2 // pad length and payload type (RFC 1829 §2)
	blockLen = primitive.DESBlockLen
)

// A chain encrypts the body of a packet in place. The IV is a block long, and the body at
// least that.
type chain interface {
	encrypt(iv, body []byte)
	decrypt(iv, body []byte)
	// nextIV writes a fresh IV of a block that nobody can foresee.
	nextIV(iv []byte)
}

// An esp is the framing of RFC 1829 §2, which RFC 1851 §2 shares.
type esp struct {
	name  string
	ivLen int // octets, 4 or 8
	// unit is what the body is a multiple of, and it is at least a block long.
	unit  int
	chain chain
}

// A cipherSuite is what the ESP families differ in.
type cipherSuite struct {
	name          string
	keyLen, ivLen int
	unit          int
	weak          string
	newChain      func(key []byte) (chain, error)
}

func (c cipherSuite) algorithm() transform.Algorithm {
	a := transform.Algorithm{
		Name:             c.name,
		Protocol:         transform.ProtoESP,
		EncryptionKeyLen: c.keyLen,
		IVLen:            c.ivLen,
		BlockLen:         c.unit,
		NoSequence:       true,
		Weak:             c.weak + ", and neither changes nor replays of packets are noticed",
		Insecure:         []string{c.name},
	}
	a.New = func(encryptionKey, integrityKey []byte, _ transform.Options) (transform.Transform, error) {
		if err := transform.CheckKeys(&a, encryptionKey, integrityKey, 0); err != nil {
			return nil, err
		}
		ch, err := c.newChain(encryptionKey)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		return &esp{name: c.name, ivLen: c.ivLen, unit: c.unit, chain: ch}, nil
	}
	return a
}

func (e *esp) Protocol() uint8 { return transform.ProtoESP }
func (e *esp) HeaderLen() int  { return spiLen + e.ivLen }

// Format keeps keys out of logs, whatever the verb.
func (e *esp) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "esp %s, keys (hidden)", e.name) }

// padLen is the number of octets between a payload of n octets and its tail.
func (e *esp) padLen(n int) int {
	n += tailLen
	return max(blockLen-n, (e.unit-n%e.unit)%e.unit)
}

func (e *esp) TrailerLen(n int) int { return e.padLen(n) + tailLen }

func (e *esp) MaxPayload(room int) int {
	body := room - e.HeaderLen()
	if body < blockLen {
		return -1
	}
	return body - body%e.unit - tailLen
}

func (e *esp) Seal(p *transform.Packet, s transform.Sequence) wire.DropReason {
	if p.Hdr < 0 || p.Pay-p.Hdr != e.HeaderLen() || p.Pay > p.End || p.End > len(p.Buf) {
		return wire.DropBadLength
	}
	pad := e.padLen(p.End - p.Pay)
	end := p.End + pad + tailLen
	if end > len(p.Buf) {
		return wire.DropBadLength
	}
	// The contents of the padding are the sender's to choose (RFC 1829 §2); these tell
	// nothing of the buffer's past.
	tail := p.Buf[p.End:end]
	for i := range pad {
		tail[i] = byte(i + 1)
	}
	tail[pad] = byte(pad)
	tail[pad+1] = p.NextHeader
	// The eight octets in front of the payload are the IV of 64 bits, or SPI and IV of 32
	// bits: there the IV is made, and used, before the SPI is written.
	iv := p.Buf[p.Pay-blockLen : p.Pay]
	e.chain.nextIV(iv)
	sent := binary.BigEndian.Uint32(iv[4:])
	e.widen(iv, sent)
	e.chain.encrypt(iv, p.Buf[p.Pay:end])
	binary.BigEndian.PutUint32(iv[4:], sent)
	binary.BigEndian.PutUint32(p.Buf[p.Hdr:], s.SPI)
	p.End = end
	return wire.DropNone
}

func (e *esp) Open(p *transform.Packet, s transform.Sequence) wire.DropReason {
	if p.Hdr < 0 || p.End > len(p.Buf) {
		return wire.DropBadLength
	}
	pay := p.Hdr + e.HeaderLen()
	if n := p.End - pay; n < blockLen || n%e.unit != 0 {
		return wire.DropBadLength
	}
	if binary.BigEndian.Uint32(p.Buf[p.Hdr:]) != s.SPI {
		return wire.DropICV // the caller asks about another packet
	}
	iv, body := p.Buf[pay-blockLen:pay], p.Buf[pay:p.End]
	sent := binary.BigEndian.Uint32(iv[4:])
	e.widen(iv, sent)
	e.chain.decrypt(iv, body)
	binary.BigEndian.PutUint32(iv[4:], sent)
	binary.BigEndian.PutUint32(p.Buf[p.Hdr:], s.SPI)
	n := len(body) - tailLen - int(body[len(body)-tailLen])
	if n < 0 {
		return wire.DropBadPadding
	}
	p.NextHeader = body[len(body)-1]
	p.Pay, p.End = pay, pay+n
	return wire.DropNone
}

// widen makes of an IV of 32 bits the 64 that go into the cipher: the IV and its
// complement (RFC 1829 §2). One of 64 bits stays.
func (e *esp) widen(iv []byte, sent uint32) {
	if e.ivLen == 4 {
		binary.BigEndian.PutUint32(iv, sent)
		binary.BigEndian.PutUint32(iv[4:], ^sent)
	}
}
