package link

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"bitw/netstack/wire"
)

// Superframes: many datagrams of one flow that cross the kernel as one frame, which
// the device, or the kernel just before it, cuts apart. Those of TCP pass as they are. Of
// UDP, consecutive datagrams whose checksum is left to the device are joined on their way
// out, and what ends here is taken apart on its way in. What a device refuses is cut here.

const (
	// MaxUDPSegments is how many datagrams Linux takes in one superframe, from 6.9 on.
	MaxUDPSegments = 128
	// fewUDPSegments is how many it takes before.
	fewUDPSegments = 64
	// trainAlign is what the frames of a train are aligned to.
	trainAlign = 64
	// maxCut is into how many a refused superframe is cut at most.
	maxCut = 1024
)

// UDPStats are the UDP superframes of a link, and the datagrams in them.
type UDPStats struct {
	JoinedOut, DatagramsOut uint64
	ApartIn, DatagramsIn    uint64
}

// superframes is what an Endpoint knows of superframes.
type superframes struct {
	apart func(netip.Addr, uint16) bool
	// segments is how many UDP datagrams may be in one that is sent; below 2 none is.
	segments atomic.Int32
	// refusedUDP and refusedTCP are why the device did not take one.
	refusedUDP, refusedTCP atomic.Pointer[error]
	cutters                sync.Pool // of *cutter

	joinedOut, datagramsOut, apartIn, datagramsIn atomic.Uint64
}

// cutter is the scratch memory for cutting a superframe.
type cutter struct {
	info wire.Info
	cut  wire.Cutter
}

func (s *superframes) init(apart func(netip.Addr, uint16) bool) {
	s.apart = apart
	s.cutters.New = func() any { return new(cutter) }
}

// SetUDPSuperframes says whether consecutive UDP datagrams of a flow are sent as one frame.
// A device that refuses that with EINVAL gets them one by one, and no other superframe
// until the next call; RefusedUDP tells. They are off in a new Endpoint.
func (e *Endpoint) SetUDPSuperframes(on bool) {
	e.super.refusedUDP.Store(nil)
	if on {
		e.super.segments.Store(MaxUDPSegments)
	} else {
		e.super.segments.Store(0)
	}
}

// UDPSuperframes says whether consecutive UDP datagrams are sent as one frame.
func (e *Endpoint) UDPSuperframes() bool { return e.super.segments.Load() > 1 }

// RefusedUDP returns the error with which a device refused a UDP superframe since the last
// SetUDPSuperframes, nil if none did. Such a superframe is cut and sent one by one.
func (e *Endpoint) RefusedUDP() error { return why(&e.super.refusedUDP) }

// RefusedTCP returns the error with which a device refused the last TCP superframe that it
// refused, nil if there was none. Such a superframe is cut and sent one by one.
func (e *Endpoint) RefusedTCP() error { return why(&e.super.refusedTCP) }

func why(p *atomic.Pointer[error]) error {
	if err := p.Load(); err != nil {
		return *err
	}
	return nil
}

// UDPStats returns the counters of UDP superframes.
func (e *Endpoint) UDPStats() UDPStats {
	s := &e.super
	return UDPStats{
		JoinedOut: s.joinedOut.Load(), DatagramsOut: s.datagramsOut.Load(),
		ApartIn: s.apartIn.Load(), DatagramsIn: s.datagramsIn.Load(),
	}
}

// writeJoined gives the frames of b to d, the runs among them as superframes.
func (e *Endpoint) writeJoined(d Device, b *batch) (int, wire.DropReason) {
	segments := int(e.super.segments.Load())
	if segments < 2 || len(b.frames) < 2 || !e.join(b, segments) {
		return e.write(d, b.frames, e.instead)
	}
	return e.write(d, b.joined, e.instead)
}

// instead cuts a superframe that a device refused.
func (e *Endpoint) instead(frame []byte, err error) [][]byte {
	datagram, off := datagramIn(frame)
	if off.GSOKind() == wire.GSONone || !errors.Is(err, syscall.EINVAL) {
		return nil
	}
	t := e.super.cutters.Get().(*cutter)
	defer e.super.cutters.Put(t)
	t.cut.LeaveUDP = false
	if wire.Parse(datagram, &t.info) != wire.DropNone ||
		t.cut.Init(datagram, &t.info, off, int(e.MTU())) != wire.DropNone || t.cut.Segments() > maxCut {
		return nil
	}
	e.super.refuse(off, t.cut.Segments(), err)
	frames := make([][]byte, t.cut.Segments())
	for i := range frames {
		f := make([]byte, HeaderLen+int(e.MTU()))
		copy(f[wire.VirtioNetLen:], frame[wire.VirtioNetLen:HeaderLen])
		frames[i] = f[:HeaderLen+t.cut.Next(f[HeaderLen:])]
	}
	return frames
}

// refuse takes note that a device did not take a superframe of n datagrams.
func (s *superframes) refuse(off wire.VirtioNet, n int, err error) {
	if off.GSOKind() != wire.GSOUDPL4 {
		s.refusedTCP.Store(&err)
		return
	}
	if n > fewUDPSegments && s.segments.CompareAndSwap(MaxUDPSegments, fewUDPSegments) {
		return
	}
	s.segments.Store(0)
	s.refusedUDP.Store(&err)
}

// join sets b.joined to what b.frames are with runs of datagrams as superframes. It
// returns false if there is no run.
func (e *Endpoint) join(b *batch, segments int) bool {
	var m wire.UDPMerger
	any := false
	for i := 0; i < len(b.frames); {
		f, n := b.frames[i], 1
		if i+1 < len(b.frames) && sameLink(f, b.frames[i+1]) && m.Start(datagramIn(f)) {
			for i+n < len(b.frames) && sameLink(f, b.frames[i+n]) {
				d, off := datagramIn(b.frames[i+n])
				if !m.Add(d, off, segments) {
					break
				}
				n++
			}
		}
		if n > 1 {
			f, any = b.superframe(&m, b.frames[i:i+n]), true
			e.super.joinedOut.Add(1)
			e.super.datagramsOut.Add(uint64(n))
		}
		b.joined = append(b.joined, f)
		i += n
	}
	return any
}

// sameLink compares the Ethernet headers of two frames.
func sameLink(a, b []byte) bool {
	const n = header.EthernetMinimumSize
	return [n]byte(a[wire.VirtioNetLen:]) == [n]byte(b[wire.VirtioNetLen:])
}

// datagramIn takes a frame apart.
func datagramIn(f []byte) ([]byte, wire.VirtioNet) {
	return f[HeaderLen:], wire.VirtioNet(f[:wire.VirtioNetLen])
}

// superframe puts the frames that m has joined together.
func (b *batch) superframe(m *wire.UDPMerger, frames [][]byte) []byte {
	s := append(b.room(), frames[0]...)
	m.WriteHeaders(s[HeaderLen:], wire.VirtioNet(s[:wire.VirtioNetLen]))
	for _, f := range frames[1:] {
		s = append(s, f[HeaderLen+m.HeaderLen():]...)
	}
	return s
}

// apart delivers the datagrams of a UDP superframe one by one if they are to be. It
// returns false for every other frame.
func (e *Endpoint) apart(frame []byte, queue int) bool {
	datagram, off := datagramIn(frame)
	if off.GSOKind() != wire.GSOUDPL4 || e.super.apart == nil {
		return false
	}
	if p := protocolOf(frame[wire.VirtioNetLen:]); p != header.IPv4ProtocolNumber && p != header.IPv6ProtocolNumber {
		return false
	}
	t := e.super.cutters.Get().(*cutter)
	defer e.super.cutters.Put(t)
	in, c := &t.info, &t.cut
	if wire.Parse(datagram, in) != wire.DropNone || !in.HasPorts || !e.super.apart(in.Dst, in.DstPort) {
		return false
	}
	c.LeaveUDP = in.Version == 4 || in.HeaderLen == header.IPv6MinimumSize
	reason := c.Init(datagram, in, off, len(datagram))
	if reason == wire.DropNone && c.Segments() > MaxUDPSegments {
		reason = wire.DropBadOffload
	}
	if reason != wire.DropNone {
		e.drops.Add(reason)
		return true
	}
	e.super.apartIn.Add(1)
	e.super.datagramsIn.Add(uint64(c.Segments()))
	most := min(in.HeaderLen+in.L4HeaderLen+int(off.GSOSize()), len(datagram))
	if c.Segments() > 1 && e.turns[queue].lends {
		e.deliverTogether(t, frame, most, queue)
		return true
	}
	for range c.Segments() {
		v := buffer.NewViewSize(HeaderLen + most + Tailroom)
		v.CapLength(t.next(v.AsSlice(), frame))
		e.deliverFrom(queue, packetIn(v, wire.VirtioNetLen, e.LinkAddress()))
	}
	return true
}

// next writes the next frame of a superframe to b, whose first octets are zeros, and
// returns its length.
func (t *cutter) next(b, superframe []byte) int {
	n := HeaderLen + t.cut.Next(b[HeaderLen:])
	copy(b[wire.VirtioNetLen:], superframe[wire.VirtioNetLen:HeaderLen])
	if t.cut.LeaveUDP {
		wire.LeaveUDPChecksum(b[HeaderLen:n], t.info.HeaderLen, wire.VirtioNet(b[:wire.VirtioNetLen]))
	}
	return n
}

// deliverTogether lends the datagrams of a superframe, none longer than most.
func (e *Endpoint) deliverTogether(t *cutter, superframe []byte, most, queue int) {
	turn := &e.turns[queue]
	stride := (HeaderLen + most + Tailroom + trainAlign - 1) &^ (trainAlign - 1)
	if need := stride * t.cut.Segments(); len(turn.room) < need {
		turn.room = make([]byte, max(need, MaxFrameLen+MaxUDPSegments*2*trainAlign))
	}
	turn.pieces = turn.pieces[:0]
	for i := range t.cut.Segments() {
		b := turn.room[i*stride:][:stride:stride]
		clear(b[:wire.VirtioNetLen])
		turn.pieces = append(turn.pieces, b[:t.next(b, superframe)])
	}
	for list := turn.pieces; len(list) > 0; {
		list = list[1+e.lendFrom(queue, list[0], list[1:]):]
	}
}
