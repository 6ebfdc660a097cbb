package link

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

const (
	// HeaderLen is the length in octets of what stands before the datagram of every
	// packet on a bump link: the virtio-net header and the Ethernet header.
	HeaderLen = wire.VirtioNetLen + header.EthernetMinimumSize

	// MaxFrameLen is the length in octets of the longest frame with its virtio-net
	// header: the longest IPv4 datagram behind an Ethernet header with two VLAN tags,
	// and a few more, so that a device can tell a whole frame from one cut off.
	MaxFrameLen = HeaderLen + 2*4 + 65535 + 3

	// Tailroom is how many octets of capacity follow a received frame in its view.
	Tailroom = 64

	// Protocol8022 is the protocol number of a frame whose type field is a length,
	// as of IEEE 802.3 with an LLC header. It is Linux' number for the same.
	Protocol8022 tcpip.NetworkProtocolNumber = 0x0004

	// minEtherType is the smallest EtherType; below it the field is a length
	// (IEEE 802.3 §3.2.6).
	minEtherType = 0x0600
)

// NewPacket makes a packet as a bump link delivers it: one contiguous view that
// holds a copy of frame, which begins with its virtio-net header, with Tailroom
// octets of capacity behind; both headers consumed, the protocol number set, the
// datagram (with padding of the link, if any) as data. PktType says whether the
// frame is for mac, for a group, for all, or for another station. The caller owns
// the one reference. It returns nil if frame is shorter than HeaderLen.
func NewPacket(frame []byte, mac tcpip.LinkAddress) *stack.PacketBuffer {
	if len(frame) < HeaderLen {
		return nil
	}
	return newPacket(frame, wire.VirtioNetLen, mac)
}

// newPacket makes a packet of frame, in which vnet octets stand before the Ethernet
// header.
func newPacket(frame []byte, vnet int, mac tcpip.LinkAddress) *stack.PacketBuffer {
	// A chunk of up to 64 KB comes from gVisor's pools, cleared, and its pools go by
	// powers of two; so a view of the frame's size costs a small frame little, and
	// only the last few octets below the longest datagram miss the pools.
	v := buffer.NewView(len(frame) + Tailroom)
	v.Write(frame)
	return packetIn(v, vnet, mac)
}

// packetIn makes a packet of the frame that is all of v, in which vnet octets stand before
// the Ethernet header.
func packetIn(v *buffer.View, vnet int, mac tcpip.LinkAddress) *stack.PacketBuffer {
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	if vnet != 0 {
		pkt.VirtioNetHeader().Consume(vnet)
	}
	eth, _ := pkt.LinkHeader().Consume(header.EthernetMinimumSize)
	pkt.NetworkProtocolNumber = protocolOf(eth)
	pkt.PktType = typeOf(eth, mac)
	return pkt
}

// protocolOf returns the EtherType of an Ethernet header, or Protocol8022.
func protocolOf(eth []byte) tcpip.NetworkProtocolNumber {
	if p := binary.BigEndian.Uint16(eth[12:]); p >= minEtherType {
		return tcpip.NetworkProtocolNumber(p)
	}
	return Protocol8022
}

func typeOf(eth []byte, mac tcpip.LinkAddress) tcpip.PacketType {
	switch dst := eth[:header.EthernetAddressSize]; {
	case string(dst) == string(header.EthernetBroadcastAddress):
		return tcpip.PacketBroadcast
	case dst[0]&1 != 0:
		return tcpip.PacketMulticast
	case string(dst) == string(mac):
		return tcpip.PacketHost
	}
	return tcpip.PacketOtherHost
}

// Frame returns pkt as one frame with its virtio-net header, without a copy, if it
// has both headers and lies in one view; else false. The octets stay pkt's.
func Frame(pkt *stack.PacketBuffer) ([]byte, bool) {
	views, off := pkt.AsViewList()
	if views.Len() != 1 ||
		len(pkt.VirtioNetHeader().Slice()) != wire.VirtioNetLen ||
		len(pkt.LinkHeader().Slice()) != header.EthernetMinimumSize {
		return nil, false
	}
	return views.Front().AsSlice()[off:], true
}

// AppendFrames appends to list the frames that pkt stands for: its own, if it has octets,
// and those of its train. It returns false if its own cannot be had without a copy.
func AppendFrames(list [][]byte, pkt *stack.PacketBuffer) ([][]byte, bool) {
	train := wire.TrainOf(pkt.Owner)
	if train != nil && train.Whole != nil {
		return append(list, train.Whole), true // what came behind it is not its own
	}
	if train == nil || pkt.Size() > 0 {
		f, ok := Frame(pkt)
		if !ok {
			return list, false
		}
		list = append(list, f)
	}
	if train != nil {
		list = append(list, train.Frames...)
	}
	return list, true
}

// appendFrame appends pkt as one frame to b, with a virtio-net header of zeros and
// an Ethernet header from the egress route where it has none.
func appendFrame(b []byte, pkt *stack.PacketBuffer) []byte {
	if len(pkt.VirtioNetHeader().Slice()) == 0 {
		b = append(b, make([]byte, wire.VirtioNetLen)...)
	}
	if len(pkt.LinkHeader().Slice()) == 0 {
		b = append(b, make([]byte, header.EthernetMinimumSize)...)
		encodeEthernet(b[len(b)-header.EthernetMinimumSize:], pkt)
	}
	views, off := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		s := v.AsSlice()
		if off >= len(s) {
			off -= len(s)
			continue
		}
		b = append(b, s[off:]...)
		off = 0
	}
	return b
}

// addHeader gives pkt the Ethernet header that its egress route asks for, and a
// virtio-net header of zeros if there is room for one. A packet that has an Ethernet
// header with a destination keeps it: it is on its way through the bump.
func addHeader(pkt *stack.PacketBuffer) {
	eth := pkt.LinkHeader().Slice()
	switch {
	case len(eth) == 0 && pkt.AvailableHeaderBytes() >= header.EthernetMinimumSize:
		eth = pkt.LinkHeader().Push(header.EthernetMinimumSize)
	case len(eth) == 0:
		return // appendFrame adds it
	case string(eth[:header.EthernetAddressSize]) != string(header.UnspecifiedEthernetAddress):
		return
	}
	encodeEthernet(eth, pkt)
	if len(pkt.VirtioNetHeader().Slice()) == 0 && pkt.AvailableHeaderBytes() >= wire.VirtioNetLen {
		clear(pkt.VirtioNetHeader().Push(wire.VirtioNetLen))
	}
}

func encodeEthernet(b []byte, pkt *stack.PacketBuffer) {
	header.Ethernet(b).Encode(&header.EthernetFields{
		SrcAddr: pkt.EgressRoute.LocalLinkAddress,
		DstAddr: pkt.EgressRoute.RemoteLinkAddress,
		Type:    pkt.NetworkProtocolNumber,
	})
}
