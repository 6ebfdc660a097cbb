package pcapng

import (
	"bufio"
	"encoding/binary"
	"io"
	"time"
)

// The interfaces by their number in the file.
const (
	Inside  = 0
	Outside = 1
	// Interfaces is how many there are.
	Interfaces = 2
)

// MaxSnaplen is enough for every superframe, in octets.
const MaxSnaplen = 1 << 17

// InterfaceNames are the names of the interfaces.
var InterfaceNames = [Interfaces]string{Inside: "inside", Outside: "outside"}

// A Frame is one frame of a capture.
type Frame struct {
	At        time.Time
	Interface int
	// Sent says that it was sent by that interface, not received: its flag is outbound.
	Sent bool
	Data []byte // from the Ethernet header on, maybe cut short
	// Length is the octets of the whole.
	Length  int
	Comment string // "" for none
	// Lost is how many frames of the interface before this one are missing.
	Lost uint64
}

// A Writer writes a file. What it writes is buffered until Flush.
type Writer struct {
	buf   *bufio.Writer
	block block // under construction
}

// NewWriter begins a file in w with a head that says that at most snaplen octets of each
// frame are kept. The head is written at once.
func NewWriter(w io.Writer, snaplen int) (*Writer, error) {
	f := &Writer{buf: bufio.NewWriterSize(w, 1<<16)}
	b := f.begin(Section)
	b.u32(byteOrder)
	b.u16(majorVersion)
	b.u16(0)
	b.u64(1<<64 - 1) // the length of the section is not known
	b.option(optionApplication, []byte("bitw"))
	if err := f.end(); err != nil {
		return nil, err
	}
	for _, name := range InterfaceNames {
		b := f.begin(Description)
		b.u16(uint16(LinkEthernet))
		b.u16(0)
		b.u32(uint32(snaplen))
		b.option(optionName, []byte(name))
		b.option(optionResolution, []byte{9}) // nanoseconds
		if err := f.end(); err != nil {
			return nil, err
		}
	}
	return f, f.Flush()
}

// Write adds a frame.
func (w *Writer) Write(f *Frame) error {
	b := w.begin(EnhancedPacket)
	b.u32(uint32(f.Interface))
	b.time(f.At)
	b.u32(uint32(len(f.Data)))
	b.u32(uint32(f.Length))
	b.padded(f.Data)
	if f.Comment != "" {
		b.option(optionComment, []byte(f.Comment)[:min(len(f.Comment), 1<<16-1)])
	}
	direction := uint32(inbound)
	if f.Sent {
		direction = outbound
	}
	b.u16(optionFlags)
	b.u16(4)
	b.u32(direction)
	if f.Lost > 0 {
		b.count(optionLost, f.Lost)
	}
	return w.end()
}

// Count adds how many frames an interface had, and how many of these are missing.
func (w *Writer) Count(intf int, frames, lost uint64, at time.Time) error {
	b := w.begin(Statistics)
	b.u32(uint32(intf))
	b.time(at)
	b.count(optionReceived, frames)
	b.count(optionDropped, lost)
	return w.end()
}

// Flush passes on what is buffered.
func (w *Writer) Flush() error { return w.buf.Flush() }

// begin begins a block.
func (w *Writer) begin(blockType uint32) *block {
	w.block = w.block[:0]
	w.block.u32(blockType)
	w.block.u32(0) // its length, by end
	return &w.block
}

// end ends the block with its options, and writes it.
func (w *Writer) end() error {
	b := &w.block
	b.u32(optionEnd)
	n := uint32(len(*b) + 4)
	binary.LittleEndian.PutUint32((*b)[4:], n)
	b.u32(n)
	_, err := w.buf.Write(*b)
	return err
}

// A block is one under construction, in little endian order.
type block []byte

func (b *block) u16(v uint16) { *b = binary.LittleEndian.AppendUint16(*b, v) }
func (b *block) u32(v uint32) { *b = binary.LittleEndian.AppendUint32(*b, v) }
func (b *block) u64(v uint64) { *b = binary.LittleEndian.AppendUint64(*b, v) }

// time adds nanoseconds since 1970, the upper half first.
func (b *block) time(t time.Time) {
	ns := uint64(t.UnixNano())
	b.u32(uint32(ns >> 32))
	b.u32(uint32(ns))
}

// padded adds p, and zeros to a multiple of 4 octets.
func (b *block) padded(p []byte) {
	*b = append(*b, p...)
	*b = append(*b, make([]byte, -len(p)&3)...)
}

func (b *block) option(code uint16, value []byte) {
	b.u16(code)
	b.u16(uint16(len(value)))
	b.padded(value)
}

func (b *block) count(code uint16, n uint64) {
	b.u16(code)
	b.u16(8)
	b.u64(n)
}
