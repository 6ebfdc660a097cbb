package demo

import (
	"io"
	"sync"

	"bitw/netstack/pcapng"
)

// The capture file ends with the first frame that would exceed one of these.
const (
	maxCaptureFrames = 20_000
	maxCaptureOctets = 32_000_000
)

// boundedCapture passes a capture on and leaves out the frames that exceed the limits.
type boundedCapture struct {
	w         io.Writer
	blocks    *pcapng.Blocks
	maxFrames int
	maxOctets int64

	mu     sync.Mutex
	full   bool
	octets int64
	kept   int
	cut    int // frames left out
}

func newBoundedCapture(w io.Writer) *boundedCapture {
	c := &boundedCapture{w: w, maxFrames: maxCaptureFrames, maxOctets: maxCaptureOctets}
	c.blocks = pcapng.NewBlocks(c.pass)
	return c
}

// Write implements io.Writer; p may end anywhere in a block.
func (c *boundedCapture) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.blocks.Write(p)
}

// pass decides about a block.
func (c *boundedCapture) pass(b pcapng.Block) error {
	if b.Type() == pcapng.EnhancedPacket {
		// Once one frame is missing all later ones are, so that the file has no gaps.
		c.full = c.full || c.kept >= c.maxFrames || c.octets+int64(len(b)) > c.maxOctets
		if c.full {
			c.cut++
			return nil
		}
		c.kept++
	}
	c.octets += int64(len(b))
	_, err := c.w.Write(b)
	return err
}

// frames are how many are in the file, and how many were left out.
func (c *boundedCapture) frames() (kept, cut int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.kept, c.cut
}
