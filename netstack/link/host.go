package link

import (
	"encoding/binary"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/wire"
)

// HostGSOMaxSize is the longest TCP superframe that a HostEndpoint's stack builds, as
// an IP datagram in octets.
const HostGSOMaxSize = 65535

// A HostEndpoint is the NIC of an ordinary netstack host at the end of a link in
// memory: an Ethernet stack.LinkEndpoint that translates stack.GSO to and from the
// virtio-net header, so that superframes travel whole.
//
// Like a NIC it drops frames for other stations, and finishes checksums that a sender
// left to the device; the stack verifies all of them, so that a host in a test notices
// when somebody spoiled its data. A UDP superframe (wire.GSOUDPL4) is for devices
// that cut it, not for a host, and is dropped as wire.DropBadOffload.
type HostEndpoint struct {
	base
	reader
	promiscuous atomic.Bool
}

var (
	_ stack.LinkEndpoint = (*HostEndpoint)(nil)
	_ stack.GSOEndpoint  = (*HostEndpoint)(nil)
)

// NewHost returns a HostEndpoint. Options.Devices has one device.
func NewHost(o Options) (*HostEndpoint, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	e := new(HostEndpoint)
	e.base.init(o.MAC, o.MTU, o.Drops)
	e.reader.init(&e.base, o, func(frame []byte, _ [][]byte, _ int) int {
		e.receive(frame)
		return 0
	})
	return e, nil
}

// SetPromiscuous makes the endpoint take frames for other stations, or not.
func (e *HostEndpoint) SetPromiscuous(on bool) { e.promiscuous.Store(on) }

// Capabilities implements stack.LinkEndpoint.
func (*HostEndpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired
}

// GSOMaxSize implements stack.GSOEndpoint.
func (*HostEndpoint) GSOMaxSize() uint32 { return HostGSOMaxSize }

// SupportedGSO implements stack.GSOEndpoint.
func (*HostEndpoint) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// MaxHeaderLength implements stack.LinkEndpoint.
func (*HostEndpoint) MaxHeaderLength() uint16 { return header.EthernetMinimumSize }

// AddHeader implements stack.LinkEndpoint.
func (*HostEndpoint) AddHeader(pkt *stack.PacketBuffer) { addHeader(pkt) }

// Attach implements stack.LinkEndpoint.
func (e *HostEndpoint) Attach(d stack.NetworkDispatcher) { e.attach(d) }

// Close implements stack.LinkEndpoint.
func (e *HostEndpoint) Close() { e.close(e.devices...) }

// WritePackets implements stack.LinkEndpoint.
func (e *HostEndpoint) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	b := e.batches.Get().(*batch)
	for _, pkt := range pkts.AsSlice() {
		if pkt.Size()+HeaderLen > MaxFrameLen {
			e.drops.Add(wire.DropBadFrame)
			continue
		}
		f := appendFrame(b.room(), pkt)
		fillOffload(f, pkt)
		b.frames = append(b.frames, f)
	}
	sent, last := e.write(e.devices[0], b.frames, nil)
	b.reset()
	e.batches.Put(b)
	return writeResult(sent, last)
}

// fillOffload writes pkt's stack.GSO into the virtio-net header of its frame.
func fillOffload(f []byte, pkt *stack.PacketBuffer) {
	gso := &pkt.GSOOptions
	if gso.Type != stack.GSOTCPv4 && gso.Type != stack.GSOTCPv6 {
		return
	}
	v := wire.VirtioNet(f[:wire.VirtioNetLen])
	// The true length of the IP header: GSO.L3HdrLen leaves out its options.
	l4 := header.EthernetMinimumSize + len(pkt.NetworkHeader().Slice())
	v.SetHdrLen(uint16(l4 + len(pkt.TransportHeader().Slice())))
	if gso.NeedsCsum {
		v.SetFlags(wire.VirtioNetNeedsCsum)
		v.SetCsumStart(uint16(l4))
		v.SetCsumOffset(gso.CsumOffset)
	}
	if pkt.Data().Size() > int(gso.MSS) {
		v.SetGSOSize(gso.MSS)
		v.SetGSOType(wire.GSOTCPv4)
		if gso.Type == stack.GSOTCPv6 {
			v.SetGSOType(wire.GSOTCPv6)
		}
	}
}

// receive takes one frame from the link.
func (e *HostEndpoint) receive(frame []byte) {
	vnet, eth := wire.VirtioNet(frame[:wire.VirtioNetLen]), frame[wire.VirtioNetLen:]
	if !e.promiscuous.Load() && typeOf(eth, e.LinkAddress()) == tcpip.PacketOtherHost {
		e.drops.Add(wire.DropForeignMAC)
		return
	}
	if r := finish(vnet, eth); r != wire.DropNone {
		e.drops.Add(r)
		return
	}
	e.countIn(frame)
	e.deliver(newPacket(frame[wire.VirtioNetLen:], 0, e.LinkAddress()))
}

// finish does what a NIC does with the metadata of a received frame: it completes the
// checksum in place where it was left to the device. A TCP superframe is for the host
// one long segment, whose checksum covers all of it.
func finish(v wire.VirtioNet, eth []byte) wire.DropReason {
	if r := v.Check(len(eth)); r != wire.DropNone {
		return r
	}
	switch v.GSOKind() {
	case wire.GSONone, wire.GSOTCPv4, wire.GSOTCPv6:
	default:
		return wire.DropBadOffload
	}
	if !v.NeedsCsum() {
		return wire.DropNone
	}
	start := int(v.CsumStart())
	end := datagramEnd(eth)
	at := start + int(v.CsumOffset())
	if at+2 > end {
		return wire.DropBadOffload
	}
	sum := ^checksum.Checksum(eth[start:end], 0)
	if sum == 0 {
		sum = 0xffff // the same number, and zero would say "none" in UDP (RFC 768)
	}
	binary.BigEndian.PutUint16(eth[at:], sum)
	return wire.DropNone
}

// datagramEnd returns where the IP datagram in an Ethernet frame ends, which may be
// before the frame does: short frames are padded.
func datagramEnd(eth []byte) int {
	const ip = header.EthernetMinimumSize
	end := len(eth)
	switch protocolOf(eth) {
	case header.IPv4ProtocolNumber:
		if len(eth) >= ip+header.IPv4MinimumSize {
			end = min(end, ip+int(header.IPv4(eth[ip:]).TotalLength()))
		}
	case header.IPv6ProtocolNumber:
		if len(eth) >= ip+header.IPv6MinimumSize {
			end = min(end, ip+header.IPv6MinimumSize+int(header.IPv6(eth[ip:]).PayloadLength()))
		}
	}
	return end
}
