package wire

import "encoding/binary"

// EtherTypes that the packet path tells apart.
const (
	EtherTypeIPv4 = 0x0800
	EtherTypeARP  = 0x0806
	EtherTypeIPv6 = 0x86dd
	EtherTypeVLAN = 0x8100 // IEEE 802.1Q
	EtherTypeQinQ = 0x88a8 // IEEE 802.1ad
)

// EthernetLen is the length of an Ethernet header without VLAN tags in octets.
const EthernetLen = ethernetLen

const (
	vlanTagLen  = 4
	maxVLANTags = 2
)

// An Ethernet is a view of an Ethernet frame that starts with the destination. Unlike
// gVisor's it hands out addresses without making strings of them, and sees through
// VLAN tags.
type Ethernet []byte

// NewEthernet returns a view of the frame b, or false if b is too short for an
// Ethernet header with the VLAN tags it announces, of which it counts two at most.
func NewEthernet(b []byte) (Ethernet, bool) {
	if len(b) < ethernetLen || len(b) < Ethernet(b).HeaderLen() {
		return nil, false
	}
	return Ethernet(b), true
}

// Dst returns the destination; it shares memory with e.
func (e Ethernet) Dst() []byte { return e[0:6:6] }

// Src returns the source; it shares memory with e.
func (e Ethernet) Src() []byte { return e[6:12:12] }

// HeaderLen returns where the payload starts in octets, VLAN tags included.
func (e Ethernet) HeaderLen() int {
	n := ethernetLen
	for range maxVLANTags {
		if len(e) < n {
			break
		}
		switch binary.BigEndian.Uint16(e[n-2:]) {
		case EtherTypeVLAN, EtherTypeQinQ:
			n += vlanTagLen
		default:
			return n
		}
	}
	return n
}

// Type returns the EtherType of the payload, behind VLAN tags; of an IEEE 802.3 frame
// it is the length, less than 0x0600.
func (e Ethernet) Type() uint16 { return binary.BigEndian.Uint16(e[e.HeaderLen()-2:]) }

// SetType sets the EtherType of the payload, behind VLAN tags.
func (e Ethernet) SetType(t uint16) { binary.BigEndian.PutUint16(e[e.HeaderLen()-2:], t) }

// Payload returns what follows header and VLAN tags, link padding included; it shares
// memory with e.
func (e Ethernet) Payload() []byte { return e[e.HeaderLen():] }

// IsGroup reports whether the destination is a multicast or broadcast address.
func (e Ethernet) IsGroup() bool { return e[0]&1 != 0 }
