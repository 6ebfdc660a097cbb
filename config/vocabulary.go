package config

import "bitw/netstack/trace"

// A Key describes one key of the configuration. The table of keys is what the reader
// knows, and what the JSON schema and the manual page are made of.
type Key struct {
	Name string
	// Doc says in a phrase what it is for, in lower case.
	Doc string
	// Default is the value that stands for its absence, in words where it is none;
	// empty where there is nothing to say.
	Default string
	// Required says that it must be there, whatever else is.
	Required bool
	Value    Value
}

// A Value describes what may stand behind a key.
type Value struct {
	// Words says it to people, such as "0 to 1000".
	Words string
	// One of these is set, beside Words.
	Enum    []string // one of these words
	Number  *[2]uint64
	Pattern string // a regular expression for text
	Bool    bool
	Items   *Value // a list
	Keys    []Key  // a mapping with these keys
	Entries *Entry // a mapping with keys of the user's choice
	Any     []Value
}

// An Entry describes the entries of a mapping: Names are keys that are known, Pattern is
// what others look like.
type Entry struct {
	Names   []string
	Pattern string
	Value   Value
}

const (
	addressForm = `^[0-9A-Fa-f:.]+$`
	prefixForm  = `^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$`
	rangeForm   = `^[0-9A-Fa-f:.]+(/[0-9]{1,3}|-[0-9A-Fa-f:.]+)?$`
	timeForm    = `^([0-9.]+(ns|us|µs|ms|s|m|h))+$|^0$`
	sizeForm    = `^(0x[0-9A-Fa-f_]+|[0-9_]+)( ?(KiB|MiB|GiB|TiB))?$`
	spanForm    = `^(0x[0-9A-Fa-f]+|[0-9]+)(-(0x[0-9A-Fa-f]+|[0-9]+))?$`
	macForm     = `^[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}$`
	hexForm     = `^(0x)?[0-9A-Fa-f][0-9A-Fa-f:_ ]*$`
	ifaceForm   = `^[^/: \t]{1,15}$`
)

func words[T ~string](allowed ...T) Value {
	v := Value{}
	for i, a := range allowed {
		if i > 0 {
			v.Words += " | "
		}
		v.Words += string(a)
		v.Enum = append(v.Enum, string(a))
	}
	return v
}

func number(lo, hi uint64, text string) Value { return Value{Words: text, Number: &[2]uint64{lo, hi}} }
func text(what, pattern string) Value         { return Value{Words: what, Pattern: pattern} }
func listOf(what string, v Value) Value       { return Value{Words: what, Items: &v} }
func mappingOf(keys []Key) Value              { return Value{Words: "a mapping", Keys: keys} }
func either(what string, v ...Value) Value    { return Value{Words: what, Any: v} }

// oneOrMoreOf is a value or a list of such.
func oneOrMoreOf(what string, v Value) Value {
	return either(what+", or a list", v, listOf("", v))
}

func boolean() Value   { return Value{Words: "true | false", Bool: true} }
func addressIs() Value { return text("an IP address", addressForm) }
func timeIs() Value    { return text("a time such as 30s or 1h30m", timeForm) }
func sizeIs() Value    { return text("octets, such as 1000000 or 64GiB", sizeForm) }
func pathIs() Value    { return text("a path; relative to this file's folder", `.`) }
func nameIs() Value    { return text("a name", nameForm().String()) }

// Keys returns the table of keys of a configuration, in the order in which it is told.
// classes are the names of the classes of frames, as Options has them.
func Keys(classes []string) []Key {
	keys := fileKeys()
	for i := range keys {
		if keys[i].Name == "classes" {
			keys[i].Value.Entries.Names = classes
		}
	}
	return keys
}

// names are those of a table.
func names(keys []Key) []string {
	list := make([]string, len(keys))
	for i := range keys {
		list[i] = keys[i].Name
	}
	return list
}

// What the reader knows, each made once.
var (
	fileKeyNames     = names(fileKeys())
	saKeyNames       = names(saKeys())
	policyKeyNames   = names(policyKeys())
	neighborKeyNames = names(neighborKeys())
	routeKeyNames    = names(routeKeys())
	encapKeyNames    = names(encapKeys())
	lifetimeKeyNames = names(lifetimeKeys())
	acquireKeyNames  = names(acquireKeys())
	icmpKeyNames     = names(icmpKeys())
	offloadKeyNames  = names(offloadKeys())
)

func fileKeys() []Key {
	off := words("off")
	return []Key{
		{Name: "interface", Doc: "the interface that bitw cuts; or inside and outside", Value: text("a name", ifaceForm)},
		{Name: "inside", Doc: "of two interfaces, the one towards the protected hosts", Value: text("a name", ifaceForm)},
		{Name: "outside", Doc: "of two interfaces, the one towards the wire", Value: text("a name", ifaceForm)},
		{Name: "protected", Doc: "with inside: the hosts there", Value: oneOrMoreOf("an address or prefix", text("", prefixForm))},
		{Name: "mirror_link", Doc: "with inside: when one side loses its link, the other is set down", Default: "false", Value: boolean()},
		{Name: "on_failure", Doc: "without bitw nothing passes (shut), or everything does, in the clear (open)", Default: "shut", Value: words(Shut, Open)},
		{Name: "control", Doc: "the control socket", Default: "/run/bitw/INTERFACE.sock", Value: pathIs()},
		{Name: "control_group", Doc: "its members may ask at the control socket and change nothing", Default: "none", Value: text("a group", `.`)},
		{Name: "control_admin_group", Doc: "its members may do everything there but take over", Default: "none", Value: text("a group", `.`)},
		{Name: "metrics", Doc: "serve metrics there to whoever asks", Default: "on the control socket only", Value: text("ADDRESS:PORT", `^.*:[0-9]+$`)},
		{Name: "state_dir", Doc: "where sequence numbers are reserved ahead; empty for nowhere", Default: "/var/lib/bitw", Value: either("a path; relative to this file's folder", pathIs(), text("", `^$`))},
		{Name: "log_level", Doc: "what is logged", Default: "info", Value: words("error", "warn", "info", "debug", "trace")},
		{Name: "trace", Doc: "what parts tell the log of each packet, see bitw trace-level", Default: "{}", Value: Value{Words: "NODE: LEVEL", Entries: &Entry{Names: trace.NodeNames(), Value: words(trace.LevelNames()...)}}},
		{Name: "icmp_errors", Doc: "ICMP errors in the clear from the wire: as policies say (accept), only about clear traffic (verify), or none", Default: "accept", Value: words(ICMPAccept, ICMPVerify, ICMPDiscard)},
		{Name: "watchdog", Doc: "how long a side may make no progress before the taps go to their fail state", Default: "5s", Value: either("a time such as 5s, or off", timeIs(), off, Value{Bool: true})},
		{Name: "confine", Doc: "once the interface is cut bitw gives up, for good, what it does not need: capabilities and system calls (full), only capabilities, or nothing", Default: "full", Value: words(ConfineFull, ConfineCapabilities, ConfineOff)},
		{Name: "forbid_bypass", Doc: "refuse sockets that send past the cut", Default: "false", Value: boolean()},
		{Name: "bypass_cgroup", Doc: "with forbid_bypass: only to processes of this cgroup", Default: "all", Value: text("an absolute path", `^/`)},
		{Name: "allow_insecure", Doc: "parts of names of algorithms that may be used although they should not", Default: "[]", Value: oneOrMoreOf("such as des", text("", `.`))},
		{Name: "fragment_memory", Doc: "for datagrams of which fragments are missing, on each side", Default: "8MiB", Value: sizeIs()},
		{Name: "fragment_timeout", Doc: "how long one may stay incomplete", Default: "30s", Value: timeIs()},
		{Name: "acquire", Doc: "what waits while a key manager makes an SA", Value: mappingOf(acquireKeys())},
		{Name: "classes", Doc: "frames that no policy decides; those not named are discarded", Value: Value{Words: "CLASS: bypass | discard", Entries: &Entry{Pattern: `^ethertype *(0x[0-9A-Fa-f]+|[0-9]+)$`, Value: words(Bypass, Discard)}}},
		{Name: "neighbors", Doc: "bitw answers for all neighbours (proxy), or the host finds them itself (relay)", Default: "proxy; relay with on_failure: open, where nothing else can be", Value: words(Proxy, Relay)},
		{Name: "static_neighbors", Doc: "neighbours that never age", Value: listOf("a list", mappingOf(neighborKeys()))},
		{Name: "routes", Doc: "what is not as the host's interface says; between two interfaces all that there are", Value: listOf("a list", mappingOf(routeKeys()))},
		{Name: "mtu", Doc: "octets of the largest IP packet on the wire", Default: "the interface's", Value: number(576, 65535, "576 to 65535")},
		{Name: "offloads", Doc: "ways to move many packets at the cost of one; the kernel's refusal turns one off, too", Default: "true", Value: either("true | false for all, or a mapping", boolean(), mappingOf(offloadKeys()))},
		{Name: "security_associations", Doc: "SAs with keys set by hand", Value: listOf("a list", mappingOf(saKeys()))},
		{Name: "policies", Doc: "the rules; the first match decides, and no match is discard", Value: listOf("a list", mappingOf(policyKeys()))},
	}
}

func offloadKeys() []Key {
	return []Key{
		{Name: "ring", Doc: "read the wire's frames from a packet ring", Default: "true", Value: boolean()},
		{Name: "batches", Doc: "send many of the wire's frames in one system call", Default: "true", Value: boolean()},
		{Name: "superframes", Doc: "take the host's TCP and UDP superframes whole (ethtool: segmentation offload)", Default: "true", Value: boolean()},
		{Name: "coalescing", Doc: "join TCP segments for the host to superframes (ethtool: generic-receive-offload)", Default: "true", Value: boolean()},
		{Name: "udp_superframes", Doc: "send ESP in UDP as UDP superframes, and have the interface join those it receives (ethtool: tx-udp-segmentation, rx-udp-gro-forwarding)", Default: "true", Value: boolean()},
	}
}

func acquireKeys() []Key {
	return []Key{
		{Name: "packets", Doc: "datagrams for one SA", Default: "64", Value: number(1, 1<<20, "1 to 1048576")},
		{Name: "bytes", Doc: "octets for one SA", Default: "256KiB", Value: sizeIs()},
		{Name: "memory", Doc: "octets for all", Default: "8MiB", Value: sizeIs()},
		{Name: "time", Doc: "how long one waits", Default: "10s", Value: timeIs()},
	}
}

func neighborKeys() []Key {
	return []Key{
		{Name: "address", Doc: "the neighbour", Required: true, Value: addressIs()},
		{Name: "mac", Doc: "its Ethernet address", Required: true, Value: text("such as 02:00:00:00:00:09", macForm)},
	}
}

func routeKeys() []Key {
	return []Key{
		{Name: "destination", Doc: "where to", Required: true, Value: text("a prefix", prefixForm)},
		{Name: "via", Doc: "the next hop", Default: "on the link", Value: addressIs()},
	}
}

func lifetimeKeys() []Key {
	return []Key{
		{Name: "packets", Doc: "packets", Value: number(0, 1<<64-1, "a number")},
		{Name: "bytes", Doc: "octets of payload", Value: sizeIs()},
		{Name: "time", Doc: "time from the start", Value: timeIs()},
	}
}

func icmpKeys() []Key {
	return []Key{
		{Name: "type", Doc: "ICMP type", Default: "any", Value: spanIs(255)},
		{Name: "code", Doc: "ICMP code", Default: "any", Value: spanIs(255)},
	}
}

// spanIs is a number up to hi, or a range of such.
func spanIs(hi uint64) Value {
	return either("a number, or first-last", number(0, hi, ""), text("", spanForm))
}
