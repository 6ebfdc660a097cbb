// Package transform holds the cryptographic transforms of ESP (RFC 4303) and AH
// (RFC 4302). A transform is a function of (keys, packet): it never owns the next
// hop, never looks at policy, keeps no sequence numbers, and knows no link.
package transform

import "bitw/netstack/wire"

// IP protocol numbers of the two security protocols.
const (
	ProtoESP = wire.ProtoESP
	ProtoAH  = wire.ProtoAH
)

// A Packet is one IP datagram inside a buffer with room at both ends. All
// fields are octet offsets into Buf, with Net <= Hdr <= Pay <= End <= len(Buf).
// The buffer belongs to the caller; a transform writes only between Hdr and
// End plus its trailer.
type Packet struct {
	Buf []byte
	// Net is where the IP header starts that the ESP or AH header follows. Only AH
	// reads it; the header there must be final but for its mutable fields.
	Net int
	// Hdr is where the ESP or AH header starts.
	Hdr int
	// Pay is where the protected payload starts. Before Seal, Pay-Hdr must be
	// HeaderLen; Open sets it.
	Pay int
	// End is the end of the payload before Seal, of the whole packet after; and the
	// other way round for Open.
	End int
	// NextHeader is the protocol of the payload: read by Seal, set by Open.
	NextHeader uint8

	scratch scratch
}

// A scratch holds what a cipher reads besides the packet: behind an interface it cannot
// live on the stack, and in the Packet it needs no memory of the SA's own.
type scratch struct {
	nonce [aeadNonceLen]byte
	aad   [12]byte
}

// A Sequence is the part of an SA's state that goes into one packet.
type Sequence struct {
	SPI uint32
	// Number is the full sequence number. Without ESN only the low 32 bits matter.
	Number uint64
	// ESN says that the high 32 bits take part in the ICV (RFC 4303 §2.2.1).
	ESN bool
}

// A Transform is one algorithm suite with the keys of one SA. All methods may be
// called from many goroutines at once, and none allocates.
type Transform interface {
	// Protocol is ProtoESP or ProtoAH.
	Protocol() uint8
	// HeaderLen is the length of the ESP header with its IV, or of the AH header with
	// its ICV, in octets.
	HeaderLen() int
	// TrailerLen is the length of what follows a payload of n octets: padding, pad
	// length, next header and ICV. It is 0 for AH.
	TrailerLen(n int) int
	// MaxPayload is the largest n with HeaderLen()+n+TrailerLen(n) <= room, or -1.
	MaxPayload(room int) int
	// Seal protects p in place. The caller has left HeaderLen octets between p.Hdr
	// and p.Pay, and at least TrailerLen octets of Buf behind p.End. The only reasons
	// are DropBadLength (no room) and DropKeyInvalid.
	Seal(p *Packet, s Sequence) wire.DropReason
	// Open checks the ICV in constant time, and only then decrypts p in place and
	// removes padding. It returns DropICV, DropBadLength or DropBadPadding. After a
	// reason other than DropNone the contents of p behind p.Hdr are undefined.
	Open(p *Packet, s Sequence) wire.DropReason
}

// Options of a transform that do not come from its algorithm.
type Options struct {
	// IPv6 says that the enclosing IP header is IPv6: AH pads to 8 octets then.
	IPv6 bool
}

// An Algorithm is a named suite that makes Transforms. Names are swanctl's:
// "aes128gcm16", "aes256ccm12", "chacha20poly1305", "aes256-sha384", "aes128ctr-aescmac",
// "aes128gmac", "null-sha256"; for AH the integrity algorithm alone: "sha256". Where
// swanctl has none the name is made of IANA's: "aes128gcm16iiv" is ENCR_AES_GCM_16_IIV
// with a key of 128 bits, "aes128gmac" for AH is AUTH_AES_128_GMAC.
//
// To add one is a family in a file of its own and a line in Families, or for a program
// that embeds this package, an argument of NewRegistry.
type Algorithm struct {
	Name     string
	Protocol uint8
	// EncryptionKeyLen is in octets, and includes the salt of an AEAD and the nonce of
	// AES-CTR: they follow the key, as RFC 4106 §8.1 and RFC 3686 §5.1 order the keying
	// material. It is 0 for a suite that does not encrypt.
	EncryptionKeyLen int
	// IntegrityKeyLen is in octets; 0 for an AEAD. That of AES-GMAC includes the salt.
	IntegrityKeyLen int
	// IVLen and ICVLen are the octets on the wire; BlockLen is what the plaintext is
	// padded to a multiple of (at least 4 in RFC 4303).
	IVLen, ICVLen, BlockLen int
	// CounterMode says that a sequence number used twice with one key breaks it, so
	// that numbers must survive the process or the key must not.
	CounterMode bool
	// NoSequence says that the packet carries no sequence number, as in RFC 1826 and RFC
	// 1827: then there is neither anti-replay service nor ESN, what a Sequence says but
	// for its SPI does not matter, and keys are manual.
	NoSequence bool
	// Weak says in a few words why the suite is discouraged; empty if it is not.
	Weak string
	// Insecure are the parts of the name that an operator must allow one by one before
	// the suite is used, such as "des" and "md5" of "des-md5"; empty if it may be used as
	// it is.
	Insecure []string
	// New makes a transform. The keys are copied. A key of wrong length is an error
	// that names the expected and the found number of octets.
	New func(encryptionKey, integrityKey []byte, opt Options) (Transform, error)
}
