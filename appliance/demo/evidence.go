package demo

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"sync"
)

// marker stands in everything that the hosts send, again and again: who finds it
// on the wire has found clear text.
const marker = "bitw demo: this line is clear text"

// Wire is what the capture of the wire came to. It has every frame of both
// hosts.
type Wire struct {
	ESPPackets uint64 `json:"esp_packets"`
	// ESPBytes are octets of IP datagrams.
	ESPBytes uint64 `json:"esp_bytes"`
	// ClearPackets are IP packets to one station that are neither ESP nor neighbour
	// discovery.
	ClearPackets uint64 `json:"clear_packets"`
	// MarkedFrames held the clear text that all data of the hosts carries.
	MarkedFrames uint64 `json:"marked_frames"`
	// NeighborFrames are ARP and neighbour discovery.
	NeighborFrames uint64 `json:"neighbor_frames"`
	// OtherFrames are multicast and what is not IP.
	OtherFrames uint64 `json:"other_frames"`
	// ForeignSources are frames whose Ethernet source is not that of the sender's own
	// interface, and ESP whose IP source is not the sender's own.
	ForeignSources uint64 `json:"foreign_sources"`
	// Missed are frames that the capture was too slow for.
	Missed uint64 `json:"missed"`
}

// kind is what a frame on the wire is.
type kind uint8

const (
	kindOther kind = iota
	kindClear
	kindESP
	kindNeighbor
)

// evidence counts the frames on the wire. Any number of goroutines may use it.
type evidence struct {
	mu    sync.Mutex
	macs  [2]net.HardwareAddr
	addrs [2]map[netip.Addr]bool
	wire  Wire
}

// newEvidence is for hosts with these Ethernet addresses.
func newEvidence(macs [2]net.HardwareAddr) *evidence {
	e := &evidence{macs: macs}
	for i := range e.addrs {
		e.addrs[i] = make(map[netip.Addr]bool)
		for _, p := range addresses(i) {
			e.addrs[i][p.Addr()] = true
		}
	}
	return e
}

// add counts an Ethernet frame that a host has sent. f is borrowed.
func (e *evidence) add(from int, f []byte) {
	k, source, octets := classify(f)
	marked := bytes.Contains(f, []byte(marker))
	foreign := len(f) >= 12 && !bytes.Equal(f[6:12], e.macs[from])
	if k == kindESP && !e.addrs[from][source] {
		foreign = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch k {
	case kindESP:
		e.wire.ESPPackets++
		e.wire.ESPBytes += uint64(octets)
	case kindClear:
		e.wire.ClearPackets++
	case kindNeighbor:
		e.wire.NeighborFrames++
	default:
		e.wire.OtherFrames++
	}
	if marked {
		e.wire.MarkedFrames++
	}
	if foreign {
		e.wire.ForeignSources++
	}
}

func (e *evidence) missed(n uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wire.Missed += n
}

// counts are the numbers so far.
func (e *evidence) counts() Wire {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.wire
}

// classify tells what an Ethernet frame is, its IP source and the octets of its
// datagram. It takes any octets; an IP packet that it cannot read is clear.
func classify(f []byte) (k kind, source netip.Addr, octets int) {
	if len(f) < 14 {
		return kindOther, source, 0
	}
	datagram := f[14:]
	switch binary.BigEndian.Uint16(f[12:]) {
	case 0x0806: // ARP
		return kindNeighbor, source, 0
	case 0x0800:
		return classifyIPv4(datagram)
	case 0x86dd:
		return classifyIPv6(datagram)
	}
	return kindOther, source, 0
}

func classifyIPv4(d []byte) (kind, netip.Addr, int) {
	if len(d) < 20 {
		return kindClear, netip.Addr{}, 0
	}
	source := netip.AddrFrom4([4]byte(d[12:16]))
	octets := int(binary.BigEndian.Uint16(d[2:]))
	switch {
	case d[9] == 50:
		return kindESP, source, octets
	case d[16]>>4 == 14 || bytes.Equal(d[16:20], []byte{255, 255, 255, 255}):
		return kindOther, source, octets
	}
	return kindClear, source, octets
}

func classifyIPv6(d []byte) (kind, netip.Addr, int) {
	if len(d) < 40 {
		return kindClear, netip.Addr{}, 0
	}
	source := netip.AddrFrom16([16]byte(d[8:24]))
	octets := 40 + int(binary.BigEndian.Uint16(d[4:]))
	next, rest := d[6], d[40:]
	if next == 44 && len(rest) >= 8 { // a fragment is of what its header names
		next, rest = rest[0], nil
	}
	switch {
	case next == 50:
		return kindESP, source, octets
	case next == 58 && len(rest) > 0 && rest[0] >= 133 && rest[0] <= 137: // RFC 4861
		return kindNeighbor, source, octets
	case d[24] == 0xff:
		return kindOther, source, octets
	}
	return kindClear, source, octets
}
