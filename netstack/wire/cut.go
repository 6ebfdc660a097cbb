package wire

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// A Cutter cuts a superframe, a TCP or UDP datagram larger than the link takes, into
// datagrams that fit: each a whole IP datagram with all its checksums. A datagram
// that is no superframe passes as one segment, its checksum finished.
//
// The zero value needs Init. A Cutter may be used again by another Init, and
// allocates nothing. It refers to the superframe until the last Next, and never
// changes it.
type Cutter struct {
	// L2Len is the length in octets of the Ethernet header before the datagram, from
	// whose start csum_start counts; 0 means 14, no VLAN tags. Init leaves it alone.
	L2Len int
	// LeaveUDP leaves out the checksums of the datagrams of a UDP superframe, for
	// LeaveUDPChecksum. Init leaves it alone.
	LeaveUDP bool

	src     []byte
	version uint8
	proto   uint8 // ProtoTCP or ProtoUDP; 0 for a datagram that passes as it is
	l4At    int   // where the upper-layer header starts
	hdrLen  int   // up to the upper-layer payload
	size    int   // payload of every segment but the last
	count   int
	next    int

	// For a datagram that passes: the checksum to finish, 0 if there is none.
	csumStart, csumField int

	id      uint16 // IPv4
	ipSum   uint16 // IPv4 header without total length, identification, checksum
	l4Sum   uint16 // pseudo header and upper-layer header without what differs
	seq     uint32
	flags   uint8
	urgent  int
	offsets uint16 // TCP data offset and reserved bits, as the word that also has the flags
}

// Init readies c for a datagram with the metadata off; in is Parse's result for the
// datagram. maxLen is the largest datagram in octets, IP header included, that a
// segment may be. A TCP superframe is cut smaller than its gso_size where maxLen asks
// for it.
//
// It returns DropTooBig if that cannot be done: a datagram that is no superframe, or
// is one to be fragmented at IP (GSOUDP), is longer than maxLen; the boundaries
// of UDP datagrams would have to move; not one octet fits behind the headers. It
// returns DropBadOffload if the metadata contradict the datagram.
func (c *Cutter) Init(datagram []byte, in *Info, off VirtioNet, maxLen int) DropReason {
	*c = Cutter{L2Len: c.L2Len, LeaveUDP: c.LeaveUDP}
	if in.TotalLen > len(datagram) {
		return DropMalformed
	}
	l2Len := c.L2Len
	if l2Len == 0 {
		l2Len = ethernetLen
	}
	if r := off.Check(l2Len + len(datagram)); r != DropNone {
		return r
	}
	c.src = datagram[:in.TotalLen]
	c.version = in.Version
	if off == nil {
		return c.initWhole(in, off, l2Len, maxLen)
	}
	switch off.GSOKind() {
	case GSOTCPv4:
		c.proto = ProtoTCP
		if in.Version != 4 {
			return DropBadOffload
		}
	case GSOTCPv6:
		c.proto = ProtoTCP
		if in.Version != 6 {
			return DropBadOffload
		}
	case GSOUDPL4:
		c.proto = ProtoUDP
	default:
		return c.initWhole(in, off, l2Len, maxLen)
	}
	if in.Proto != c.proto || in.IsFragment || in.L4HeaderLen == 0 {
		return DropBadOffload
	}
	if off.NeedsCsum() {
		want := tcpChecksumAt
		if c.proto == ProtoUDP {
			want = udpChecksumAt
		}
		if int(off.CsumStart()) != l2Len+in.HeaderLen || int(off.CsumOffset()) != want {
			return DropBadOffload
		}
	}
	return c.initSuper(in, int(off.GSOSize()), maxLen)
}

func (c *Cutter) initWhole(in *Info, off VirtioNet, l2Len, maxLen int) DropReason {
	if in.TotalLen > maxLen {
		return DropTooBig
	}
	if off != nil && off.NeedsCsum() {
		var r DropReason
		if c.csumStart, c.csumField, r = checksumPlace(in, off, l2Len); r != DropNone {
			return r
		}
	}
	c.count = 1
	return DropNone
}

func (c *Cutter) initSuper(in *Info, gsoSize, maxLen int) DropReason {
	c.l4At, c.hdrLen = in.HeaderLen, in.HeaderLen+in.L4HeaderLen
	payload := in.TotalLen - c.hdrLen
	room := maxLen - c.hdrLen
	c.size = min(gsoSize, payload)
	if room < c.size {
		if c.proto == ProtoUDP || room < 1 {
			return DropTooBig
		}
		c.size = room
	}
	count := 1
	if payload > 0 {
		count = (payload + c.size - 1) / c.size
	}
	l4 := c.src[c.l4At:c.hdrLen]
	if c.proto == ProtoTCP {
		tcp := header.TCP(l4)
		c.seq = tcp.SequenceNumber()
		c.flags = l4[header.TCPFlagsOffset]
		c.offsets = uint16(l4[header.TCPDataOffset]) << 8
		c.urgent = int(tcp.UrgentPointer())
		// Neither can stand in the middle of a stream.
		if count > 1 && c.flags&uint8(header.TCPFlagSyn|header.TCPFlagRst) != 0 {
			return DropBadOffload
		}
	} else if int(header.UDP(l4).Length()) != udpLen+payload {
		return DropBadOffload
	}
	c.sumHeaders(in)
	c.count = count
	return DropNone
}

// sumHeaders sums all that is the same in every segment, so that Next has to add
// only what differs.
func (c *Cutter) sumHeaders(in *Info) {
	if c.version == 4 {
		h := header.IPv4(c.src)
		c.id = h.ID()
		s := checksum.Checksum(c.src[:in.HeaderLen], 0)
		s = subtract(s, h.TotalLength())
		s = subtract(s, h.ID())
		c.ipSum = subtract(s, h.Checksum())
	}
	l4 := c.src[c.l4At:c.hdrLen]
	s := checksum.Checksum(l4, PseudoChecksum(in.Src, FinalDst(c.src, in), c.proto, 0))
	if c.proto == ProtoUDP {
		s = subtract(s, header.UDP(l4).Length())
		c.l4Sum = subtract(s, header.UDP(l4).Checksum())
		return
	}
	tcp := header.TCP(l4)
	s = subtract(s, uint16(c.seq>>16))
	s = subtract(s, uint16(c.seq))
	s = subtract(s, c.offsets|uint16(c.flags))
	s = subtract(s, tcp.UrgentPointer())
	c.l4Sum = subtract(s, tcp.Checksum())
}

// subtract takes a word out of a ones' complement sum (RFC 1624 §3).
func subtract(s, word uint16) uint16 { return checksum.Combine(s, ^word) }

// Proto returns the upper-layer protocol of a superframe, ProtoTCP or ProtoUDP.
func (c *Cutter) Proto() uint8 { return c.proto }

// Segments returns how many datagrams Next writes in all.
func (c *Cutter) Segments() int { return c.count }

// Next writes the next datagram to dst and returns its length in octets, or 0 after
// the last. dst must have room for the largest datagram that Init allowed, and must
// not overlap the superframe.
func (c *Cutter) Next(dst []byte) int {
	if c.next >= c.count {
		return 0
	}
	if c.proto == 0 {
		c.next++
		n := copy(dst[:len(c.src)], c.src)
		if c.csumStart != 0 {
			finishChecksum(dst[c.csumStart:n], c.csumField-c.csumStart)
		}
		return n
	}
	n := c.l4At + c.NextUpper(dst[c.l4At:])
	at := ipv4ProtoAt
	if c.version == 6 {
		at = ipv6ProtoAt
	}
	c.Header(dst, at, c.src[at], n)
	return n
}

// NextUpper writes the upper-layer header and the payload of the next of several segments
// to dst, and returns their length in octets. The IP header, which may go elsewhere, is
// for Header.
func (c *Cutter) NextUpper(dst []byte) int {
	i := c.next
	c.next++
	at := i * c.size
	payload := c.src[c.hdrLen+at:]
	if len(payload) > c.size {
		payload = payload[:c.size]
	}
	head := c.hdrLen - c.l4At
	n := head + len(payload)
	dst = dst[:n]
	copyHeader(dst, c.src[c.l4At:c.hdrLen])
	if c.proto == ProtoUDP && c.LeaveUDP {
		copy(dst[head:], payload)
		header.UDP(dst).SetLength(uint16(n))
		return n
	}
	// The next one is on its way from memory while this one is sealed.
	s := uint64(copySumAhead(dst[head:], payload, c.l4Sum, c.size)) + uint64(n)
	if c.proto == ProtoTCP {
		c.finishTCP(dst, s, at, i)
	} else {
		u := header.UDP(dst)
		u.SetLength(uint16(n))
		putChecksum(u[udpChecksumAt:], ^fold(s+uint64(n)))
	}
	return n
}

// Header writes the IP header of the segment that NextUpper has just written to dst: for a
// datagram of total octets, and with proto in the octet at protoAt, which names what is
// behind the header.
func (c *Cutter) Header(dst []byte, protoAt int, proto uint8, total int) {
	copyHeader(dst, c.src[:c.l4At])
	dst[protoAt] = proto
	if c.version == 6 {
		SetIPv6PayloadLen(dst, total-ipv6Len)
		return
	}
	id := c.id + uint16(c.next-1)
	h := header.IPv4(dst)
	h.SetTotalLength(uint16(total))
	h.SetID(id)
	s := uint64(c.ipSum) + uint64(^uint16(c.proto)) + uint64(proto) + uint64(uint16(total)) + uint64(id)
	h.SetChecksum(^fold(s))
}

// finishTCP writes what differs in the TCP header of segment i, whose payload starts
// at octets into the superframe's; s is the sum of all the rest.
func (c *Cutter) finishTCP(tcp []byte, s uint64, at, i int) {
	flags := c.flags
	if i > 0 {
		flags &^= uint8(header.TCPFlagCwr) // one congestion event, told once (RFC 3168 §6.1.2)
	}
	if i < c.count-1 {
		flags &^= uint8(header.TCPFlagFin | header.TCPFlagPsh)
	}
	urgent := 0
	if flags&uint8(header.TCPFlagUrg) != 0 {
		// The pointer counts from the segment's own sequence number (RFC 9293 §3.1).
		if urgent = c.urgent - at; urgent <= 0 && i > 0 {
			urgent = 0
			flags &^= uint8(header.TCPFlagUrg)
		}
	} else if i == 0 {
		urgent = c.urgent // not valid, and passed on as it was
	}
	seq := c.seq + uint32(at)
	tcp = tcp[:header.TCPMinimumSize]
	binary.BigEndian.PutUint32(tcp[header.TCPSeqNumOffset:], seq)
	tcp[header.TCPFlagsOffset] = flags
	s += uint64(seq) + uint64(c.offsets|uint16(flags)) + uint64(uint16(urgent))
	binary.BigEndian.PutUint16(tcp[tcpChecksumAt:], ^fold(s))
	binary.BigEndian.PutUint16(tcp[header.TCPUrgentPtrOffset:], uint16(urgent))
}
