package ipsec

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
)

const (
	ethernetLen = header.EthernetMinimumSize
	// frameHead is what a frame on the bump has in front of its datagram.
	frameHead = wire.VirtioNetLen + ethernetLen
	// maxDatagram is the largest that the length field of IPv4 can tell, and all that
	// IPv6 can without jumbograms.
	maxDatagram = 65535
)

// newFrame returns a cleared buffer for a frame whose datagram, with all that
// will be put in front of and behind it, has at most n octets. The datagram's
// final place starts at or behind frameHead.
func newFrame(n int) (*buffer.View, []byte) {
	v := buffer.NewViewSize(frameHead + n)
	return v, v.AsSlice()
}

// packetOf makes a packet of the datagram at [start, end) of v, which it takes
// over. The Ethernet destination is left open.
func packetOf(v *buffer.View, start, end int, src tcpip.LinkAddress) *stack.PacketBuffer {
	b := v.AsSlice()
	head := b[start-frameHead : start]
	clear(head)
	putEthernet(head, []byte(src), b[start]>>4)
	v.CapLength(end)
	v.TrimFront(start - frameHead)
	return hook.PacketIn(v)
}

// putEthernet writes source and type for a datagram of that IP version into the frameHead
// octets in front of it. The destination is left open.
func putEthernet(head, src []byte, version uint8) {
	copy(head[frameHead-8:], src)
	proto := header.IPv4ProtocolNumber
	if version == 6 {
		proto = header.IPv6ProtocolNumber
	}
	binary.BigEndian.PutUint16(head[frameHead-2:], uint16(proto))
}

// setDestination writes the Ethernet destination of a packet made by packetOf
// or delivered by a link of the bump.
func setDestination(pkt *stack.PacketBuffer, mac tcpip.LinkAddress) {
	copy(pkt.LinkHeader().Slice(), mac)
}

// push adds a packet of the engine's own to the batch. It goes by the queue of the
// frame that it came of, so that the datagrams of a flow keep their order.
func (w *work) push(pkt *stack.PacketBuffer) {
	pkt.Hash = w.queue
	w.out.PushBack(pkt)
}

// flush sends the batch that has gathered to one side. The link counts what it
// could not take.
func (e *Engine) flush(w *work, to hook.Side) {
	if w.out.Len() == 0 || to == hook.Right && e.holdsBack(w) {
		return
	}
	if w.trail != nil {
		for _, pkt := range w.out.AsSlice() {
			if pkt.Owner == nil {
				pkt.Owner = w.trail
			}
		}
	}
	_, _ = e.links[to].WritePackets(w.out)
	w.out.Reset()
}

// toLeft sends the batch to the host that has dst, or leaves it with the hosts until its
// Ethernet address is known.
func (e *Engine) toLeft(w *work, dst netip.Addr) {
	mac, known := e.hostMAC(), true
	if e.hosts != nil {
		mac, known = e.hosts.Lookup(dst)
	}
	if w.trail != nil && e.hosts != nil {
		w.noteNeighbor(knownWord(known), dst, string(mac), true)
	}
	if !known {
		w.keepTrail()
	}
	for _, pkt := range w.out.AsSlice() {
		if e.hosts != nil && !e.named.Load() {
			copy(pkt.LinkHeader().Slice()[6:12], e.hostMAC())
		}
		if known {
			setDestination(pkt, mac)
		} else {
			e.hosts.Enqueue(dst, pkt)
		}
	}
	if !known {
		w.out.Reset()
		return
	}
	e.flush(w, hook.Left)
}

// frameToLeft is toLeft for one frame, which is borrowed for the call.
func (e *Engine) frameToLeft(w *work, frame []byte, dst netip.Addr) {
	mac, known := e.hostMAC(), true
	eth := frame[wire.VirtioNetLen:]
	if e.hosts != nil {
		mac, known = e.hosts.Lookup(dst)
		if !e.named.Load() {
			copy(eth[6:12], e.hostMAC())
		}
	}
	if !known {
		pkt := hook.PacketFrom(frame)
		e.hosts.Enqueue(dst, pkt)
		pkt.DecRef()
		return
	}
	copy(eth, mac)
	w.train.Frames = append(w.train.Frames[:0], frame)
	e.sendTrain(w, hook.Left)
}

// sendTrain sends the frames of w.train to one side.
func (e *Engine) sendTrain(w *work, to hook.Side) {
	if to == hook.Right && w.batch != nil {
		e.sendBatch(w.batch)
	}
	if w.puller == nil {
		w.puller = stack.NewPacketBuffer(stack.PacketBufferOptions{})
		w.puller.Owner = &w.train
	}
	w.puller.Hash = w.queue
	w.out.PushBack(w.puller.IncRef())
	_, _ = e.links[to].WritePackets(w.out)
	w.out.Reset()
	clear(w.train.Frames)
}

// isBehind says whether a datagram to dst may go to the left.
func (e *Engine) isBehind(dst netip.Addr) bool { return e.hosts == nil || e.isLocal(dst) }

// toHost adds a fresh frame with a copy of the datagram to the batch for the
// left. src is the Ethernet source that the host sees.
func (e *Engine) toHost(w *work, datagram []byte, src tcpip.LinkAddress) {
	v, b := newFrame(len(datagram))
	copy(b[frameHead:], datagram)
	pkt := packetOf(v, frameHead, frameHead+len(datagram), src)
	w.push(pkt)
}
