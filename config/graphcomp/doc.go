// Package graphcomp reads the language in which the x-kernel was composed, graph.comp, and
// makes a configuration of it. A graph names protocols and what each stands on; here each
// has its counterpart, so that the graph of bitw's ancestor starts as it was written.
//
// It knows nothing of the machine and of packets, and of transforms only what BuildOptions
// say.
//
// # The language
//
//	@;                                           three sections, divided by @;
//	name=eth/1 protocols=ethdev;                 PROTOCOL or PROTOCOL/INSTANCE, and what it stands on, in order
//	name=arp/1 dir=arp files=arp.c protocols=eth/1;
//	@;
//	name=init trace=TR_FULL_TRACE;               a trace level
//	prottbl=./prottbl;                           a file of protocol numbers
//	romopt md5 rfc1828;                          an option of a node
//
// The first section is for drivers, nodes that stand on nothing, the second for all others.
// The third has settings, and begins the parts of the program that are no nodes: init and
// prottest. A statement ends with a semicolon, a # begins a comment. Nodes may be defined
// behind those that stand on them. dir= and files= named sources; nothing comes of them. Trace
// levels go from TR_FULL_TRACE, which tells most, to TR_ALWAYS (trace.LevelNames); name=PROTOCOLp, as
// the trace variables of the x-kernel were called, sets that of all instances.
//
// A file rom beside the graph may have more romopts, those of one host.
//
// # Nodes
//
//	node        stands on                      is done by
//	watchdog                                   appliance: the watchdog; without the node there is none
//	ethkern                                    netstack/ethtap, netstack/link: the kernel's tap (htap)
//	ethdev                                     netstack/ethtap, netstack/link: the wire's tap (ltap)
//	eth/0       ethkern                        netstack/hook, gVisor: NIC 1
//	eth/1       ethdev                         netstack/hook, gVisor: NIC 2
//	arp/0       eth/0                          netstack/hook: proxy ARP and NDP
//	arp/1       eth/1                          netstack/hook: neighbours of the wire
//	vnet        eth/0,arp/0,eth/1,arp/1        netstack/hook, netstack/ipsec: the two sides
//	rfc1825     key managers and transforms    netstack/ipsec, sa/transform: the slots
//	ip          vnet,[rfc1825]                 netstack/ipsec
//	km/sauser                                  sa/keyer, sa: which SAs protect, by source and destination
//	km/b                                       sa/keyer, sa: which SAs protect, by destination
//	km/alg                                     sa: the slot of each SA
//	km/NAME                                    sa/keyer: the keys of the transform that stands on it
//	sink                                       sa: a policy that discards and counts
//	md5         km/md5                         sa/transform/legacy: AH with keyed MD5
//	crypt       km/crypt                       sa/transform/legacy: ESP with DES-CBC
//	tcrypt      km/tcrypt                      sa/transform/legacy: ESP with DES-CBC, ciphertext stealing
//	crypt3      km/crypt3                      sa/transform/legacy: ESP with 3DES-CBC
//	crypt3in    km/crypt3in                    sa/transform/legacy: ESP with 3DES, chained within
//	spiint      ip,saidmgr                     sa: the SPD
//	saidmgr     sink,vnet, key managers        sa: the SAD, the SPD's rules
//	ipf_udp     spiint or ip                   netstack/hook: the forwarder of UDP
//	ipf_tcp     spiint or ip                   netstack/hook: the forwarder of TCP
//	ipf_icmp    spiint or ip                   netstack/hook: the forwarder of ICMP, and of ICMPv6
//	prottest                                   appliance: a self-test before the start
//	init                                       appliance: the start order
//	prottbl                                    Graph.Numbers
//	romopt                                     Node.Options
//
// Which side an eth, arp or pair of vnet is on follows from its driver, not from its
// instance. A forwarder that the graph leaves out forwards nothing. One that stands on ip
// and not on spiint passes its packets in the clear: a graph without spiint, saidmgr and
// rfc1825 is the plain forwarder.
//
// # Options
//
//	watchdog             timeout TIME | off
//	ethkern, ethdev      interface NAME
//	arp of the wire      static ADDRESS MAC; locked ADDRESS MAC: the two are one, traffic changes neither
//	vnet                 address ADDRESS: the host's own; default: the interface's when bitw starts
//	                     mtu OCTETS
//	ip                   gateway ADDRESS; route NETWORK [ADDRESS]
//	km/NAME              kmparams A K M; file PATH, default km/NAME beside the graph
//	md5                  useipsec, leafmode, rfc1828
//	crypt, tcrypt        useipsec; iv32 | iv64
//	init                 on_failure shut|open; control PATH; state_dir PATH; log_level LEVEL
//
// prottbl= names a file with lines PROTOCOL NUMBER. The numbers of the ipf_* can be others
// than 6, 17 and 1; those of ip, arp and the transforms can only be said again. Without the file
// all are as Parse has them.
//
// # Key files
//
//	kmparams 8 16 16
//	# SPI and destination     key                                state
//	0x1001/192.0.2.2          000102030405060708090a0b0c0d0e0f
//	00002001c0000201          0f0e0d0c0b0a09080706050403020100   invalid
//
// kmparams A K M says that addresses have A octets, keys K, or as many as the range K has,
// and that the map holds M keys; it may stand in the first line, in a romopt, or in both if
// they agree. Otherwise it is 8 1 100 for km/alg, 4 0-100 100 for km/b and 8 0-100 100 for others.
// Octets are hexadecimal, or between slashes also IP addresses and numbers of 32 bits; two
// quotes stand for no octets. A key is valid unless the line ends with invalid; an
// address that is not there, or has - empty, has the empty key. A file that is missing
// is an empty map. Files of keys must not be readable by group or others, and none of the
// files may be changed by them.
//
// The original's key files are lost but for that first line, and of the values of its key
// managers nothing is told. They are read so:
//
//	manager      address              value
//	km/sauser    source, destination  the SPIs that protect, in the order of their application
//	km/b         destination          the same, for what km/sauser does not name
//	km/alg       SPI, destination     the slot: a place in the list of rfc1825, the first being 0
//	others       SPI, destination     the key
//
// A list of SPIs without octets is bypass, SPI 0 alone the sink, an invalid one discard, and
// what is not there is discard by nobody's word. An address is of IPv4 or, with the longer A
// that fits, of IPv6. Entries of km/sauser between two other hosts are for those, so that
// one set of files does for all. An SA is in transport mode, and inbound if its
// destination is the host's own. While its key is empty or invalid it drops everything.
package graphcomp
