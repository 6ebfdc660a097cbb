package graphcomp

import "slices"

// A kind is what one protocol name of a graph stands for.
type kind struct {
	name string
	// does is the Go part that does the node's work, and what that is.
	does string
	// lower is what the node stands on, in this order.
	lower []lower
	// instances says that there may be several, told apart by /INSTANCE.
	instances bool
	// program says that it is no node between others but a part of the program, which
	// the third section names.
	program bool
	options []optionKind
}

// A lower is a place in protocols= for one node of certain kinds, or for several.
type lower struct {
	kinds    []string
	optional bool
	many     bool
}

// transforms are the kinds of nodes that protect packets.
func transforms() []string { return []string{"md5", "crypt", "tcrypt", "crypt3", "crypt3in"} }

func isTransform(kind string) bool { return slices.Contains(transforms(), kind) }

// forwarders are the kinds of nodes that turn packets round, with the IP protocol
// number that each has when prottbl says nothing.
func forwarders() []forwarder {
	return []forwarder{{"ipf_tcp", 6}, {"ipf_udp", 17}, {"ipf_icmp", 1}}
}

type forwarder struct {
	kind   string
	number uint8
}

// numbers is the protocol number table as it is without a prottbl.
func numbers() map[string]uint32 {
	m := map[string]uint32{"ip": 0x0800, "arp": 0x0806, "md5": 51, "crypt": 50, "tcrypt": 50, "crypt3": 50, "crypt3in": 50}
	for _, f := range forwarders() {
		m[f.kind] = uint32(f.number)
	}
	return m
}

func one(kinds ...string) lower { return lower{kinds: kinds} }

// doesOf says which Go part does the work of a node, where that is not told by its kind alone.
func doesOf(n *Node) string {
	switch n.Name {
	case "km/sauser":
		return "sa/keyer, sa: which SAs protect what goes from a source to a destination"
	case "km/b":
		return "sa/keyer, sa: which SAs protect what goes to a destination"
	case "km/alg":
		return "sa: the slot of rfc1825 by which an SA protects"
	}
	driver := n
	for driver.Protocol != "ethkern" && len(driver.Lower) > 0 {
		driver = driver.Lower[0]
	}
	switch {
	case n.Protocol == "arp" && driver.Protocol == "ethkern":
		return "netstack/hook: proxy ARP and NDP, every address is at the host's own Ethernet address"
	case n.Protocol == "eth" && driver.Protocol != "ethkern":
		return "netstack/hook, gVisor: NIC 2, the classes of its frames"
	}
	return n.kind.does
}

// kinds is every protocol that a graph may name.
func kinds() []kind {
	network := []optionKind{{name: "interface", args: []argument{interfaceArg}}}
	ivs := []optionKind{{name: "useipsec"}, {name: optIV32, excludes: optIV64}, {name: optIV64, excludes: optIV32}}
	neighbor := []argument{addressArg, macArg}
	return []kind{
		{name: "watchdog", does: "appliance: the watchdog, which puts the taps into their fail state",
			options: []optionKind{{name: "timeout", args: []argument{durationArg}, excludes: "off"}, {name: "off", excludes: "timeout"}}},
		{name: "ethkern", does: "netstack/ethtap, netstack/link: the kernel's tap (htap) and the link \"kern\"", options: network},
		{name: "ethdev", does: "netstack/ethtap, netstack/link: the wire's tap (ltap) and the link \"dev\"", options: network},
		{name: "eth", does: "netstack/hook, gVisor: NIC 1, the classes of its frames", instances: true,
			lower: []lower{one("ethkern", "ethdev")}},
		{name: "arp", does: "netstack/hook: neighbours of the wire; static and locked entries never age, and traffic never changes them", instances: true,
			lower:   []lower{one("eth")},
			options: []optionKind{{name: "static", args: neighbor, repeat: true}, {name: "locked", args: neighbor, repeat: true}}},
		{name: "vnet", does: "netstack/hook, netstack/ipsec: which side a packet is on, and whose addresses are the host's",
			lower:   []lower{one("eth"), one("arp"), one("eth"), one("arp")},
			options: []optionKind{{name: "address", args: []argument{addressArg}, repeat: true}, {name: "mtu", args: []argument{mtuArg}}}},
		{name: "rfc1825", does: "netstack/ipsec, sa/transform: protects and opens packets, by the transforms in these slots",
			lower: []lower{{kinds: append([]string{"km"}, transforms()...), many: true}}},
		{name: "ip", does: "netstack/ipsec: the network-layer protocol; fragments, path MTU, routes",
			lower: []lower{one("vnet"), {kinds: []string{"rfc1825"}, optional: true}},
			options: []optionKind{{name: "gateway", args: []argument{addressArg}, repeat: true},
				{name: "route", args: []argument{prefixArg, optional(addressArg)}, repeat: true}}},
		{name: "km", does: "sa/keyer: keys by SPI and destination", instances: true,
			options: []optionKind{{name: "kmparams", args: []argument{octetsArg("A"), rangeArg("K"), octetsArg("M")}}, {name: "file", args: []argument{pathArg}}}},
		{name: "sink", does: "sa: a policy that discards and counts"},
		{name: "md5", does: "sa/transform/legacy: AH with keyed MD5 (RFC 1828)", instances: true, lower: []lower{one("km")},
			options: []optionKind{{name: "useipsec"}, {name: "leafmode"}, {name: "rfc1828"}}},
		{name: "tcrypt", does: "sa/transform/legacy: ESP with DES-CBC and ciphertext stealing", instances: true, lower: []lower{one("km")}, options: ivs},
		{name: "crypt", does: "sa/transform/legacy: ESP with DES-CBC (RFC 1829)", instances: true, lower: []lower{one("km")}, options: ivs},
		{name: "crypt3", does: "sa/transform/legacy: ESP with 3DES-CBC (RFC 1851)", instances: true, lower: []lower{one("km")}},
		{name: "crypt3in", does: "sa/transform/legacy: ESP with 3DES, chained within", instances: true, lower: []lower{one("km")}},
		{name: "spiint", does: "sa: the SPD, asked for each packet of the forwarders above", lower: []lower{one("ip"), one("saidmgr")}},
		{name: "saidmgr", does: "sa: the SAD and the SPD, made of what the key managers say",
			lower: []lower{one("sink"), one("vnet"), {kinds: []string{"km"}, many: true}}},
		{name: "ipf_udp", does: "netstack/hook: the forwarder of UDP", lower: []lower{one("spiint", "ip")}},
		{name: "ipf_tcp", does: "netstack/hook: the forwarder of TCP", lower: []lower{one("spiint", "ip")}},
		{name: "ipf_icmp", does: "netstack/hook: the forwarder of ICMP and ICMPv6", lower: []lower{one("spiint", "ip")}},
		{name: "prottest", does: "appliance: a self-test of all slots and policies before the start", program: true},
		{name: "init", does: "appliance: the start order, which ends with the taps Active", program: true,
			options: []optionKind{{name: "on_failure", args: []argument{enumArg("shut", "open")}}, {name: "control", args: []argument{pathArg}},
				{name: "state_dir", args: []argument{pathArg}}, {name: "log_level", args: []argument{enumArg("error", "warn", "info", "debug", "trace")}}}},
	}
}

func kindOf(name string) (kind, bool) {
	all := kinds()
	if i := slices.IndexFunc(all, func(k kind) bool { return k.name == name }); i >= 0 {
		return all[i], true
	}
	return kind{}, false
}

// kindNames are the names that a node may have.
func kindNames() []string {
	var names []string
	for _, k := range kinds() {
		names = append(names, k.name)
	}
	return names
}
