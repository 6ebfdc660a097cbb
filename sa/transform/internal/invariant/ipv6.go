package invariant

import "bitw/sa/transform/internal/primitive"

// IPv6 header fields by octet, and extension headers by protocol number (RFC 8200).
const (
	ipv6Len      = 40
	ipv6NextHdr  = 6
	ipv6HopLimit = 7
	ipv6Dst      = 24
	ipv6AddrLen  = 16

	extHopByHop    = 0
	extRouting     = 43
	extDestination = 60
	extMobility    = 135
	extHIP         = 139
	extShim6       = 140
)

const (
	optPad1      = 0
	optMutable   = 0x20 // bit of the option type: data may change en route (RFC 8200 §4.2)
	routingFixed = 8    // octets before the addresses of routing types 0 and 2
)

// HashIPv6 writes to d the IPv6 header and the extension headers behind it, together
// h, as they enter the ICV (RFC 4302 §3.3.3.1.2 and Appendix A2). It is false if h
// is not an IPv6 header followed by whole extension headers that may precede AH.
func HashIPv6(d *primitive.Digest, h []byte, rules Rules) bool {
	if len(h) < ipv6Len || h[0]>>4 != 6 {
		return false
	}
	final, ok := finalDestination(h)
	if !ok {
		return false
	}
	c := d.Scratch[:copy(d.Scratch[:], h[:ipv6Len])]
	if rules == RFC4302 {
		c[0], c[1], c[2], c[3] = 6<<4, 0, 0, 0 // traffic class and flow label
	}
	c[ipv6HopLimit] = 0
	copy(c[ipv6Dst:], final)
	d.Write(c)
	next := h[ipv6NextHdr]
	for rest := h[ipv6Len:]; len(rest) > 0; {
		ext := rest[:extLen(rest)] // finalDestination has walked the same way
		rest = rest[len(ext):]
		switch next {
		case extHopByHop, extDestination:
			if !hashOptions(d, ext) {
				return false
			}
		case extRouting:
			hashRouting(d, ext, h[ipv6Dst:ipv6Len])
		default:
			d.Write(ext)
		}
		next = ext[0]
	}
	return true
}

// extLen is the length of the extension header that b starts with, in octets.
func extLen(b []byte) int { return 8 + 8*int(b[1]) }

// finalDestination walks the extension headers of h and returns the destination
// address that the packet has when it arrives.
func finalDestination(h []byte) ([]byte, bool) {
	final := h[ipv6Dst:ipv6Len]
	next := h[ipv6NextHdr]
	for rest := h[ipv6Len:]; len(rest) > 0; {
		switch next {
		case extHopByHop, extRouting, extDestination, extMobility, extHIP, extShim6:
		default:
			return nil, false
		}
		if len(rest) < 8 || len(rest) < extLen(rest) {
			return nil, false
		}
		ext := rest[:extLen(rest)]
		if next == extRouting && rotates(ext) {
			if len(ext)%ipv6AddrLen != routingFixed || int(ext[3]) > len(ext)/ipv6AddrLen {
				return nil, false
			}
			final = ext[len(ext)-ipv6AddrLen:]
		}
		next = ext[0]
		rest = rest[len(ext):]
	}
	return final, true
}

// rotates says whether a routing header will still swap addresses with the IPv6
// header: types 0 (RFC 2460 §4.4) and 2 (RFC 6275 §6.4) with segments left.
func rotates(ext []byte) bool { return (ext[2] == 0 || ext[2] == 2) && ext[3] > 0 }

// hashRouting writes a routing header as it will arrive: no segments left, and each
// address not yet visited moved by one, with dst, the present destination, first
// (RFC 4302 §3.3.3.1.2.3). Other types are taken as they are.
func hashRouting(d *primitive.Digest, ext, dst []byte) {
	if !rotates(ext) {
		d.Write(ext)
		return
	}
	unvisited := len(ext) - int(ext[3])*ipv6AddrLen
	fixed := d.Scratch[:copy(d.Scratch[:], ext[:routingFixed])]
	fixed[3] = 0
	d.Write(fixed)
	d.Write(ext[routingFixed:unvisited])
	d.Write(dst)
	d.Write(ext[unvisited : len(ext)-ipv6AddrLen])
}

// hashOptions writes a hop-by-hop or destination options header, with the data of
// options that may change en route as zeros (RFC 4302 §3.3.3.1.2.2). Types and
// lengths count as they are.
func hashOptions(d *primitive.Digest, ext []byte) bool {
	d.Write(ext[:2])
	for rest := ext[2:]; len(rest) > 0; {
		if rest[0] == optPad1 {
			d.Write(rest[:1])
			rest = rest[1:]
			continue
		}
		if len(rest) < 2 || len(rest) < 2+int(rest[1]) {
			return false
		}
		opt := rest[:2+int(rest[1])]
		rest = rest[len(opt):]
		if opt[0]&optMutable == 0 {
			d.Write(opt)
			continue
		}
		d.Write(opt[:2])
		d.WriteZeros(len(opt) - 2)
	}
	return true
}
