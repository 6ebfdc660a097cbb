// Package invariant feeds an IP header to a MAC as AH wants it: with what may change on the
// way as zeros, and what changes in a known way as it will arrive. It implements RFC 4302
// §3.3.3.1 with Appendix A, and RFC 1826 §4. It knows no keys and no SAs.
package invariant

import "bitw/sa/transform/internal/primitive"

// Rules are those of one of AH's two RFCs.
type Rules uint8

const (
	// RFC4302 has also TOS, flags and fragment offset of IPv4, and traffic class and flow
	// label of IPv6 as mutable.
	RFC4302 Rules = iota
	// RFC1826 takes of the base headers TTL, header checksum and hop limit alone as
	// mutable. It names no IPv4 options but says that those which change count as zeros:
	// they are taken to be the ones of RFC 4302 Appendix A.
	RFC1826
)

// IPv4 header fields by octet (RFC 791 §3.1).
const (
	ipv4MinLen   = 20
	ipv4TOS      = 1
	ipv4Fragment = 6 // flags and fragment offset
	ipv4TTL      = 8
	ipv4Checksum = 10
	ipv4Dst      = 16
)

// IPv4 option types by their whole octet, copied flag and class included.
const (
	ipv4OptEnd        = 0
	ipv4OptNop        = 1
	ipv4OptSecurity   = 130
	ipv4OptLSRR       = 131
	ipv4OptExtended   = 133
	ipv4OptCommercial = 134
	ipv4OptSSRR       = 137
	ipv4OptAlert      = 148
	ipv4OptMultiDest  = 149
)

// HashIPv4 writes to d the IPv4 header h as it enters the ICV: mutable fields and
// options are zero, and a source-routed packet has its final destination (RFC 4302
// §3.3.3.1.1 and Appendix A1). It is false if h is not exactly one IPv4 header.
func HashIPv4(d *primitive.Digest, h []byte, rules Rules) bool {
	if len(h) < ipv4MinLen || h[0]>>4 != 4 || int(h[0]&15)*4 != len(h) {
		return false
	}
	c := d.Scratch[:copy(d.Scratch[:], h)]
	if rules == RFC4302 {
		c[ipv4TOS] = 0
		clear(c[ipv4Fragment : ipv4Fragment+2])
	}
	c[ipv4TTL] = 0
	clear(c[ipv4Checksum : ipv4Checksum+2])
	for rest := c[ipv4MinLen:]; len(rest) > 0 && rest[0] != ipv4OptEnd; {
		if rest[0] == ipv4OptNop {
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || rest[1] < 2 || int(rest[1]) > len(rest) {
			return false
		}
		opt := rest[:rest[1]]
		rest = rest[rest[1]:]
		switch opt[0] {
		case ipv4OptSecurity, ipv4OptExtended, ipv4OptCommercial, ipv4OptAlert, ipv4OptMultiDest:
			continue
		case ipv4OptLSRR, ipv4OptSSRR:
			// The pointer counts from 1; up to the length, hops remain, and the last of
			// them is where the packet ends (RFC 791 §3.1).
			if len(opt) >= 7 && int(opt[2]) <= len(opt) {
				copy(c[ipv4Dst:ipv4Dst+4], opt[len(opt)-4:])
			}
		}
		clear(opt) // mutable as a whole, and so is every type not listed
	}
	d.Write(c)
	return true
}
