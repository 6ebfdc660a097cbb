package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Of the format: what all blocks begin and end with, and the most that one may have.
const (
	blockHead = 8  // type and length of the whole block
	minBlock  = 12 // with the length once more at the end
	maxBlock  = 1 << 24
)

// The types of blocks that a Writer writes.
const (
	Section        = 0x0a0d0d0a
	Description    = 1 // of an interface
	Statistics     = 5 // of an interface
	EnhancedPacket = 6
)

// Options of blocks.
const (
	optionEnd      = 0
	optionReceived = 4 // of Statistics
	optionDropped  = 5
)

// A Block is a whole block in little endian order. Its octets are borrowed.
type Block []byte

// Type returns the block's type.
func (b Block) Type() uint32 { return binary.LittleEndian.Uint32(b) }

// IsHead says whether the block belongs before all frames.
func (b Block) IsHead() bool { return b.Type() == Section || b.Type() == Description }

// Interface returns the number of the interface of an EnhancedPacket or of Statistics; ok
// is false if there is none.
func (b Block) Interface() (n int, ok bool) {
	if t := b.Type(); t != EnhancedPacket && t != Statistics || len(b) < minBlock+4 {
		return 0, false
	}
	return int(binary.LittleEndian.Uint32(b[blockHead:])), true
}

// Counts returns how many frames Statistics say that there were, and how many of these
// are missing; 0 where they do not say.
func (b Block) Counts() (frames, lost uint64) {
	const fixed = blockHead + 12 // interface and time
	if b.Type() != Statistics || len(b) < fixed+4 {
		return 0, 0
	}
	for o := b[fixed : len(b)-4]; len(o) >= 4; {
		code, n := binary.LittleEndian.Uint16(o), int(binary.LittleEndian.Uint16(o[2:]))
		o = o[4:]
		if code == optionEnd || n > len(o) {
			break
		}
		if n == 8 {
			switch v := binary.LittleEndian.Uint64(o); code {
			case optionReceived:
				frames = v
			case optionDropped:
				lost = v
			}
		}
		o = o[min((n+3)&^3, len(o)):]
	}
	return frames, lost
}

// Blocks is a writer that takes a file in little endian order in whatever pieces, and gives
// on its blocks.
type Blocks struct {
	f     func(Block) error
	block []byte // until it is whole
	need  int    // octets of it, 0 until its length is known
	first bool   // the first block was whole
}

// NewBlocks returns Blocks that give on blocks to f, whose errors Write returns.
func NewBlocks(f func(Block) error) *Blocks { return &Blocks{f: f} }

// Write implements io.Writer.
func (s *Blocks) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		want := s.need
		if want == 0 {
			want = blockHead
		}
		n := min(want-len(s.block), len(p))
		s.block, p = append(s.block, p[:n]...), p[n:]
		switch {
		case len(s.block) < want:
		case s.need == 0:
			if err := s.begin(); err != nil {
				return total - len(p), err
			}
		default:
			if err := s.end(); err != nil {
				return total - len(p), err
			}
		}
	}
	return total, nil
}

// begin reads the length of a block.
func (s *Blocks) begin() error {
	length := binary.LittleEndian.Uint32(s.block[4:])
	switch t := Block(s.block).Type(); {
	case !s.first && t != Section:
		return fmt.Errorf("pcapng: expected a section header, found a block of type %#x", t)
	case length < minBlock || length > maxBlock || length%4 != 0:
		return fmt.Errorf("pcapng: found a block of %d octets, expected a multiple of 4 from %d to %d", length, minBlock, maxBlock)
	}
	s.need, s.first = int(length), true
	return nil
}

// end gives on a whole block.
func (s *Blocks) end() error {
	if again := binary.LittleEndian.Uint32(s.block[len(s.block)-4:]); int(again) != s.need {
		return fmt.Errorf("pcapng: a block of %d octets ends with a length of %d", s.need, again)
	}
	err := s.f(Block(s.block))
	if cap(s.block) > 1<<17 {
		s.block = nil
	}
	s.block, s.need = s.block[:0], 0
	return err
}

// Close says whether the file has ended with a whole block; if not, the error is
// io.ErrUnexpectedEOF.
func (s *Blocks) Close() error {
	if len(s.block) > 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}
