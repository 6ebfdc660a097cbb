package wire

import "encoding/binary"

// A Train is what a link has beside the packet that it delivers or is given: frames, which
// many packets would carry, without the cost of a packet for each. It is the packet's owner
// (tcpip.PacketOwner). Each frame begins with its virtio-net header, and is borrowed for the
// call; whoever keeps the packet must take the train off.
//
// With a packet that is written, Frames are behind it and go with it; the packet may have no
// octets of its own, and is then nothing but what pulls the train. With one that is
// delivered, they came behind it and may be anything: who knows that some have to go the
// same way takes them, the first ones, and says how many in Taken; the others come as
// packets.
type Train struct {
	Frames [][]byte
	Taken  int
	// Whole, if not nil, is the frame of which the packet holds only the headers.
	Whole []byte
}

// Prefetch has the processor fetch from memory what is read soon.
func Prefetch(b []byte) { prefetch(b) }

// TrainOf returns the train of a packet with that owner, or nil.
func TrainOf(owner any) *Train {
	t, _ := owner.(*Train)
	return t
}

// KUID and KGID say nothing.
func (*Train) KUID() uint32 { return 0 }

// KGID is told at KUID.
func (*Train) KGID() uint32 { return 0 }

// UpperAt returns where ESP or UDP begins in a frame with a datagram for one station, which
// has it directly behind an IP header without options; else 0. A checksum may be left to
// the device only if it is UDP's.
func UpperAt(frame []byte) int {
	const head = VirtioNetLen + ethernetLen
	if len(frame) < head+ipv4MinLen+ESPMinLen || frame[vnGSOType] != GSONone || frame[VirtioNetLen]&1 != 0 {
		return 0
	}
	b, left := frame[head:], VirtioNet(frame).NeedsCsum()
	carries := func(proto uint8) bool { return proto == ProtoUDP || proto == ProtoESP && !left }
	switch binary.BigEndian.Uint16(frame[head-2:]) {
	case EtherTypeIPv4:
		if b[0] == 0x45 && carries(b[ipv4ProtoAt]) &&
			binary.BigEndian.Uint16(b[6:])&0x3fff == 0 && b[16] < 224 {
			return head + ipv4MinLen
		}
	case EtherTypeIPv6:
		if b[0]>>4 == 6 && carries(b[ipv6ProtoAt]) && len(b) >= ipv6Len+ESPMinLen && b[24] != 0xff {
			return head + ipv6Len
		}
	}
	return 0
}

// upperProto returns the protocol of what UpperAt has found.
func upperProto(frame []byte, at int) uint8 {
	const head = VirtioNetLen + ethernetLen
	if at == head+ipv4MinLen {
		return frame[head+ipv4ProtoAt]
	}
	return frame[head+ipv6ProtoAt]
}

// ESPAt is UpperAt for ESP alone.
func ESPAt(frame []byte) int {
	at := UpperAt(frame)
	if at == 0 || upperProto(frame, at) != ProtoESP {
		return 0
	}
	return at
}

// SameFlow says whether a frame has ESP or UDP, as UpperAt describes it, at the same place
// as another, with the same Ethernet header, addresses, and SPI or ports: so that until it
// is opened everybody must treat it alike.
func SameFlow(first, frame []byte, at int) bool {
	if UpperAt(frame) != at || upperProto(first, at) != upperProto(frame, at) {
		return false
	}
	const head = VirtioNetLen + ethernetLen
	le := binary.LittleEndian
	if le.Uint64(first[VirtioNetLen:]) != le.Uint64(frame[VirtioNetLen:]) || le.Uint64(first[head-8:]) != le.Uint64(frame[head-8:]) ||
		le.Uint32(first[at:]) != le.Uint32(frame[at:]) {
		return false
	}
	if at == head+ipv6Len {
		return string(first[at-32:at]) == string(frame[at-32:at])
	}
	return le.Uint64(first[at-8:]) == le.Uint64(frame[at-8:])
}
