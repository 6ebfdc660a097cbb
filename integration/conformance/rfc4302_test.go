package conformance

// rfc4302 is IP Authentication Header (AH).
func rfc4302() document {
	const (
		modes   = "netstack/ipsec.TestR35_ModesAndAlgorithms"
		linux   = "integration/peertest.TestR35_ModesWithLinux"
		fields  = "sa/transform.TestR37_AHMutableFields"
		each    = "netstack/ipsec.TestR39_AdversaryChangesEachField"
		wrong   = "netstack/ipsec.TestR31_R39_R40_WrongPackets"
		further = "netstack/ipsec.TestRFC4303_3_1_1_RFC4302_3_1_1_ExtensionHeaders"
	)
	return document{4302, "IP Authentication Header", []clause{
		{"2.1", "the next header field names what follows", "what it names must fit the SA's mode, else `bad_next_header`",
			[]string{"netstack/ipsec.TestRFC4303_2_6_NextHeaderByMode", each}, ""},
		{"2.2", "payload length in 32-bit words minus 2; IPv6 in multiples of 8 octets",
			"made so, checked on the way in; the other family's padding is accepted",
			[]string{"sa/transform.TestAHHeaderLen", "sa/transform.TestR37_AHForeignPadding", "sa/transform.TestR39_AHBadHeaders"}, ""},
		{"2.3", "the reserved field is zero when sent, part of the ICV, else ignored",
			"", []string{"sa/transform.TestR39_AHHeaderBits", each}, ""},
		{"2.4", "the SPI finds the SA, 1 to 255 are reserved, 0 is never sent",
			"by SPI, destination and protocol",
			[]string{"sa.TestR31_SADIsAMap", "sa.TestR31_BadConfigurationsAreErrors"}, ""},
		{"2.4", "multicast SAs, found by source too", "", nil, "keys for groups are no part of bitw"},
		{"2.5", "sequence numbers are always sent, from 1, never cycling",
			"as with ESP", []string{"sa.TestR40_FirstNumberIsOneAndRunsFollow", "sa.TestR40_NumbersNeverWrap"}, ""},
		{"2.5.1", "extended sequence numbers of 64 bits", "per SA",
			[]string{"sa.TestR40_ESNOverTheBoundary", "integration/peertest.TestR40_ExtendedSequenceNumbersWithLinux"}, ""},
		{"2.6", "the ICV's length is the algorithm's, in multiples of 32 bits", "truncated as each algorithm's RFC says",
			[]string{"sa/transform.TestR37_Algorithms", "sa/transform.TestAHHeaderLen"}, ""},
		{"3.1.1", "transport mode: AH behind the IP header and its options, before the upper layer or ESP",
			"", []string{linux, modes, "netstack/ipsec.TestRFC4302_A1_IPv4Options"}, ""},
		{"3.1.1", "IPv6: behind hop-by-hop, routing and fragment headers; destination options on either side stay where they are", "",
			[]string{further}, ""},
		{"3.1.2", "tunnel mode: the outer header is authenticated too",
			"either family in either", []string{linux, modes, each}, ""},
		{"3.2", "algorithms by the SA", "HMAC-SHA-1/256/384/512, AES-XCBC, AES-CMAC, AES-GMAC",
			[]string{"sa/transform.TestR37_Algorithms", "integration/peertest.TestR37_RarerAlgorithmsWithLinux"}, ""},
		{"3.3.1", "sending: AH is applied only for a policy that names the SA", "", []string{modes}, ""},
		{"3.3.2", "the counter starts at 0, and the first packet has 1; no wrap while anti-replay is on", "never, whatever the receiver does",
			[]string{"sa.TestR40_FirstNumberIsOneAndRunsFollow", "sa.TestR40_NumbersNeverWrap"}, ""},
		{"3.3.3.1.1.1", "IPv4: TOS, flags, offset, TTL and checksum are zero in the ICV, all else is covered", "",
			[]string{fields, each}, ""},
		{"3.3.3.1.1.2", "IPv4 options: whole ones are covered or zeroed, by Appendix A1", "unknown ones count as mutable",
			[]string{fields, "netstack/ipsec.TestRFC4302_A1_IPv4Options"}, ""},
		{"3.3.3.1.2.1", "IPv6: class, flow label and hop limit are zero in the ICV", "", []string{fields, each}, ""},
		{"3.3.3.1.2.2", "IPv6 options: the third bit of the type says whether the data may change", "",
			[]string{fields, further}, ""},
		{"3.3.3.1.2.2", "a routing header is covered as it will arrive", "",
			[]string{fields, further}, ""},
		{"3.3.3.1.2.3", "other extension headers are covered as they are; AH is not put behind one it cannot follow", "dropped as `extension_header`",
			[]string{"netstack/wire.TestParseIPv6Chains", "sa/transform.FuzzOpenAH"}, ""},
		{"3.3.3.2.1", "ICV padding is sent, of any content, and covered", "zeros", []string{"sa/transform.TestAHHeaderLen", "sa/transform.TestR39_EveryBit"}, ""},
		{"3.3.3.2.2", "ESN: the high half is appended for the ICV and not sent",
			"", []string{"sa/transform.TestR39_OtherSequence", "integration/peertest.TestR40_ExtendedSequenceNumbersWithLinux"}, ""},
		{"3.3.4", "fragment after AH; transport mode for whole datagrams only",
			"what the host fragmented is made whole before", []string{"netstack/ipsec.TestR27_HostFragmentsAreWholeBeforePolicyAndR26_WireFragments", "integration/peertest.TestR35_ModesWithLinux"}, ""},
		{"3.4.1", "reassemble before AH; a fragment handed to AH is discarded", "in any order; memory capped",
			[]string{"netstack/ipsec.TestR27_AdversaryRefragments", "netstack/ipsec.TestR27_AMillionFirstFragmentsStayUnderTheCap"}, ""},
		{"3.4.2", "no SA: discard, an auditable event", "counted as `unknown_spi`",
			[]string{wrong, each}, ""},
		{"3.4.3", "anti-replay, a window of 32 at least, checked before and moved after the ICV", "32 to 65,536",
			[]string{"sa.TestR40_ReplayWindowIsTheModel", "netstack/ipsec.TestR40_AdversaryReordersAndRepeats", wrong}, ""},
		{"3.4.4", "a wrong ICV is discarded, an auditable event", "every bit that is not mutable; counted as `icv`",
			[]string{"sa/transform.TestR39_EveryBit", "sa/transform.TestR39_AHHeaderBits", each}, ""},
		{"4", "auditing", "counters per reason, policy and SA", []string{wrong, "integration.TestR31_R33_R39_R40_ForgedPacketsAreCountedAndDropped"}, ""},
		{"5", "all of the RFC, for unicast; the algorithms of RFC 8221", "see there", []string{modes, "sa/transform.TestR37_Algorithms"}, ""},
		{"A1", "the table of IPv4 options", "with Linux: record route and router alert", []string{fields, "netstack/ipsec.TestRFC4302_A1_IPv4Options", linux}, ""},
		{"A2", "the table of IPv6 extension headers", "with Linux: hop-by-hop and destination options", []string{fields, further, linux}, ""},
		{"B2.1, B2.2", "the high half of the sequence number is inferred", "as with ESP", []string{"sa.TestR40_ESNOverTheBoundary", "sa.TestR40_ReplayWindowIsTheModel"}, ""},
		{"B3", "resynchronise after more than 2^32 lost packets", "", nil, "as with ESP: such a gap is ended by a new SA"},
		{"RFC 4301 §4.3", "a bundle may have AH outside of ESP, and inside", "in the listed order, removed in reverse",
			[]string{"netstack/ipsec.TestR34_RFC4301_4_3_Bundles", linux}, ""},
	}}
}
