// Package legacy holds the transforms of 1995: AH with keyed MD5 and ESP with DES, in the
// packet forms of RFC 1826 and RFC 1827, and two private ones of bitw's ancestor, an IPsec
// on the x-kernel. They are here so that what it could do can still be done. None should
// protect anything: the ciphers can be broken, no packet has a sequence number, so that
// each may be replayed, and ESP has no integrity, so that packets may be changed.
//
// It knows no SAs, no policy and no link, and who may use it is told elsewhere: each
// algorithm names itself in Algorithm.Insecure.
//
// # Packet forms
//
//	AH  (RFC 1826 §3): next header, length, reserved, SPI, authentication data
//	ESP (RFC 1827 §3): SPI, IV, then encrypted: payload, padding, pad length, payload type
//
// On the wire nothing tells them from today's; the SA does. AH's length counts the 32-bit
// words of the authentication data, which for MD5 gives the same octet as today's rule.
// In AH's calculation TTL, header checksum and hop limit are zeros, but TOS, flags and
// traffic class are not (RFC 1826 §4): a router that changes these breaks the packet.
//
// # Algorithms
//
//	name               plug-in   key       what
//	kpdkmd5            md5       16 octets RFC 1828: key, padding, datagram, key
//	desiv32, desiv64   crypt     8         RFC 1829 with an IV of 32 or 64 bits
//	3des112iv64        crypt3    16        RFC 1851 with two keys, the third being the first
//	3des168iv64        crypt3    24        RFC 1851
//	3desin112iv64      crypt3in  16        private: inner CBC
//	3desin168iv64      crypt3in  24
//	desctsiv32         tcrypt    8         private: ciphertext stealing
//	desctsiv64         tcrypt    8
//
// The names are made of IANA's, AUTH_KPDK_MD5, ENCR_DES_IV32 and ENCR_DES_IV64. Weak
// DES keys are refused.
//
// # The private ones
//
// Of crypt3in and tcrypt nothing is left but their names. They are read so:
//
//   - crypt3in chains within each of the three passes: DES-CBC encryption with the first
//     key, DES-CBC decryption with the second, DES-CBC encryption with the third, each
//     with the IV of the packet. Everything else is as in RFC 1851.
//   - tcrypt is RFC 1829 without padding to the block. A body that is no multiple of 8
//     octets has its last two blocks made by ciphertext stealing, CBC-CS2 of the addendum
//     to NIST SP 800-38A: the last whole block comes first, then what is left of the
//     one before. A body of fewer than 8 octets is padded to 8. So no packet is larger
//     than the IV and the two octets of the trailer make it, but for the smallest.
//
// # Options
//
// The ancestor's graph sets three options of its transforms, and does not say what they
// do. NewPlugIn reads them so:
//
//   - useipsec (md5, crypt, tcrypt): the transform stands in IPsec's packet form, with the
//     key that the SPI names, and not as a protocol of its own between two others. There is
//     no other form here, so that it changes nothing; crypt3 and crypt3in never had it.
//   - leafmode (md5): the transform is a leaf, which gives the packet back to who called
//     it instead of handing it on to a protocol beneath. All transforms here are.
//   - rfc1828 (md5): the calculation of RFC 1828. Without it md5 is today's AH with
//     HMAC-MD5-96 (RFC 2403).
//
// Where the ancestor passed a packet up whose MD5 was wrong, it is dropped here.
package legacy
