package conformance

// rfc4302 is IP Authentication Header (AH).
func rfc4302() document {
	return document{4302, "IP Authentication Header", []clause{
		{"2.2", "payload length in 32-bit words minus 2; IPv6 in multiples of 8 octets",
			"made so, checked on the way in; the other family's padding is accepted",
			[]string{"sa/transform.TestAHHeaderLen", "sa/transform.TestR37_AHForeignPadding", "sa/transform.TestR39_AHBadHeaders"}, ""},
		{"2.3", "the reserved field is zero when sent, part of the ICV, else ignored",
			"", []string{"sa/transform.TestR39_AHHeaderBits"}, ""},
		{"2.4", "the SPI finds the SA, 1 to 255 are reserved",
			"by SPI, destination and protocol",
			[]string{"sa.TestR31_SADIsAMap", "sa.TestR31_BadConfigurationsAreErrors"}, ""},
		{"2.5", "sequence numbers from 1, never cycling; 64 bits with ESN",
			"as with ESP", []string{"sa.TestR40_FirstNumberIsOneAndRunsFollow", "sa.TestR40_NumbersNeverWrap", "integration/peertest.TestR40_ExtendedSequenceNumbersWithLinux"}, ""},
		{"3.1.1", "transport mode: AH behind the IP header, before the upper layer or ESP",
			"", []string{"integration/peertest.TestR35_ModesWithLinux", "netstack/ipsec.TestR35_ModesAndAlgorithms"}, ""},
		{"3.1.2", "tunnel mode: the outer header is authenticated too",
			"", []string{"integration/peertest.TestR35_ModesWithLinux", "netstack/ipsec.TestR35_ModesAndAlgorithms"}, ""},
		{"3.3.3.1.1", "IPv4: mutable fields (TOS, flags, offset, TTL, checksum) are zero in the ICV; options by table",
			"", []string{"sa/transform.TestR37_AHMutableFields"}, ""},
		{"3.3.3.1.2", "IPv6: mutable fields, options by their third bit, routing header as it will arrive",
			"", []string{"sa/transform.TestR37_AHMutableFields"}, ""},
		{"3.3.3.2.2", "ESN: the high half is appended for the ICV and not sent",
			"", []string{"integration/peertest.TestR40_ExtendedSequenceNumbersWithLinux"}, ""},
		{"3.3.4", "fragment after AH, reassemble before",
			"", []string{"netstack/ipsec.TestR27_HostFragmentsAreWholeBeforePolicyAndR26_WireFragments"}, ""},
		{"3.4.2", "no SA: discard, an auditable event", "counted as `unknown_spi`",
			[]string{"netstack/ipsec.TestR31_R39_R40_WrongPackets"}, ""},
		{"3.4.3", "anti-replay, checked before and moved after the ICV", "as with ESP",
			[]string{"sa.TestR40_ReplayWindowIsTheModel", "netstack/ipsec.TestR31_R39_R40_WrongPackets"}, ""},
		{"3.4.4", "a wrong ICV is discarded", "every bit that is not mutable",
			[]string{"sa/transform.TestR39_EveryBit", "sa/transform.TestR39_AHHeaderBits"}, ""},
		{"5", "a bundle may have AH outside of ESP", "in the listed order, removed in reverse",
			[]string{"netstack/ipsec.TestR34_BundleInOrder", "integration/peertest.TestR35_ModesWithLinux"}, ""},
	}}
}
