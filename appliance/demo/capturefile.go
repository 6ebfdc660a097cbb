package demo

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// The capture file ends with the first frame that would exceed one of these.
const (
	maxCaptureFrames = 20_000
	maxCaptureOctets = 32_000_000
)

// Of pcapng: block types and the length of what they all begin with, type and total
// length (draft-ietf-opsawg-pcapng section 3.1).
const (
	enhancedPacket = 6
	blockHead      = 8
	minBlock       = 12
)

// boundedCapture passes a pcapng file in little endian order on, block by block,
// and leaves out the frames that exceed the limits.
type boundedCapture struct {
	w         io.Writer
	maxFrames int
	maxOctets int64

	mu     sync.Mutex
	head   []byte // of a block, until it is whole
	rest   int64  // octets of the block that are still to come
	skip   bool   // the block is left out
	full   bool
	octets int64
	kept   int
	cut    int // frames left out
}

func newBoundedCapture(w io.Writer) *boundedCapture {
	return &boundedCapture{w: w, maxFrames: maxCaptureFrames, maxOctets: maxCaptureOctets}
}

// Write implements io.Writer; p may end anywhere in a block.
func (c *boundedCapture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := len(p)
	for len(p) > 0 {
		if c.rest == 0 {
			n := min(blockHead-len(c.head), len(p))
			c.head, p = append(c.head, p[:n]...), p[n:]
			if len(c.head) < blockHead {
				break
			}
			if err := c.begin(); err != nil {
				return total - len(p), err
			}
			continue
		}
		n := int(min(c.rest, int64(len(p))))
		if !c.skip {
			if _, err := c.w.Write(p[:n]); err != nil {
				return total - len(p), err
			}
		}
		c.rest -= int64(n)
		p = p[n:]
	}
	return total, nil
}

// begin decides about the block whose head is there.
func (c *boundedCapture) begin() error {
	length := int64(binary.LittleEndian.Uint32(c.head[4:]))
	if length < minBlock {
		return fmt.Errorf("demo: a block of %d octets in the capture, expected at least %d", length, minBlock)
	}
	c.rest, c.skip = length-blockHead, false
	if binary.LittleEndian.Uint32(c.head) == enhancedPacket {
		// Once one frame is missing all later ones are, so that the file has no gaps.
		c.full = c.full || c.kept >= c.maxFrames || c.octets+length > c.maxOctets
		if c.full {
			c.skip = true
			c.cut++
		} else {
			c.kept++
		}
	}
	var err error
	if !c.skip {
		c.octets += length
		_, err = c.w.Write(c.head)
	}
	c.head = c.head[:0]
	return err
}

// frames are how many are in the file, and how many were left out.
func (c *boundedCapture) frames() (kept, cut int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept, c.cut
}
