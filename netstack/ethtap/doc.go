// Package ethtap is the ETHTAP device: it severs a live Ethernet interface
// between the kernel and the NIC and hands both ends to a program.
//
// A Device has two taps. The kernel tap (htap) faces the kernel: it reads what
// the kernel sends, and a frame written to it arrives in the kernel as received
// on the interface. The wire tap (ltap) faces the wire: it reads what the NIC
// received, and a frame written to it leaves by the NIC. Each tap is, on its
// own, in one of three states:
//
//   - Closed: the flow is undisturbed, a read or a write is an error.
//   - Passive: the flow is undisturbed and a copy of each frame can be read; a
//     write is refused.
//   - Active: each frame can be read and does not go on. Only frames written to
//     htap reach the kernel, only frames written to ltap reach the NIC.
//
// The interface keeps its name, addresses, routes and firewall rules. The cut
// is four eBPF programs, on tcx (Linux 6.6) or on clsact below it (Linux 5.8), before those
// of others; the taps are TAP devices with virtio-net headers, so that superframes of up to
// 64 KB cross in one call with their segmentation metadata.
//
// A frame's way while both taps are Active:
//
//  1. The kernel sends on eth0. The program at eth0 egress redirects the frame
//     to htap, where Tap.Read finds it.
//  2. Tap.Write on ltap gives a frame to the program at ltap ingress, which
//     sets the instance's mark and redirects it to eth0.
//  3. The program at eth0 egress knows the mark, clears it and lets the frame
//     pass to the NIC.
//  4. From the wire to the kernel it is the same with the taps exchanged.
//
// In the two-NIC form (Options.Inside) a second NIC stands in the kernel's place: the
// device is a bump between the two, and the kernel of the box has no part in either.
// Closed then means that the programs pass each frame from the one NIC to the other.
//
// What happens when the process ends without Close is the Options' OnFailure:
// FailShut leaves the cut in place (nothing passes until the next Open takes it over
// or Recover removes it), FailOpen restores the flow.
//
// The cut is the interface's, whatever its name becomes. When it is deleted and
// another is created in its place, Follow cuts that one with the same taps, as
// FollowInside does for the inside NIC. Until then, under FailShut and also when the
// process has ended, an nftables table keeps it shut (see GuardKind). KeepShut makes
// one for an interface that is yet to be cut, as at boot: pins and tables do not outlive that.
//
// A Handover brings a cut from a living process to another without either.
//
// Limits: packet sockets on the interface (tcpdump, DHCP clients) see wire
// frames before the cut; senders with PACKET_QDISC_BYPASS or AF_XDP get past it, unless
// Options.ForbidBypass keeps them from it; so do XDP programs that send (XDP_TX,
// XDP_REDIRECT) and the kernel's own netconsole and pktgen.
//
// The package knows nothing of IP, IPsec or policies, and imports nothing else
// of this module.
package ethtap
