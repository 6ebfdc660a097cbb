package wire

import "encoding/binary"

// AHMinLen is the length of an AH without its ICV in octets.
const AHMinLen = 12

// An AH is a view of an authentication header (RFC 4302 §2) with its ICV. The
// fields are in network byte order on the wire and in host order here.
type AH []byte

// NewAH returns a view of the header at the start of b, HeaderLen octets long. It
// returns false if the length in it is less than AHMinLen or more than b has.
func NewAH(b []byte) (AH, bool) {
	if len(b) < AHMinLen {
		return nil, false
	}
	n := AH(b).HeaderLen()
	if n < AHMinLen || n > len(b) {
		return nil, false
	}
	return AH(b[:n]), true
}

// NextHeader returns the protocol of what follows the header.
func (a AH) NextHeader() uint8 { return a[0] }

// PayloadLen returns the length field as it is sent: 32-bit words, minus 2.
func (a AH) PayloadLen() uint8 { return a[1] }

// HeaderLen returns the length that the length field stands for, ICV and its
// padding included, in octets.
func (a AH) HeaderLen() int { return (int(a[1]) + 2) * 4 }

// SPI returns the security parameters index.
func (a AH) SPI() uint32 { return binary.BigEndian.Uint32(a[4:]) }

// Seq returns the low 32 bits of the sequence number, the ones that are sent.
func (a AH) Seq() uint32 { return binary.BigEndian.Uint32(a[8:]) }

// ICV returns the octets behind the sequence number, padding included; it shares
// memory with a.
func (a AH) ICV() []byte { return a[AHMinLen:] }

// SetNextHeader sets the protocol of what follows the header.
func (a AH) SetNextHeader(p uint8) { a[0] = p }

// SetHeaderLen sets the length field for a header of n octets, a multiple of four
// from AHMinLen to 1,028, and clears the reserved field behind it.
func (a AH) SetHeaderLen(n int) { a[1], a[2], a[3] = uint8(n/4-2), 0, 0 }

// SetSPI sets the security parameters index.
func (a AH) SetSPI(spi uint32) { binary.BigEndian.PutUint32(a[4:], spi) }

// SetSeq sets the low 32 bits of the sequence number.
func (a AH) SetSeq(seq uint32) { binary.BigEndian.PutUint32(a[8:], seq) }
