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

// A Likeness is what frames have in common that hold ESP or UDP, as UpperAt describes it, at
// the same place and with the same Ethernet header, addresses, and SPI or ports: so that
// until they are opened everybody must treat them alike. The zero value fits none.
type Likeness struct {
	least      int // octets
	words      int
	want, mask [9]uint64 // of which so many count
}

// Of makes l that of a frame, of which it returns what UpperAt says: 0 if l fits none.
func (l *Likeness) Of(frame []byte) int {
	const head = VirtioNetLen + ethernetLen
	at := UpperAt(frame)
	if at == 0 {
		l.least = 0
		return 0
	}
	var first, mask [len(l.mask) * 8]byte
	copy(first[:], frame)
	all := func(from, to int) {
		for i := from; i < to; i++ {
			mask[i] = 0xff
		}
	}
	mask[vnGSOType] = 0xff
	if upperProto(frame, at) == ProtoESP {
		mask[vnFlags] = VirtioNetNeedsCsum
	}
	all(VirtioNetLen, head)
	if at == head+ipv4MinLen {
		mask[head], mask[head+6], mask[head+7], mask[head+ipv4ProtoAt] = 0xff, 0x3f, 0xff, 0xff // no options, no fragment
		all(at-8, at+4)
	} else {
		mask[head], mask[head+ipv6ProtoAt] = 0xf0, 0xff
		all(at-32, at+4)
	}
	l.words = (at + 4 + 7) / 8
	l.least = max(8*l.words, at+ESPMinLen)
	for i := range l.words {
		l.mask[i] = binary.LittleEndian.Uint64(mask[8*i:])
		l.want[i] = binary.LittleEndian.Uint64(first[8*i:]) & l.mask[i]
	}
	return at
}

// Fits says whether a frame has what l asks for.
func (l *Likeness) Fits(frame []byte) bool {
	if len(frame) < l.least || l.least == 0 {
		return false
	}
	var differ uint64
	want, mask := l.want[:l.words], l.mask[:l.words]
	for i, m := range mask {
		differ |= binary.LittleEndian.Uint64(frame[8*i:])&m ^ want[i]
	}
	return differ == 0
}
