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

// Segments returns how many datagrams Next writes in all.
func (c *Cutter) Segments() int { return c.count }

// Next writes the next datagram to dst and returns its length in octets, or 0 after
// the last. dst must have room for the largest datagram that Init allowed, and must
// not overlap the superframe.
func (c *Cutter) Next(dst []byte) int {
	i := c.next
	if i >= c.count {
		return 0
	}
	c.next++
	if c.proto == 0 {
		n := copy(dst[:len(c.src)], c.src)
		if c.csumStart != 0 {
			finishChecksum(dst[c.csumStart:n], c.csumField-c.csumStart)
		}
		return n
	}
	at := i * c.size
	payload := c.src[c.hdrLen+at:]
	payload = payload[:min(len(payload), c.size)]
	n := c.hdrLen + len(payload)
	dst = dst[:n]
	copy(dst, c.src[:c.hdrLen])
	if c.version == 4 {
		c.finishIPv4(dst, c.id+uint16(i))
	} else {
		SetIPv6PayloadLen(dst, n-ipv6Len)
	}
	if c.proto == ProtoUDP && c.LeaveUDP {
		copy(dst[c.hdrLen:], payload)
		header.UDP(dst[c.l4At:]).SetLength(uint16(n - c.l4At))
		return n
	}
	s := copySum(dst[c.hdrLen:], payload, combineLen(c.l4Sum, n-c.l4At))
	if c.proto == ProtoTCP {
		c.finishTCP(dst[c.l4At:], s, at, i)
	} else {
		u := header.UDP(dst[c.l4At:])
		u.SetLength(uint16(len(u)))
		putChecksum(u[udpChecksumAt:], ^checksum.Combine(s, uint16(len(u))))
	}
	return n
}

func (c *Cutter) finishIPv4(dst []byte, id uint16) {
	h := header.IPv4(dst)
	h.SetTotalLength(uint16(len(dst)))
	h.SetID(id)
	h.SetChecksum(^checksum.Combine(checksum.Combine(c.ipSum, uint16(len(dst))), id))
}

// finishTCP writes what differs in the TCP header of segment i, whose payload starts
// at octets into the superframe's; s is the sum of all the rest.
func (c *Cutter) finishTCP(tcp header.TCP, s uint16, at, i int) {
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
	tcp.SetSequenceNumber(seq)
	tcp[header.TCPFlagsOffset] = flags
	tcp.SetUrgentPointer(uint16(urgent))
	s = checksum.Combine(s, uint16(seq>>16))
	s = checksum.Combine(s, uint16(seq))
	s = checksum.Combine(s, c.offsets|uint16(flags))
	s = checksum.Combine(s, uint16(urgent))
	binary.BigEndian.PutUint16(tcp[tcpChecksumAt:], ^s)
}
