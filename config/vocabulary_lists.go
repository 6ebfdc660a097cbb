package config

func saKeys() []Key {
	key := text("hexadecimal; spaces, colons and underscores may group it", hexForm)
	return []Key{
		{Name: "name", Doc: "what policies call it", Required: true, Value: nameIs()},
		{Name: "direction", Doc: "towards the wire (out) or from there (in)", Required: true, Value: words(Out, In)},
		{Name: "protocol", Doc: "the security protocol", Required: true, Value: words(ESP, AH)},
		{Name: "mode", Doc: "how a packet is enclosed", Required: true, Value: words(Transport, Tunnel, BEET)},
		{Name: "spi", Doc: "the SPI", Required: true, Value: number(256, 0xffffffff, "0x100 to 0xffffffff")},
		{Name: "source", Doc: "source of the header in front of ESP or AH", Required: true, Value: addressIs()},
		{Name: "destination", Doc: "destination of that header", Required: true, Value: addressIs()},
		{Name: "inner_source", Doc: "mode beet: what the packet has in the place of source", Value: addressIs()},
		{Name: "inner_destination", Doc: "mode beet: what the packet has in the place of destination", Value: addressIs()},
		{Name: "algorithm", Doc: "the suite, by swanctl's name, such as aes128gcm16", Required: true, Value: text("a name", `.`)},
		{Name: "encryption_key", Doc: "its encryption key, an AEAD's salt at the end; or key_file", Value: key},
		{Name: "integrity_key", Doc: "its integrity key; or key_file", Value: key},
		{Name: "key_file", Doc: "a file of mode 0600 with a line NAME KEY...", Value: pathIs()},
		{Name: "esn", Doc: "64-bit sequence numbers", Default: "false", Value: boolean()},
		{Name: "replay_window", Doc: "in: packets, rounded up to a multiple of 64", Default: "64", Value: number(32, 65536, "32 to 65536")},
		{Name: "lifetime", Doc: "after it the SA drops everything", Default: "none", Value: mappingOf(lifetimeKeys())},
		{Name: "soft_lifetime", Doc: "after it it is told that the end is near", Default: "none", Value: mappingOf(lifetimeKeys())},
		{Name: "encap", Doc: "ESP in UDP", Default: "no", Value: either("true | false, or a mapping", boolean(), mappingOf(encapKeys()))},
		{Name: "tfc_padding", Doc: "out: pad what is protected to so many octets, or to what the path takes", Default: "0", Value: either("0 to 65535, or mtu", number(0, 65535, ""), words("mtu"))},
		{Name: "dummy", Doc: "out: dummy packets a second", Default: "0", Value: number(0, MaxDummies, "0 to 1000")},
		{Name: "copy_df", Doc: "the outer header has DF as the inner one (yes), never (no), or always (set)", Default: "yes", Value: anyWord(CopyYes, CopyNo, CopySet)},
		{Name: "copy_ecn", Doc: "ECN passes between the headers", Default: "yes", Value: anyWord(CopyYes, CopyNo)},
		{Name: "copy_dscp", Doc: "DSCP passes outwards, inwards, both ways, or not", Default: "out", Value: anyWord(CopyOut, CopyIn, CopyYes, CopyNo)},
		{Name: "dscp", Doc: "out: outer DSCP of inner ones, or one for all", Value: either("0 to 63, or INNER: OUTER", number(0, 63, ""), Value{Entries: &Entry{Pattern: spanForm, Value: number(0, 63, "")}})},
		{Name: "ttl", Doc: "out: TTL of the outer header", Default: "64", Value: number(1, 255, "1 to 255")},
		{Name: "flow_label", Doc: "out: flow label of an outer IPv6 header", Default: "0", Value: either("0 to 1048575, or copy", number(0, 1<<20-1, ""), words("copy"))},
		{Name: "fragment", Doc: "out: what does not fit is cut after or before it is enclosed", Default: "after", Value: words(After, Before)},
	}
}

// anyWord is words where yes and no, which some YAML readers take for booleans, are among
// them.
func anyWord(allowed ...Copy) Value {
	v := words(allowed...)
	return either(v.Words, v, Value{Bool: true})
}

func encapKeys() []Key {
	port := number(1, 65535, "1 to 65535")
	return []Key{
		{Name: "local_port", Doc: "UDP port of this host", Default: "4500", Value: port},
		{Name: "remote_port", Doc: "UDP port of the peer", Default: "4500", Value: port},
		{Name: "checksum", Doc: "out: fill the UDP checksum; auto over IPv6, and where UDP superframes are sent", Default: "auto", Value: either("auto | true | false", boolean(), words("auto"))},
		{Name: "keepalive", Doc: "out: one octet to the peer after so long a silence; 0s for never", Default: "20s", Value: timeIs()},
		{Name: "float", Doc: "in: the peer's address and port follow its packets", Default: "yes", Value: boolean()},
		{Name: "original_local", Doc: "in, transport mode: the address that the peer's host knows this host by", Value: addressIs()},
		{Name: "original_remote", Doc: "in, transport mode: the address that the peer's host has behind its NAT", Value: addressIs()},
	}
}

func policyKeys() []Key {
	addresses := oneOrMoreOf("an address, a prefix or first-last", text("", rangeForm))
	ports := either("a port or first-last, or a list; or opaque", spanIs(65535), listOf("", spanIs(65535)), words("opaque"))
	sas := oneOrMoreOf("the name of an SA", nameIs())
	return []Key{
		{Name: "name", Doc: "what status calls it", Required: true, Value: nameIs()},
		{Name: "direction", Doc: "for which packets", Default: "both", Value: words(Both, Out, In)},
		{Name: "local", Doc: "addresses on this side of bitw", Default: "any", Value: addresses},
		{Name: "remote", Doc: "addresses across the wire", Default: "any", Value: addresses},
		{Name: "protocol", Doc: "the payload's IP protocol, such as tcp", Default: "any", Value: either("a name or 0 to 255", number(0, 255, ""), text("", `^[a-z][a-z0-9-]*$`))},
		{Name: "local_ports", Doc: "ports on this side; opaque: packets without them", Default: "any", Value: ports},
		{Name: "remote_ports", Doc: "ports across the wire; opaque: packets without them", Default: "any", Value: ports},
		{Name: "icmp", Doc: "ICMP type and code; opaque: packets without them", Default: "any", Value: either("a mapping, or opaque", mappingOf(icmpKeys()), words("opaque"))},
		{Name: "mh_type", Doc: "types of a mobility header; opaque: packets without one", Default: "any", Value: either("a type or first-last, or a list; or opaque", spanIs(255), listOf("", spanIs(255)), words("opaque"))},
		{Name: "populate", Doc: "selectors whose value each packet brings, with SAs for each value", Value: oneOrMoreOf("keys of the policy", words(PopulateKeys()...))},
		{Name: "action", Doc: "what becomes of what matches", Required: true, Value: words(Protect, Bypass, Discard)},
		{Name: "reject", Doc: "discard: the host is told by ICMP what is discarded of it", Default: "false", Value: boolean()},
		{Name: "fragments", Doc: "what comes in fragments is reassembled, or discarded", Default: "reassemble", Value: words("reassemble", string(Discard))},
		{Name: "mss_clamp", Doc: "protect: lower the largest TCP segment to what fits (pmtu), or to a number", Default: "no", Value: either("pmtu | no, or a number", number(0, 65535, ""), words("pmtu", "no"), Value{Bool: true})},
		{Name: "out", Doc: "protect: SAs of packets to the wire, in the order of their application", Value: sas},
		{Name: "in", Doc: "protect: SAs of packets from the wire, in the same order", Value: sas},
	}
}
