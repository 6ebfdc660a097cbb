package ipsec

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"bitw/netstack/hook"
	"bitw/netstack/wire"
	"bitw/sa"
)

// UDP encapsulation of ESP (RFC 3948). Out: bundle.seal leaves room between the IP and
// the ESP header, and step.encapsulate fills it. In: stripUDP tells ESP from IKE and
// keepalives, and takes the UDP header off; unwrap checks that the SA expects that;
// follow lets the peer's place follow what was authenticated (udpencap_float.go).

// encapState is what an opening knows of UDP headers.
type encapState struct {
	// port is the local one of the UDP header that has just been taken off, 0 for none,
	// and from is where the datagram came from.
	port uint16
	from netip.AddrPort
	// seen is what the SAs removed so far told of their peers.
	seen [maxBundle]sighting
}

// A sighting says where an authenticated packet came from. It counts only if its
// sequence number is the newest of its SA.
type sighting struct {
	from   netip.AddrPort
	seq    uint64
	newest bool
}

// opened notes that the i-th SA was taken off.
func (x *encapState) opened(i int, seq uint64, newest bool) {
	x.seen[i] = sighting{x.from, seq, newest}
	x.port, x.from = 0, netip.AddrPort{}
}

// stripUDP makes ESP in UDP that is meant for one of our SAs plain ESP. It returns
// true if w.d is dealt with: keepalives end here. All else stays as it is, IKE among
// it, which is for the host like any other datagram that a policy lets through.
//
// The UDP checksum is not looked at: what RFC 3948 §2.1 sends as zero protects
// nothing that the ICV does not, and over IPv6 a zero is accepted too (RFC 6935 §5).
func (e *Engine) stripUDP(w *work) bool {
	d, x := &w.d, &w.open.encap
	in := &d.Info
	if in.Proto != wire.ProtoUDP || !in.HasPorts || !e.sad.Encapsulated(in.Dst, in.DstPort) {
		return false
	}
	if d.Net != nil && d.Net.GSOKind() != wire.GSONone {
		// The link takes superframes to these places apart.
		e.drop(w, hook.Right, wire.DropBadOffload, nil, nil)
		return true
	}
	payload, kind := wire.EncapPayload(d.Bytes, in)
	switch kind {
	case wire.EncapKeepalive:
		e.drop(w, hook.Right, wire.DropKeepalive, nil, nil)
		return true
	case wire.EncapESP:
	default:
		return false
	}
	x.port, x.from = in.DstPort, netip.AddrPortFrom(in.Src, in.SrcPort)
	// The IP header moves up to the ESP header.
	b := d.Bytes[wire.UDPLen : in.HeaderLen+wire.UDPLen+len(payload)]
	copy(b, d.Bytes[:in.HeaderLen])
	b[in.ProtoAt] = wire.ProtoESP
	if in.InsertProtoAt == in.ProtoAt {
		in.InsertProto = wire.ProtoESP
	}
	d.Bytes, in.TotalLen, in.Proto = b, len(b), wire.ProtoESP
	in.HasPorts, in.SrcPort, in.DstPort, in.L4HeaderLen = false, 0, 0, 0
	d.Net = nil // it spoke of the UDP header
	return false
}

// encapsulate writes the UDP header of ESP in UDP into the sealed datagram b, whose
// ESP header is at espAt, with its checksum or zero, and sends it to where the peer is.
func (st *step) encapsulate(b []byte, espAt int, fill bool) {
	b[st.protoAt] = wire.ProtoUDP
	wire.SetDst(b, st.remote.Addr())
	wire.SetLength(b, int(b[0]>>4), len(b))
	u := b[espAt-wire.UDPLen:]
	wire.PutUDPHeader(u, st.sa.Encap.LocalPort, st.remote.Port())
	if fill {
		wire.FillUDPChecksum(u, sourceOf(b), st.remote.Addr())
	}
}

// leavesChecksum says whether the checksum of the outermost UDP header is left to the right
// link.
func (b *bundle) leavesChecksum() bool {
	st := &b.steps[b.n-1]
	return b.offload && st.udp != 0 && !b.cutAfter && st.sa.Encap.Checksum != sa.ChecksumZero
}

// fillsChecksum says whether the i-th SA fills the checksum of its UDP header.
func (b *bundle) fillsChecksum(i int) bool {
	if i == b.n-1 && b.leavesChecksum() {
		return false
	}
	return b.steps[i].sa.Encap.Fills(b.steps[i].remote.Addr())
}

// packet makes a packet of a datagram that seal has made, as packetOf does.
func (b *bundle) packet(v *buffer.View, start, end int, src tcpip.LinkAddress) *stack.PacketBuffer {
	datagram := v.AsSlice()[start:end]
	pkt := packetOf(v, start, end, src)
	b.leaveChecksum(datagram, pkt.VirtioNetHeader().Slice())
	return pkt
}

// leaveChecksum leaves the checksum of a datagram that seal has made to the right link, if
// that is to be, and says so in the metadata of its frame.
func (b *bundle) leaveChecksum(datagram []byte, off wire.VirtioNet) {
	if b.leavesChecksum() {
		wire.LeaveUDPChecksum(datagram, b.steps[b.n-1].kept(), off)
	}
}

// sourceOf returns the source address of a datagram that was parsed or made here.
func sourceOf(b []byte) netip.Addr {
	if b[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(b[12:16]))
	}
	return netip.AddrFrom16([16]byte(b[8:24]))
}

// repairChecksum makes the upper-layer checksum of the opened transport mode datagram
// b right, which the peer's host made for the addresses that it knows (RFC 3948
// §3.1.2): moved from the original addresses where they are configured, else, if it is
// wrong, made anew.
func repairChecksum(b []byte, in *wire.Info, s *sa.SA) {
	src, dst := s.Encap.OriginalRemote, s.Encap.OriginalLocal
	if !src.IsValid() && !dst.IsValid() {
		if !wire.VerifyL4(b, in) {
			wire.RenewL4Checksum(b, in)
		}
		return
	}
	if !src.IsValid() {
		src = in.Src
	}
	if !dst.IsValid() {
		dst = in.Dst
	}
	wire.MoveL4Checksum(b, in, src, dst)
}

// quotedEncap is quotedSA for a UDP datagram. A router that quotes no more than the
// UDP header proves nothing.
func (e *Engine) quotedEncap(quoted []byte, in *wire.Info) (*sa.SA, uint32) {
	at := in.HeaderLen + wire.UDPLen
	if at+wire.ESPMinLen > len(quoted) || !in.HasPorts {
		return nil, 0
	}
	spi, seq := binary.BigEndian.Uint32(quoted[at:]), binary.BigEndian.Uint32(quoted[at+4:])
	s := e.sad.LookupOutbound(spi, in.Dst, wire.ProtoESP)
	if s == nil {
		s = e.encap.movedTo(in.Dst, spi)
	}
	if s == nil || s.Encap == nil || s.Encap.LocalPort != in.SrcPort || s.Remote().Port() != in.DstPort {
		return nil, 0
	}
	return s, seq
}
