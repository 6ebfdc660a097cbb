package wire

import (
	"encoding/binary"
	"math"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// Codes for AppendUnreachable.
const (
	ICMPv4HostUnreachable    = 1  // RFC 792
	ICMPv4AdminProhibited    = 13 // RFC 1812 §5.2.7.1
	ICMPv6AdminProhibited    = 1  // RFC 4443 §3.1
	ICMPv6AddressUnreachable = 3
)

const (
	icmpHdrLen = 8

	// The largest error in octets: RFC 1812 §4.3.2.3 and RFC 4443 §2.4 (c).
	icmpv4ErrorMax = 576
	icmpv6ErrorMax = header.IPv6MinimumMTU

	// Errors go to the host on our left, which has no router in between.
	icmpErrorTTL = 64
	// RFC 1812 §4.3.2.5: precedence 6, internetwork control.
	icmpErrorTOS = 0xc0
)

// IsICMPError reports whether the datagram is an ICMP or ICMPv6 error, which means
// that it quotes another packet: RFC 1122 §3.2.2 for IPv4, redirects included; for
// IPv6 the types below 128 (RFC 4443 §2.1).
func IsICMPError(in *Info) bool {
	if !in.HasPorts {
		return false
	}
	switch in.Proto {
	case ProtoICMP:
		switch header.ICMPv4Type(in.ICMPType) {
		case header.ICMPv4DstUnreachable, header.ICMPv4SrcQuench, header.ICMPv4Redirect,
			header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem:
			return true
		}
	case ProtoICMPv6:
		return in.ICMPType < 128
	}
	return false
}

// AppendTooBig appends to dst the datagram that tells the sender of offending that
// only mtu octets, IP header included, would have fitted: ICMP 3/4 (RFC 1191 §4) or
// ICMPv6 2/0 (RFC 4443 §3.2). Its source is the destination of offending, for a box
// in the wire has no address of its own that the host knows. offending is not kept;
// in is Parse's result for it.
//
// ok is false, and dst returned as it is, where no error may be sent (RFC 1122 §3.2.2,
// RFC 4443 §2.4 (e)): about an ICMP error or redirect or what may be one, about a
// fragment other than the first, and where source or destination are not one station.
func AppendTooBig(dst []byte, offending []byte, in *Info, mtu int) (b []byte, ok bool) {
	if in.Version == 4 {
		rest := uint32(min(max(mtu, 0), math.MaxUint16))
		return appendError(dst, offending, in, uint8(header.ICMPv4DstUnreachable), uint8(header.ICMPv4FragmentationNeeded), rest)
	}
	rest := uint32(min(max(mtu, 0), math.MaxUint32))
	return appendError(dst, offending, in, uint8(header.ICMPv6PacketTooBig), 0, rest)
}

// AppendUnreachable appends to dst the datagram that tells the sender of offending
// that its destination cannot be reached: ICMP type 3 or ICMPv6 type 1, with a code
// of that version. All else is as with AppendTooBig.
func AppendUnreachable(dst []byte, offending []byte, in *Info, code uint8) (b []byte, ok bool) {
	t := uint8(header.ICMPv6DstUnreachable)
	if in.Version == 4 {
		t = uint8(header.ICMPv4DstUnreachable)
	}
	return appendError(dst, offending, in, t, code, 0)
}

// UnreachableHost returns the code of AppendUnreachable for a next hop that does not
// answer, in the given IP version: 3/1 or 1/3.
func UnreachableHost(version uint8) (code uint8) {
	if version == 4 {
		return ICMPv4HostUnreachable
	}
	return ICMPv6AddressUnreachable
}

// mayAnswer reports whether an error about a datagram may be sent.
func mayAnswer(in *Info) bool {
	if in.FragOffset != 0 || !isStation(in.Src) || !isStation(in.Dst) {
		return false
	}
	switch in.Proto {
	case ProtoICMP, ProtoICMPv6:
		redirect := in.Proto == ProtoICMPv6 && header.ICMPv6Type(in.ICMPType) == header.ICMPv6RedirectMsg
		return in.HasPorts && !redirect && !IsICMPError(in)
	}
	return true
}

// isStation reports whether an address can be that of one station on a link. Broadcast
// other than 255.255.255.255 cannot be told without the link's prefix.
func isStation(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		(!a.Is4() || a.As4()[0] < 240)
}

// appendError appends an ICMP error with the four octets of rest behind the checksum.
func appendError(dst, offending []byte, in *Info, icmpType, code uint8, rest uint32) ([]byte, bool) {
	if !mayAnswer(in) || in.TotalLen > len(offending) {
		return dst, false
	}
	ipLen, limit := ipv4MinLen, icmpv4ErrorMax
	if in.Version == 6 {
		ipLen, limit = ipv6Len, icmpv6ErrorMax
	}
	quote := offending[:min(in.TotalLen, limit-ipLen-icmpHdrLen)]
	start := len(dst)
	var hdr [ipv6Len + icmpHdrLen]byte
	dst = append(dst, hdr[:ipLen+icmpHdrLen]...)
	dst = append(dst, quote...)
	b := dst[start:]
	icmp := b[ipLen:]
	icmp[0], icmp[1] = icmpType, code
	binary.BigEndian.PutUint32(icmp[4:], rest)
	src, to := offending[16:20], offending[12:16]
	if in.Version == 6 {
		src, to = offending[24:40], offending[8:24]
	}
	var pseudoSum uint16
	if in.Version == 4 {
		// Never fragmented, so the identification may be anything (RFC 6864 §4.1).
		b[0], b[1] = 0x45, icmpErrorTOS
		header.IPv4(b).SetFlagsFragmentOffset(header.IPv4FlagDontFragment, 0)
		b[8], b[9] = icmpErrorTTL, ProtoICMP
		copy(b[12:], src)
		copy(b[16:], to)
		SetIPv4TotalLen(b, len(b))
	} else {
		b[0], b[6], b[7] = 0x60, ProtoICMPv6, icmpErrorTTL
		SetIPv6PayloadLen(b, len(icmp))
		copy(b[8:], src)
		copy(b[24:], to)
		pseudoSum = PseudoChecksum(in.Dst, in.Src, ProtoICMPv6, len(icmp))
	}
	binary.BigEndian.PutUint16(icmp[icmpChecksumAt:], ^checksum.Checksum(icmp, pseudoSum))
	return dst, true
}

// Enclosed returns the packet that an ICMP error quotes, and parses it into inner. in
// is Parse's result for the error. The quote shares memory with the datagram, is cut
// short more often than not, and never reaches behind the end of the quoted packet
// or into the extensions of RFC 4884.
//
// inner.TotalLen is what the quoted packet says of itself, and may exceed the quote;
// what is not quoted is missing from inner, HasPorts being false where the ports are.
// The IPv4 header checksum is not looked at, for routers on the way have changed the
// header.
//
// It returns DropMalformed if the datagram is no error, or its quote has no whole IP
// header or chain of extension headers, and DropExtensionHeader as Parse does.
func Enclosed(datagram []byte, in *Info, inner *Info) ([]byte, DropReason) {
	if !IsICMPError(in) || in.TotalLen > len(datagram) || in.HeaderLen+icmpHdrLen > in.TotalLen {
		return nil, DropMalformed
	}
	icmp := datagram[in.HeaderLen:in.TotalLen]
	quote := icmp[icmpHdrLen:]
	if n := quoteLen(icmp, in.Version); n > 0 && n < len(quote) {
		quote = quote[:n]
	}
	if len(quote) == 0 || quote[0]>>4 != in.Version {
		return nil, DropMalformed
	}
	if r := parse(quote, inner, true); r != DropNone {
		return nil, r
	}
	return quote[:min(len(quote), inner.TotalLen)], DropNone
}

// quoteLen returns the length of the quote in octets as RFC 4884 §4 puts it into the
// errors that can have extensions, 0 if it is not there.
func quoteLen(icmp []byte, version uint8) int {
	if version == 4 {
		switch header.ICMPv4Type(icmp[0]) {
		case header.ICMPv4DstUnreachable, header.ICMPv4TimeExceeded, header.ICMPv4ParamProblem:
			return 4 * int(icmp[5])
		}
		return 0
	}
	switch header.ICMPv6Type(icmp[0]) {
	case header.ICMPv6DstUnreachable, header.ICMPv6TimeExceeded:
		return 8 * int(icmp[4])
	}
	return 0
}
