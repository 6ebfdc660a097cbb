package conformance

// rfc8221 is Cryptographic Algorithm Implementation Requirements and Usage Guidance
// for ESP and AH, with RFC 8750 for the implicit IV.
func rfc8221() document {
	with := func(more ...string) []string {
		return append([]string{"sa/transform.TestR37_Algorithms", "sa/transform.TestR37_RoundTrip"}, more...)
	}
	return document{8221, "Cryptographic Algorithms for ESP and AH", []clause{
		{"3", "counter-mode algorithms only with keys that are never used twice",
			"a key set by hand has its numbers reserved ahead on disk, or is refused",
			[]string{"sa.TestR40_CounterModeNeedsAStore", "sa.TestR40_CrashNeverRepeatsANumber"}, ""},
		{"4", "encryption without authentication is not done",
			"no such algorithm can be named", []string{"sa/transform.TestR37_NoNullWithNull", "sa/transform.TestLookupUnknown"}, ""},
		{"5", "ENCR_AES_GCM_16: MUST", "128, 192, 256 bits; 8 and 12 octets of ICV too",
			with("sa/transform.TestR37_GCMVectors", "integration/peertest.TestR37_AlgorithmsWithLinux"), ""},
		{"5", "ENCR_AES_CBC: MUST", "with every HMAC, XCBC and CMAC",
			with("sa/transform.TestR37_CBCVectors", "integration/peertest.TestR37_AlgorithmsWithLinux"), ""},
		{"5", "ENCR_NULL: MUST, with integrity", "warns at start",
			with("sa/transform.FuzzOpenNull"), ""},
		{"5", "ENCR_CHACHA20_POLY1305: SHOULD", "",
			with("sa/transform.TestR37_ChaChaVector", "integration/peertest.TestR37_AlgorithmsWithLinux"), ""},
		{"5", "ENCR_AES_CCM_8: SHOULD", "8, 12, 16 octets of ICV",
			with("integration/peertest.TestR37_RarerAlgorithmsWithLinux", "integration/peertest.TestR37_Scapy"), ""},
		{"5", "ENCR_3DES: SHOULD NOT; ENCR_DES, ENCR_BLOWFISH, ENCR_DES_IV64, ENCR_DES_IV32: MUST NOT", "", nil, "to be filled"},
		{"6", "AUTH_HMAC_SHA2_256_128: MUST; AUTH_HMAC_SHA2_512_256: SHOULD", "SHA-384 too",
			with("sa/transform.TestR37_CBCVectors", "integration/peertest.TestR37_AlgorithmsWithLinux"), ""},
		{"6", "AUTH_HMAC_SHA1_96: MUST- ", "warns at start",
			with("integration/peertest.TestR37_AlgorithmsWithLinux"), ""},
		{"6", "AUTH_AES_XCBC_96: SHOULD", "", with("integration/peertest.TestR37_RarerAlgorithmsWithLinux"), ""},
		{"6", "AUTH_AES_128_GMAC, 192, 256: MAY", "in ESP and in AH",
			with("sa/transform.TestR37_GMACVector", "sa/transform.TestR37_GMACLayout", "integration/peertest.TestR37_RarerAlgorithmsWithLinux"), ""},
		{"6", "AUTH_NONE: MUST NOT but for combined modes", "cannot be named",
			[]string{"sa/transform.TestR37_NoNullWithNull"}, ""},
		{"6", "AUTH_HMAC_MD5_96, AUTH_DES_MAC, AUTH_KPDK_MD5: MUST NOT", "", nil, "to be filled"},
		{"7", "compression (IPComp)", "", nil, "RFC 8221 asks for none, and nothing of the field needs it"},
		{"8750 §4", "implicit IV only with ESN off or on as negotiated, never for multicast", "AES-GCM and ChaCha20-Poly1305; the nonce is the sequence number",
			with("sa/transform.TestR37_ImplicitIV"), ""},
	}}
}
