package sa

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"net/netip"
	"slices"
)

// newClassifier compiles policies that have been checked.
func newClassifier(policies []*Policy) *classifier {
	c := new(classifier)
	c.sets.blocks = (len(policies) + 64*64 - 1) / (64 * 64)
	b := &builder{policies: policies, bits: make([]uint64, (len(policies)+63)/64), known: make(map[string]vector), sets: &c.sets}

	sides := [2]func(*Selector) []AddrRange{
		func(s *Selector) []AddrRange { return s.Local },
		func(s *Selector) []AddrRange { return s.Remote },
	}
	c.local4, c.remote4 = b.addrs("0.0.0.0/0", sides[0]), b.addrs("0.0.0.0/0", sides[1])
	c.local6, c.remote6 = b.addrs("::/0", sides[0]), b.addrs("::/0", sides[1])
	b.numbers(&c.localPort, func(s *Selector) []span[uint32] { return portSpans(s.LocalPorts) })
	b.numbers(&c.remotePort, func(s *Selector) []span[uint32] { return portSpans(s.RemotePorts) })
	b.numbers(&c.icmp, icmpSpans)
	b.numbers(&c.mh, mhSpans)

	for d := range c.proto {
		for known := range c.proto[d] {
			for proto := range c.proto[d][known] {
				c.proto[d][known][proto] = b.protocol(Direction(d), known == 1, uint8(proto))
			}
		}
	}
	return c
}

// A span is the values from, …, to of a dimension.
type span[T any] struct{ from, to T }

// A builder makes vectors, each different one once.
type builder struct {
	policies []*Policy
	bits     []uint64 // the set under construction
	known    map[string]vector
	sets     *sets
	key      []byte
}

func (b *builder) set(i int)   { b.bits[i/64] |= 1 << (i % 64) }
func (b *builder) unset(i int) { b.bits[i/64] &^= 1 << (i % 64) }

// vector returns the set under construction.
func (b *builder) vector() vector {
	b.key = b.key[:0]
	for i, w := range b.bits {
		if w != 0 {
			b.key = binary.LittleEndian.AppendUint32(b.key, uint32(i))
			b.key = binary.LittleEndian.AppendUint64(b.key, w)
		}
	}
	if v, is := b.known[string(b.key)]; is {
		return v
	}
	v := vector(len(b.sets.mem))
	ranks := len(b.sets.mem) + b.sets.blocks
	b.sets.mem = append(b.sets.mem, make([]uint64, 2*b.sets.blocks)...)
	n := 0
	for i, w := range b.bits {
		if i%64 == 0 {
			b.sets.mem[ranks+i/64] = uint64(n)
		}
		if w != 0 {
			b.sets.mem[int(v)+i/64] |= 1 << (i % 64)
			b.sets.mem = append(b.sets.mem, w)
			n++
		}
	}
	b.known[string(b.key)] = v
	return v
}

// protocol returns the policies that apply to a flow as far as direction,
// protocol, and the ports being known or not, can tell.
func (b *builder) protocol(d Direction, known bool, proto uint8) vector {
	clear(b.bits)
	for i, p := range b.policies {
		s := &p.Selector
		if p.Directions.Has(d) && (s.Proto == AnyProto || s.Proto == proto) && !(s.wantsUpper() && !known) && !(s.Opaque && known) {
			b.set(i)
		}
	}
	return b.vector()
}

// cut cuts a dimension where a span of a policy begins or ends. spans returns the
// spans of a policy, disjoint; next is the value after one, false after the last.
// The first interval begins at lowest.
func cut[T comparable](b *builder, lowest T, compare func(x, y T) int, next func(T) (T, bool), spans func(*Selector) []span[T]) (starts []T, vectors []vector) {
	type edge struct {
		at     T
		policy int
		begin  bool
	}
	var edges []edge
	for i, p := range b.policies {
		for _, s := range spans(&p.Selector) {
			edges = append(edges, edge{s.from, i, true})
			if after, ok := next(s.to); ok {
				edges = append(edges, edge{after, i, false})
			}
		}
	}
	slices.SortFunc(edges, func(x, y edge) int {
		// A policy whose one span ends where its next begins is unset, then set.
		ends := 0
		if x.begin != y.begin {
			ends = 1
			if y.begin {
				ends = -1
			}
		}
		return cmp.Or(compare(x.at, y.at), ends)
	})
	clear(b.bits)
	at := lowest
	for i := 0; ; {
		for ; i < len(edges) && edges[i].at == at; i++ {
			if edges[i].begin {
				b.set(edges[i].policy)
			} else {
				b.unset(edges[i].policy)
			}
		}
		v := b.vector()
		if len(vectors) == 0 || vectors[len(vectors)-1] != v {
			starts, vectors = append(starts, at), append(vectors, v)
		}
		if i == len(edges) {
			return starts, vectors
		}
		at = edges[i].at
	}
}

// merge sorts spans and joins those that overlap.
func merge[T any](list []span[T], compare func(x, y T) int) []span[T] {
	slices.SortFunc(list, func(x, y span[T]) int { return compare(x.from, y.from) })
	out := list[:0]
	for _, s := range list {
		if n := len(out); n > 0 && compare(s.from, out[n-1].to) <= 0 {
			if compare(s.to, out[n-1].to) > 0 {
				out[n-1].to = s.to
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// addrSpans returns the ranges of one family; all of it for an empty list.
func addrSpans(list []AddrRange, whole AddrRange) []span[netip.Addr] {
	if len(list) == 0 {
		list = []AddrRange{whole}
	}
	var spans []span[netip.Addr]
	for _, r := range list {
		if r = r.unmap(); r.From.BitLen() == whole.From.BitLen() {
			spans = append(spans, span[netip.Addr]{r.From, r.To})
		}
	}
	return merge(spans, netip.Addr.Compare)
}

func nextAddr(a netip.Addr) (netip.Addr, bool) {
	a = a.Next()
	return a, a.IsValid()
}

// fewIntervals are searched without help.
const fewIntervals = 4

// addrs makes one side's dimension of the family of whole.
func (b *builder) addrs(whole string, side func(*Selector) []AddrRange) *addrs {
	all := AddrRangeFromPrefix(netip.MustParsePrefix(whole))
	starts, vectors := cut(b, all.From, netip.Addr.Compare, nextAddr, func(s *Selector) []span[netip.Addr] {
		return addrSpans(side(s), all)
	})
	a := &addrs{vectors: vectors}
	for _, s := range starts {
		a.starts = append(a.starts, uint128From(s))
	}
	if len(starts) > fewIntervals {
		a.index()
	}
	return a
}

// index fills jump, with about four places for each interval.
func (a *addrs) index() {
	a.first = a.starts[1]
	last := a.starts[len(a.starts)-1]
	same := uint(bits.LeadingZeros64(a.first.hi ^ last.hi))
	if same == 64 {
		same += uint(bits.LeadingZeros64(a.first.lo ^ last.lo))
	}
	width := min(uint(bits.Len(uint(2*len(a.starts)))), 16, 128-same)
	a.shift, a.width = 128-same-width, 1<<width-1
	a.mask = uint128{^uint64(0) << (64 - min(same, 64)), ^uint64(0) << (128 - max(same, 64))}
	a.jump = make([]uint32, 1<<width+1)
	i := 0
	for h := range a.width + 1 {
		at := uint128{a.first.hi & a.mask.hi, a.first.lo & a.mask.lo}
		at.lo |= h << a.shift
		at.hi |= h<<(a.shift-64) | h>>(64-a.shift) // one of them is 0, or both are h
		for i+1 < len(a.starts) && a.starts[i+1].atMost(at) {
			i++
		}
		a.jump[h] = uint32(i)
	}
	a.jump[a.width+1] = uint32(len(a.starts) - 1)
}

func portSpans(list []PortRange) []span[uint32] {
	if len(list) == 0 {
		return []span[uint32]{{0, 0xffff}}
	}
	var spans []span[uint32]
	for _, r := range list {
		spans = append(spans, span[uint32]{uint32(r.From), uint32(r.To)})
	}
	return merge(spans, cmp.Compare[uint32])
}

// icmpSpans returns the spans of type<<8 | code.
func icmpSpans(s *Selector) []span[uint32] {
	types, codes := s.ICMPTypes, s.ICMPCodes
	if len(types) == 0 {
		types = []ByteRange{{0, 255}}
	}
	var spans []span[uint32]
	for _, t := range types {
		if len(codes) == 0 {
			spans = append(spans, span[uint32]{uint32(t.From) << 8, uint32(t.To)<<8 | 0xff})
		}
		for i := uint32(t.From); i <= uint32(t.To); i++ {
			for _, c := range codes {
				spans = append(spans, span[uint32]{i<<8 | uint32(c.From), i<<8 | uint32(c.To)})
			}
		}
	}
	return merge(spans, cmp.Compare[uint32])
}

// mhSpans returns the spans of type<<8.
func mhSpans(s *Selector) []span[uint32] {
	if len(s.MHTypes) == 0 {
		return []span[uint32]{{0, 0xffff}}
	}
	var spans []span[uint32]
	for _, t := range s.MHTypes {
		spans = append(spans, span[uint32]{uint32(t.From) << 8, uint32(t.To)<<8 | 0xff})
	}
	return merge(spans, cmp.Compare[uint32])
}

func (b *builder) numbers(n *numbers, spans func(*Selector) []span[uint32]) {
	next := func(v uint32) (uint32, bool) { return v + 1, v < 0xffff }
	starts, vectors := cut(b, 0, cmp.Compare[uint32], next, spans)
	pages := make(map[[256]vector]*[256]vector)
	var page [256]vector // on the stack: most of them are there already
	i := 0
	for h := range n.pages {
		for l := range page {
			for i+1 < len(starts) && starts[i+1] <= uint32(h)<<8|uint32(l) {
				i++
			}
			page[l] = vectors[i]
		}
		if pages[page] == nil {
			known := page
			pages[page] = &known
		}
		n.pages[h] = pages[page]
	}
}
