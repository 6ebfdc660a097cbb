package wire

import (
	"bytes"
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/header"
)

const (
	tcpFlagsAt = 13
	tcpACK     = uint8(header.TCPFlagAck)
	tcpPSH     = uint8(header.TCPFlagPsh)
	tcpSumAt   = header.TCPChecksumOffset
)

// A Merger finds out which TCP segments of one flow follow each other closely
// enough to be one superframe: the reverse of a Cutter. Cut again at the same size,
// the superframe gives the segments back, but for IPv4 identifications and the place
// of PSH, as with any receiver's coalescing.
//
// It keeps the first segment that it was given, which must stay unchanged until the
// next Start, and copies nothing before Write. The zero value needs Start.
type Merger struct {
	first    []byte
	in       Info
	size     int    // payload of a segment, in octets
	next     uint32 // sequence number that has to follow
	total    int    // octets of the superframe as a datagram
	n        int
	push     bool
	ended    bool // nothing may follow
	verified bool // the first one's checksum
}

// Start begins with datagram, of which in is Parse's result. It returns false if
// nothing can be joined to it: it is no plain TCP segment with data, or has
// something to tell by itself.
func (m *Merger) Start(datagram []byte, in *Info) bool {
	m.n, m.ended, m.verified = 0, true, false
	if !mergeable(datagram, in) {
		return false
	}
	tcp := datagram[in.HeaderLen:]
	m.first, m.in = datagram, *in
	m.size = in.TotalLen - in.HeaderLen - in.L4HeaderLen
	m.next = binary.BigEndian.Uint32(tcp[4:]) + uint32(m.size)
	m.total, m.n = in.TotalLen, 1
	m.push = tcp[tcpFlagsAt]&tcpPSH != 0
	m.ended = m.push
	return true
}

// mergeable tells whether a datagram is a TCP segment without IP options or
// extension headers that carries data and no flags but ACK and PSH.
func mergeable(datagram []byte, in *Info) bool {
	if in.Proto != ProtoTCP || in.IsFragment || in.L4HeaderLen < tcpMinLen ||
		in.Version == 4 && in.HeaderLen != ipv4MinLen || in.Version == 6 && in.HeaderLen != ipv6Len ||
		in.TotalLen <= in.HeaderLen+in.L4HeaderLen {
		return false
	}
	return datagram[in.HeaderLen+tcpFlagsAt]&^tcpPSH == tcpACK
}

// Same reports whether a datagram belongs to the flow that Start was given.
func (m *Merger) Same(in *Info) bool {
	return in.Proto == ProtoTCP && m.in.SrcPort == in.SrcPort && m.in.DstPort == in.DstPort &&
		m.in.Src == in.Src && m.in.Dst == in.Dst
}

// Add joins datagram to the others if it is Same, follows immediately, differs in
// nothing but its data, its checksum is right, and the superframe stays within limit
// octets. Otherwise it returns false and changes nothing but that it may refuse
// whatever comes later, too.
func (m *Merger) Add(datagram []byte, in *Info, limit int) bool {
	if m.ended || !m.Same(in) || !mergeable(datagram, in) {
		return false
	}
	n := in.TotalLen - in.HeaderLen - in.L4HeaderLen
	h, tcp, first := m.in.HeaderLen, datagram[in.HeaderLen:], m.first[m.in.HeaderLen:]
	if n > m.size || m.total+n > limit || in.L4HeaderLen != m.in.L4HeaderLen ||
		binary.BigEndian.Uint32(tcp[4:]) != m.next ||
		in.TOS != m.in.TOS || in.TTL != m.in.TTL || in.DF != m.in.DF ||
		!bytes.Equal(tcp[8:12], first[8:12]) || // acknowledgement
		tcp[12] != first[12] || !bytes.Equal(tcp[14:16], first[14:16]) || // reserved bits, window
		!bytes.Equal(tcp[18:in.L4HeaderLen], first[18:in.L4HeaderLen]) || // urgent pointer, options
		in.Version == 6 && !bytes.Equal(datagram[:4], m.first[:4]) { // flow label
		return false
	}
	if !m.verified {
		if !VerifyL4(m.first[:m.in.TotalLen], &m.in) {
			m.ended = true
			return false
		}
		m.verified = true
	}
	if !VerifyL4(datagram[:h+len(tcp)], in) {
		return false
	}
	m.n++
	m.total += n
	m.next += uint32(n)
	m.push = tcp[tcpFlagsAt]&tcpPSH != 0
	// A short one is the last of a superframe, and PSH stands in the last only.
	m.ended = m.push || n < m.size
	return true
}

// Segments returns how many datagrams were joined, 0 before Start.
func (m *Merger) Segments() int { return m.n }

// Len returns the length in octets of the superframe as a datagram.
func (m *Merger) Len() int { return m.total }

// Write writes the superframe to dst, which has room for Len octets, and describes
// it in off, whose offsets count from the start of an Ethernet header of 14 octets.
// parts are the datagrams that Start and Add took, in order. With one alone it is
// that one, and off says nothing.
func (m *Merger) Write(dst []byte, parts [][]byte, off VirtioNet) {
	clear(off[:VirtioNetLen])
	at := copy(dst, m.first[:m.in.TotalLen])
	if m.n < 2 {
		return
	}
	head := m.in.HeaderLen + m.in.L4HeaderLen
	for _, p := range parts[1:] {
		at += copy(dst[at:], p[head:])
	}
	SetLength(dst, int(m.in.Version), m.total)
	tcp := dst[m.in.HeaderLen:]
	if m.push {
		tcp[tcpFlagsAt] |= tcpPSH
	}
	binary.BigEndian.PutUint16(tcp[tcpSumAt:],
		PseudoChecksum(m.in.Src, m.in.Dst, ProtoTCP, m.total-m.in.HeaderLen))
	off.SetFlags(VirtioNetNeedsCsum)
	off.SetGSOType(GSOTCPv4)
	if m.in.Version == 6 {
		off.SetGSOType(GSOTCPv6)
	}
	off.SetHdrLen(uint16(ethernetLen + head))
	off.SetGSOSize(uint16(m.size))
	off.SetCsumStart(uint16(ethernetLen + m.in.HeaderLen))
	off.SetCsumOffset(tcpSumAt)
}
