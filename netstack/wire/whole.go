package wire

import "gvisor.dev/gvisor/pkg/tcpip/header"

// FragmentPayload returns what the fragment carries of its datagram: what stands
// behind the IPv4 header, or behind the IPv6 fragment header. It shares memory with
// the datagram. in is Parse's result for it. A datagram without fragment header
// has all behind the IP header for its payload.
func FragmentPayload(datagram []byte, in *Info) []byte {
	at := in.HeaderLen
	if in.Version == 6 {
		at = ipv6Len
		if in.FragHeaderAt != 0 {
			at = in.FragHeaderAt + fragHdrLen
		}
	}
	return datagram[at:in.TotalLen]
}

// WholeFromFirst writes to dst the header of the datagram that was reassembled from
// fragments, and returns its length: the payload of all fragments, payloadLen octets
// of FragmentPayload, goes behind it. first is the fragment with offset 0, and in
// Parse's result for it. dst must have room for in.HeaderLen octets; it may start
// where first starts.
//
// In IPv4 (RFC 791 §3.2) all flags and the offset become 0. In IPv6 (RFC 8200 §4.5)
// the fragment header is taken out of the chain.
//
// It returns DropMalformed if first is not a first fragment, or if the datagram would
// be longer than its length field can say.
func WholeFromFirst(first []byte, in *Info, payloadLen int, dst []byte) (headerLen int, reason DropReason) {
	if in.FragOffset != 0 || payloadLen < 0 {
		return 0, DropMalformed
	}
	if in.Version == 4 {
		total := in.HeaderLen + payloadLen
		if total > maxDatagram {
			return 0, DropMalformed
		}
		copy(dst[:in.HeaderLen], first)
		header.IPv4(dst).SetFlagsFragmentOffset(0, 0)
		SetIPv4TotalLen(dst, total)
		return in.HeaderLen, DropNone
	}
	n := in.FragHeaderAt
	if n == 0 || n-ipv6Len+payloadLen > maxDatagram {
		return 0, DropMalformed
	}
	named, next := protoAt(first, n), first[n]
	copy(dst[:n], first)
	dst[named] = next
	SetIPv6PayloadLen(dst, n-ipv6Len+payloadLen)
	return n, DropNone
}
