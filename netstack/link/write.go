package link

import (
	"io"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// A batch is the scratch memory of one WritePackets: the frames of the list, and
// room for those that had to be put together.
type batch struct {
	frames [][]byte
	joined [][]byte // frames, with superframes in the place of what they were made of
	flat   [][]byte // buffers to build frames in, kept from call to call
	used   int
}

// room returns an empty buffer that holds MaxFrameLen octets.
func (b *batch) room() []byte {
	if b.used == len(b.flat) {
		b.flat = append(b.flat, make([]byte, 0, MaxFrameLen))
	}
	b.used++
	return b.flat[b.used-1][:0]
}

// maxFlat bounds the buffers that a batch keeps between calls: a list of many small
// packets of the stack's own must not tie memory for as many superframes.
const maxFlat = 16

func (b *batch) reset() {
	clear(b.frames)
	clear(b.joined)
	b.frames, b.joined = b.frames[:0], b.joined[:0]
	if len(b.flat) > maxFlat {
		clear(b.flat[maxFlat:])
		b.flat = b.flat[:maxFlat]
	}
	b.used = 0
}

// write gives the frames of b to d, each at most once. A frame that the device
// refuses is counted and the next is tried, because one malformed superframe must
// not take others with it; if the link is down or gone, so are the rest.
// It returns how many frames the device took and the reason of the last drop. instead, if
// not nil, gives what to send in the place of a frame that was refused; nil for nothing.
func (e *base) write(d Device, frames [][]byte, instead func(frame []byte, err error) [][]byte) (sent int, last wire.DropReason) {
	for len(frames) > 0 {
		n, err := d.WriteFrames(frames)
		n = max(0, min(n, len(frames)))
		octets := 0
		for _, f := range frames[:n] {
			octets += len(f) - wire.VirtioNetLen
		}
		e.octetsOut.Add(uint64(octets))
		e.framesOut.Add(uint64(n))
		sent += n
		if frames = frames[n:]; len(frames) == 0 {
			break
		}
		if err == nil {
			err = io.ErrShortWrite
		}
		if instead != nil {
			if parts := instead(frames[0], err); parts != nil {
				n, why := e.write(d, parts, nil)
				if sent += n; why != wire.DropNone {
					last = why
				}
				frames = frames[1:]
				continue
			}
		}
		last = writeDrop(err)
		refused := 1
		if last != wire.DropLinkWrite {
			refused = len(frames)
		}
		for range refused {
			e.drops.Add(last)
		}
		frames = frames[refused:]
	}
	return sent, last
}

// writeResult is what WritePackets tells the stack: an error only if nothing at all
// went out, since what was lost is counted already.
func writeResult(sent int, last wire.DropReason) (int, tcpip.Error) {
	if sent > 0 {
		return sent, nil
	}
	switch last {
	case wire.DropNone:
		return 0, nil
	case wire.DropEndpointGone:
		return 0, &tcpip.ErrClosedForSend{}
	case wire.DropLinkDown:
		return 0, &tcpip.ErrNetworkUnreachable{}
	}
	return 0, &tcpip.ErrNoBufferSpace{}
}

// gather appends pkt's frame and those of its train to b: the packet's own octets where
// it is contiguous, else put together in a buffer of b's. The frames are valid while pkt
// and b are. What no link could carry is counted and left out.
func (e *base) gather(b *batch, pkt *stack.PacketBuffer) {
	at := len(b.frames)
	var ok bool
	if b.frames, ok = AppendFrames(b.frames, pkt); !ok {
		if pkt.Size()+HeaderLen > MaxFrameLen {
			e.drops.Add(wire.DropBadFrame)
			return
		}
		b.frames = append(b.frames, appendFrame(b.room(), pkt))
	}
	good := b.frames[:at]
	for _, f := range b.frames[at:] {
		if len(f) < HeaderLen || len(f) > MaxFrameLen {
			e.drops.Add(wire.DropBadFrame)
			continue
		}
		good = append(good, f)
	}
	b.frames = good
}
