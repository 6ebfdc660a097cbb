package wire

import "encoding/binary"

// ESPMinLen is the length of SPI and sequence number in octets.
const ESPMinLen = 8

// An ESP is a view of an ESP packet (RFC 4303 §2), which starts with the SPI. The
// fields are in network byte order on the wire and in host order here.
type ESP []byte

// NewESP returns a view of the ESP packet b, or false if b is too short for SPI
// and sequence number.
func NewESP(b []byte) (ESP, bool) {
	if len(b) < ESPMinLen {
		return nil, false
	}
	return ESP(b), true
}

// SPI returns the security parameters index.
func (e ESP) SPI() uint32 { return binary.BigEndian.Uint32(e) }

// Seq returns the low 32 bits of the sequence number, the ones that are sent.
func (e ESP) Seq() uint32 { return binary.BigEndian.Uint32(e[4:]) }

// SetSPI sets the security parameters index.
func (e ESP) SetSPI(spi uint32) { binary.BigEndian.PutUint32(e, spi) }

// SetSeq sets the low 32 bits of the sequence number.
func (e ESP) SetSeq(seq uint32) { binary.BigEndian.PutUint32(e[4:], seq) }

// Payload returns all octets behind the sequence number: IV, ciphertext and ICV.
func (e ESP) Payload() []byte { return e[ESPMinLen:] }
