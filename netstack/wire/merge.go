package wire

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	tcpFlagsAt = 13
	tcpACK     = uint8(header.TCPFlagAck)
	tcpPSH     = uint8(header.TCPFlagPsh)
	tcpSumAt   = header.TCPChecksumOffset
)

// A Merger puts TCP segments of one flow, of which each follows the one before, or UDP
// datagrams of one flow together to one superframe: the reverse of a Cutter. Cut again at
// the same size, the superframe gives the segments back, but for IPv4 identifications and
// the place of PSH, as with any receiver's coalescing.
//
// Each segment's data are copied once, in the pass that checks its checksum. The zero
// value needs Start.
type Merger struct {
	dst     []byte // of which the first total octets are the superframe
	in      Info
	head    int    // length of the headers
	size    int    // payload of a segment, in octets
	next    uint32 // sequence number that has to follow
	total   int    // octets of the superframe as a datagram
	n       int
	pseudo  uint16 // sum of the pseudo header but for the length
	same    uint16 // pseudo, and the sum of what is the same in all upper-layer headers
	push    bool
	ended   bool // nothing may follow
	correct bool // the first one's checksum
}

// Start begins with datagram, of which in is Parse's result, in dst, which has room for
// the longest superframe that is to become of it. It returns false, and has written
// nothing, if nothing can be joined to it: it is no plain TCP segment or UDP datagram with data, has
// something to tell by itself, or no checksum.
func (m *Merger) Start(datagram []byte, in *Info, dst []byte) bool {
	m.n, m.ended, m.push = 0, true, false
	if !mergeable(datagram, in) || in.TotalLen > len(dst) {
		return false
	}
	m.dst, m.in = dst, *in
	m.pseudo = PseudoChecksum(in.Src, in.Dst, in.Proto, 0)
	copy(dst[:in.HeaderLen], datagram)
	m.begin(datagram[in.HeaderLen:in.TotalLen], in.L4HeaderLen)
	return true
}

// begin takes the first segment, whose IP header is in place.
func (m *Merger) begin(l4 []byte, head int) {
	m.head = m.in.HeaderLen + head
	m.size, m.total, m.n = len(l4)-head, m.in.HeaderLen+len(l4), 1
	copy(m.dst[m.in.HeaderLen:], l4[:head])
	differs := m.sumDiffering(l4, len(l4))
	m.same = subtract(sumUp(l4[:head], combineLen(m.pseudo, len(l4))), fold(differs))
	m.correct = m.copyData(m.dst[m.head:m.total], l4[head:], differs)
	if m.ended = false; m.in.Proto == ProtoUDP {
		return
	}
	m.next = binary.BigEndian.Uint32(l4[4:]) + uint32(m.size)
	m.push = l4[tcpFlagsAt]&tcpPSH != 0
	m.ended = m.push
}

// sumDiffering sums what is not the same in all upper-layer headers, of which h is one, in
// front of which the pseudo header says n octets.
func (m *Merger) sumDiffering(h []byte, n int) uint64 {
	be := binary.BigEndian
	if m.in.Proto == ProtoUDP {
		return 2*uint64(n) + uint64(be.Uint16(h[udpChecksumAt:]))
	}
	return uint64(n) + uint64(be.Uint32(h[4:])) + uint64(be.Uint16(h[12:])) + uint64(be.Uint16(h[tcpChecksumAt:]))
}

// copyData copies the data of a segment, and says whether its checksum is right.
func (m *Merger) copyData(dst, data []byte, differs uint64) bool {
	return fold(uint64(copySum(dst, data, m.same))+differs) == 0xffff
}

// Follows reports whether a segment or datagram that Join has refused is of the same flow,
// with an IP header as the others, and could be the first of another superframe: for Again.
func (m *Merger) Follows(ip, l4 []byte) bool {
	if m.n == 0 || !m.sameIP(ip) || len(l4) < udpLen || m.in.HeaderLen+len(l4) > len(m.dst) ||
		[4]byte(l4) != [4]byte(m.dst[m.in.HeaderLen:]) {
		return false
	}
	if m.in.Proto == ProtoUDP {
		return wholeUDP(l4)
	}
	if len(l4) < tcpMinLen || l4[tcpFlagsAt]&^tcpPSH != tcpACK {
		return false
	}
	head := m.upperLen(l4)
	return head >= tcpMinLen && head < len(l4)
}

// upperLen is how long the header says it is that l4 begins with.
func (m *Merger) upperLen(l4 []byte) int {
	if m.in.Proto == ProtoUDP {
		return udpLen
	}
	return int(l4[12]>>4) * 4
}

// Again begins anew with what Follows what was there before Finish.
func (m *Merger) Again(ip, l4 []byte) {
	copy(m.dst, ip)
	m.dst[m.in.ProtoAt] = m.in.Proto
	m.begin(l4, m.upperLen(l4))
	SetLength(m.dst, int(m.in.Version), m.total)
}

// mergeable tells whether a datagram, without IP options or extension headers, is a TCP
// segment that carries data and no flags but ACK and PSH, or a UDP datagram with data.
func mergeable(datagram []byte, in *Info) bool {
	if in.IsFragment || in.TotalLen <= in.HeaderLen+in.L4HeaderLen ||
		in.Version == 4 && in.HeaderLen != ipv4MinLen || in.Version == 6 && in.HeaderLen != ipv6Len {
		return false
	}
	l4 := datagram[in.HeaderLen:in.TotalLen]
	switch in.Proto {
	case ProtoTCP:
		return in.L4HeaderLen >= tcpMinLen && l4[tcpFlagsAt]&^tcpPSH == tcpACK
	case ProtoUDP:
		return in.L4HeaderLen == udpLen && wholeUDP(l4)
	}
	return false
}

// wholeUDP tells whether a UDP datagram has data, a checksum, and the length that it says.
func wholeUDP(udp []byte) bool {
	return len(udp) > udpLen && int(binary.BigEndian.Uint16(udp[4:])) == len(udp) &&
		binary.BigEndian.Uint16(udp[udpChecksumAt:]) != 0
}

// Same reports whether a datagram belongs to the flow that Start was given.
func (m *Merger) Same(in *Info) bool {
	return m.in.Proto == in.Proto && m.in.SrcPort == in.SrcPort && m.in.DstPort == in.DstPort &&
		m.in.Src == in.Src && m.in.Dst == in.Dst
}

// Counts reports whether an IPv4 datagram has the identification by which the superframe,
// cut again, comes out as it came: one more than the one before. IPv6 has none.
func (m *Merger) Counts(datagram []byte) bool {
	be := binary.BigEndian
	return m.in.Version == 6 || be.Uint16(datagram[4:]) == be.Uint16(m.dst[4:])+uint16(m.n)
}

// Add joins datagram, of which in is Parse's result, as Join does.
func (m *Merger) Add(datagram []byte, in *Info) bool {
	return in.Proto == m.in.Proto && mergeable(datagram, in) && m.Join(datagram[:in.HeaderLen], datagram[in.HeaderLen:in.TotalLen])
}

// Join joins a TCP segment, or a UDP datagram, with the IP header ip in front of it, if
// it is of the flow and of its protocol, follows immediately, differs in nothing but its
// data, its checksum is right, and there is room. Otherwise it returns false, and nothing
// has changed.
//
// ip has no options and no extension headers and is no fragment. What it says of length,
// protocol and identification, and its own checksum, are not looked at.
func (m *Merger) Join(ip, l4 []byte) bool {
	if m.ended || !m.correct {
		return false
	}
	first, n := m.dst[m.in.HeaderLen:m.head], len(l4)-(m.head-m.in.HeaderLen)
	if n <= 0 || n > m.size || m.total+n > len(m.dst) || !m.sameIP(ip) {
		return false
	}
	h, data := l4[:len(first)], l4[len(first):]
	if m.in.Proto == ProtoUDP {
		if [4]byte(h) != [4]byte(first) || !wholeUDP(l4) {
			return false
		}
	} else if !m.sameTCP(h, first) {
		return false
	}
	if !m.copyData(m.dst[m.total:m.total+n], data, m.sumDiffering(h, len(l4))) {
		return false
	}
	m.n++
	m.total += n
	// A short one is the last of a superframe, and PSH stands in the last only.
	m.ended = n < m.size
	if m.in.Proto == ProtoTCP {
		m.next += uint32(n)
		m.push = h[tcpFlagsAt]&tcpPSH != 0
		m.ended = m.ended || m.push
	}
	return true
}

// sameIP compares what must be the same in the IP headers of all segments.
func (m *Merger) sameIP(ip []byte) bool {
	first, le := m.dst[:m.in.HeaderLen], binary.LittleEndian
	if len(ip) != len(first) {
		return false
	}
	if m.in.Version == 4 {
		return le.Uint16(ip) == le.Uint16(first) && // TOS
			(le.Uint32(ip[6:])^le.Uint32(first[6:]))&0xffffff == 0 && // DF, TTL
			le.Uint64(ip[12:]) == le.Uint64(first[12:])
	}
	return le.Uint32(ip) == le.Uint32(first) && ip[7] == first[7] && // traffic class, flow label, hop limit
		le.Uint64(ip[8:]) == le.Uint64(first[8:]) && le.Uint64(ip[16:]) == le.Uint64(first[16:]) &&
		le.Uint64(ip[24:]) == le.Uint64(first[24:]) && le.Uint64(ip[32:]) == le.Uint64(first[32:])
}

// sameTCP compares what must be the same in the TCP headers of all segments.
func (m *Merger) sameTCP(h, first []byte) bool {
	le := binary.LittleEndian
	return le.Uint32(h) == le.Uint32(first) && // ports
		binary.BigEndian.Uint32(h[4:]) == m.next &&
		le.Uint32(h[8:]) == le.Uint32(first[8:]) && // acknowledgement
		h[12] == first[12] && h[tcpFlagsAt]&^tcpPSH == tcpACK && // data offset, reserved bits
		le.Uint16(h[14:]) == le.Uint16(first[14:]) && // window
		string(h[18:]) == string(first[18:]) // urgent pointer, options
}

// Proto returns the protocol of the flow that Start was given.
func (m *Merger) Proto() uint8 { return m.in.Proto }

// Segments returns how many datagrams were joined, 0 before Start.
func (m *Merger) Segments() int { return m.n }

// Finish completes the superframe, returns it, and describes it in off, whose offsets
// count from the start of an Ethernet header of 14 octets. With one datagram alone it is
// that one, and off says nothing. Nothing can be joined to it any more.
func (m *Merger) Finish(off VirtioNet) []byte {
	clear(off[:VirtioNetLen])
	m.ended = true
	if m.n < 2 {
		return m.dst[:m.total]
	}
	SetLength(m.dst, int(m.in.Version), m.total)
	l4, n, sumAt := m.dst[m.in.HeaderLen:], m.total-m.in.HeaderLen, tcpSumAt
	switch {
	case m.in.Proto == ProtoUDP:
		binary.BigEndian.PutUint16(l4[4:], uint16(n))
		off.SetGSOType(GSOUDPL4)
		sumAt = udpChecksumAt
	case m.in.Version == 6:
		off.SetGSOType(GSOTCPv6)
	default:
		off.SetGSOType(GSOTCPv4)
	}
	if m.push {
		l4[tcpFlagsAt] |= tcpPSH
	}
	binary.BigEndian.PutUint16(l4[sumAt:], combineLen(m.pseudo, n))
	off.SetFlags(VirtioNetNeedsCsum)
	off.SetHdrLen(uint16(ethernetLen + m.head))
	off.SetGSOSize(uint16(m.size))
	off.SetCsumStart(uint16(ethernetLen + m.in.HeaderLen))
	off.SetCsumOffset(uint16(sumAt))
	return m.dst[:m.total]
}

// CorrectIPv4 says whether ip is the header of an IPv4 datagram without options that is
// no fragment, of which b holds all, and its checksum is right.
func CorrectIPv4(b []byte) bool {
	return len(b) >= ipv4MinLen && b[0] == 0x45 && int(binary.BigEndian.Uint16(b[2:])) <= len(b) &&
		binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && sumIPv4(b) == 0xffff
}
