package wire

import (
	"bytes"
	"testing"
)

// virtio makes a header; the arguments stand in the order of the wire.
func virtio(flags, gso uint8, hdrLen, size, start, offset uint16) VirtioNet {
	v := make(VirtioNet, VirtioNetLen)
	v.SetFlags(flags)
	v.SetGSOType(gso)
	v.SetHdrLen(hdrLen)
	v.SetGSOSize(size)
	v.SetCsumStart(start)
	v.SetCsumOffset(offset)
	return v
}

// The field order and byte order are those of virtio 1.2 §5.1.6, struct virtio_net_hdr.
func TestVirtioNetLayout(t *testing.T) {
	v := virtio(VirtioNetNeedsCsum, GSOTCPv4|GSOECN, 0x0102, 0x0304, 0x0506, 0x0708)
	v.SetNumBuffers(0x090a)
	want := []byte{1, 0x81, 2, 1, 4, 3, 6, 5, 8, 7, 0xa, 9}
	if !bytes.Equal(v, want) {
		t.Fatalf("octets % x, want % x", []byte(v), want)
	}
	if v.Flags() != 1 || !v.NeedsCsum() || v.GSOType() != 0x81 || v.GSOKind() != GSOTCPv4 ||
		v.HdrLen() != 0x0102 || v.GSOSize() != 0x0304 || v.CsumStart() != 0x0506 ||
		v.CsumOffset() != 0x0708 || v.NumBuffers() != 0x090a {
		t.Fatalf("accessors do not read back what the setters wrote: % x", []byte(v))
	}
	v.Clear()
	if !bytes.Equal(v, make([]byte, VirtioNetLen)) {
		t.Fatalf("after Clear: % x", []byte(v))
	}
}

func TestNewVirtioNet(t *testing.T) {
	for n := range 20 {
		v, ok := NewVirtioNet(make([]byte, n))
		if ok != (n >= VirtioNetLen) {
			t.Errorf("%d octets: ok = %v", n, ok)
		}
		if ok && len(v) != VirtioNetLen {
			t.Errorf("%d octets: view of %d", n, len(v))
		}
	}
}

func TestVirtioNetCheck(t *testing.T) {
	const frame = 1514
	for _, c := range []struct {
		name string
		v    VirtioNet
		want DropReason
	}{
		{"no metadata", nil, DropNone},
		{"all zero", virtio(0, 0, 0, 0, 0, 0), DropNone},
		{"cut short", virtio(0, 0, 0, 0, 0, 0)[:11], DropBadOffload},
		{"data valid", virtio(VirtioNetDataValid, 0, 0, 0, 0, 0), DropNone},
		{"header longer than frame", virtio(0, 0, frame+1, 0, 0, 0), DropBadOffload},
		{"header is the frame", virtio(0, 0, frame, 0, 0, 0), DropNone},
		{"TCP checksum", virtio(1, 0, 0, 0, 34, 16), DropNone},
		{"checksum in Ethernet header", virtio(1, 0, 0, 0, 13, 16), DropBadOffload},
		{"checksum are the last octets", virtio(1, 0, 0, 0, 34, frame-36), DropNone},
		{"checksum crosses the end", virtio(1, 0, 0, 0, 34, frame-35), DropBadOffload},
		{"checksum start and offset huge", virtio(1, 0, 0, 0, 0xffff, 0xffff), DropBadOffload},
		{"huge, but not asked for", virtio(0, 0, 0, 0, 0xffff, 0xffff), DropNone},
		{"TSOv4", virtio(1, GSOTCPv4, 54, 1448, 34, 16), DropNone},
		{"TSOv6 with ECN", virtio(1, GSOTCPv6|GSOECN, 74, 1428, 54, 16), DropNone},
		{"USO", virtio(1, GSOUDPL4, 42, 1400, 34, 6), DropNone},
		{"UFO", virtio(1, GSOUDP, 42, 1480, 34, 6), DropNone},
		{"TSO without checksum", virtio(0, GSOTCPv4, 54, 1448, 0, 0), DropNone},
		{"TSO without size", virtio(1, GSOTCPv4, 54, 0, 34, 16), DropBadOffload},
		{"USO with ECN", virtio(1, GSOUDPL4|GSOECN, 42, 1400, 34, 6), DropBadOffload},
		{"ECN alone", virtio(1, GSOECN, 42, 1400, 34, 6), DropBadOffload},
		{"unknown type 2", virtio(1, 2, 42, 1400, 34, 6), DropBadOffload},
		{"tunnel type", virtio(1, 0x21, 42, 1400, 34, 6), DropBadOffload},
	} {
		if got := c.v.Check(frame); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
