package conformance

// rfc6040 is Tunnelling of Explicit Congestion Notification.
func rfc6040() document {
	return document{6040, "Tunnelling of Explicit Congestion Notification", []clause{
		{"4.1", "encapsulation, normal mode: the outer ECN field is the inner one",
			"the default", []string{"netstack/wire.TestR30_EncapECN"}, ""},
		{"4.1", "encapsulation, compatibility mode: the outer field is Not-ECT",
			"for peers that do not decapsulate by this RFC", []string{"netstack/wire.TestR30_EncapECN"}, ""},
		{"4.2", "decapsulation: the sixteen cases of Figure 4",
			"CE outside on a Not-ECT packet is dropped and counted as `ecn`", []string{"netstack/wire.TestR30_DecapECN"}, ""},
		{"4.2", "the combinations that no honest network makes may raise an alarm",
			"", nil, "the packet follows the table; there is no counter of its own for the combination"},
		{"4.3", "modes by configuration, the same both ways", "", nil, "to be filled"},
		{"5.1", "RFC 4301's two settings are replaced by one behaviour", "one function for all tunnels",
			[]string{"netstack/wire.TestR30_EncapECN", "netstack/wire.TestR30_DecapECN"}, ""},
	}}
}
