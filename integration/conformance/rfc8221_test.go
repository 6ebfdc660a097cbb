package conformance

// rfc8221 is Cryptographic Algorithm Implementation Requirements and Usage Guidance
// for ESP and AH, with RFC 8750 for the implicit IV.
func rfc8221() document {
	with := func(more ...string) []string {
		return append([]string{"sa/transform.TestR37_Algorithms", "sa/transform.TestR37_RoundTrip"}, more...)
	}
	const (
		linux      = "integration/peertest.TestR37_AlgorithmsWithLinux"
		rarer      = "integration/peertest.TestR37_RarerAlgorithmsWithLinux"
		scapy      = "sa/transform.TestR37_R38_Scapy"
		wycheproof = "sa/transform/wycheproof."
		loud       = "appliance.TestR38_AllowedIsLoud"
		refused    = "appliance.TestR38_LoadRefusesEach"
	)
	return document{8221, "Cryptographic Algorithms for ESP and AH", []clause{
		{"3", "manual keys must not be used with AES-GCM, AES-CCM, AES-CTR and ChaCha20-Poly1305 unless numbers never repeat",
			"a key set by hand has its numbers reserved ahead on disk, or is refused",
			[]string{"sa.TestR40_CounterModeNeedsAStore", "sa.TestR40_CrashNeverRepeatsANumber", "sa/keyer.TestR40_ACounterModeKeySendsForOneSAOnly"}, ""},
		{"3", "3DES, with blocks of 64 bits, only for little data", "refused unless allowed by name, and then loud; a limit is `lifetime:`'s",
			[]string{refused, loud}, ""},
		{"4", "encryption without authentication must not be used",
			"no such algorithm can be named", []string{"sa/transform.TestR37_NoNullWithNull", "sa/transform.TestLookupUnknown"}, ""},
		{"4", "AH for integrity is no better than ESP with NULL", "both are there; ESP NULL warns, since it hides nothing",
			[]string{"sa/transform.TestR37_Algorithms", "integration/peertest.TestR35_ModesWithLinux"}, ""},
		{"5", "ENCR_NULL: MUST, with integrity", "",
			with("sa/transform.FuzzOpenNull", linux), ""},
		{"5", "ENCR_AES_CBC: MUST", "128, 192 and 256 bits, with every HMAC, XCBC and CMAC",
			with("sa/transform.TestR37_CBCVectors", wycheproof+"TestR37_WycheproofCBC", linux), ""},
		{"5", "ENCR_AES_CCM_8: SHOULD", "8, 12, 16 octets of ICV",
			with("sa/transform/internal/primitive.TestCCMReference", wycheproof+"TestR37_WycheproofCCM", rarer, scapy), ""},
		{"5", "ENCR_AES_GCM_16: MUST", "128, 192, 256 bits; 8 and 12 octets of ICV too",
			with("sa/transform.TestR37_GCMVectors", wycheproof+"TestR37_WycheproofGCM", linux), ""},
		{"5", "ENCR_CHACHA20_POLY1305: SHOULD", "",
			with("sa/transform.TestR37_ChaChaVector", wycheproof+"TestR37_WycheproofChaCha", linux), ""},
		{"5", "ENCR_AES_CTR", "not named by the RFC as a must; RFC 3686, always with integrity",
			with("sa/transform.TestR37_CTRVectors", rarer), ""},
		{"5", "ENCR_3DES: SHOULD NOT", "there for peers that have nothing else; refused unless `allow_insecure:` names it",
			[]string{refused, loud, "sa/transform.TestR38_InsecurePartsOfNames", "sa/transform/internal/primitive.TestR38_TripleDES"}, ""},
		{"5", "ENCR_DES, ENCR_DES_IV64, ENCR_DES_IV32: MUST NOT", "RFC 1829's two and today's form are there for the original's peers alone: refused unless `allow_insecure:` names them, and then in log and status",
			[]string{refused, loud, "appliance.TestR38_NewRefusesWhatIsNotAllowed", "sa/transform/legacy.TestR38_ESPVectors"}, ""},
		{"5", "ENCR_BLOWFISH: MUST NOT", "it does not exist", []string{"sa/transform.TestLookupUnknown", "sa/transform.TestR37_Algorithms"}, ""},
		{"6", "AUTH_NONE: MUST with combined modes, else MUST NOT", "cannot be named",
			[]string{"sa/transform.TestR37_NoNullWithNull"}, ""},
		{"6", "AUTH_HMAC_MD5_96, AUTH_KPDK_MD5: MUST NOT", "as ENCR_DES",
			[]string{refused, loud, "sa/transform.TestR38_InsecurePartsOfNames", "sa/transform/legacy.TestRFC1828_3_Vectors"}, ""},
		{"6", "AUTH_DES_MAC: MUST NOT", "it does not exist", []string{"sa/transform.TestLookupUnknown", "sa/transform.TestR37_Algorithms"}, ""},
		{"6", "AUTH_HMAC_SHA1_96: MUST-", "warns",
			with("sa/transform/internal/primitive.TestMACVectors", linux), ""},
		{"6", "AUTH_AES_XCBC_96: SHOULD", "for the Internet of Things; warns", with("sa/transform/internal/primitive.TestBlockMACVectors", rarer), ""},
		{"6", "AUTH_AES_128_GMAC, AUTH_AES_256_GMAC: MAY", "192 bits too; in ESP and in AH",
			with("sa/transform.TestR37_GMACVector", "sa/transform.TestR37_GMACLayout", wycheproof+"TestR37_WycheproofGMAC", rarer), ""},
		{"6", "AUTH_HMAC_SHA2_256_128: MUST", "",
			with("sa/transform/internal/primitive.TestMACVectors", wycheproof+"TestR37_WycheproofHMAC", linux), ""},
		{"6", "AUTH_HMAC_SHA2_512_256: SHOULD", "SHA-384 too",
			with("sa/transform/internal/primitive.TestMACVectors", wycheproof+"TestR37_WycheproofHMAC", linux), ""},
		{"6", "AUTH_AES_CMAC_96", "not spoken of by the RFC; RFC 4494", with("sa/transform/internal/primitive.TestBlockMACVectors", wycheproof+"TestR37_WycheproofCMAC", rarer), ""},
		{"7", "compression (IPComp)", "", nil, "RFC 8221 asks for none, and what is compressed before it is encrypted tells of itself by its length"},
		{"8750 §2, §4", "implicit IV: AES-CCM, AES-GCM and ChaCha20-Poly1305 with the sequence number for a nonce", "the low half without ESN",
			with("sa/transform.TestR37_ImplicitIV", "sa/transform.FuzzOpenIIV"), ""},
		{"8750 §6", "never with several senders on one SA, nor with numbers that do not rise", "an SA has one sender; an inbound one may switch its window off, and is none the worse",
			[]string{"sa.TestR40_OneUserForAKey", "sa.TestR40_NoNumberTwiceAmongWorkers"}, ""},
	}}
}
