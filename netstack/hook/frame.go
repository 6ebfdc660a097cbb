package hook

import (
	"encoding/binary"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const headerLen = wire.VirtioNetLen + ethernetLen

// newFrame returns a packet as the bump's links deliver it, and its datagram of n
// octets, which is all zeros, to be filled. The caller owns the one reference.
func newFrame(dst, src tcpip.LinkAddress, etherType uint16, n int) (*stack.PacketBuffer, []byte) {
	v := buffer.NewViewSize(headerLen + n)
	b := v.AsSlice()
	copy(b[wire.VirtioNetLen:], dst)
	copy(b[wire.VirtioNetLen+6:], src)
	binary.BigEndian.PutUint16(b[wire.VirtioNetLen+12:], etherType)
	return PacketIn(v), b[headerLen:]
}

// PacketIn makes a packet, as the bump's links deliver it, of the frame in v, which it
// takes over. The frame begins with its virtio-net header.
func PacketIn(v *buffer.View) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	pkt.VirtioNetHeader().Consume(wire.VirtioNetLen)
	eth, _ := pkt.LinkHeader().Consume(ethernetLen)
	pkt.NetworkProtocolNumber = tcpip.NetworkProtocolNumber(binary.BigEndian.Uint16(eth[12:]))
	return pkt
}

// PacketFrom is PacketIn for a copy of frame.
func PacketFrom(frame []byte) *stack.PacketBuffer {
	v := buffer.NewView(len(frame))
	_, _ = v.Write(frame)
	return PacketIn(v)
}

// datagram returns all data of pkt as one slice, which stays pkt's.
func datagram(pkt *stack.PacketBuffer) []byte {
	b, _ := pkt.Data().PullUp(pkt.Data().Size())
	return b
}

// checksumLeft reports whether the sender left pkt's checksum to the device.
func checksumLeft(pkt *stack.PacketBuffer) bool {
	v, ok := wire.NewVirtioNet(pkt.VirtioNetHeader().Slice())
	return ok && v.NeedsCsum()
}

// writeOne writes a packet to a link and leaves it the caller's. The link counts
// what it does not take.
func writeOne(to stack.LinkWriter, pkt *stack.PacketBuffer) {
	var l stack.PacketBufferList
	l.PushBack(pkt)
	_, _ = to.WritePackets(l)
}

// A Relay hands frames, unchanged, to the link of one side. It exists before that
// link does: the hooks of the two sides refer to each other. The zero value is ready
// and drops frames until Bind.
type Relay struct {
	to atomic.Pointer[stack.LinkWriter]
}

// Bind names the link that frames go to from now on, usually the outermost hook of
// that side, so that a capture sees them.
func (r *Relay) Bind(to stack.LinkWriter) { r.to.Store(&to) }

// Send writes pkt, which stays the caller's. It counts a frame that comes before
// Bind as wire.DropLinkDown in drops.
func (r *Relay) Send(pkt *stack.PacketBuffer, drops *wire.DropCounters) {
	if to := r.to.Load(); to != nil {
		writeOne(*to, pkt)
		return
	}
	drops.Add(wire.DropLinkDown)
}
