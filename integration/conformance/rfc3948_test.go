package conformance

// rfc3948 is UDP Encapsulation of IPsec ESP Packets.
func rfc3948() document {
	return document{3948, "UDP Encapsulation of IPsec ESP Packets", []clause{
		{"2.1", "UDP header in front of ESP, checksum zero, any checksum accepted; SPI not zero", "", nil, "to be filled"},
		{"2.2", "non-ESP marker of four zero octets in front of IKE", "", nil, "to be filled"},
		{"2.3", "NAT-keepalive: one octet 0xFF, ignored by the receiver", "", nil, "to be filled"},
		{"3.1.1", "tunnel mode behind NAT: inner address checks", "", nil, "to be filled"},
		{"3.1.2", "transport mode behind NAT: the upper checksum is repaired", "", nil, "to be filled"},
		{"3.2", "transport encapsulation", "", nil, "to be filled"},
		{"3.3", "transport decapsulation", "", nil, "to be filled"},
		{"3.4", "tunnel encapsulation", "", nil, "to be filled"},
		{"3.5", "tunnel decapsulation", "", nil, "to be filled"},
		{"4", "keepalives are sent when nothing else was", "", nil, "to be filled"},
		{"5.1", "tunnel mode: overlapping inner addresses", "", nil, "to be filled"},
		{"5.2", "transport mode: several hosts behind one NAT", "", nil, "to be filled"},
		{"6", "IAB: ports may float; the peer's address follows authenticated packets alone", "", nil, "to be filled"},
	}}
}
