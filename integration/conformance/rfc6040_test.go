package conformance

// rfc6040 is Tunnelling of Explicit Congestion Notification.
func rfc6040() document {
	tables := "netstack/ipsec.TestRFC4301_5_1_2_OuterHeaderTables"
	return document{6040, "Tunnelling of Explicit Congestion Notification", []clause{
		{"4.1", "encapsulation, normal mode: the outer ECN field is the inner one",
			"the default", []string{"netstack/wire.TestR30_EncapECN", "sa.TestRFC6040_4_1_EncapsulationModes", tables}, ""},
		{"4.1", "encapsulation, compatibility mode: the outer field is Not-ECT",
			"`copy_ecn: no`, for peers that do not decapsulate by this RFC", []string{"sa.TestRFC6040_4_1_EncapsulationModes", tables}, ""},
		{"4.2", "decapsulation: the sixteen cases of Figure 4",
			"", []string{"netstack/wire.TestR30_DecapECN"}, ""},
		{"4.2", "CE outside of Not-ECT is dropped", "counted as `ecn`",
			[]string{"netstack/wire.TestR30_DecapECN", "sa.TestRFC6040_4_1_EncapsulationModes"}, ""},
		{"4.2", "the combinations that no honest network makes should be logged, and may raise an alarm",
			"", nil, "the packet follows the table; only the combination that is dropped has a counter"},
		{"4.3", "normal mode must be there and be the default; compatibility mode by configuration", "`copy_ecn:` of an SA",
			[]string{"config.TestRFC4301_5_1_2_HeaderKeys", tables}, ""},
		{"4.3", "the mode may be negotiated, or found out from the peer", "", nil,
			"nothing in ESP or IKEv2 tells it; IKEv2 peers are presumed to follow RFC 4301, as the RFC allows"},
		{"4.4", "one behaviour on decapsulation, whatever the peer's mode", "but for `copy_ecn: no`, where what arrives outside is ignored, since the path then has nothing to tell",
			[]string{"sa.TestRFC6040_4_1_EncapsulationModes", tables}, ""},
		{"5.1", "RFC 4301's two settings are replaced by one behaviour", "one function for all tunnels, BEET mode's header among them",
			[]string{"netstack/wire.TestR30_EncapECN", "netstack/wire.TestR30_DecapECN", "netstack/ipsec.TestR35_BEETModeCarriesTheDatagramUnchanged"}, ""},
	}}
}
