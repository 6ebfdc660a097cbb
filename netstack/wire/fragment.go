package wire

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// IPv4 option types (RFC 791 §3.1) that have no length octet, and the bit that says
// that an option goes into every fragment.
const (
	optionEnd    = 0
	optionNop    = 1
	optionCopied = 0x80

	maxIPv4HeaderLen = header.IPv4MaximumHeaderSize
)

// A Fragmenter cuts one datagram into fragments at the IP layer: RFC 791 §3.2 for
// IPv4, RFC 8200 §4.5 for IPv6. A datagram that fits passes as one, unchanged.
//
// The zero value needs Init. A Fragmenter may be used again by another Init, and
// allocates nothing. It refers to the datagram until the last Next, and never
// changes it.
type Fragmenter struct {
	src     []byte
	version uint8
	whole   bool // src fits
	// head is the header of every fragment but the first, without the IPv6 fragment
	// header: in IPv4 the options without the copied bit are missing.
	head    [maxIPv4HeaderLen]byte
	headLen int
	// firstLen is the length of the header of the first fragment, which stands at the
	// start of src. In IPv6 all fragments have this one.
	firstLen int
	payload  []byte // what is cut: all behind the header of the first fragment
	first    int    // payload of the first fragment
	size     int    // payload of the others but the last
	count    int
	next     int

	offset      int  // of payload, in octets: not 0 if src is a fragment itself
	more        bool // src is a fragment with more behind it
	fragProtoAt int  // IPv6: octet that names the fragment header
	fragProto   uint8
	id          uint32 // IPv6
}

// Init readies f for a datagram; in is Parse's result for it. mtu is the largest
// fragment in octets, IP header included. id is the identification of IPv6
// fragments, and must not repeat for a pair of addresses while the earlier ones are
// about (RFC 8200 §4.5); an IPv4 datagram, and one that is a fragment already, keeps
// the identification that it has.
//
// It returns DropTooBig if the datagram does not fit and is IPv4 with DF set, or mtu
// leaves no eight octets behind the headers, or does not take the whole IPv6 header
// chain in the first fragment (RFC 7112); and DropMalformed if the options of an
// IPv4 datagram to be cut overrun its header.
func (f *Fragmenter) Init(datagram []byte, in *Info, mtu int, id uint32) DropReason {
	f.count, f.next, f.whole = 0, 0, false
	if in.TotalLen > len(datagram) {
		return DropMalformed
	}
	f.src = datagram[:in.TotalLen]
	f.version = in.Version
	if in.TotalLen <= mtu {
		f.count, f.whole = 1, true
		return DropNone
	}
	f.offset, f.more = in.FragOffset, in.MoreFragments
	var overhead int // of the fragments but the first
	if in.Version == 4 {
		if in.DF {
			return DropTooBig
		}
		f.firstLen = in.HeaderLen
		if !f.copyOptions() {
			return DropMalformed
		}
		f.payload = f.src[f.firstLen:]
		f.first = (mtu - f.firstLen) &^ 7
		overhead = f.headLen
	} else {
		f.initIPv6(in, id)
		overhead = f.firstLen + fragHdrLen
		f.first = (mtu - overhead) &^ 7
		chain := in.HeaderLen + in.L4HeaderLen - (len(f.src) - len(f.payload))
		if in.FragOffset == 0 && f.first < chain {
			return DropTooBig
		}
	}
	f.size = (mtu - overhead) &^ 7
	if f.first < 8 {
		return DropTooBig
	}
	// The datagram does not fit, so there always is something left behind the first.
	f.count = 1 + (len(f.payload)-f.first+f.size-1)/f.size
	return DropNone
}

// initIPv6 finds the part that every fragment repeats: all up to the last header
// that nodes on the way look at (RFC 8200 §4.5), which is where transport mode puts
// ESP too.
func (f *Fragmenter) initIPv6(in *Info, id uint32) {
	if in.FragHeaderAt == 0 {
		f.firstLen, f.fragProtoAt, f.fragProto, f.id = in.InsertAt, in.InsertProtoAt, in.InsertProto, id
		f.payload = f.src[f.firstLen:]
		return
	}
	f.firstLen = in.FragHeaderAt
	f.fragProtoAt = protoAt(f.src, in.FragHeaderAt)
	f.fragProto = f.src[in.FragHeaderAt]
	f.id = in.ID
	f.payload = f.src[in.FragHeaderAt+fragHdrLen:]
}

// protoAt returns the offset of the octet that names the extension header at offset
// at of the IPv6 datagram b. Parse has found it to be in the chain.
func protoAt(b []byte, at int) int {
	named, next := ipv6ProtoAt, ipv6Len
	for next < at {
		proto := b[named]
		named, next = next, next+extensionLen(proto, b[next:])
	}
	return named
}

// copyOptions makes head of the IPv4 header: the options with the copied bit, with
// zeros behind them up to a multiple of four octets (RFC 791 §3.1, §3.2).
func (f *Fragmenter) copyOptions() bool {
	n := copy(f.head[:], f.src[:ipv4MinLen])
	for o := f.src[ipv4MinLen:f.firstLen]; len(o) > 0 && o[0] != optionEnd; {
		size := 1
		if o[0] != optionNop {
			if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
				return false
			}
			size = int(o[1])
		}
		if o[0]&optionCopied != 0 {
			n += copy(f.head[n:], o[:size])
		}
		o = o[size:]
	}
	for ; n%4 != 0; n++ {
		f.head[n] = optionEnd
	}
	f.headLen = n
	header.IPv4(f.head[:]).SetHeaderLength(uint8(n))
	return true
}

// Fragments returns how many fragments Next writes in all.
func (f *Fragmenter) Fragments() int { return f.count }

// Next writes the next fragment to dst and returns its length in octets, or 0 after
// the last. dst must have room for the mtu given to Init, and must not overlap the
// datagram.
func (f *Fragmenter) Next(dst []byte) int {
	i := f.next
	if i >= f.count {
		return 0
	}
	f.next++
	if f.whole {
		return copy(dst[:len(f.src)], f.src)
	}
	at, size, head := 0, f.first, f.src[:f.firstLen]
	if i > 0 {
		at, size = f.first+(i-1)*f.size, f.size
		if f.version == 4 {
			head = f.head[:f.headLen]
		}
	}
	more := f.more
	if i < f.count-1 {
		more = true
	} else {
		size = len(f.payload) - at
	}
	n := copy(dst, head)
	if f.version == 6 {
		n += f.putFragHeader(dst, n, f.offset+at, more)
	}
	n += copy(dst[n:n+size], f.payload[at:])
	if f.version == 6 {
		SetIPv6PayloadLen(dst, n-ipv6Len)
		return n
	}
	h := header.IPv4(dst)
	flags := h.Flags() &^ header.IPv4FlagMoreFragments
	if more {
		flags |= header.IPv4FlagMoreFragments
	}
	h.SetFlagsFragmentOffset(flags, uint16(f.offset+at))
	SetIPv4TotalLen(dst, n)
	return n
}

// putFragHeader writes the IPv6 fragment header at offset n of dst and returns its
// length.
func (f *Fragmenter) putFragHeader(dst []byte, n, offset int, more bool) int {
	dst[f.fragProtoAt] = ProtoFragment
	h := dst[n : n+fragHdrLen]
	h[0], h[1] = f.fragProto, 0
	word := uint16(offset)
	if more {
		word |= 1
	}
	binary.BigEndian.PutUint16(h[2:], word)
	binary.BigEndian.PutUint32(h[4:], f.id)
	return fragHdrLen
}
