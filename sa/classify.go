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
	local4, remote4 *addrs4
	local6, remote6 *addrs6

	localPort, remotePort, icmp, mh numbers // icmp: type<<8 | code, mh: type<<8

	// proto holds a vector for each direction, for flows with ports (or type and code)
	// known or not, and for each protocol.
	proto [2][2][256]*vector
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
	var vs [5]*vector
	vs[0] = c.proto[d][known][f.Proto]
	if vs[0] == nil {
		return -1
	}
	local, remote := f.Local.Unmap(), f.Remote.Unmap()
	switch {
	case local.Is4() && remote.Is4():
		vs[1], vs[2] = c.local4.find(local), c.remote4.find(remote)
	case local.Is6() && remote.Is6():
		vs[1], vs[2] = c.local6.find(local), c.remote6.find(remote)
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
	return firstCommon(vs[:n])
}

// A vector is a set of policies by index. Word i of the set is there if bit i%64 of
// summary[i/64] is set; words holds those in order, and rank[j] is how many come
// before those of summary[j].
type vector struct {
	summary []uint64
	rank    []uint32
	words   []uint64
}

func (v *vector) word(j int, bit uint) uint64 {
	return v.words[int(v.rank[j])+bits.OnesCount64(v.summary[j]&(1<<bit-1))]
}

// firstCommon returns the lowest index that all vectors hold, or -1. They have
// summaries of one length.
func firstCommon(vs []*vector) int {
	for j := range vs[0].summary {
		common := vs[0].summary[j]
		for _, v := range vs[1:] {
			common &= v.summary[j]
		}
		for common != 0 {
			bit := uint(bits.TrailingZeros64(common))
			w := vs[0].word(j, bit)
			for _, v := range vs[1:] {
				w &= v.word(j, bit)
			}
			if w != 0 {
				return (j*64+int(bit))*64 + bits.TrailingZeros64(w)
			}
			common &= common - 1
		}
	}
	return -1
}

// numbers is a dimension of 16-bit numbers: the vectors of all 65,536, by page of
// 256, equal pages shared.
type numbers struct {
	pages [256]*[256]*vector
}

func (n *numbers) find(v uint16) *vector { return n.pages[v>>8][v&0xff] }

// addrs4 is a dimension of IPv4 addresses: starts[i] is where interval i begins,
// and jump[h] the interval of the lowest address whose high 16 bits are h.
type addrs4 struct {
	starts  []uint32
	vectors []*vector
	jump    []uint32 // 65,537 of them, or none when there are few intervals
}

func (a *addrs4) find(addr netip.Addr) *vector {
	b := addr.As4()
	v := binary.BigEndian.Uint32(b[:])
	lo, n := 0, len(a.starts)
	if a.jump != nil {
		lo = int(a.jump[v>>16])
		n = int(a.jump[v>>16+1]) - lo + 1
	}
	// The interval is in [lo, lo+n), whose first start is not above v. Halving the
	// length instead of moving two ends keeps the loop free of unforeseeable jumps.
	for n > 1 {
		half := n / 2
		next := lo + half
		if a.starts[next] <= v {
			lo = next
		}
		n -= half
	}
	return a.vectors[lo]
}

// addrs6 is a dimension of IPv6 addresses.
type addrs6 struct {
	starts  []uint128
	vectors []*vector
}

type uint128 struct{ hi, lo uint64 }

func (a *addrs6) find(addr netip.Addr) *vector {
	b := addr.As16()
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	at, n := 0, len(a.starts)
	for n > 1 {
		half := n / 2
		next := at + half
		s := &a.starts[next]
		// start <= addr, told by the borrow of addr - start
		_, borrow := bits.Sub64(lo, s.lo, 0)
		if _, borrow = bits.Sub64(hi, s.hi, borrow); borrow == 0 {
			at = next
		}
		n -= half
	}
	return a.vectors[at]
}
