// Package link holds the ends of the bump's links as gVisor link endpoints: the
// two that carry frames between a TAP or packet socket and the bump's stack, a
// link in memory, and the end of such a link at an ordinary netstack host.
//
// A frame's way in:
//
//  1. Device.ReadFrames fills the reader's own buffers, a batch a call.
//  2. Each frame is copied, once, into one pooled view of its size.
//  3. The packet goes up with its virtio-net and Ethernet headers consumed, its
//     EtherType as protocol number and the IP datagram as data.
//
// And out: the packets of a list become frames, without a copy where a packet is
// one contiguous view as it came, and go to Device.WriteFrames in one call.
//
// Segmentation and checksum metadata stay in the virtio-net header in both
// directions; only HostEndpoint translates them, because a host's stack speaks
// stack.GSO.
//
// The package knows nothing of ARP, IP, IPsec or policy: it moves whole frames,
// counts what it cannot move, and never waits for a slow receiver.
package link
