package wire

import "encoding/binary"

// VirtioNetLen is the length of a virtio-net header with num_buffers in octets,
// as a Linux TAP hands it over after TUNSETVNETHDRSZ 12.
const VirtioNetLen = 12

// Bits of VirtioNet.Flags (virtio 1.2 §5.1.6).
const (
	// VirtioNetNeedsCsum says that the checksum is left to the device: the field at
	// csum_start + csum_offset holds the sum of the pseudo header, and the sum over
	// everything from csum_start on belongs there.
	VirtioNetNeedsCsum = 1
	// VirtioNetDataValid says that the checksums were verified, and that the receiver
	// need not do it again.
	VirtioNetDataValid = 2
)

// Values of VirtioNet.GSOType (virtio 1.2 §5.1.6). GSOECN is a bit beside GSOTCPv4
// and GSOTCPv6: the TCP header has CWR set, for the first segment only.
const (
	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // to be fragmented at IP (UFO), not at datagram boundaries
	GSOTCPv6 = 4
	GSOUDPL4 = 5 // to be cut into datagrams of gso_size (USO)
	GSOECN   = 0x80
)

// Octet offsets of the fields.
const (
	vnFlags      = 0
	vnGSOType    = 1
	vnHdrLen     = 2
	vnGSOSize    = 4
	vnCsumStart  = 6
	vnCsumOffset = 8
	vnNumBuffers = 10
)

// ethernetLen is the length of an Ethernet header without VLAN tags in octets.
const ethernetLen = 14

// A VirtioNet is a view of a virtio-net header (virtio 1.2 §5.1.6), VirtioNetLen
// octets or more, all fields little endian. It describes the Ethernet frame that
// follows it, and all its lengths and offsets are in octets.
//
// A nil VirtioNet stands for a frame without metadata. Check and the functions of
// this package that take a VirtioNet accept it, its accessors do not.
type VirtioNet []byte

// NewVirtioNet returns a view of the header at the start of b, or false if b is
// too short for it.
func NewVirtioNet(b []byte) (VirtioNet, bool) {
	if len(b) < VirtioNetLen {
		return nil, false
	}
	return VirtioNet(b[:VirtioNetLen]), true
}

// Flags returns the bits VirtioNetNeedsCsum and VirtioNetDataValid.
func (v VirtioNet) Flags() uint8 { return v[vnFlags] }

// NeedsCsum reports whether a checksum was left to the device.
func (v VirtioNet) NeedsCsum() bool { return v[vnFlags]&VirtioNetNeedsCsum != 0 }

// GSOType returns the whole octet, the bit GSOECN included.
func (v VirtioNet) GSOType() uint8 { return v[vnGSOType] }

// GSOKind returns the type without the bit GSOECN.
func (v VirtioNet) GSOKind() uint8 { return v[vnGSOType] &^ GSOECN }

// HdrLen returns the length of all headers from the start of the frame. It is a
// hint, nothing may rely on it.
func (v VirtioNet) HdrLen() uint16 { return binary.LittleEndian.Uint16(v[vnHdrLen:]) }

// GSOSize returns the upper-layer payload of one segment.
func (v VirtioNet) GSOSize() uint16 { return binary.LittleEndian.Uint16(v[vnGSOSize:]) }

// CsumStart returns where the checksummed part starts, from the start of the frame.
func (v VirtioNet) CsumStart() uint16 { return binary.LittleEndian.Uint16(v[vnCsumStart:]) }

// CsumOffset returns where the checksum field is, from CsumStart.
func (v VirtioNet) CsumOffset() uint16 { return binary.LittleEndian.Uint16(v[vnCsumOffset:]) }

// NumBuffers returns the number of merged receive buffers. A Linux TAP leaves
// it unset.
func (v VirtioNet) NumBuffers() uint16 { return binary.LittleEndian.Uint16(v[vnNumBuffers:]) }

// SetFlags sets the flags.
func (v VirtioNet) SetFlags(f uint8) { v[vnFlags] = f }

// SetGSOType sets the whole octet, the bit GSOECN included.
func (v VirtioNet) SetGSOType(t uint8) { v[vnGSOType] = t }

// SetHdrLen sets the length of all headers from the start of the frame.
func (v VirtioNet) SetHdrLen(n uint16) { binary.LittleEndian.PutUint16(v[vnHdrLen:], n) }

// SetGSOSize sets the upper-layer payload of one segment.
func (v VirtioNet) SetGSOSize(n uint16) { binary.LittleEndian.PutUint16(v[vnGSOSize:], n) }

// SetCsumStart sets where the checksummed part starts, from the start of the frame.
func (v VirtioNet) SetCsumStart(n uint16) { binary.LittleEndian.PutUint16(v[vnCsumStart:], n) }

// SetCsumOffset sets where the checksum field is, from CsumStart.
func (v VirtioNet) SetCsumOffset(n uint16) { binary.LittleEndian.PutUint16(v[vnCsumOffset:], n) }

// SetNumBuffers sets the number of merged receive buffers.
func (v VirtioNet) SetNumBuffers(n uint16) { binary.LittleEndian.PutUint16(v[vnNumBuffers:], n) }

// Clear makes v the header of a frame without offloads.
func (v VirtioNet) Clear() { clear(v[:VirtioNetLen]) }

// Check compares the metadata with the length of its frame in octets, Ethernet
// header included. It returns DropBadOffload where they contradict each other or
// where v is cut short, has an unknown GSO type or a GSO type without a size. After
// DropNone the checksum field and all that it covers are inside the frame.
//
// A superframe need not have VirtioNetNeedsCsum: the standard asks drivers to set
// it, Linux does not insist, and a Cutter writes all checksums anew anyhow.
func (v VirtioNet) Check(frameLen int) DropReason {
	if v == nil {
		return DropNone
	}
	if len(v) < VirtioNetLen || int(v.HdrLen()) > frameLen {
		return DropBadOffload
	}
	if v.NeedsCsum() {
		start := int(v.CsumStart())
		if start < ethernetLen || start+int(v.CsumOffset())+2 > frameLen {
			return DropBadOffload
		}
	}
	switch v.GSOKind() {
	case GSONone:
		if v.GSOType() != GSONone {
			return DropBadOffload // ECN without TCP
		}
		return DropNone
	case GSOTCPv4, GSOTCPv6:
	case GSOUDP, GSOUDPL4:
		if v.GSOType()&GSOECN != 0 {
			return DropBadOffload
		}
	default:
		return DropBadOffload
	}
	if v.GSOSize() == 0 {
		return DropBadOffload
	}
	return DropNone
}
