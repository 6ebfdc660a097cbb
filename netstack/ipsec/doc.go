// Package ipsec is the network-layer protocol of the bump: registered in a
// gVisor stack for IPv4 and IPv6 in place of gVisor's own, it applies ESP (RFC
// 4303) and AH (RFC 4302) to what crosses from one NIC to the other, as RFC 4301
// §5 says. It is the original's ip, spiint and rfc1825.
//
// A datagram from the left, the host's side (outbound.go):
//
//  1. It is parsed once. Fragments are put together first, because a policy may
//     ask for ports that only the first of them has (reassembly.go).
//  2. The SPD gives the policy; no match is discard.
//  3. Bypass: the frame goes out on the right as it came, a superframe still
//     whole, with the Ethernet address of the next hop.
//  4. Protect: if a key manager has yet to make an SA, the datagram waits for it
//     (acquire.go). The policy's SAs tell the overhead (bundle.go), the route and what
//     was learned about the path tell the largest packet (pmtu.go). A superframe
//     is cut to fit; what does not fit and must not be fragmented is answered
//     with an ICMP error. Each piece is written once into a fresh buffer, sealed
//     there in place, fragmented if it must be, and all go out in one batch. Outer
//     headers are made in tunnel.go and beet.go; fragment.go cuts before or after.
//
// A datagram from the right, the side of the wire (inbound.go):
//
//  1. It is parsed, and put together if it is a fragment.
//  2. ESP and AH are found in the SAD, checked against the replay window,
//     opened in place, and only then believed; again for each SA of a bundle.
//  3. The SPD says whether what is left may pass, given the SAs that it came by.
//  4. It goes to the left as a fresh frame, or as the very frame that came if
//     nothing was removed.
//
// Every datagram that does not go on has one reason, counted for the side, the
// policy and the SA. The package knows nothing about how frames are read and
// written, and holds no keys.
package ipsec
