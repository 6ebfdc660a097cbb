package wire

// IPv4 option types of source routes (RFC 791 §3.1).
const (
	optionLSRR = 131
	optionSSRR = 137
)

// Forbidden says why a datagram that an SA brought must not be passed on, or DropNone.
// DropMartian is a source that cannot be one station's (RFC 1812 §5.3.7, RFC 4291 §2.5.2,
// §2.7), DropSourceRoute a route in the datagram that is not at its end (RFC 7126 §4.3,
// §4.4; type 0 of RFC 5095): whoever is inside the tunnel would choose where it goes from
// here, past the policy that was asked about its destination. in is Parse's result for b.
func Forbidden(b []byte, in *Info) DropReason {
	if !isStation(in.Src) {
		return DropMartian
	}
	if in.Version == 4 {
		return sourceRoute(b[ipv4MinLen:in.HeaderLen])
	}
	for at, proto := ipv6Len, b[ipv6ProtoAt]; at < in.HeaderLen; {
		h := b[at:in.HeaderLen]
		if proto == ProtoRouting && h[2] == 0 && h[3] != 0 {
			return DropSourceRoute
		}
		proto, at = h[0], at+extensionLen(proto, h)
	}
	return DropNone
}

// sourceRoute looks for a route with addresses left among IPv4 options.
func sourceRoute(o []byte) DropReason {
	for len(o) > 0 && o[0] != optionEnd {
		if o[0] == optionNop {
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return DropMalformed
		}
		if o[0] == optionLSRR || o[0] == optionSSRR {
			// The pointer counts from 1, and is behind the option when the route is at its end.
			if o[1] < 3 || o[2] <= o[1] {
				return DropSourceRoute
			}
		}
		o = o[o[1]:]
	}
	return DropNone
}
