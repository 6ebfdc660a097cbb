package wire

import (
	"bytes"
	"encoding/binary"
)

// A UDPMerger finds out which UDP datagrams follow each other closely enough to be one
// superframe (GSOUDPL4): the reverse of a Cutter. Cut again, the superframe gives the
// datagrams back, with their checksums finished and, where DF is set, which makes them
// mean nothing (RFC 6864 §4.1), other IPv4 identifications.
//
// It takes datagrams whose UDP checksum is left to the device, which is how it is with
// a superframe too. The zero value needs Start.
type UDPMerger struct {
	first []byte
	head  int // of IP and UDP, in octets
	size  int // UDP payload of a segment, in octets
	total int // octets of the superframe as a datagram
	n     int
	ended bool // nothing may follow
}

// Start begins with a datagram that ends where datagram ends and that off describes,
// as it does a frame with an Ethernet header of 14 octets. It returns false if nothing
// can be joined to it. The datagram must stay unchanged until Write.
func (m *UDPMerger) Start(datagram []byte, off VirtioNet) bool {
	*m = UDPMerger{}
	head := mergeableUDP(datagram, off)
	if head == 0 {
		return false
	}
	*m = UDPMerger{first: datagram, head: head, size: len(datagram) - head, total: len(datagram), n: 1}
	return true
}

// mergeableUDP returns the length in octets of both headers of a UDP datagram without
// options, extension headers or fragments, with payload, whose checksum alone is left to
// the device; 0 for anything else.
func mergeableUDP(b []byte, off VirtioNet) int {
	if len(off) < VirtioNetLen || off.Flags() != VirtioNetNeedsCsum || off.GSOType() != GSONone || off.CsumOffset() != udpChecksumAt {
		return 0
	}
	head := int(off.CsumStart()) - ethernetLen
	switch {
	case head == ipv4MinLen && len(b) > head+udpLen && b[0] == 0x45 && b[9] == ProtoUDP &&
		binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && int(binary.BigEndian.Uint16(b[2:])) == len(b):
	case head == ipv6Len && len(b) > head+udpLen && b[0]>>4 == 6 && b[6] == ProtoUDP &&
		int(binary.BigEndian.Uint16(b[4:])) == len(b)-ipv6Len:
	default:
		return 0
	}
	if int(binary.BigEndian.Uint16(b[head+4:])) != len(b)-head {
		return 0
	}
	return head + udpLen
}

// Add joins datagram to the others if it follows: its headers say the same, its payload
// is as long as theirs, or shorter and then the last, and with it there are at most
// segments datagrams and 65,535 octets. Otherwise it returns false and changes nothing.
func (m *UDPMerger) Add(datagram []byte, off VirtioNet, segments int) bool {
	n := len(datagram) - m.head
	if m.ended || m.n == 0 || m.n >= segments || n > m.size || m.total+n > 65535 ||
		mergeableUDP(datagram, off) != m.head || !m.alike(datagram) {
		return false
	}
	m.n++
	m.total += n
	m.ended = n < m.size
	return true
}

// alike compares headers, but for lengths and checksums.
func (m *UDPMerger) alike(b []byte) bool {
	f, ports := m.first, m.head-udpLen
	if [4]byte(b[ports:]) != [4]byte(f[ports:]) {
		return false
	}
	if f[0]>>4 == 6 {
		return [4]byte(b) == [4]byte(f) && b[7] == f[7] && bytes.Equal(b[8:ipv6Len], f[8:ipv6Len])
	}
	const df = 0x40
	return b[1] == f[1] && b[6] == f[6] && b[8] == f[8] && bytes.Equal(b[12:ipv4MinLen], f[12:ipv4MinLen]) &&
		(f[6]&df != 0 || binary.BigEndian.Uint16(b[4:]) == binary.BigEndian.Uint16(f[4:])+uint16(m.n))
}

// Segments returns how many datagrams were joined, 0 before Start.
func (m *UDPMerger) Segments() int { return m.n }

// Len returns the length in octets of the superframe as a datagram.
func (m *UDPMerger) Len() int { return m.total }

// HeaderLen returns the length in octets of the headers of IP and UDP, which are those of
// each datagram.
func (m *UDPMerger) HeaderLen() int { return m.head }

// WriteHeaders writes the headers of the superframe to dst, HeaderLen octets, and describes
// it in off. The payloads of all datagrams follow, in order.
func (m *UDPMerger) WriteHeaders(dst []byte, off VirtioNet) {
	copy(dst, m.first[:m.head])
	SetLength(dst, int(dst[0]>>4), m.total)
	at := m.head - udpLen
	n := m.total - at
	binary.BigEndian.PutUint16(dst[at+4:], uint16(n))
	leaveUDPChecksum(dst, at, n)
	off.Clear()
	off.SetFlags(VirtioNetNeedsCsum)
	off.SetCsumStart(uint16(ethernetLen + at))
	off.SetCsumOffset(udpChecksumAt)
	off.SetHdrLen(uint16(ethernetLen + m.head))
	if m.n > 1 {
		off.SetGSOType(GSOUDPL4)
		off.SetGSOSize(uint16(m.size))
	}
}
