package sa

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// A classifier finds the first of many policies that matches a flow, at a cost
// that hardly depends on how many there are: each dimension of the flow (local
// address, remote address, ports or ICMP type and code, protocol with direction)
// falls into one of the intervals into which the policies cut that dimension; the
// interval has a vector with one bit for each policy; the first bit that is set in
// all vectors is the answer. The vectors are aggregated (one bit of a summary for
// each word of 64 policies), so that empty words cost nothing and take no room.
type classifier struct {
	sets            sets
	local4, remote4 *addrs
	local6, remote6 *addrs

	localPort, remotePort, icmp, mh numbers // icmp: type<<8 | code, mh: type<<8

	// proto holds a vector for each direction, for flows with ports (or type and code)
	// known or not, and for each protocol.
	proto [2][2][256]vector
}

// first returns the index of the first policy that matches, or -1.
func (c *classifier) first(d Direction, f *Flow) int {
	if d > Inbound {
		return -1
	}
	known := 0
	if f.HasPorts {
		known = 1
	}
	var vs [5]vector
	vs[0] = c.proto[d][known][f.Proto]
	local, remote := f.Local.Unmap(), f.Remote.Unmap()
	switch {
	case local.Is4() && remote.Is4():
		vs[1], vs[2] = c.local4.find(uint128From(local)), c.remote4.find(uint128From(remote))
	case local.Is6() && remote.Is6():
		vs[1], vs[2] = c.local6.find(uint128From(local)), c.remote6.find(uint128From(remote))
	default:
		return -1
	}
	n := 3
	if f.HasPorts {
		switch {
		case isICMP(f.Proto):
			vs[3] = c.icmp.find(uint16(f.ICMPType)<<8 | uint16(f.ICMPCode))
			n = 4
		case f.Proto == protoMH:
			vs[3] = c.mh.find(uint16(f.MHType) << 8)
			n = 4
		default:
			vs[3], vs[4] = c.localPort.find(f.LocalPort), c.remotePort.find(f.RemotePort)
			n = 5
		}
	}
	return c.sets.firstCommon(vs[:n])
}

// A vector is a set of policies by index, as the place where it begins in the
// classifier's sets. There stand, for each block of 64 words of 64 policies, a
// summary with a bit for each word that is not empty, then for each block how many
// words come before its own, then the words. What few policies share lies in one line
// of memory.
type vector uint32

// sets holds the vectors.
type sets struct {
	blocks int
	mem    []uint64
}

// firstCommon returns the lowest index that all vectors hold, or -1.
func (s *sets) firstCommon(vs []vector) int {
	for j := range s.blocks {
		common := ^uint64(0)
		for _, v := range vs {
			common &= s.mem[int(v)+j]
		}
		for ; common != 0; common &= common - 1 {
			bit := uint(bits.TrailingZeros64(common))
			w := ^uint64(0)
			for _, v := range vs {
				w &= s.word(v, j, bit)
			}
			if w != 0 {
				return (j*64+int(bit))*64 + bits.TrailingZeros64(w)
			}
		}
	}
	return -1
}

// word returns the word of block j for which bit is set in the block's summary.
func (s *sets) word(v vector, j int, bit uint) uint64 {
	at := int(v) + j
	rank := int(s.mem[at+s.blocks]) + bits.OnesCount64(s.mem[at]&(1<<bit-1))
	return s.mem[int(v)+2*s.blocks+rank]
}

// numbers is a dimension of 16-bit numbers: the vectors of all 65,536, by page of
// 256, equal pages shared.
type numbers struct {
	pages [256]*[256]vector
}

func (n *numbers) find(v uint16) vector { return n.pages[v>>8][v&0xff] }

// addrs is a dimension of addresses of one family: starts[i] is where interval i
// begins, the first at the lowest address.
//
// All starts but the first share the bits of first that mask names. The width bits
// behind those, shift bits from the end of an address, tell about where an address
// belongs: jump[h] is the interval of the lowest address with that prefix in which
// these bits are h. So neither many policies nor policies that lie close together make
// the search long.
type addrs struct {
	starts      []uint128
	vectors     []vector
	first, mask uint128
	shift       uint
	width       uint64   // 1<<width - 1
	jump        []uint32 // width+2 of them, or none when there are few intervals
}

// A uint128 is an IPv6 address, or an IPv4 address in its low 32 bits.
type uint128 struct{ hi, lo uint64 }

func uint128From(a netip.Addr) uint128 {
	if a.Is4() {
		b := a.As4()
		return uint128{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return uint128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// atMost says whether a <= b, told by the borrow of b - a.
func (a *uint128) atMost(b uint128) bool {
	_, borrow := bits.Sub64(b.lo, a.lo, 0)
	_, borrow = bits.Sub64(b.hi, a.hi, borrow)
	return borrow == 0
}

// low returns the low 64 bits of a shifted right by s. Shifts of 64 and more, and
// those by a number below 0, give 0.
func (a uint128) low(s uint) uint64 { return a.lo>>s | a.hi<<(64-s) | a.hi>>(s-64) }

func (a *addrs) find(v uint128) vector {
	at, n := 0, len(a.starts)
	if a.jump != nil {
		switch {
		case !a.first.atMost(v):
			return a.vectors[0]
		case (v.hi^a.first.hi)&a.mask.hi|(v.lo^a.first.lo)&a.mask.lo != 0:
			return a.vectors[n-1]
		}
		h := v.low(a.shift) & a.width
		at = int(a.jump[h])
		n = int(a.jump[h+1]) - at + 1
	}
	// The interval is in [at, at+n), whose first start is not above v. Halving the
	// length instead of moving two ends keeps the loop free of unforeseeable jumps.
	for n > 1 {
		half := n / 2
		next := at + half
		if a.starts[next].atMost(v) {
			at = next
		}
		n -= half
	}
	return a.vectors[at]
}
