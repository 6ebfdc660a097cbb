// Package xfrmpeer runs a real Linux kernel with its own ESP and AH as a peer
// for tests, on machines whose own kernel lacks them: User-Mode Linux, which is
// a Linux kernel that runs as an ordinary process. Its network cards are TAP
// devices in a namespace of a netlab.Lab.
//
//	lab := netlab.New(t)
//	pair := lab.Pair(netlab.PairOptions{})
//	peer := xfrmpeer.OnWire(t, pair.Wire, "peer")
//	out, err := peer.Sh(ctx, "ip addr add 192.0.2.3/24 dev eth0; ping -c1 192.0.2.1")
//
// The guest's kernel and programs are Debian's, fetched once by Setup: bash,
// BusyBox, ip, ping, iperf3, socat and tcpdump. It has a read-only root, with
// /tmp, /run, /root and /etc to write to, and the folder Share as /share. All of
// that but the share is gone after Stop.
//
// # What the peer's kernel wants to be told
//
// State and Policy take care of these:
//   - AH over IPv4 with an ICV of more than 96 bits: Linux pads its header to a
//     multiple of 8 octets, and drops one that is padded to 4 as RFC 4302,
//     section 3.3.3.2.1 has it for IPv4, unless the state has the flag align4.
//   - IPv4 in an IPv6 tunnel, or the reverse: the state has the flag af-unspec.
//   - HMAC-SHA-256 defaults to 96 bits; the length of RFC 4868 is told
//     with auth-trunc.
//   - A transport mode policy for all traffic of two IPv6 addresses also takes
//     their neighbour discovery, which then waits for itself: ICMPv6 135 and 136
//     are exempt by a policy of their own.
//
// The kernel (6.1) has no XFRM interfaces, no ESP in TCP and no IP-TFS.
package xfrmpeer
