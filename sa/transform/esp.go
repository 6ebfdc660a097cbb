package transform

import (
	"encoding/binary"
	"fmt"

	"bitw/netstack/wire"
)

// A packet's way through ESP. Out: esp.Seal checks the room, writes SPI, sequence
// number and trailer, and the suite makes the IV, encrypts, and writes the ICV. In:
// esp.Open checks the lengths, the suite checks the ICV and decrypts, and esp.Open
// takes off the trailer.

const (
	espFixedLen = 8 // SPI and sequence number (RFC 4303 §2)
	espTailLen  = 2 // pad length and next header
)

// An espSuite is what an ESP family adds to the framing. The packet is
// buf[hdr:end+ICV]: the header with its IV up to pay, then the body (payload,
// padding, pad length and next header) up to end, then the ICV. SPI and low
// sequence number are in the header already. t is for what a cipher reads besides.
type espSuite interface {
	// seal writes the IV, encrypts the body, and writes the ICV.
	seal(t *scratch, buf []byte, hdr, pay, end int, s Sequence)
	// open checks the ICV, and only if it fits decrypts the body and returns true.
	open(t *scratch, buf []byte, hdr, pay, end int, s Sequence) bool
}

// An esp is the framing of RFC 4303 around a suite.
type esp struct {
	name           string
	hdrLen, icvLen int
	block          int // a power of 2
	suite          espSuite
	aead           *aeadSuite // that suite is, or nil
}

func newESP(a *Algorithm, suite espSuite) *esp {
	aead, _ := suite.(*aeadSuite)
	return &esp{name: a.Name, hdrLen: espFixedLen + a.IVLen, icvLen: a.ICVLen, block: a.BlockLen, suite: suite, aead: aead}
}

func (e *esp) Protocol() uint8 { return ProtoESP }
func (e *esp) HeaderLen() int  { return e.hdrLen }

// Format keeps keys out of logs, whatever the verb.
func (e *esp) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "esp %s, keys (hidden)", e.name) }

// padLen is the number of octets that make a payload of n octets with its tail a
// multiple of the block (RFC 4303 §2.4).
func (e *esp) padLen(n int) int {
	return -(n + espTailLen) & (e.block - 1)
}

func (e *esp) TrailerLen(n int) int { return e.padLen(n) + espTailLen + e.icvLen }

func (e *esp) MaxPayload(room int) int {
	body := room - e.hdrLen - e.icvLen
	return max(body&^(e.block-1)-espTailLen, -1)
}

func (e *esp) Seal(p *Packet, s Sequence) wire.DropReason {
	if !p.valid(e.hdrLen) {
		return wire.DropBadLength
	}
	pad := e.padLen(p.End - p.Pay)
	end := p.End + pad + espTailLen
	if end+e.icvLen > len(p.Buf) {
		return wire.DropBadLength
	}
	binary.BigEndian.PutUint64(p.Buf[p.Hdr:], s.header())
	tail := p.Buf[p.End:end]
	for i := range pad {
		tail[i] = byte(i + 1)
	}
	tail[pad] = byte(pad)
	tail[pad+1] = p.NextHeader
	if a := e.aead; a != nil {
		a.seal(&p.scratch, p.Buf, p.Hdr, p.Pay, end, s)
	} else {
		e.suite.seal(&p.scratch, p.Buf, p.Hdr, p.Pay, end, s)
	}
	p.End = end + e.icvLen
	return wire.DropNone
}

func (e *esp) Open(p *Packet, s Sequence) wire.DropReason {
	if p.Hdr < 0 || p.End > len(p.Buf) {
		return wire.DropBadLength
	}
	pay, end := p.Hdr+e.hdrLen, p.End-e.icvLen
	if end-pay < e.block || (end-pay)&(e.block-1) != 0 {
		return wire.DropBadLength
	}
	if !s.names(p.Buf[p.Hdr:]) || !e.suite.open(&p.scratch, p.Buf, p.Hdr, pay, end, s) {
		return wire.DropICV
	}
	body := p.Buf[pay:end]
	pad := int(body[len(body)-espTailLen])
	n := len(body) - espTailLen - pad
	if n < 0 {
		return wire.DropBadPadding
	}
	for i, v := range body[n : n+pad] {
		if int(v) != i+1 {
			return wire.DropBadPadding
		}
	}
	p.NextHeader = body[len(body)-1]
	p.Pay, p.End = pay, pay+n
	return wire.DropNone
}

// valid says whether the offsets of a packet to be sealed are in order.
func (p *Packet) valid(hdrLen int) bool {
	return p.Hdr >= 0 && p.Pay-p.Hdr == hdrLen && p.Pay <= p.End && p.End <= len(p.Buf)
}

// names says whether b, which starts with an SPI and a sequence number in network
// byte order, carries those of s. If it does not, the caller asks about another
// packet, and what the ICV proves would not be what the caller believes.
func (s Sequence) names(b []byte) bool {
	return binary.BigEndian.Uint64(b) == s.header()
}

// header is what the fixed part of the ESP header says (RFC 4303 §2), in host order.
func (s Sequence) header() uint64 { return uint64(s.SPI)<<32 | uint64(uint32(s.Number)) }

// high is the part of the sequence number that ESN adds to the ICV only.
func (s Sequence) high() uint32 { return uint32(s.Number >> 32) }
