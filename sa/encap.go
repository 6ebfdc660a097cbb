package sa

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"bitw/netstack/wire"
	"bitw/sa/transform"
)

// An Encap is the UDP encapsulation of an ESP SA (RFC 3948). Ports are in host order.
// Both ends of an SA must agree that it is there: an encapsulated packet for an SA
// without it, and a plain one for an SA with it, are dropped as DropEncapMismatch.
type Encap struct {
	// LocalPort and RemotePort are those of the UDP header, local being the host behind
	// bitw, whichever way a packet goes. Inbound, only the local one is checked: a NAT
	// chooses the other.
	LocalPort, RemotePort uint16
	// Checksum says whether an outbound SA fills the UDP checksum.
	Checksum UDPChecksum
	// Keepalive is after how long without a packet an outbound SA sends one octet, so
	// that NATs on the way keep their mapping (RFC 3948 §4); 0 for never.
	Keepalive time.Duration
	// Float lets the peer's address and port follow the packets of an inbound SA; see
	// Lineage.Follow.
	Float bool
	// OriginalLocal and OriginalRemote are the addresses that the peer's host knows
	// itself and us by, if a NAT changes them: NAT-OA of RFC 3947 §5.2. The checksums of
	// an inbound transport mode SA's packets are repaired with them (RFC 3948 §3.1.2).
	// An invalid one stands for the SA's own end.
	OriginalLocal, OriginalRemote netip.Addr
}

// A UDPChecksum says whether the UDP checksum of ESP in UDP is filled. RFC 3948 §2.1 would
// rather have it zero over IPv4, where the ICV protects what matters, but receivers put
// datagrams together to superframes only if it is not. IPv6 demands it unless the other
// end is known to do without (RFC 6935 §5), and Linux is not.
type UDPChecksum uint8

const (
	ChecksumAuto   UDPChecksum = iota // over IPv6, and where superframes are sent
	ChecksumFilled                    // always
	ChecksumZero                      // never
)

// String returns for example "udp 4500 to 4500".
func (e *Encap) String() string { return fmt.Sprintf("udp %d to %d", e.LocalPort, e.RemotePort) }

// Fills says whether packets of an outbound SA to that address have a UDP checksum, where
// nobody needs it for superframes.
func (e *Encap) Fills(remote netip.Addr) bool {
	return e.Checksum == ChecksumFilled || e.Checksum == ChecksumAuto && remote.Is6()
}

// PadToMTU as TFCPadding pads each packet to what the path takes.
const PadToMTU = -1

// MaxDummies is the largest rate of dummy packets, in packets a second.
const MaxDummies = 1000

// checkEncap checks what is about UDP encapsulation and traffic flow
// confidentiality.
func (cfg *SAConfig) checkEncap() error {
	if cfg.TFCPadding < PadToMTU || cfg.TFCPadding > 65535 {
		return fmt.Errorf("TFC padding is to %d octets, want 0 to 65535, or %d for the path MTU", cfg.TFCPadding, PadToMTU)
	}
	if cfg.Dummies < 0 || cfg.Dummies > MaxDummies {
		return fmt.Errorf("%d dummy packets a second, want 0 to %d", cfg.Dummies, MaxDummies)
	}
	if (cfg.TFCPadding != 0 || cfg.Dummies != 0) && cfg.Key.Proto != transform.ProtoESP {
		return errors.New("AH has neither TFC padding nor dummy packets")
	}
	if cfg.Dummies != 0 && !cfg.Src.IsValid() {
		return errors.New("dummy packets need a source address")
	}
	e := cfg.Encap
	switch {
	case e == nil:
		return nil
	case cfg.Key.Proto != transform.ProtoESP:
		return errors.New("UDP encapsulation is for ESP only (RFC 3948 §1)")
	case e.LocalPort == 0 || e.RemotePort == 0:
		return fmt.Errorf("UDP ports are %d and %d, want 1 to 65535", e.LocalPort, e.RemotePort)
	case !cfg.Src.IsValid():
		return errors.New("UDP encapsulation needs a source address")
	case e.Keepalive < 0 || e.Keepalive != 0 && e.Keepalive < time.Second:
		return fmt.Errorf("keepalive after %v, want 1s or more, or 0", e.Keepalive)
	case e.Float && cfg.Direction == Inbound && cfg.ReplayWindow == ReplayOff:
		return errors.New("a peer that may move needs a replay window: a packet seen before must not move it")
	}
	for _, a := range []netip.Addr{e.OriginalLocal, e.OriginalRemote} {
		switch {
		case !a.IsValid():
		case cfg.Mode != Transport:
			return errors.New("original addresses are for transport mode (RFC 3948 §3.1.2)")
		case a.Unmap().BitLen() != cfg.Key.Dst.Unmap().BitLen() || a.Zone() != "":
			return fmt.Errorf("original address %v is not of the family of %v", a, cfg.Key.Dst)
		}
	}
	return nil
}

// Remote returns where the packets of an outbound SA with encapsulation go now: the
// configured address and port, or where the peer moved to (see Lineage.Follow). For
// the packet path.
func (s *SA) Remote() netip.AddrPort {
	configured := netip.AddrPortFrom(s.Key.Dst, s.Encap.RemotePort)
	if s.Lineage != nil {
		if m := s.Lineage.move.Load(); m != nil && m.home == configured {
			return m.to
		}
	}
	return configured
}

// Newest says whether full is higher than every sequence number accepted so far. Ask
// after the ICV is found right and before Accept. Without a replay window nothing is
// newest.
func (s *SA) Newest(full uint64) bool {
	return s.replay != nil && full > s.replay.top.Load()
}

// A peerMove says where the peer of a lineage's outbound SA is. It does not change
// once it is made.
type peerMove struct {
	// home is the configured place of the SA that was told. One that is configured
	// otherwise knows better.
	home, to netip.AddrPort
	// The packet that told it, and when its SA was made: an older SA knows no better.
	spi     uint32
	created int64
	seq     uint64
}

// Follow tells l, the lineage of the outbound SA of a pair, that in, the inbound one,
// has accepted the packet with that full sequence number, and that its outer source
// was from. If the peer is somewhere else by what is known, outbound packets go to
// from now on, the SA's key manager is told PeerMoved, and moved is true.
//
// The caller has seen that the ICV is right, that the number was new and the Newest,
// and that the SA's selectors fit. Follow itself refuses where in must not float,
// from cannot be a host, and a packet with a lower number than the one that moved the
// peer last. For the packet path.
func (l *Lineage) Follow(in *SA, full uint64, from netip.AddrPort) (moved bool) {
	out := l.Outbound()
	if out == nil || out.Encap == nil || in.Encap == nil || !in.Encap.Float {
		return false
	}
	if out.Remote() == from || !couldBePeer(from, out.Key.Dst) {
		return false
	}
	next := &peerMove{
		home: netip.AddrPortFrom(out.Key.Dst, out.Encap.RemotePort), to: from,
		spi: in.Key.SPI, created: in.Created, seq: full,
	}
	for {
		old := l.move.Load()
		if old != nil && old.home == next.home {
			stale := old.created > next.created || old.spi == next.spi && old.created == next.created && old.seq >= full
			if stale || old.to == from {
				return false
			}
		}
		if l.move.CompareAndSwap(old, next) {
			break
		}
	}
	l.moves.Add(1)
	out.tell(PeerMoved, from)
	return true
}

// Moves returns how often the peer of the lineage's outbound SA has moved.
func (l *Lineage) Moves() uint64 { return l.moves.Load() }

// couldBePeer says whether from could be a peer in place of dst.
func couldBePeer(from netip.AddrPort, dst netip.Addr) bool {
	a := from.Addr()
	return from.Port() != 0 && a.BitLen() == dst.BitLen() && !a.IsUnspecified() && !a.IsMulticast() &&
		!a.IsLoopback() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// EncapMatches says whether a packet for s may come as it came: with the local UDP
// port (host order) that it was encapsulated with, 0 for plain ESP. For the packet
// path. The only reason is DropEncapMismatch.
func (s *SA) EncapMatches(localPort uint16) wire.DropReason {
	want := uint16(0)
	if s.Encap != nil {
		want = s.Encap.LocalPort
	}
	if want != localPort {
		return wire.DropEncapMismatch
	}
	return wire.DropNone
}
