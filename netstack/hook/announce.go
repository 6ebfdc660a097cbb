package hook

import (
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// allNodes is the group of all nodes on a link (RFC 4291 §2.7.1).
var allNodes = netip.MustParseAddr("ff02::1")

// Announce tells all stations on a link that a is at mac, so that those who have it
// otherwise change their mind, and those who do not know it are not bothered: by an ARP
// announcement (RFC 5227 §3) or an unsolicited neighbour advertisement (RFC 4861 §7.2.6).
// The frame comes from mac, by which switches learn where that is.
func Announce(to stack.LinkWriter, a netip.Addr, mac tcpip.LinkAddress) {
	var pkt *stack.PacketBuffer
	if a.Is4() {
		p := arpPacket{sender: a, target: a, senderMAC: mac}
		pkt = p.frame(header.EthernetBroadcastAddress)
	} else {
		// Of a router's flag nothing is known; without it hosts would drop their routes by
		// it, and with it nobody becomes a router who has not said so himself.
		m := ndMessage{typ: icmpNA, flags: naOverride | naRouter, src: a, dst: allNodes, target: a, link: mac}
		pkt = m.frame(multicastMAC(allNodes), mac)
	}
	defer pkt.DecRef()
	writeOne(to, pkt)
}
