package netlab

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"time"
)

// Class is what a frame on the wire is, in the eyes of a third party.
type Class uint8

// The classes. A fragment belongs to its packet's class.
const (
	Other    Class = iota // none of those below
	ESP                   // IP protocol 50 (RFC 4303)
	AH                    // IP protocol 51 (RFC 4302); what it holds can be read
	ESPInUDP              // UDP port 4500 with a nonzero SPI (RFC 3948)
	IKE                   // UDP port 500, or 4500 with the non-ESP marker, or a NAT keepalive
	ARP
	ND  // ICMPv6 133 to 137 (RFC 4861)
	MLD // ICMPv6 130 to 132 and 143 (RFC 2710, RFC 3810)
	numClasses
)

func (c Class) String() string {
	names := [numClasses]string{"other", "ESP", "AH", "ESP in UDP", "IKE", "ARP", "ND", "MLD"}
	if c < numClasses {
		return names[c]
	}
	return "unknown class"
}

// Flow is one direction of an IP conversation. In a match, a zero Proto or
// port and an invalid address stand for any.
type Flow struct {
	Proto            uint8 // IP protocol number
	Src, Dst         netip.Addr
	SrcPort, DstPort uint16 // TCP, UDP, SCTP; host order
}

// Reverse is the conversation's other direction.
func (f Flow) Reverse() Flow {
	f.Src, f.Dst = f.Dst, f.Src
	f.SrcPort, f.DstPort = f.DstPort, f.SrcPort
	return f
}

// Frame is one frame that was seen on the wire.
type Frame struct {
	Time   time.Time
	Port   string // the wire's port at which it came in: its sender's
	Length int    // octets on the wire, without the frame check sequence
	Data   []byte // from the destination address on; shorter than Length when cut
	Class  Class
	// Flow is that of the outermost IP header; its zero value when there is none.
	// Ports are absent in fragments but the first.
	Flow Flow
}

// Match picks frames.
type Match func(*Frame) bool

// Containing matches frames that have these octets anywhere in them.
func Containing(octets []byte) Match {
	return func(f *Frame) bool { return bytes.Contains(f.Data, octets) }
}

// InFlow matches frames of a flow in that direction.
func InFlow(want Flow) Match {
	return func(f *Frame) bool {
		have := f.Flow
		return have.Src.IsValid() &&
			(want.Proto == 0 || want.Proto == have.Proto) &&
			(!want.Src.IsValid() || want.Src == have.Src) &&
			(!want.Dst.IsValid() || want.Dst == have.Dst) &&
			(want.SrcPort == 0 || want.SrcPort == have.SrcPort) &&
			(want.DstPort == 0 || want.DstPort == have.DstPort)
	}
}

// InConversation matches frames of a flow in either direction.
func InConversation(want Flow) Match { return Any(InFlow(want), InFlow(want.Reverse())) }

// OfClass matches frames of one of these classes.
func OfClass(classes ...Class) Match {
	return func(f *Frame) bool {
		for _, c := range classes {
			if f.Class == c {
				return true
			}
		}
		return false
	}
}

// Any matches what one of the matches does.
func Any(matches ...Match) Match {
	return func(f *Frame) bool {
		for _, m := range matches {
			if m(f) {
				return true
			}
		}
		return false
	}
}

// Not matches what m does not.
func Not(m Match) Match { return func(f *Frame) bool { return !m(f) } }

// Protocol numbers and EtherTypes of IANA's registries.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeVLAN = 0x8100
	typeIPv6 = 0x86dd

	protoHopByHop = 0
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoESP      = 50
	protoAH       = 51
	protoICMPv6   = 58
	protoDestOpts = 60
	protoSCTP     = 132
)

// Classify reads an Ethernet frame as far as its class and outermost flow need.
// Any octets will do; what cannot be read is Other.
func Classify(data []byte) (Class, Flow) {
	if len(data) < 14 {
		return Other, Flow{}
	}
	etherType, rest := binary.BigEndian.Uint16(data[12:]), data[14:]
	for etherType == typeVLAN && len(rest) >= 4 {
		etherType, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch etherType {
	case typeARP:
		return ARP, Flow{}
	case typeIPv4:
		return classifyIPv4(rest)
	case typeIPv6:
		return classifyIPv6(rest)
	}
	return Other, Flow{}
}

func classifyIPv4(p []byte) (Class, Flow) {
	if len(p) < 20 || p[0]>>4 != 4 {
		return Other, Flow{}
	}
	size := int(p[0]&15) * 4
	if size < 20 || len(p) < size {
		return Other, Flow{}
	}
	flow := Flow{
		Proto: p[9],
		Src:   netip.AddrFrom4([4]byte(p[12:16])),
		Dst:   netip.AddrFrom4([4]byte(p[16:20])),
	}
	first := binary.BigEndian.Uint16(p[6:])&0x1fff == 0
	return classifyPayload(flow, p[size:], first)
}

func classifyIPv6(p []byte) (Class, Flow) {
	if len(p) < 40 || p[0]>>4 != 6 {
		return Other, Flow{}
	}
	flow := Flow{
		Proto: p[6],
		Src:   netip.AddrFrom16([16]byte(p[8:24])),
		Dst:   netip.AddrFrom16([16]byte(p[24:40])),
	}
	rest, first := p[40:], true
	for {
		var size int
		switch flow.Proto {
		case protoHopByHop, protoRouting, protoDestOpts:
			if len(rest) < 8 {
				return Other, flow
			}
			size = 8 + int(rest[1])*8
		case protoFragment:
			if len(rest) < 8 {
				return Other, flow
			}
			size = 8
			first = binary.BigEndian.Uint16(rest[2:])>>3 == 0
		default:
			return classifyPayload(flow, rest, first)
		}
		if len(rest) < size {
			return Other, flow
		}
		flow.Proto, rest = rest[0], rest[size:]
		if !first {
			// What follows is the middle of something.
			return classifyPayload(flow, nil, false)
		}
	}
}

// classifyPayload goes by the IP protocol; first tells that p is its beginning.
func classifyPayload(flow Flow, p []byte, first bool) (Class, Flow) {
	switch flow.Proto {
	case protoESP:
		return ESP, flow
	case protoAH:
		return AH, flow
	case protoICMPv6:
		if first && len(p) > 0 {
			switch t := p[0]; {
			case t >= 133 && t <= 137:
				return ND, flow
			case t >= 130 && t <= 132, t == 143:
				return MLD, flow
			}
		}
	case protoTCP, protoUDP, protoSCTP:
		if !first || len(p) < 4 {
			break
		}
		flow.SrcPort, flow.DstPort = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
		if flow.Proto == protoUDP && len(p) >= 8 {
			return classifyUDP(flow, p[8:]), flow
		}
	}
	return Other, flow
}

func classifyUDP(flow Flow, p []byte) Class {
	either := func(port uint16) bool { return flow.SrcPort == port || flow.DstPort == port }
	switch {
	case either(500):
		return IKE
	case either(4500):
		if len(p) == 1 || (len(p) >= 4 && binary.BigEndian.Uint32(p) == 0) {
			return IKE
		}
		return ESPInUDP
	}
	return Other
}
