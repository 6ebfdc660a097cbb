package pcapng

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic numbers of files, of pcap for both of its resolutions.
const (
	pcapMicro = 0xa1b2c3d4
	pcapNano  = 0xa1b23c4d
	gzipMagic = 0x1f8b
)

// MaxPacket is how long a packet that a Reader returns may be, in octets.
const MaxPacket = 1 << 18

// LinkType is what a packet begins with (https://www.tcpdump.org/linktypes.html).
type LinkType uint32

// The link types that this program knows.
const (
	LinkNull     LinkType = 0
	LinkEthernet LinkType = 1
	LinkRaw      LinkType = 101
	LinkLoop     LinkType = 108
	LinkSLL      LinkType = 113
	LinkIPv4     LinkType = 228
	LinkIPv6     LinkType = 229
	LinkSLL2     LinkType = 276
	// What LinkRaw is on some systems.
	LinkRaw12 LinkType = 12
	LinkRaw14 LinkType = 14
)

// A Packet is one of a file that anybody may have written.
type Packet struct {
	Data   []byte // borrowed until the next is read
	Length int    // octets of the whole, of which Data may be only the beginning
	Link   LinkType
}

// A Reader reads the packets of a file of the format pcapng or pcap, in either byte order,
// maybe compressed by gzip. It trusts nothing.
type Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	old   bool       // pcap
	link  LinkType   // of pcap
	intfs []describe // of the section
	body  []byte     // of the block
}

// describe is the description of an interface.
type describe struct {
	link    LinkType
	snaplen uint32 // 0 for any
}

// NewReader begins to read a file.
func NewReader(r io.Reader) (*Reader, error) {
	f := &Reader{r: bufio.NewReader(r)}
	magic, err := f.r.Peek(4)
	if err == nil && binary.BigEndian.Uint16(magic) == gzipMagic {
		z, err := gzip.NewReader(f.r)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		f.r = bufio.NewReader(z)
	}
	if magic, err = f.r.Peek(4); err != nil {
		return nil, errors.New("expected pcap or pcapng, found less than 4 octets")
	}
	if binary.BigEndian.Uint32(magic) == Section {
		return f, nil
	}
	f.old = true
	return f, f.readHead()
}

// Next returns the next packet, or io.EOF at the end.
func (f *Reader) Next() (Packet, error) {
	if f.old {
		return f.nextOld()
	}
	for {
		t, err := f.readBlock()
		if err != nil {
			return Packet{}, err
		}
		switch t {
		case Section:
			f.intfs = f.intfs[:0]
			if len(f.body) < 16 || f.order.Uint16(f.body[4:]) != majorVersion {
				return Packet{}, fmt.Errorf("a section of a version that is not %d", majorVersion)
			}
		case Description:
			if len(f.body) < 8 {
				return Packet{}, errors.New("a description of an interface is cut short")
			}
			f.intfs = append(f.intfs, describe{LinkType(f.order.Uint16(f.body)), f.order.Uint32(f.body[4:])})
		case EnhancedPacket, oldPacket, simplePacket:
			return f.packet(t)
		}
	}
}

// readBlock reads a block, whose content it leaves in body. That of a section sets the
// byte order.
func (f *Reader) readBlock() (blockType uint32, err error) {
	var head [blockHead]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return 0, err
	}
	if binary.BigEndian.Uint32(head[:]) == Section { // the same in both orders
		magic, err := f.r.Peek(4)
		switch {
		case err != nil:
			return 0, io.ErrUnexpectedEOF
		case binary.LittleEndian.Uint32(magic) == byteOrder:
			f.order = binary.LittleEndian
		case binary.BigEndian.Uint32(magic) == byteOrder:
			f.order = binary.BigEndian
		default:
			return 0, fmt.Errorf("a section of byte order %x", magic)
		}
	}
	n := f.order.Uint32(head[4:])
	if n < minBlock || n > maxBlock || n%4 != 0 {
		return 0, fmt.Errorf("a block of %d octets, expected a multiple of 4 from %d to %d", n, minBlock, maxBlock)
	}
	if f.body, err = f.read(f.body, int(n)-blockHead); err != nil {
		return 0, err
	}
	end := len(f.body) - 4
	if again := f.order.Uint32(f.body[end:]); again != n {
		return 0, fmt.Errorf("a block of %d octets ends with a length of %d", n, again)
	}
	f.body = f.body[:end]
	return f.order.Uint32(head[:]), nil
}

// read reads n octets into memory, which grows no faster than they come.
func (f *Reader) read(memory []byte, n int) ([]byte, error) {
	memory = memory[:0]
	for len(memory) < n {
		at := len(memory)
		memory = append(memory, make([]byte, min(n-at, 1<<16))...)
		if _, err := io.ReadFull(f.r, memory[at:]); err != nil {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return memory, nil
}

// packet returns the packet of the block in body.
func (f *Reader) packet(blockType uint32) (Packet, error) {
	var intf, captured, length, fixed int
	switch {
	case blockType == simplePacket && len(f.body) >= 4:
		fixed = 4
		length = int(f.order.Uint32(f.body))
		captured = length
		if len(f.intfs) > 0 && f.intfs[0].snaplen != 0 {
			captured = min(captured, int(f.intfs[0].snaplen))
		}
	case blockType != simplePacket && len(f.body) >= 20:
		fixed = 20
		intf = int(f.order.Uint32(f.body))
		if blockType == oldPacket {
			intf = int(f.order.Uint16(f.body))
		}
		captured, length = int(f.order.Uint32(f.body[12:])), int(f.order.Uint32(f.body[16:]))
	default:
		return Packet{}, errors.New("a packet whose head is cut short")
	}
	switch {
	case intf >= len(f.intfs):
		return Packet{}, fmt.Errorf("a packet of interface %d, where %d are described", intf, len(f.intfs))
	case captured > len(f.body)-fixed:
		return Packet{}, fmt.Errorf("a packet of %d octets in a block that has room for %d", captured, len(f.body)-fixed)
	}
	return checked(Packet{f.body[fixed:][:captured], length, f.intfs[intf].link})
}

// checked refuses what cannot be a packet.
func checked(p Packet) (Packet, error) {
	switch {
	case len(p.Data) > p.Length:
		return Packet{}, fmt.Errorf("a packet of %d octets, of which %d were captured", p.Length, len(p.Data))
	case len(p.Data) > MaxPacket:
		return Packet{}, fmt.Errorf("a packet of %d octets, expected %d at most", len(p.Data), MaxPacket)
	}
	return p, nil
}

// readHead reads the head of a file of pcap.
func (f *Reader) readHead() error {
	var head [24]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return errors.New("expected pcap or pcapng, found neither")
	}
	for _, o := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if m := o.Uint32(head[:]); m == pcapMicro || m == pcapNano {
			f.order = o
		}
	}
	if f.order == nil {
		return errors.New("expected pcap or pcapng, found neither")
	}
	if major, minor := f.order.Uint16(head[4:]), f.order.Uint16(head[6:]); major != 2 || minor != 4 {
		return fmt.Errorf("pcap of version %d.%d, expected 2.4", major, minor)
	}
	f.link = LinkType(f.order.Uint32(head[20:]) & 0xffff) // what an FCS is, stands above
	return nil
}

// nextOld is Next for pcap.
func (f *Reader) nextOld() (Packet, error) {
	var head [16]byte
	if _, err := io.ReadFull(f.r, head[:]); err != nil {
		return Packet{}, err
	}
	captured, length := f.order.Uint32(head[8:]), f.order.Uint32(head[12:])
	if captured > MaxPacket {
		return Packet{}, fmt.Errorf("a packet of %d octets, expected %d at most", captured, MaxPacket)
	}
	var err error
	if f.body, err = f.read(f.body, int(captured)); err != nil {
		return Packet{}, err
	}
	return checked(Packet{f.body, int(length), f.link})
}
