// Package hook holds what hangs on the NICs of the bump and is not IPsec.
//
// Endpoints that wrap a link (gVisor's link/nested), each of which sees the frames
// of both directions before the stack or the link does:
//
//   - Watch tells observers what crosses, of which Capture copies frames to a file.
//   - Class decides what no policy decides: all but IP, and IP that is not unicast.
//   - ProxyARP, on the left, answers the kernel's ARP and neighbour solicitations
//     for every address but its own (RFC 826, RFC 5227, RFC 4861, RFC 4862).
//   - Neighbor, on the right, hands claims of the host's own addresses to the host.
//
// Beside them Resolver, which keeps the Ethernet addresses of next hops for the
// packet path, HandleND and SendNS, which are IPv6 neighbour discovery for a network
// endpoint (RFC 4861 §7), and the forwarders for TCP, UDP, ICMP and the rest.
//
// Every packet is as the bump's links deliver it: one contiguous view of virtio-net
// header, Ethernet header and datagram, both headers consumed. The package knows no
// SA and no policy, and what it drops it counts by wire.DropReason.
package hook
