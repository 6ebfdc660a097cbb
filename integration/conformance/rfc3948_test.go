package conformance

// rfc3948 is UDP Encapsulation of IPsec ESP Packets.
func rfc3948() document {
	const (
		linux = "integration/peertest.TestR42_RFC4303_2_7_ESPInUDPAndPaddingWithLinux"
		scapy = "integration/peertest.TestR42_RFC3948_2_1_ESPInUDPWithScapy"
	)
	return document{3948, "UDP Encapsulation of IPsec ESP Packets", []clause{
		{"2", "the two ends agree on UDP encapsulation; an SA has it or has it not", "`encap:` of an SA; what comes otherwise is dropped as `encap_mismatch`",
			[]string{"netstack/ipsec.TestRFC3948_EncapsulationIsPartOfTheSA"}, ""},
		{"2.1", "a UDP header in front of ESP; source and destination port are those of IKE", "4500, or any two ports that `encap:` names",
			[]string{"netstack/ipsec.TestRFC3948_2_1_ESPInUDP", linux, scapy}, ""},
		{"2.1", "the UDP checksum should be sent as zero", "over IPv4; over IPv6, which drops those, it is filled; `checksum:` says otherwise",
			[]string{"netstack/ipsec.TestRFC3948_2_1_ChecksumFilledWhereWanted"}, ""},
		{"2.1", "receivers must not depend on the checksum being zero", "it is not looked at: the ICV covers more",
			[]string{"netstack/ipsec.TestRFC3948_2_1_ChecksumFilledWhereWanted"}, ""},
		{"2.1", "the SPI is not zero", "an SA with such an SPI is a configuration error",
			[]string{"sa.TestR31_BadConfigurationsAreErrors", "netstack/wire.TestRFC3948_2_EncapPayload"}, ""},
		{"2.2", "IKE on the same port has a non-ESP marker of four zero octets", "it goes to the host as it came, if a policy bypasses it",
			[]string{"netstack/ipsec.TestRFC3948_2_2_IKEGoesToTheHost", "netstack/wire.TestRFC3948_2_EncapPayload"}, ""},
		{"2.3", "a NAT keepalive is one octet 0xFF, and the receiver ignores it", "dropped before policy, counted as `nat_keepalive`; it moves no peer",
			[]string{"netstack/ipsec.TestRFC3948_2_3_KeepalivesAreDroppedQuietly", "netstack/ipsec.TestR42_NothingElseMovesThePeer"}, ""},
		{"3.1.1", "tunnel mode behind a NAT: the inner source address fits the policy", "the selectors of the SA, as for every tunnel",
			[]string{"netstack/ipsec.TestR33_SelectorsOfTheSA"}, ""},
		{"3.1.1", "an inner address may be assigned or translated on receipt", "", nil,
			"bitw translates no inner addresses: the peer's tunnel has the address that the policy names"},
		{"3.1.2", "transport mode behind a NAT: the TCP and UDP checksums are repaired", "by the original addresses where they are configured, else made anew where wrong; zero stays zero",
			[]string{"netstack/ipsec.TestRFC3948_3_1_2_ChecksumRepair", "netstack/wire.TestRFC3948_3_1_2_MoveAndRenewChecksum", "netstack/wire.FuzzL4Checksums", "integration.TestR42_PeerBehindNAT"}, ""},
		{"3.2", "transport mode, sending: ESP first, then the UDP header; lengths and checksum made right", "",
			[]string{"netstack/ipsec.TestRFC3948_2_1_ESPInUDP", linux, scapy}, ""},
		{"3.3", "transport mode, receiving: the UDP header off, ESP as usual", "in place, with the port checked against the SA",
			[]string{"netstack/ipsec.TestRFC3948_2_1_ESPInUDP", "netstack/ipsec.TestRFC3948_EncapsulationIsPartOfTheSA", linux}, ""},
		{"3.3", "transport mode over IPv6, with extension headers in front of the UDP header", "", nil,
			"not shown with another implementation: Linux 6.1 drops such datagrams (XfrmInTmplMismatch), and the cause is not found"},
		{"3.4", "tunnel mode, sending", "either family in either", []string{"netstack/ipsec.TestRFC3948_2_1_ESPInUDP", linux, scapy}, ""},
		{"3.5", "tunnel mode, receiving", "", []string{"netstack/ipsec.TestRFC3948_2_1_ESPInUDP", linux, scapy}, ""},
		{"3", "8 octets more of overhead", "in every path MTU, of superframes too", []string{"netstack/ipsec.TestRFC3948_OverheadInMTU"}, ""},
		{"4", "keepalives are sent when nothing else was, every 20 s by default, and only if there is a NAT", "by an outbound SA with `keepalive:`, 20 s unless it says otherwise or 0s",
			[]string{"netstack/ipsec.TestRFC3948_4_KeepalivesAreSentInSilence"}, ""},
		{"5.1", "tunnel mode: two peers with one inner address must not be mistaken for one another", "a packet must come by the very SA of the policy that its inner addresses fit; two policies with the same addresses decide by order",
			[]string{"netstack/ipsec.TestR33_SelectorsOfTheSA", "sa.TestR33R34_CheckInbound"}, ""},
		{"5.2", "transport mode: several hosts behind one NAT must not be mistaken for one another", "each is known to host and policies by the addresses of its SA, never by those that the NAT shows",
			[]string{"netstack/ipsec.TestR42_PeerFollowsAuthenticatedPackets", "netstack/ipsec.TestRFC3948_3_1_2_ChecksumRepair"}, ""},
		{"5.2", "hosts behind one NAT with one set of selectors", "", nil,
			"two SAs to one address need policies that tell them apart by ports or protocol; two hosts behind one NAT that want the same ports cannot both be served, as the RFC says"},
		{"6", "a NAT may change its mapping: the peer is followed", "by authentic packets that fit the policy and are newer than all before, and by nothing else; RFC 7296 §2.23 asks for that",
			[]string{"netstack/ipsec.TestR42_PeerFollowsAuthenticatedPackets", "netstack/ipsec.TestR42_NothingElseMovesThePeer", "netstack/ipsec.TestR42_MoveOutlivesRollover", "sa.TestR42_FollowForwardOnly", "integration.TestR42_PeerBehindNAT"}, ""},
		{"6", "path MTU messages about a mapping", "matched by UDP ports, SPI and sequence number",
			[]string{"netstack/ipsec.TestR42_PathMTUOfAMovedPeer"}, ""},
	}}
}
